"""The cluster's secret and the replicas' CURVE keys.

One secret of 32 random bytes is shared by all replicas of a cluster.  Two values are derived from it with keyed,
personalised BLAKE2b (the secret is the key, so that neither value tells anything of it or of the other):

* the seed of the packet hash: `BLAKE2b-64(key=secret, person="ftnids seed", "")`;
* the cluster's id on the wire: `BLAKE2b-64(key=secret, person="ftnids cluster", cluster name)`.

A set whose addresses are all loopback may go without a secret; then `BLAKE2b-256(person="ftnids public", cluster
name)` stands in for it, which anyone can compute.

CURVE keys are ZeroMQ's: Curve25519 in Z85, 40 characters, one pair for each replica.  Where all addresses are loopback
they may be left out; then the secret key of member m is `BLAKE2b-256(key=secret, person="ftnids curve", byte m)`, so
that who knows the secret is a member, and who does not is none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zmq
from zmq.utils import z85

from ftnids import log
from ftnids.errors import PeerError

SECRET_BYTES: Final = 32
CURVE_CHARACTERS: Final = 40  # of a key in Z85
_MAX_FILE: Final = 4096  # bytes of a key file


@dataclass(frozen=True, slots=True)
class Keys:
    """What a transport needs for CURVE: this replica's secret key and the public keys of every member (Z85).

    A member that is changing its key has two, the one to try first in front.
    """

    secret: bytes
    members: tuple[tuple[bytes, ...], ...]
    derived: bool = False  # from the cluster's secret


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a replica one of its cluster."""

    seed: int  # of the packet hash
    cluster_id: bytes
    keys: Keys


def identify(
    name: str,
    secret_file: Path,
    key_file: Path | None,
    public_keys: Sequence[Sequence[str]],
    me: int,
    *,
    optional: bool,
    owner: int | None = None,
) -> Identity:
    """Read the secret and the keys of member `me` of cluster `name`; `public_keys`: one or two of each member.

    A missing secret file is no error where it is `optional`: a public value stands in for it, with a warning.
    Without a `key_file` keys are derived from the secret.  `owner`: the user id that may own the files beside root, by
    default this process's.  PeerError if a file is missing, unsafe or malformed.
    """
    if optional and missing(secret_file):
        hint = f"anyone on this host can forge messages and hashes: write {secret_file} with ftnids keygen"
        log.get("peers").warning("no_cluster_secret", cluster=name, hint=hint)
        secret = public_secret(name)
    else:
        secret = load_secret(secret_file, owner)
    keys = load_keys(key_file, public_keys, me, owner) if key_file else derived(secret, len(public_keys), me)
    return Identity(cluster_seed(secret), cluster_id(secret, name), keys)


def missing(path: Path) -> bool:
    """Whether there is no such file; one that may not be looked at is there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def cluster_seed(secret: bytes) -> int:
    """The seed of the packet hash, 0 <= seed < 2^64."""
    return int.from_bytes(hashlib.blake2b(key=secret, digest_size=8, person=b"ftnids seed").digest(), "little")


def cluster_id(secret: bytes, name: str) -> bytes:
    """What the messages of cluster `name` carry, 8 bytes."""
    return hashlib.blake2b(name.encode(), key=secret, digest_size=8, person=b"ftnids cluster").digest()


def public_secret(name: str) -> bytes:
    """What stands in for the secret of cluster `name` on loopback; no secret at all."""
    return hashlib.blake2b(name.encode(), digest_size=SECRET_BYTES, person=b"ftnids public").digest()


def derived(secret: bytes, members: int, me: int) -> Keys:
    """The keys of member `me` of a set that has no keys but its `secret`."""
    digests = (
        hashlib.blake2b(bytes((member,)), key=secret, digest_size=SECRET_BYTES, person=b"ftnids curve").digest()
        for member in range(members)
    )
    private = [z85.encode(digest) for digest in digests]
    return Keys(private[me], tuple((zmq.curve_public(key),) for key in private), derived=True)


def load_secret(path: Path, owner: int | None = None) -> bytes:
    """The cluster's secret from `path` (64 hexadecimal digits or base64).  PeerError if it is unsafe or malformed."""
    text = _read_private(path, owner)
    try:
        secret = bytes.fromhex(text) if len(text) == 2 * SECRET_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise PeerError(f"{path}: holds no {SECRET_BYTES}-byte secret in hex or base64: make one with ftnids keygen")
    return secret


def load_keys(path: Path, members: Sequence[Sequence[str]], me: int, owner: int | None = None) -> Keys:
    """This replica's CURVE key from `path`, with `members`' public keys, one or two of each.

    PeerError if the file is unsafe or malformed, a public key is missing or wrong, or the pair does not match.
    """
    text = _read_private(path, owner)
    secret = _curve_key(text, str(path))
    public = tuple(
        tuple(_curve_key(key, f"public_key of member {number + 1}") for key in accepted or [""])
        for number, accepted in enumerate(members)
    )
    if zmq.curve_public(secret) not in public[me]:
        raise PeerError(f"{path}: is not the secret key of this replica's public_key in cluster.member: compare them")
    owners: dict[bytes, int] = {}
    for number, key in ((number, key) for number, accepted in enumerate(public, 1) for key in accepted):
        if key in owners:
            whose = f"members {owners[key]} and {number}" if owners[key] != number else f"member {number}"
            raise PeerError(
                f"one public_key is there twice, at {whose}: every replica needs a pair of its own (ftnids keygen)"
            )
        owners[key] = number
    return Keys(secret, public)


def generate(directory: Path, names: Iterable[str], *, secret: bool = True) -> dict[str, str]:
    """Write `cluster.secret`, and `<name>.key_secret` and `<name>.key` for each name, into `directory`.

    Secret files have mode 0600.  All files are on disk, whole, or none is (PeerError), where one is there already or
    the disk is full.  Returns the public keys by name.
    """
    files: dict[str, tuple[str, int]] = {}
    if secret:
        files["cluster.secret"] = (base64.b64encode(os.urandom(SECRET_BYTES)).decode(), 0o600)
    public_keys: dict[str, str] = {}
    for name in names:
        public, private = (key.decode() for key in zmq.curve_keypair())
        public_keys[name] = public
        files[f"{name}.key_secret"] = (private, 0o600)
        files[f"{name}.key"] = (public, 0o644)
    present = [str(directory / name) for name in files if os.path.lexists(directory / name)]
    if present:
        raise PeerError(f"{present[0]} is there already and is not overwritten: name another directory or move it away")
    with ExitStack() as undo:
        made = not directory.exists()
        path = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if made:
                undo.callback(_remove_empty, directory)
            for name, (text, mode) in files.items():
                path = directory / name
                _write_temporary(_temporary(path), text, mode, undo)
            for name in files:
                path = directory / name
                os.link(_temporary(path), path)  # a rename would take the place of what came meanwhile
                undo.callback(path.unlink, missing_ok=True)
            for name in files:
                path = directory / name
                _temporary(path).unlink()
            path = directory
            _sync(directory)
        except OSError as error:
            raise PeerError(f"{path}: cannot be written, and no key was made: {error.strerror}") from None
        undo.pop_all()
    return public_keys


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _write_temporary(path: Path, text: str, mode: int, undo: ExitStack) -> None:
    """Write a file that must not be there yet, down to the disk; `mode` holds whatever the umask."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    undo.callback(path.unlink, missing_ok=True)
    with os.fdopen(fd, "w") as file:
        os.fchmod(fd, mode)
        file.write(text + "\n")
        file.flush()
        os.fsync(fd)


def _remove_empty(directory: Path) -> None:
    with suppress(OSError):  # somebody else put something in
        directory.rmdir()


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_private(path: Path, owner: int | None) -> str:
    """The text of a file that only its owner, who is `owner` (this process's user) or root, may read."""
    owner = os.geteuid() if owner is None else owner
    try:
        with open(path, "rb", opener=_at_once) as file:
            found = os.fstat(file.fileno())
            mode = found.st_mode
            if not stat.S_ISREG(mode):
                raise PeerError(f"{path}: is no file: make one with ftnids keygen")
            if found.st_uid not in (0, owner):
                wanted = f"user id {owner}" if owner == 0 else f"user id {owner} or root"
                raise PeerError(f"{path}: belongs to user id {found.st_uid}, not {wanted}: chown {owner} {path}")
            if mode & 0o077:
                raise PeerError(f"{path}: mode {stat.S_IMODE(mode):04o} lets others read it: chmod 600 {path}")
            return file.read(_MAX_FILE).decode("ascii", "replace").strip()
    except OSError as error:
        raise PeerError(f"{path}: {error.strerror}: make one with ftnids keygen, or correct the setting") from None


def _at_once(path: str, flags: int) -> int:
    """Open without waiting for the writer of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def _curve_key(text: str, what: str) -> bytes:
    """A CURVE key in Z85, or PeerError."""
    key = text.encode()
    try:
        valid = len(key) == CURVE_CHARACTERS and bool(z85.decode(key))
    except (ValueError, KeyError):
        valid = False
    if not valid:
        raise PeerError(f"{what}: is no CURVE key ({CURVE_CHARACTERS} characters of Z85): make one with ftnids keygen")
    return key

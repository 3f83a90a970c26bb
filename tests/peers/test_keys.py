"""Secrets and keys: what is derived, what is refused, and what keygen leaves on disk."""

from __future__ import annotations

import base64
import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import zmq

from ftnids.errors import PeerError
from ftnids.peers import keys

SECRET = bytes(range(32))


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_derived_values_stay_the_same() -> None:
    """A set in which one replica is upgraded must go on agreeing: these values are part of the protocol."""
    assert keys.cluster_seed(SECRET) == 0x33C06C63D70D9987
    assert keys.cluster_id(SECRET, "example").hex() == "ae8f052b0164ce96"
    assert keys.cluster_id(SECRET, "other") != keys.cluster_id(SECRET, "example")
    assert keys.public_secret("a") != keys.public_secret("b")


@pytest.mark.parametrize("text", [SECRET.hex(), base64.b64encode(SECRET).decode(), SECRET.hex().upper() + "\n"])
def test_secret_in_hex_and_base64(tmp_path: Path, text: str) -> None:
    assert keys.load_secret(private(tmp_path / "s", text)) == SECRET


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "s", SECRET.hex())
    path.chmod(mode)
    with pytest.raises(PeerError, match=f"mode 0{mode:o} lets others read it: chmod 600 {path}"):
        keys.load_secret(path)


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32, base64.b64encode(bytes(33)).decode(), "é" * 32])
def test_secret_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PeerError, match="holds no 32-byte secret"):
        keys.load_secret(private(tmp_path / "s", text))


def test_missing_secret_and_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"No such file.*ftnids keygen"):
        keys.load_secret(tmp_path / "s")
    with pytest.raises(PeerError):
        keys.load_secret(tmp_path)


@pytest.mark.usefixtures("needs_root")
def test_files_of_another_user_are_refused(tmp_path: Path) -> None:
    """As ssh does: who owns a file may change it, whatever its mode."""
    secret = private(tmp_path / "s", SECRET.hex())
    public = keys.generate(tmp_path / "k", ["a", "b"])
    pair = tmp_path / "k/a.key_secret"
    for path in (secret, pair):
        os.chown(path, 12345, -1)
    with pytest.raises(PeerError, match=f"s: belongs to user id 12345, not user id 0: chown 0 {secret}"):
        keys.load_secret(secret)
    with pytest.raises(PeerError, match=r"a\.key_secret: belongs to user id 12345"):
        keys.load_keys(pair, [[key] for key in public.values()], 0)
    assert keys.load_secret(secret, owner=12345) == SECRET
    os.chown(secret, 0, -1)
    assert keys.load_secret(secret, owner=12345) == SECRET, "root may own what anybody reads"


def test_a_fifo_for_a_secret_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s", 0o600)
    with pytest.raises(PeerError, match="is no file"):
        keys.load_secret(tmp_path / "s")


@pytest.mark.parametrize("fails", ["fsync", "link"])
@pytest.mark.parametrize("after", range(5))
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, after: int) -> None:
    """Wherever it runs full: no file, no half of one, and the directory only if it was there."""
    sound, calls = getattr(os, fails), 0

    def full(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sound(*arguments)

    monkeypatch.setattr(os, fails, full)
    for directory in (tmp_path / "new", tmp_path):
        calls = 0
        with pytest.raises(
            PeerError, match=r"^[^\n]*: cannot be written, and no key was made: No space left"
        ) as raised:
            keys.generate(directory, ["a", "b"])
        assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_generated_files_load(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        public = keys.generate(tmp_path / "keys", ["a", "b"])
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert modes == {
        "cluster.secret": 0o600,
        "a.key_secret": 0o600,
        "a.key": 0o644,
        "b.key_secret": 0o600,
        "b.key": 0o644,
    }
    assert len(keys.load_secret(tmp_path / "keys/cluster.secret")) == 32
    members = [(tmp_path / f"keys/{name}.key").read_text().strip() for name in "ab"]
    assert members == list(public.values())
    a, b = ([key] for key in members)
    pair = keys.load_keys(tmp_path / "keys/b.key_secret", [a, b], 1)
    assert (zmq.curve_public(pair.secret),) == pair.members[1] == (members[1].encode(),)
    with pytest.raises(PeerError, match="is not the secret key of this replica's public_key"):
        keys.load_keys(tmp_path / "keys/b.key_secret", [a, b], 0)
    with pytest.raises(PeerError, match="one public_key is there twice, at members 1 and 2"):
        keys.load_keys(tmp_path / "keys/b.key_secret", [b, b], 1)
    for bad in (["short"], []):
        with pytest.raises(PeerError, match="public_key of member 1: is no CURVE key"):
            keys.load_keys(tmp_path / "keys/b.key_secret", [bad, b], 1)


def test_while_a_key_changes_the_old_and_the_new_one_do(tmp_path: Path) -> None:
    old, new = (keys.generate(tmp_path / age, ["b"], secret=False)["b"] for age in ("old", "new"))
    other = keys.generate(tmp_path, ["a"], secret=False)["a"]
    for age in ("old", "new"):
        pair = keys.load_keys(tmp_path / age / "b.key_secret", [[other], [new, old]], 1)
        assert pair.members[1] == (new.encode(), old.encode())


def test_derived_keys_fit_each_other_and_no_other_secret() -> None:
    made = [keys.derived(SECRET, 3, me) for me in range(3)]
    assert [(zmq.curve_public(pair.secret),) for pair in made] == list(made[0].members)
    assert made[0].members == made[1].members
    assert len(set(made[0].members)) == 3
    assert not set(made[0].members) & set(keys.derived(SECRET[::-1], 3, 0).members)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "b.key").write_text("mine")
    with pytest.raises(PeerError, match=r"b\.key is there already"):
        keys.generate(tmp_path, ["a", "b"])
    assert [path.name for path in tmp_path.iterdir()] == ["b.key"]
    keys.generate(tmp_path, ["c"], secret=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.key", "c.key", "c.key_secret"]


def test_identity_without_a_secret_where_it_is_optional(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "cluster.secret"
    identity = keys.identify("example", missing, None, [[], []], 0, optional=True)
    assert identity.keys == keys.derived(keys.public_secret("example"), 2, 0)
    assert identity.seed == keys.cluster_seed(keys.public_secret("example"))
    assert "no_cluster_secret" in capsys.readouterr().err
    with pytest.raises(PeerError, match="No such file"):
        keys.identify("example", missing, None, [[], []], 0, optional=False)
    private(missing, SECRET.hex())
    assert keys.identify("example", missing, None, [[], []], 0, optional=True).seed == keys.cluster_seed(SECRET)

"""The state of an IDS on its way to another replica: an image in pieces, and what must be alike for it to be of use.

Theory of operation

The donor packs an image: a manifest says where in the stream the IDS is, what it runs, and which files the image has,
each with its size and SHA-256; the files follow in chunks, in the manifest's order.  How chunks travel is no matter
here.  The receiver first looks at the manifest: what is not alike on both sides (`differences`) means a cold start,
and nothing is sent.  Else it takes the chunks into a folder of its own (`Unpacker`), and has an `Image` when the last
one is there and every digest is right.

The donor is a member of the set, so it does not lie; but it may be another version, and its disk or memory may be bad.
A manifest is therefore checked in all that it says before anything is written: names, numbers, counts, sizes.
The logs of the donor's IDS do not travel.  The restored IDS finds files as long as they were, without content, and who
follows them begins at their ends.
"""

from __future__ import annotations

import bisect
import hashlib
import os
import platform
import shutil
import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ftnids.feed.checkpoint import CheckpointError
from ftnids.feed.elf import digest_of, identity_of
from ftnids.feed.images import CRIU_FILES, Image
from ftnids.limits import (
    IMAGE_CHUNK,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_FILES,
    MAX_IMAGE_LOGS,
    MAX_IMAGE_MAPPED,
    MAX_IMAGE_VOIDS,
    MAX_LOG_BYTES,
    MAX_MANIFEST,
    MAX_PID,
    MAX_SEQ,
)

FORMAT: Final = 1
CHUNK_HEAD: Final = struct.Struct("<IQ")  # file, by its place in the manifest; offset in it
_NAME: Final = "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"

_Seq = Annotated[int, Field(ge=0, le=MAX_SEQ)]
_Pid = Annotated[int, Field(ge=1, le=MAX_PID)]
_Text = Annotated[str, Field(max_length=MAX_MANIFEST, pattern=r"^[^\x00]*$")]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_LogName = Annotated[str, Field(pattern=f"^{_NAME}(/{_NAME}){{0,7}}$")]
_LogSize = Annotated[int, Field(ge=0, le=MAX_LOG_BYTES)]
_Path = Annotated[str, Field(pattern=r"^/[^\x00]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Facts(_Strict):
    """What an image rests on."""

    ids: _Text  # name and version
    ids_digest: _Text  # of version, configuration and rules
    criu: _Text
    machine: _Text
    cpu: _Text  # digest of what the processor can do
    mapped: dict[_Path, _Digest] = Field(max_length=MAX_IMAGE_MAPPED)  # what identifies programs and libraries, by path


class File(_Strict):
    """One file of an image."""

    name: Annotated[str, Field(pattern=f"^{_NAME}$")]
    bytes: int = Field(ge=0, le=MAX_IMAGE_BYTES)
    sha256: _Digest


class Manifest(_Strict):
    """What is sent, and where in the stream the IDS is."""

    format: Literal[1] = FORMAT
    seq: _Seq  # it was given all below
    base_seq: _Seq  # its first packet
    base_us: _Seq
    voids: list[_Seq] = Field(max_length=MAX_IMAGE_VOIDS)  # seqs between that had no packet
    pid: _Pid
    last_pid: _Pid
    args: list[_Text] = Field(max_length=MAX_IMAGE_FILES)
    sizes: dict[_LogName, _LogSize] = Field(max_length=MAX_IMAGE_LOGS)  # of its logs
    facts: Facts
    files: list[File] = Field(max_length=MAX_IMAGE_FILES)

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def pieces(self) -> int:
        """In how many pieces they come."""
        return sum(-(-file.bytes // IMAGE_CHUNK) for file in self.files)

    def encode(self) -> bytes:
        """As JSON."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Of what came from another replica; CheckpointError where anything in it is not as it must be."""
        _must(len(data) <= MAX_MANIFEST, f"a description of {len(data)} bytes, more than {MAX_MANIFEST}")
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise _fault(f"{'.'.join(map(str, first['loc'])) or 'description'}: {first['msg']}") from None

    @model_validator(mode="after")
    def _fits_together(self) -> Manifest:
        if self.total > MAX_IMAGE_BYTES:
            raise ValueError(f"{self.total} bytes of files, more than {MAX_IMAGE_BYTES}")
        if len({file.name for file in self.files}) < len(self.files):
            raise ValueError("a file twice")
        if self.base_seq > self.seq or self.pid > self.last_pid:
            raise ValueError("numbers out of order")
        around = [self.base_seq - 1, *self.voids, self.seq]
        if self.voids and not all(a < b for a, b in pairwise(around)):
            raise ValueError("voids out of order")
        return self


def facts(ids: str, ids_digest: str, criu: str, pid: int) -> Facts:
    """What an image of process `pid`, which runs `ids`, rests on.  CheckpointError where a file of it is gone."""
    mapped: dict[str, str] = {}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/") and "x" in fields[1] and fields[5] not in mapped:
            mapped[fields[5]] = identity_of(Path(f"/proc/{pid}/root{fields[5]}"))
    machine, cpu = platform.machine(), cpu_digest()
    try:
        return Facts(ids=ids, ids_digest=ids_digest, criu=criu, machine=machine, cpu=cpu, mapped=mapped)
    except ValidationError:
        gone = [path for path, digest in mapped.items() if not digest] or ["something that cannot be described"]
        raise CheckpointError(f"the IDS runs {gone[0]}, which was replaced; restart the replica") from None


def needs(ids: str, ids_digest: str, criu: str) -> bytes:
    """What this host has, as JSON, for a donor to see before it takes an image; no file is hashed."""
    about = Facts(ids=ids, ids_digest=ids_digest, criu=criu, machine=platform.machine(), cpu=cpu_digest(), mapped={})
    return about.model_dump_json().encode()


def needed(data: bytes) -> Facts:
    """What a joiner says in `needs`; CheckpointError where it is not as it must be."""
    try:
        said = Facts.model_validate_json(data)
    except ValidationError:
        raise CheckpointError("what it says of itself cannot be read") from None
    if said.mapped:  # `differences` would hash whatever it names here
        raise CheckpointError("it names files, which is the donor's to do")
    return said


def differences(theirs: Facts, ids: str, ids_digest: str, criu: str) -> list[str]:
    """What is not on this host as an image needs it, in words; empty: it can be restored."""
    found = []
    pairs = {
        "IDS": (theirs.ids, ids),
        "CRIU": (theirs.criu, criu),
        "machine": (theirs.machine, platform.machine()),
    }
    found += [f"{what}: {there} there, {here} here" for what, (there, here) in pairs.items() if there != here]
    if theirs.ids_digest != ids_digest and theirs.ids == ids:
        found.append("IDS: another configuration or other rules")
    if theirs.cpu != cpu_digest():
        found.append("processor: other features")
    found += [f"{path}: another file" for path, digest in theirs.mapped.items() if identity_of(Path(path)) != digest]
    return found


def manifest_of(image: Image, about: Facts, *, base_seq: int, base_us: int, voids: Sequence[int]) -> Manifest:
    """The manifest of an image that was just taken; CheckpointError where it exceeds a limit."""
    paths = sorted(image.criu.iterdir())
    names = [path for path in paths if path.suffix == ".img"]  # not CRIU's logs
    try:
        files = [_described(path) for path in names]
        manifest = Manifest(
            seq=image.seq,
            base_seq=base_seq,
            base_us=base_us,
            voids=list(voids),
            pid=image.pid,
            last_pid=image.last_pid,
            args=list(image.args),
            sizes=image.sizes,
            facts=about,
            files=files,
        )
    except (ValidationError, OSError) as error:
        raise CheckpointError(f"the image of this IDS cannot be described: {error}".replace("\n", " ")) from None
    return Manifest.decode(manifest.encode())  # held to what the other side holds it to


class Packer:
    """The files of an image in pieces of at most IMAGE_CHUNK bytes and a head each; any piece may be asked for."""

    def __init__(self, image: Image, manifest: Manifest) -> None:
        self.image = image
        self._files = manifest.files
        self._ends = list(accumulate(-(-file.bytes // IMAGE_CHUNK) for file in manifest.files))
        self._open = (-1, -1)  # place, descriptor

    @property
    def count(self) -> int:
        """How many pieces there are."""
        return self._ends[-1] if self._ends else 0

    def read(self, number: int) -> bytes:
        """Piece `number`, from 0; CheckpointError where it cannot be read."""
        place = bisect.bisect_right(self._ends, number)
        file = self._files[place]
        at = (number - (self._ends[place - 1] if place else 0)) * IMAGE_CHUNK
        try:
            if self._open[0] != place:
                self.close()
                self._open = place, os.open(self.image.criu / file.name, os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(self._open[1], min(IMAGE_CHUNK, file.bytes - at), at)
        except OSError as error:
            raise CheckpointError(f"cannot read {self.image.criu / file.name}: {error.strerror}") from None
        return CHUNK_HEAD.pack(place, at) + data

    def close(self) -> None:
        """Let go of the file; called again, nothing happens."""
        if self._open[1] >= 0:
            os.close(self._open[1])
        self._open = -1, -1


class Unpacker:
    """Takes the chunks of one image into `folder`, which is made (0700); CheckpointError leaves nothing behind."""

    def __init__(self, manifest: Manifest, folder: Path) -> None:
        self.manifest = manifest
        self.folder = folder
        self.received = 0
        self._place = 0  # of the file that comes next, or is on its way
        self._at = 0
        self._digest = hashlib.sha256()
        self._fd = -1
        try:
            (folder / CRIU_FILES).mkdir(mode=0o700, parents=True)
            folder.chmod(0o700)
            about = os.statvfs(folder)
        except OSError as error:
            raise CheckpointError(f"cannot make {folder}: {error.strerror}; check replica.run_dir") from None
        if about.f_bavail * about.f_frsize < manifest.total:
            self.drop()
            raise CheckpointError(f"no room for {manifest.total >> 20} MB in {folder}; make room in replica.run_dir")
        try:
            self._close_complete()
        except CheckpointError:
            self.drop()
            raise

    @property
    def complete(self) -> bool:
        """Whether all is there, and right."""
        return self._place == len(self.manifest.files)

    def take(self, chunk: bytes) -> None:
        """The next chunk."""
        try:
            self._take(chunk)
        except OSError as error:
            self.drop()
            reason = f"{error.strerror}; make room in replica.run_dir"
            raise CheckpointError(f"the image cannot be written to {self.folder}: {reason}") from None
        except CheckpointError:
            self.drop()
            raise

    def image(self) -> Image:
        """The image, of which everything has come."""
        if not self.complete:
            self.drop()
            raise _fault(f"cut short: {self.received} of {self.manifest.total} bytes came")
        what = self.manifest
        return Image(self.folder, what.seq, what.pid, what.last_pid, tuple(what.args), dict(what.sizes))

    def drop(self) -> None:
        """Give up, and leave nothing behind."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        shutil.rmtree(self.folder, ignore_errors=True)

    def _take(self, chunk: bytes) -> None:
        _must(CHUNK_HEAD.size < len(chunk) <= CHUNK_HEAD.size + IMAGE_CHUNK, f"a chunk of {len(chunk)} bytes")
        place, at = CHUNK_HEAD.unpack_from(chunk)
        _must(not self.complete and (place, at) == (self._place, self._at), "a chunk out of order")
        file, data = self.manifest.files[place], memoryview(chunk)[CHUNK_HEAD.size :]
        _must(at + len(data) <= file.bytes, f"{file.name}: more than its {file.bytes} bytes")
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self.folder / CRIU_FILES / file.name, flags, 0o600)
        self._digest.update(data)
        self._at += len(data)
        self.received += len(data)
        while data:
            data = data[os.write(self._fd, data) :]
        self._close_complete()

    def _close_complete(self) -> None:
        """Files that are complete are closed and checked; empty ones come without a chunk."""
        while not self.complete and self._at == self.manifest.files[self._place].bytes:
            file = self.manifest.files[self._place]
            if self._fd < 0:
                (self.folder / CRIU_FILES / file.name).touch(mode=0o600, exist_ok=False)
            else:
                os.close(self._fd)
                self._fd = -1
            _must(self._digest.hexdigest() == file.sha256, f"{file.name}: wrong digest")
            self._place, self._at, self._digest = self._place + 1, 0, hashlib.sha256()


def cpu_digest() -> str:
    """Of what the first processor says that it can do: a restored process goes on using what it found there."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return hashlib.sha256(" ".join(sorted(value.split())).encode()).hexdigest()
    return ""


def _described(path: Path) -> File:
    size = path.stat().st_size
    return File(name=path.name, bytes=size, sha256=digest_of(path) if size else hashlib.sha256().hexdigest())


def _fault(what: str) -> CheckpointError:
    return CheckpointError(f"the image of another replica's IDS is refused: {what}")


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise _fault(what)

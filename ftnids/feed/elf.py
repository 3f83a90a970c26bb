"""Whether two programs or libraries are the same, without reading all of them: their build IDs.

A linker notes a digest of what it linked in the file, and CRIU compares that, too, when it restores a process.  With
the size it tells files apart that hold the same code, as stripped ones; a file that has none is hashed whole.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import BinaryIO, Final

from ftnids.limits import IMAGE_CHUNK, MAX_IMAGE_BYTES

MAGIC: Final = b"\x7fELF\x02\x01"  # 64 bits, little endian: all that CRIU runs on here
HEADER: Final = struct.Struct("<6x10xHHIQQQIHHH")
SEGMENT: Final = struct.Struct("<IIQQQQQQ")
NOTE: Final = struct.Struct("<III")
PT_NOTE: Final = 4
NT_GNU_BUILD_ID: Final = 3


def identity_of(path: Path) -> str:
    """64 hexadecimal digits, another for another program; "" where there is none to read, or one too large for that."""
    try:
        size = path.stat().st_size if path.is_file() else 0
        if not 0 < size <= MAX_IMAGE_BYTES:
            return ""
        with path.open("rb") as file:
            build = build_id(file)
            if build:
                return hashlib.sha256(b"%d %s" % (size, build)).hexdigest()
    except (OSError, OverflowError):  # a header may name any place
        return ""
    return digest_of(path)


def build_id(file: BinaryIO) -> bytes:
    """What the linker noted; b"" where it did not, or where this is no such file."""
    head = file.read(HEADER.size)
    if not head.startswith(MAGIC) or len(head) < HEADER.size:
        return b""
    _, _, _, _, at, _, _, _, size, count = HEADER.unpack(head)
    table = _at(file, at, size * count) if size == SEGMENT.size else b""
    if len(table) < size * count:
        return b""
    for place in range(count):
        kind, _, offset, _, _, length, _, _ = SEGMENT.unpack_from(table, place * size)
        if kind == PT_NOTE and length <= IMAGE_CHUNK and (found := _noted(_at(file, offset, length))):
            return found
    return b""


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    """So many bytes of a file; fewer where it ends, none where no file has such a place."""
    if place > MAX_IMAGE_BYTES:
        return b""
    file.seek(place)
    return file.read(count)


def _noted(notes: bytes) -> bytes:
    at = 0
    while at + NOTE.size <= len(notes):
        name, size, kind = NOTE.unpack_from(notes, at)
        start = at + NOTE.size + (name + 3 & ~3)
        if kind == NT_GNU_BUILD_ID and notes[at + NOTE.size :][:name] == b"GNU\0":
            return notes[start : start + size]
        at = start + (size + 3 & ~3)
    return b""


def digest_of(path: Path) -> str:
    """SHA-256 of a regular file with content; "" where there is none to read, or one too large for a program."""
    digest = hashlib.sha256()
    try:
        left = path.stat().st_size if path.is_file() else 0
        if not 0 < left <= MAX_IMAGE_BYTES:
            return ""
        with path.open("rb") as file:
            while left and (data := file.read(min(left, IMAGE_CHUNK))):
                digest.update(data)
                left -= len(data)
    except OSError:
        return ""
    return "" if left else digest.hexdigest()

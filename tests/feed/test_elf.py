"""Programs are told apart by what their linkers noted, and hashed where that is not there."""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids.feed.elf import HEADER, NOTE, SEGMENT, build_id, digest_of, identity_of

SOURCE = "int main(void) { return %d; }"


def elf(notes: bytes) -> bytes:
    """The least that has a segment of notes."""
    head = bytearray(HEADER.size)
    head[:6] = b"\x7fELF\x02\x01"
    HEADER.pack_into(head, 0, 3, 62, 1, 0, HEADER.size, 0, 0, 64, SEGMENT.size, 1)
    head[:6] = b"\x7fELF\x02\x01"
    segment = SEGMENT.pack(4, 4, HEADER.size + SEGMENT.size, 0, 0, len(notes), len(notes), 4)
    return bytes(head) + segment + notes


def note(kind: int, name: bytes, data: bytes) -> bytes:
    return NOTE.pack(len(name), len(data), kind) + name.ljust(len(name) + 3 & ~3, b"\0") + data


def test_a_build_id_and_a_size_are_an_identity(tmp_path: Path) -> None:
    path = tmp_path / "program"
    seen = set()
    for number, more in ((1, b""), (2, b""), (1, b"stripped")):
        path.write_bytes(elf(note(1, b"GNU\0", b"abi!") + note(3, b"GNU\0", bytes([number]) * 20)) + more)
        with path.open("rb") as file:
            assert build_id(file) == bytes([number]) * 20
        seen.add(identity_of(path))
    assert len(seen) == 3


@pytest.mark.parametrize("content", [b"#!/bin/sh\n", elf(b""), elf(note(3, b"XYZ\0", b"1234")), elf(b"")[:40]])
def test_what_has_none_is_hashed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "program"
    path.write_bytes(content)
    assert identity_of(path) == digest_of(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("at", [1 << 33, (1 << 64) - 1])
def test_places_that_no_file_has(tmp_path: Path, at: int) -> None:
    head = bytearray(elf(note(3, b"GNU\0", b"1234")))
    struct.pack_into("<Q", head, 32, at)  # where the table of segments is
    segment = bytearray(elf(note(3, b"GNU\0", b"1234")))
    struct.pack_into("<Q", segment, HEADER.size + 8, at)  # where the notes are
    for content in (head, segment):
        path = tmp_path / "program"
        path.write_bytes(content)
        assert identity_of(path) == digest_of(path) != ""


def test_what_is_no_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path in (tmp_path, tmp_path / "none", tmp_path / "empty", Path("/dev/zero"), Path("/proc/kcore")):
        assert identity_of(path) == ""


@given(st.binary(max_size=300), st.integers(0, 500))
def test_damaged_programs_have_some_identity(data: bytes, cut: int) -> None:
    from io import BytesIO

    for content in (elf(data)[:cut], elf(data), b"\x7fELF\x02\x01" + data):
        assert isinstance(build_id(BytesIO(content)), bytes)


def test_it_is_the_one_that_the_linker_noted(tmp_path: Path) -> None:
    if not shutil.which("cc") or not shutil.which("readelf"):
        pytest.skip("needs a C compiler and readelf")
    (tmp_path / "a.c").write_text(SOURCE % 1)
    subprocess.run(["cc", "-Wl,--build-id=sha1", "-o", tmp_path / "a", tmp_path / "a.c"], check=True)
    told = subprocess.run(["readelf", "-n", tmp_path / "a"], check=True, capture_output=True, text=True).stdout
    with (tmp_path / "a").open("rb") as file:
        assert f"Build ID: {build_id(file).hex()}" in told
    assert identity_of(Path(sys.executable).resolve())
    assert struct.calcsize("<IIQQQQQQ") == SEGMENT.size

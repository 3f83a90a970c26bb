"""Checks that must be able to fail: directories are doctored one byte at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftnids.errors import FtnidsError
from ftnids.lab import generate, verify

SEED = 5


@pytest.fixture
def directories(tmp_path: Path) -> list[Path]:
    """Two replicas with equal streams."""
    made = [tmp_path / name for name in ("r0", "r1")]
    for directory in made:
        directory.mkdir()
        generate.write(directory / "agreed.pcap", seed=1, connections=5, lookups=5, seconds=0.1)
        stream = verify.read_pcap(directory / "agreed.pcap", 65_535, SEED)
        lines = (f"{n}\t{h:016x}\t{t}\n" for n, (h, t) in enumerate(zip(stream.hash, stream.time_us, strict=True)))
        (directory / "hashes.txt").write_text("".join(lines))
    return made


def differences(directories: list[Path]) -> str:
    return "; ".join(verify.differences(directories, 65_535, SEED))


def test_equal(directories: list[Path]) -> None:
    assert differences(directories) == ""


def test_a_hash_differs(directories: list[Path]) -> None:
    path = directories[1] / "hashes.txt"
    lines = path.read_text().splitlines()
    fields = lines[7].split()
    lines[7] = "\t".join([fields[0], f"{int(fields[1], 16) ^ 1:016x}", fields[2]])
    path.write_text("\n".join(lines) + "\n")
    found = differences(directories)
    assert "differ, first in line 8" in found
    assert "agreed.pcap differs from hashes.txt, first in packet 7" in found


def test_a_line_is_missing(directories: list[Path]) -> None:
    path = directories[1] / "hashes.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert "(end)" in differences(directories)


def test_a_byte_of_a_packet_differs(directories: list[Path]) -> None:
    path = directories[0] / "agreed.pcap"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "r0/agreed.pcap differs from hashes.txt" in differences(directories)


def test_a_time_differs(directories: list[Path]) -> None:
    path = directories[0] / "agreed.pcap"
    data = bytearray(path.read_bytes())
    data[24 + 4] ^= 1  # microseconds of the first packet
    path.write_bytes(data)
    assert "first in packet 0" in differences(directories)


def test_a_packet_is_missing(directories: list[Path]) -> None:
    stream = verify.read_pcap(directories[0] / "agreed.pcap", 65_535, SEED)
    generate.write(directories[0] / "agreed.pcap", seed=1, connections=5, lookups=4, seconds=0.1)
    assert f"packets, hashes.txt {len(stream)} lines" in differences(directories)


def test_a_file_is_missing(directories: list[Path]) -> None:
    (directories[1] / "agreed.pcap").unlink()
    assert differences(directories) == f"{directories[1] / 'agreed.pcap'} is missing"


@pytest.mark.parametrize("line", ["1 00 0", "0 xyz 0", "0 00", "0 00 0 0", ""])
def test_no_hashes(tmp_path: Path, line: str) -> None:
    (tmp_path / "hashes.txt").write_text(line + "\n")
    with pytest.raises(FtnidsError, match=r"hashes\.txt line 1"):
        verify.read_hashes(tmp_path / "hashes.txt")

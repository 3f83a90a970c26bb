"""The generated capture file: repeatable, well formed, and with the attacks that the shipped rules catch."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ftnids.lab import generate, scan, verify, workload
from ftnids.lab.causes import occurrences


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generate") / "traffic.pcap"
    generate.write(path, seed=7)
    return path


def test_a_seed_is_a_file(trace: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again.pcap", tmp_path / "other.pcap"
    generate.write(again, seed=7)
    generate.write(other, seed=8)
    assert again.read_bytes() == trace.read_bytes() != other.read_bytes()


def test_the_core_reads_it(trace: Path) -> None:
    stream, shape = verify.read_pcap(trace, 65_535, 0), scan.shape(trace)
    assert len(stream) == shape.packets > 5_000
    assert (stream.time_us[1:] >= stream.time_us[:-1]).all()
    assert shape.linktype == 1
    assert 4 < shape.seconds < 6
    assert 0 < shape.longest_gap_s < 1


def test_it_repeats_some_packets_byte_for_byte(trace: Path) -> None:
    stream = verify.read_pcap(trace, 65_535, 0)
    assert 10 < (occurrences(stream.hash) > 0).sum() < len(stream) / 20


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x12\x34\x56", bytes(range(256)) * 5, b"\xff" * 64])
def test_checksum(data: bytes) -> None:
    """With its checksum appended, data sums up to zero."""
    padded = data + b"\0" * (len(data) % 2)
    assert generate.checksum(padded + struct.pack(">H", generate.checksum(data))) == 0


def test_requests() -> None:
    requests = workload.requests(3, 200, 0.3)
    assert requests == workload.requests(3, 200, 0.3)
    assert 30 < sum(request.attack for request in requests) < 90
    assert len({request.path for request in requests}) == 200
    assert any(name.endswith(workload.CANARY) for name in workload.names(3, 100))

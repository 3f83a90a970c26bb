"""A file at its own pace or at a given rate; what is asserted is order and state, never how long it took."""

from __future__ import annotations

from pathlib import Path

from tests.core.helpers import Core, Packet, some_packets, write_pcap

HOUR_NS = 3600 * 10**9


def test_own_pace_waits_for_a_gap(core: Core, tmp_path: Path) -> None:
    packets = [Packet(n * HOUR_NS, bytes(60)) for n in range(3)]
    source, ring = core.file(write_pcap(tmp_path / "x.pcap", packets), pace="file"), core.ring()
    assert source.run(ring, 100, 5) == 1
    assert source.run(ring, 100, 5) == 0
    assert ring.watermark_ns == HOUR_NS - 1  # all before the next packet is here
    source.close()
    ring.close(unlink=True)


def test_given_rate_ignores_stamps(core: Core, tmp_path: Path) -> None:
    packets = [Packet(n * HOUR_NS, bytes(60)) for n in range(50)]
    path = write_pcap(tmp_path / "x.pcap", packets)
    ring = core.ring()
    source = core.file(path, pps=10_000, pace="file")
    put = 0
    while (now := source.run(ring, 7, 50)) >= 0:
        put += now
    assert put == 50
    assert ring.times(0, 50).tolist() == [packet.time_ns for packet in packets]
    source.close()
    slow = core.file(path, pps=0.001)
    assert slow.run(ring, 100, 5) == 1
    slow.close()
    ring.close(unlink=True)


def test_own_pace_ends(core: Core, tmp_path: Path, seed: int) -> None:
    path = write_pcap(tmp_path / "x.pcap", some_packets(200, seed, 100), nano=True)
    assert core.read(path, pace="file") == core.read(path)


def test_at_most_what_was_asked_for(core: Core, tmp_path: Path, seed: int) -> None:
    source = core.file(write_pcap(tmp_path / "x.pcap", some_packets(10, seed, 100)))
    ring = core.ring()
    assert [source.run(ring, 4, 0) for _ in range(5)] == [4, 4, 2, -1, -1]
    assert source.run(ring, 0, 0) == -1
    source.close()
    ring.close(unlink=True)

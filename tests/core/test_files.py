"""Capture files: every format gives the same packets; what is wrong with a file is said in one line that names it."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import Final

import pytest

from ftnids import limits
from ftnids.errors import CaptureError
from tests.core import helpers
from tests.core.helpers import Core, Packet, enhanced, interface, option, section, some_packets, write_pcap

TSRESOL: Final = 9
TSOFFSET: Final = 14


def expected(packets: list[Packet], tick: int = 1) -> list[tuple[int, bytes, int]]:
    return [(packet.time_ns // tick * tick, packet.data, packet.length) for packet in packets]


@pytest.fixture
def packets(seed: int) -> list[Packet]:
    """Sixty packets, some of them cut when they were captured."""
    whole = some_packets(60, seed)
    return [Packet(one.time_ns, one.data, len(one.data) + (n % 3) * 100) for n, one in enumerate(whole)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap(core: Core, tmp_path: Path, packets: list[Packet], order: str, nano: bool) -> None:
    path = write_pcap(tmp_path / "x.pcap", packets, nano=nano, order=order)
    assert core.read(path) == expected(packets, 1 if nano else 1000)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("options", "units"),
    [(b"", 10**6), (b"\x06", 10**6), (b"\x09", 10**9), (b"\x03", 10**3), (b"\x94", 1 << 20), (b"\x8a", 1 << 10)],
)
def test_pcapng(core: Core, tmp_path: Path, packets: list[Packet], order: str, options: bytes, units: int) -> None:
    described = interface(order, options=option(TSRESOL, options, order) if options else b"")
    ticks = [packet.time_ns * units // 10**9 for packet in packets]
    blocks = [enhanced(packet, tick, order=order) for packet, tick in zip(packets, ticks, strict=True)]
    ignored = helpers.block(5, bytes(12), order)  # interface statistics
    (tmp_path / "x.pcapng").write_bytes(section(order) + described + ignored.join(blocks))
    times = [tick // units * 10**9 + tick % units * 10**9 // units for tick in ticks]
    got = core.read(tmp_path / "x.pcapng")
    assert got == [(time, packet.data, packet.length) for time, packet in zip(times, packets, strict=True)]


def test_pcapng_with_several_interfaces(core: Core, tmp_path: Path) -> None:
    """Each interface has its own clock, and a new section its own interfaces."""
    first, second = Packet(5 * 10**9 + 1, b"a" * 60), Packet(6 * 10**9 + 2000, b"b" * 60)
    offset = option(TSOFFSET, struct.pack("<q", 3))
    data = section() + interface(options=option(TSRESOL, b"\x09")) + interface(options=offset)
    data += enhanced(first, first.time_ns) + enhanced(second, second.time_ns // 1000 - 3_000_000, which=1)
    data += section() + interface() + enhanced(second, second.time_ns // 1000)
    (tmp_path / "x.pcapng").write_bytes(data)
    assert core.read(tmp_path / "x.pcapng") == expected([first, second, second])


def test_times_never_decrease(core: Core, tmp_path: Path) -> None:
    stamps = [5_000_000, 7_000_000, 6_000_000, 7_500_000]
    path = write_pcap(tmp_path / "x.pcap", [Packet(stamp, bytes(60)) for stamp in stamps], nano=True)
    assert [one[0] for one in core.read(path)] == [5_000_000, 7_000_000, 7_000_000, 7_500_000]


def test_link_types(core: Core, tmp_path: Path) -> None:
    for linktype in (1, 101, 113, 228):
        path = write_pcap(tmp_path / "x.pcap", [Packet(0, bytes(40))], linktype=linktype)
        source = core.file(path)
        assert source.linktype == linktype
        source.close()


def test_ring_for_another_link_type_is_refused(core: Core, tmp_path: Path) -> None:
    source = core.file(write_pcap(tmp_path / "x.pcap", [Packet(0, bytes(40))], linktype=101))
    ring = core.ring(linktype=1)
    try:
        with pytest.raises(CaptureError, match="link type 101"):
            source.run(ring, 1, 0)
    finally:
        source.close()
        ring.close(unlink=True)


def test_snaplen_cuts_and_keeps_the_wire_length(core: Core, tmp_path: Path, packets: list[Packet]) -> None:
    path = write_pcap(tmp_path / "x.pcap", packets, nano=True)
    assert core.read(path, snaplen=100) == [(p.time_ns, p.data[:100], p.length) for p in packets]


def test_empty_frame(core: Core, tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "x.pcap", [Packet(0, b"", 60), Packet(1000, b"x")])
    assert core.read(path) == [(0, b"", 60), (1000, b"x", 1)]


def test_filter(core: Core, tmp_path: Path) -> None:
    arp, ip = bytes(12) + b"\x08\x06" + bytes(46), bytes(12) + b"\x08\x00\x45" + bytes(45)
    path = write_pcap(tmp_path / "x.pcap", [Packet(n * 1000, arp if n % 3 else ip) for n in range(30)])
    assert [one[0] for one in core.read(path, bpf="arp")] == [n * 1000 for n in range(30) if n % 3]
    assert len(core.read(path, bpf="not arp")) == 10
    assert core.read(path, bpf="tcp port 80") == []


@pytest.mark.parametrize("bpf", ["tcp prot 80", "host", "((", "port 99999"])
def test_bad_filter(core: Core, tmp_path: Path, bpf: str) -> None:
    path = write_pcap(tmp_path / "x.pcap", [Packet(0, bytes(60))])
    assert_one_line(core, path, "bad filter", bpf=bpf)


# -- what is wrong with a file -----------------------------------------------------------------------
def assert_one_line(core: Core, path: Path, says: str, **changes: object) -> None:
    """Reading fails with one line that names the file and says what is wrong."""
    with pytest.raises(CaptureError) as caught:
        core.read(path, **changes)
    text = str(caught.value)
    assert text.startswith(f"{path}: "), text
    assert says in text
    assert "\n" not in text


def test_no_capture_file(core: Core, tmp_path: Path) -> None:
    missing, empty, text, short = (tmp_path / name for name in ("missing", "empty", "text", "short"))
    empty.write_bytes(b"")
    text.write_text("This is a letter, not a capture file.\n" * 20)
    short.write_bytes(write_pcap(tmp_path / "x.pcap", []).read_bytes()[:15])
    assert_one_line(core, missing, "No such file or directory")
    assert_one_line(core, empty, "is empty")
    assert_one_line(core, text, "no capture file")
    assert_one_line(core, short, "truncated")
    assert_one_line(core, tmp_path, "directory")


def test_file_without_packets(core: Core, tmp_path: Path) -> None:
    assert core.read(write_pcap(tmp_path / "x.pcap", [])) == []


def test_truncated_anywhere(core: Core, tmp_path: Path, seed: int) -> None:
    """What comes before the cut is used, and a warning says where the cut is."""
    packets = some_packets(5, seed, 200)
    plain = write_pcap(tmp_path / "whole.pcap", packets, nano=True).read_bytes()
    described = section() + interface(options=option(TSRESOL, b"\x09"))
    blocks = [enhanced(packet, packet.time_ns) for packet in packets]
    for start, records in ((24, [16 + len(p.data) for p in packets]), (len(described), list(map(len, blocks)))):
        whole = plain if start == 24 else described + b"".join(blocks)
        ends = [start + sum(records[: n + 1]) for n in range(len(records))]
        for cut in random.Random(seed).sample(range(start + 1, ends[-1]), 12):
            (tmp_path / "cut").write_bytes(whole[:cut])
            complete = sum(end <= cut for end in ends)
            source, ring = core.file(tmp_path / "cut"), core.ring()
            while source.run(ring, 100, 0) >= 0:
                pass
            between = cut in ends
            assert ring.head == source.captured == complete
            assert source.warning == ("" if between else warning_at(tmp_path / "cut", complete))
            source.close()
            ring.close(unlink=True)


def warning_at(path: Path, number: int) -> str:
    return f"{path}: truncated at packet {number}; used what came before"


def read_damaged(core: Core, path: Path) -> tuple[int, str]:
    """How many packets of a damaged file are used, and the warning about the rest."""
    source, ring = core.file(path), core.ring()
    try:
        while source.run(ring, 100, 0) >= 0:
            pass
        assert ring.head == source.captured
        assert ring.watermark_ns == (1 << 63) - 1
        assert source.warning.startswith(f"{path}: damaged at packet {ring.head} (")
        assert source.warning.endswith("); used what came before")
        return ring.head, source.warning
    finally:
        source.close()
        ring.close(unlink=True)


def test_differing_link_types_in_one_file(core: Core, tmp_path: Path) -> None:
    data = section() + interface() + enhanced(Packet(0, bytes(60)), 0) + interface(linktype=113)
    (tmp_path / "x.pcapng").write_bytes(data + enhanced(Packet(0, bytes(60)), 0, which=1))
    used, warning = read_damaged(core, tmp_path / "x.pcapng")
    assert used == 1
    assert "different from the type of the first interface" in warning


def test_endless_interfaces_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the pure-Python reader; libpcap keeps them in a few bytes each."""
    monkeypatch.setattr(limits, "MAX_INTERFACES", 3)
    (tmp_path / "x.pcapng").write_bytes(section() + enhanced(Packet(0, bytes(60)), 0).join([interface()] * 5))
    used, warning = read_damaged(Core("python"), tmp_path / "x.pcapng")
    assert used == 3
    assert "more than 3 interfaces" in warning


def test_what_comes_before_a_damaged_record_is_used(core: Core, tmp_path: Path, seed: int) -> None:
    good = write_pcap(tmp_path / "good.pcap", some_packets(5, seed)).read_bytes()
    (tmp_path / "x.pcap").write_bytes(good + b"\xff" * 80)
    used, warning = read_damaged(core, tmp_path / "x.pcap")
    assert used == 5
    assert "invalid packet capture length" in warning
    described = section() + interface()
    (tmp_path / "x.pcapng").write_bytes(described + enhanced(Packet(0, bytes(60)), 0, which=7))
    assert read_damaged(core, tmp_path / "x.pcapng")[0] == 0


@pytest.mark.parametrize("resolution", [b"", b"\x14", b"\xc0", b"\x06\x06"])
def test_time_stamps_of_no_sensible_unit(core: Core, tmp_path: Path, resolution: bytes) -> None:
    described = interface(options=option(TSRESOL, resolution))
    (tmp_path / "x.pcapng").write_bytes(section() + described + enhanced(Packet(0, bytes(60)), 0))
    assert_one_line(core, tmp_path / "x.pcapng", "no capture file that can be read")


@pytest.mark.parametrize(
    "bad",
    [{"snaplen": 0}, {"snaplen": 1 << 20}, {"jitter_ns": -1}, {"drift_ppm": 1e6}, {"pps": -1}, {"pace": "walking"}],
)
def test_settings_out_of_range(core: Core, tmp_path: Path, bad: dict[str, object]) -> None:
    path = write_pcap(tmp_path / "x.pcap", [Packet(0, bytes(60))])
    assert_one_line(core, path, next(iter(bad)), **bad)


def test_a_pipe_is_a_file_too(core: Core, tmp_path: Path) -> None:
    path = write_pcap(tmp_path / "x.pcap", some_packets(3, 1, 100), nano=True)
    os.mkfifo(tmp_path / "fifo")
    if os.fork() == 0:  # pragma: no cover
        (tmp_path / "fifo").write_bytes(path.read_bytes())
        os._exit(0)
    assert core.read(tmp_path / "fifo") == core.read(path)
    os.wait()


def test_both_read_the_real_trace_alike(needs_shared_trace: Path) -> None:
    c, python = (Core(name).read(needs_shared_trace) for name in ("c", "python"))
    assert len(c) == 64_906
    assert c == python

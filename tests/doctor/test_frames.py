"""Two replicas' samples are compared: loss is no fault, and each cause of differing frames is told from the others."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from ftnids.cli import cli
from ftnids.core import pcap_header
from ftnids.doctor import frames
from ftnids.doctor.finding import Finding, Level
from ftnids.doctor.frames import Frame, Sample, compare, read
from ftnids.errors import CaptureError

START_NS = 1_700_000_000_000_000_000
STEP_NS = 10_000_000
MAC = bytes(range(12))
Change = Callable[[bytes], bytes]


def packet(number: int, *, size: int = 200, protocol: int = 6, fragment: int = 0, ident: int | None = None) -> bytes:
    """An IPv4 packet of its own content, with a TCP or UDP header."""
    head = struct.pack(">HHIIBBHHH", 1024, 80, number * 10_000, 0, 0x50, 0x18, 1000, 0xABCD, 0)
    if protocol == 17:
        head = struct.pack(">HHHH", 1024, 53, size, 0xABCD)
    body = head + random.Random(number).randbytes(size - 20 - len(head))
    ident = number if ident is None else ident
    fields = (0x45, 0, 20 + len(body), ident & 0xFFFF, fragment, 64, protocol, 0x1234, 0xC0000201, 0xC6336402)
    return struct.pack(">BBHHHBBHII", *fields) + body


def ethernet(payload: bytes, kind: bytes = b"\x08\x00") -> bytes:
    return MAC + kind + payload


FRAMES = [ethernet(packet(n, protocol=6 if n % 3 else 17)) for n in range(300)]


def sample(
    name: str, data: list[bytes], *, offset_ns: int = 0, ppm: float = 0, step: float = 1, snaplen: int = 65_535
) -> Sample:
    taken = []
    for number, frame in enumerate(data):
        stamp = START_NS + offset_ns + int(number * STEP_NS * step * (1 + ppm / 1e6))
        taken.append(Frame(stamp, len(frame), frame[:snaplen]))
    return Sample(name, 1, taken)


def lossy(whole: Sample, share: float, seed: int) -> Sample:
    draw = random.Random(seed)
    return Sample(whole.name, 1, [frame for frame in whole.frames if draw.random() >= share])


def found(findings: list[Finding], name: str = "same_frames") -> list[Finding]:
    for one in findings:
        assert one.what
        assert one.why
        assert (one.do != "") == (one.level != Level.OK)
    return [one for one in findings if one.name == name]


def test_loss_is_no_fault() -> None:
    a, b = (lossy(sample(name, FRAMES), 0.1, seed) for name, seed in (("a", 1), ("b", 2)))
    (same,) = found(compare(a, b))
    assert same.level == Level.OK
    assert "frames are in both samples; the rest is loss" in same.what


def test_what_only_one_sample_covers_counts_for_nothing() -> None:
    whole = sample("a", FRAMES)
    a, b = Sample("a", 1, whole.frames[:200]), Sample("b", 1, whole.frames[150:])
    (same,) = found(compare(a, b))
    assert same.level == Level.OK
    assert same.what.startswith("50 of 50 frames")


def test_a_replica_that_lacks_most_of_them_is_told() -> None:
    a = sample("a", FRAMES)
    (same,) = found(compare(a, Sample("b", 1, lossy(a, 0.6, 1).frames)))
    assert same.level == Level.OK  # what the smaller one has, both have
    few, other = lossy(a, 0.7, 1), lossy(a, 0.7, 2)
    (same,) = found(compare(few, other))
    assert same.level == Level.WARN
    assert "kernel_drops" in same.do


def tagged(frame: bytes) -> bytes:
    return frame[:12] + b"\x81\x00\x00\x2a" + frame[12:]


def routed(frame: bytes) -> bytes:
    return b"\xff" * 12 + frame[12:22] + bytes([frame[22] - 1]) + frame[23:24] + b"\x77\x77" + frame[26:]


def other_ttl(frame: bytes) -> bytes:
    return MAC + routed(frame)[12:]


def other_mac(frame: bytes) -> bytes:
    return b"\xff" * 12 + frame[12:]


def unchecked(frame: bytes) -> bytes:
    place = 14 + 20 + (16 if frame[23] == 6 else 6)
    return frame[:place] + b"\0\0" + frame[place + 2 :]


def padded(frame: bytes) -> bytes:
    return frame + b"\xde\xad\xbe\xef"


CHANGES: list[tuple[Change, list[str]]] = [
    (tagged, ["VLAN tags"]),
    (lambda frame: tagged(tagged(frame)), ["VLAN tags"]),
    (other_ttl, ["the TTL differs"]),
    (other_mac, ["Ethernet addresses differ"]),
    (routed, ["Ethernet addresses differ", "the TTL differs"]),
    (unchecked, ["checksums differ"]),
    (padded, ["bytes behind the packet"]),
    (lambda frame: tagged(other_ttl(frame)), ["VLAN tags", "the TTL differs"]),
]


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    ("change", "causes"), CHANGES, ids=["+".join(causes) + str(n) for n, (_, causes) in enumerate(CHANGES)]
)
def test_each_cause_is_named_and_no_other(change: Change, causes: list[str], swap: bool) -> None:
    a = lossy(sample("a", FRAMES), 0.05, 1)
    b = lossy(sample("b", [change(frame) for frame in FRAMES], offset_ns=5_000_000), 0.05, 2)
    told = found(compare(b, a) if swap else compare(a, b))
    assert [one.level for one in told] == [Level.FAIL] * len(causes)
    for cause, one in zip(causes, told, strict=True):
        assert cause in one.what


@pytest.mark.parametrize("change", [lambda frame: frame, tagged], ids=["snaplen", "snaplen and tags"])
def test_a_differing_snaplen_is_named(change: Change) -> None:
    a = sample("a", FRAMES, snaplen=96)
    b = sample("b", [change(frame) for frame in FRAMES])
    told = found(compare(a, b))
    assert "cut shorter" in told[0].what
    assert "96 bytes at most in a" in told[0].what
    assert "capture.snaplen" in told[0].do
    assert len(told) == (1 if change is not tagged else 2)


def test_the_same_snaplen_is_no_fault() -> None:
    a, b = sample("a", FRAMES, snaplen=96), sample("b", FRAMES, snaplen=96)
    assert [one.level for one in found(compare(a, b))] == [Level.OK]


def test_merged_segments_are_named() -> None:
    """Receive offload: one replica has one frame where the other has three."""
    pieces, merged = [], []
    for number in range(100):
        whole = packet(number, size=4_380 - 40 + 20)
        head, body = whole[:40], whole[40:]
        merged.append(ethernet(head + body))
        for place in range(0, len(body), 1_460):
            part = body[place : place + 1_460]
            sequence = struct.pack(">I", number * 10_000 + place)
            ip = head[:2] + struct.pack(">H", 40 + len(part)) + head[4:]
            pieces.append(ethernet(ip[:24] + sequence + ip[28:] + part))
    told = found(compare(sample("a", merged + FRAMES[:30], step=330 / 130), sample("b", pieces + FRAMES[:30])))
    assert [one.level for one in told] == [Level.FAIL]
    assert re.search(r"a has segments merged into frames of up to 4374 bytes: \d\d+ frames", told[0].what)
    assert "gro off" in told[0].do


def test_fragments_are_named() -> None:
    whole = [ethernet(packet(n, size=1_200, protocol=17)) for n in range(100)]
    parts = []
    for n in range(100):
        parts.append(ethernet(packet(n, size=800, protocol=17, fragment=0x2000)))
        parts.append(ethernet(packet(n + 10_000, size=400, protocol=17, fragment=97, ident=n)))
    told = found(compare(sample("a", whole + FRAMES[:30]), sample("b", parts + FRAMES[:30])))
    assert [one.level for one in told] == [Level.FAIL]
    assert "b has datagrams in fragments that are whole in a: the MTU differs" in told[0].what


def test_nothing_in_common() -> None:
    others = [ethernet(packet(n + 5_000)) for n in range(100)]
    (told,) = found(compare(sample("a", FRAMES), sample("b", others)))
    assert (told.level, "no frame in common" in told.what) == (Level.FAIL, True)
    (told,) = found(compare(sample("a", FRAMES), sample("b", [])))
    assert "b has no frame" in told.what
    raw = Sample("b", 101, sample("b", FRAMES).frames)
    (told,) = found(compare(sample("a", FRAMES), raw))
    assert "link types differ: 1 of a, 101 of b" in told.what


@pytest.mark.parametrize(("offset_ns", "level"), [(50_000_000, Level.OK), (-2_500_000_000, Level.WARN)])
def test_the_offset_of_the_clocks(offset_ns: int, level: Level) -> None:
    findings = compare(sample("a", FRAMES), sample("b", FRAMES, offset_ns=offset_ns))
    assert found(findings)[0].level == Level.OK
    (clock,) = found(findings, "clock_offset")
    assert clock.level == level
    shown = f"{abs(offset_ns) / 1e9:.6f} s {'ahead of' if offset_ns > 0 else 'behind'} that of a"
    assert shown in clock.what
    assert found(findings, "clock_drift") == []


def test_clocks_that_drift() -> None:
    findings = compare(sample("a", FRAMES), sample("b", FRAMES, ppm=500))
    (drift,) = found(findings, "clock_drift")
    assert drift.level == Level.WARN
    assert re.search(r"by (49[5-9]|50[0-5]) us each second", drift.what)


def test_hostile_frames_are_compared_too() -> None:
    draw = random.Random(7)
    data = [draw.randbytes(draw.randrange(0, 60)) for _ in range(200)]
    data += [ethernet(draw.randbytes(draw.randrange(0, 50)), kind) for kind in (b"\x08\x00", b"\x86\xdd", b"\x81\x00")]
    data += [
        MAC + b"\x81\x00\x00\x01" * 5,
        MAC + b"\x81\x00",
        ethernet(b"\x4f" + bytes(19)),
        ethernet(b"\x45" + bytes(50)),
    ]
    assert found(compare(sample("a", data), sample("b", data)))[0].level == Level.OK
    compare(sample("a", data), sample("b", [frame[::-1] for frame in data]))


def write(path: Path, taken: Sample) -> Path:
    records = [
        struct.pack("=IIII", one.time_ns // 10**9, one.time_ns % 10**9 // 1000, len(one.data), one.wirelen) + one.data
        for one in taken.frames
    ]
    path.write_bytes(pcap_header(1, 65_535) + b"".join(records))
    return path


def test_the_command_compares_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = write(tmp_path / "a.pcap", sample("a", FRAMES))
    b = write(tmp_path / "b.pcap", sample("b", list(map(tagged, FRAMES))))
    b.write_bytes(b.read_bytes()[:-5])  # what was whole counts
    result = CliRunner().invoke(cli, ["doctor", "--against", str(a), str(b)], standalone_mode=False)
    assert result.return_value == 1
    assert f"fail  the frames of {b} have VLAN tags that those of {a} lack" in result.output
    assert "rxvlan off" in result.output
    assert CliRunner().invoke(cli, ["doctor", "--against", str(a), str(a)], standalone_mode=False).return_value == 0
    with pytest.raises(CaptureError, match=r"none: cannot be opened: No such file"):
        read(tmp_path / "none")
    monkeypatch.setattr(frames, "SAMPLE_PACKETS", 10)
    assert len(read(a).frames) == 10

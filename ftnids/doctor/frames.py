"""Whether two replicas see the same frames: two short captures of one time, compared, and what differs explained.

Frames are the same when their bytes and their length on the wire are.  Where too few are, *views* of the frames are
compared that leave out what a wrong set-up changes: a VLAN tag, the TTL, the Ethernet addresses, ...  Of all views
together, each that is not needed for the frames to match is taken out again; those that stay name the causes.  What
does not show frame by frame (segments merged or split on the way) is looked for in what is left.
`ftnids.doctor.stream` uses the same views on what a running replica captured and what it recovered.
"""

from __future__ import annotations

import hashlib
import statistics
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ftnids.core.pure.files import TruncatedError, open_file
from ftnids.doctor.finding import Finding, fail, ok, warn
from ftnids.errors import CaptureError
from ftnids.limits import SAMPLE_PACKETS

SAME: Final = 0.5  # of the frames in the time that both cover; a replica that loses more than that has other troubles
GAIN: Final = 0.02  # a cause that explains fewer frames is not named
CLOCK_S: Final = 0.1  # an offset of clocks from which on time stamps of alerts mislead
DRIFT_PPM: Final = 100  # a drift that no sound clock has
DRIFT_S: Final = 1.0  # shorter samples say nothing of it
WHY: Final = "replicas agree on frames by their bytes: those that differ are lost to one or come out twice"
WHY_CLOCK: Final = "alerts carry the time of the replica that coordinates; the set itself measures offsets and drift"

IPV4, IPV6, VLAN, QINQ = 0x0800, 0x86DD, 0x8100, 0x88A8
TCP, UDP = 6, 17
ETHERNET: Final = 1
ETHERNET_BYTES: Final = 14
TAGGED_BYTES: Final = 18
LONGEST: Final = 1_522  # bytes of an Ethernet frame with a tag and without offload


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured frame."""

    time_ns: int
    wirelen: int
    data: bytes


@dataclass(frozen=True)
class Sample:
    """The frames of one replica."""

    name: str
    linktype: int
    frames: list[Frame]

    @property
    def longest(self) -> int:
        """Bytes of the longest captured frame."""
        return max((len(frame.data) for frame in self.frames), default=0)

    @property
    def cut(self) -> bool:
        """Whether frames are longer than what was captured of them."""
        return any(frame.wirelen > len(frame.data) for frame in self.frames)


def read(path: Path) -> Sample:
    """The first SAMPLE_PACKETS frames of a capture file.  CaptureError, with its name, when it is none."""
    frames: list[Frame] = []
    try:
        opened = open_file(str(path))
        with closing(opened.file):
            for stamp, wirelen, data in opened.packets:
                frames.append(Frame(stamp, wirelen, data))
                if len(frames) == SAMPLE_PACKETS:
                    break
    except TruncatedError:
        pass  # what came before it counts
    except CaptureError as error:
        raise CaptureError(f"{path}: {error}") from None
    return Sample(str(path), opened.linktype, frames)


# -- what a wrong set-up changes --------------------------------------------------------------------


@dataclass(slots=True)
class Parts:
    """A frame taken apart, for views to change."""

    wirelen: int
    addresses: bytes
    tags: bytes
    kind: int
    payload: bytearray  # behind the Ethernet header

    @classmethod
    def of(cls, frame: Frame, linktype: int) -> Parts:
        """The parts of a frame; of another link type, all is payload."""
        data = frame.data
        if linktype != ETHERNET or len(data) < ETHERNET_BYTES:
            return cls(frame.wirelen, b"", b"", 0, bytearray(data))
        offset = 12
        while data[offset : offset + 2] in (b"\x81\x00", b"\x88\xa8") and len(data) >= offset + 6:
            offset += 4
        kind = int.from_bytes(data[offset : offset + 2], "big")
        return cls(frame.wirelen, data[:12], data[12:offset], kind, bytearray(data[offset + 2 :]))

    def digest(self) -> bytes:
        """A short hash of it all."""
        head = struct.pack(">IHHH", self.wirelen, len(self.addresses), len(self.tags), self.kind)
        return hashlib.blake2b(head + self.addresses + self.tags + self.payload, digest_size=12).digest()

    @property
    def hops(self) -> int:
        """The TTL, or what is one in IPv6; 0 where there is none to be seen."""
        if self.kind == IPV4 and len(self.payload) >= 20:
            return self.payload[8]
        return self.payload[7] if self.kind == IPV6 and len(self.payload) >= 40 else 0

    @property
    def transport(self) -> tuple[int, int]:
        """(protocol, where its header begins in the payload); (0, 0) where there is none to be seen."""
        if self.kind == IPV4 and len(self.payload) >= 20:
            fragment = int.from_bytes(self.payload[6:8], "big") & 0x1FFF
            return (self.payload[9], (self.payload[0] & 15) * 4) if not fragment else (0, 0)
        if self.kind == IPV6 and len(self.payload) >= 40:
            return self.payload[6], 40
        return 0, 0


def _without_tags(parts: Parts) -> None:
    parts.wirelen -= len(parts.tags)
    parts.tags = b""


def _without_ttl(parts: Parts) -> None:
    if parts.kind == IPV4 and len(parts.payload) >= 20:
        parts.payload[8], parts.payload[10:12] = 0, b"\0\0"
    elif parts.kind == IPV6 and len(parts.payload) >= 40:
        parts.payload[7] = 0


def _without_addresses(parts: Parts) -> None:
    parts.addresses = b""


def _without_checksums(parts: Parts) -> None:
    protocol, begin = parts.transport
    if parts.kind == IPV4 and len(parts.payload) >= 20:
        parts.payload[10:12] = b"\0\0"
    place = begin + {TCP: 16, UDP: 6}.get(protocol, 0)
    if place > begin and len(parts.payload) >= place + 2:
        parts.payload[place : place + 2] = b"\0\0"


def _without_padding(parts: Parts) -> None:
    """What stands behind the IP packet: padding to the shortest Ethernet frame, a checksum that a card left on."""
    if parts.kind == IPV4 and len(parts.payload) >= 20:
        length = int.from_bytes(parts.payload[2:4], "big")
    elif parts.kind == IPV6 and len(parts.payload) >= 40:
        length = int.from_bytes(parts.payload[4:6], "big") + 40
    else:
        return
    if length >= 20:
        del parts.payload[length:]
        parts.wirelen = min(parts.wirelen, len(parts.addresses) + len(parts.tags) + 2 + length)


@dataclass(frozen=True)
class Cause:
    """Something that makes frames differ: what it is, and what cures it."""

    name: str
    what: str  # {one} is the side whose frames weigh more, {other} that of the other; without `weigh` neither is named
    do: str
    leave_out: Callable[[Parts], None]
    weigh: Callable[[Parts], int] | None = None


CAUSES: Final = (
    Cause(
        "snaplen",
        "the frames of {one} are cut shorter",
        "set the same capture.snaplen on all replicas (and take samples with it)",
        lambda parts: None,  # see `digests`
        lambda parts: -len(parts.payload),
    ),
    Cause(
        "vlan",
        "the frames of {one} have VLAN tags that those of {other} lack",
        "ethtool -K IFACE rxvlan off where they are lacking, or let the switch mirror them alike",
        _without_tags,
        lambda parts: len(parts.tags),
    ),
    Cause(
        "padding",
        "the frames of {one} have bytes behind the packet: padding, or a frame checksum",
        "ethtool -K IFACE rx-fcs off, or capture both on the same kind of port",
        _without_padding,
        lambda parts: parts.wirelen - len(parts.tags),
    ),
    Cause(
        "checksum",
        "checksums differ: one captures on the host that sends, which leaves them to its card",
        "ethtool -K IFACE tx off on that host, or capture on a tap or a SPAN port",
        _without_checksums,
    ),
    Cause(
        "address",
        "the Ethernet addresses differ: the packets were captured on different links",
        "capture on the same link: the same side of the router for all replicas",
        _without_addresses,
    ),
    Cause(
        "ttl",
        "the TTL differs, it is lower in the frames of {one}: there is a router between the two places of capture",
        "capture on the same link: the same side of the router for all replicas",
        _without_ttl,
        lambda parts: -parts.hops,
    ),
)


def digests(sample: Sample, causes: Iterable[Cause], cut: int = 0) -> list[bytes]:
    """What identifies each frame once `causes` are left out; with a snaplen among them the first `cut` bytes count."""
    ours = list(causes)
    found = []
    for frame in sample.frames:
        parts = Parts.of(frame, sample.linktype)
        for cause in ours:
            if cause.name == "snaplen":
                del parts.payload[max(cut - TAGGED_BYTES, 0) :]
            else:
                cause.leave_out(parts)
        found.append(parts.digest())
    return found


# -- the comparison ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """Which frames of two samples are the same."""

    common: int
    offset_ns: int  # the clock of the second less that of the first
    drift_ppm: float
    seconds: float  # that the frames that both have span
    covered: int  # frames of the one that has fewer, in the time that both cover
    left: tuple[list[int], list[int]]  # those of each in that time that the other has not
    pairs: list[tuple[int, int]]  # of those that are there once in both: the place in each

    @property
    def share(self) -> float:
        """How many of the frames in that time both have, 0 to 1."""
        return self.common / self.covered if self.covered else 0.0


def match(a: Sample, b: Sample, digests: tuple[list[bytes], list[bytes]]) -> Match:
    """Compare by digests.  The clocks' offset comes from the frames that are there once in both."""
    counts = Counter(digests[0]), Counter(digests[1])
    common = sum((counts[0] & counts[1]).values())
    once = {one: place for place, one in enumerate(digests[0]) if counts[0][one] == 1 == counts[1][one]}
    pairs = [(once[one], place) for place, one in enumerate(digests[1]) if one in once]
    differences = [b.frames[late].time_ns - a.frames[early].time_ns for early, late in pairs]
    offset = int(statistics.median(differences)) if differences else 0
    span = (a.frames[pairs[-1][0]].time_ns - a.frames[pairs[0][0]].time_ns) / 1e9 if pairs else 0.0
    half = len(pairs) // 2
    drift = 0.0
    if half >= 8 and span >= DRIFT_S:
        change = statistics.median(differences[half:]) - statistics.median(differences[:half])
        drift = change / (span / 2) / 1e3  # ns a second are thousandths of a ppm
    begin = max(a.frames[0].time_ns, b.frames[0].time_ns - offset)
    end = min(a.frames[-1].time_ns, b.frames[-1].time_ns - offset)
    inside = (
        [n for n, frame in enumerate(a.frames) if begin <= frame.time_ns <= end],
        [n for n, frame in enumerate(b.frames) if begin <= frame.time_ns - offset <= end],
    )
    left = tuple([n for n in inside[side] if digests[side][n] not in counts[1 - side]] for side in (0, 1))
    return Match(common, offset, drift, span, min(len(one) for one in inside), (left[0], left[1]), pairs)


def shortest(a: Sample, b: Sample) -> int:
    """How many bytes of a frame count when one of two samples is cut shorter."""
    return min((sample.longest for sample in (a, b) if sample.cut), default=max(a.longest, b.longest))


def needed(count: Callable[[list[Cause]], int], least: float) -> list[Cause]:
    """The causes that explain: of all together each is taken out without which no more than `least` frames are lost.

    `count` says how many frames match when these causes are left out of them.
    """
    kept = list(CAUSES)
    best = count(kept)
    if best == 0:
        return []
    for cause in CAUSES:
        others = [one for one in kept if one != cause]
        without = count(others)
        if without >= best - least:
            kept, best = others, max(best, without)
    return kept


def compare(a: Sample, b: Sample) -> list[Finding]:
    """What two samples of one time say of the replicas that took them."""
    for sample in (a, b):
        if not sample.frames:
            return [
                fail("same_frames", f"{sample.name} has no frame", WHY, "sample while there is traffic on the link")
            ]
    if a.linktype != b.linktype:
        what = f"link types differ: {a.linktype} of {a.name}, {b.linktype} of {b.name}"
        return [fail("same_frames", what, WHY, "capture on interfaces of the same kind")]
    cut = shortest(a, b)

    def matched(causes: list[Cause]) -> Match:
        return match(a, b, (digests(a, causes, cut), digests(b, causes, cut)))

    kept = needed(lambda causes: matched(causes).common, GAIN * min(len(a.frames), len(b.frames)))
    found = matched(kept)
    findings = [fail("same_frames", named(cause, a, b, found), WHY, cause.do) for cause in kept]
    findings += [fail("same_frames", f"{what}: {count} frames", WHY, do) for what, count, do in reshaped(a, b, found)]
    if not findings and found.common == 0:
        what = f"{a.name} and {b.name} have no frame in common"
        return [fail("same_frames", what, WHY, "sample the same link at the same time; see that both get its frames")]
    return [*(findings or [_same(found)]), *_clocks(a, b, found)]


def named(cause: Cause, a: Sample, b: Sample, found: Match) -> str:
    """A cause in words, with the side that it is on, where that can be told from the frames that are in both."""
    sides = "one", "the other"
    if cause.weigh is not None:
        weights = [
            cause.weigh(Parts.of(a.frames[first], a.linktype)) - cause.weigh(Parts.of(b.frames[second], b.linktype))
            for first, second in found.pairs
        ]
        more = sum(weight > 0 for weight in weights) - sum(weight < 0 for weight in weights)
        sides = (a.name, b.name) if more > 0 else (b.name, a.name) if more < 0 else sides
    text = cause.what.format(one=sides[0], other=sides[1])
    sizes = f" ({a.longest} bytes at most in {a.name}, {b.longest} in {b.name})" if cause.name == "snaplen" else ""
    return text + sizes


def _same(found: Match) -> Finding:
    what = f"{found.common} of {found.covered} frames are in both samples"
    if found.share >= SAME:
        return ok("same_frames", f"{what}; the rest is loss", WHY)
    do = "see kernel_drops and ring_drops of both replicas, and whether both ports get all frames"
    return warn("same_frames", f"only {what}", WHY, do)


def _clocks(a: Sample, b: Sample, found: Match) -> Iterator[Finding]:
    seconds = found.offset_ns / 1e9
    what = f"the clock of {b.name} is {abs(seconds):.6f} s {'ahead of' if seconds >= 0 else 'behind'} that of {a.name}"
    if abs(found.drift_ppm) > DRIFT_PPM:
        drift = f"the clocks drift apart by {abs(found.drift_ppm):.0f} us each second"
        yield warn("clock_drift", drift, WHY_CLOCK, "keep both with chrony; see whether a host's clock source is sound")
    if abs(seconds) > CLOCK_S:
        yield warn("clock_offset", what, WHY_CLOCK, "keep the clocks of both hosts with chrony or another NTP client")
    else:
        yield ok("clock_offset", what, WHY_CLOCK)


# -- frames that were merged or split -----------------------------------------------------------------


def reshaped(a: Sample, b: Sample, found: Match, least: int = 0) -> Iterator[tuple[str, int, str]]:
    """What else tells why more than `least` frames are in one sample only: (what, how many frames, what to do)."""
    for one, other, left, others in ((a, b, found.left[0], found.left[1]), (b, a, found.left[1], found.left[0])):
        begins = {key for n in others if (key := _segment(other.frames[n], other.linktype))}
        large = [n for n in left if one.frames[n].wirelen > LONGEST and _segment(one.frames[n], one.linktype) in begins]
        if len(large) > max(least, GAIN * len(one.frames)):
            what = (
                f"{one.name} has segments merged into frames of up to {max(one.frames[n].wirelen for n in large)} bytes"
            )
            yield what, len(large), "ethtool -K IFACE gro off lro off tso off gso off there"
        whole = {key for n in others if (key := _datagram(other.frames[n], other.linktype, fragments=False))}
        split = [n for n in left if _datagram(one.frames[n], one.linktype, fragments=True) in whole]
        if len(split) > max(least, GAIN * len(one.frames)):
            what = f"{one.name} has datagrams in fragments that are whole in {other.name}: the MTU differs on the way"
            yield what, len(split), "ip link set IFACE mtu N, the same on the way to both, or capture on the same link"


def _segment(frame: Frame, linktype: int) -> bytes:
    """What names the beginning of a TCP segment: addresses, ports and sequence number; empty for another packet."""
    parts = Parts.of(frame, linktype)
    protocol, begin = parts.transport
    if protocol != TCP or len(parts.payload) < begin + 8:
        return b""
    addresses = parts.payload[12:20] if parts.kind == IPV4 else parts.payload[8:40]
    return bytes(addresses + parts.payload[begin : begin + 8])


def _datagram(frame: Frame, linktype: int, *, fragments: bool) -> bytes:
    """What names an IPv4 datagram, where the frame is (not) a fragment of it; empty for another packet."""
    parts = Parts.of(frame, linktype)
    if parts.kind != IPV4 or len(parts.payload) < 20:
        return b""
    is_fragment = int.from_bytes(parts.payload[6:8], "big") & 0x3FFF != 0
    if is_fragment != fragments:
        return b""
    return bytes(parts.payload[12:20] + parts.payload[4:6] + parts.payload[9:10])

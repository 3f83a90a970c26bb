"""Capture sources in pure Python: `capture.c`, `source.c`, `faults.h` and `clock.h` once more."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pcapy

from ftnids.core import layout
from ftnids.core.packets import splitmix64
from ftnids.core.pure import files
from ftnids.core.pure.handle import Handle
from ftnids.core.pure.hashing import hash_frame
from ftnids.errors import CaptureError

TICK_S: Final = 0.001
FULL_S: Final = 0.0002
STATS_NS: Final = 100_000_000
BATCH: Final = 65_536
SHARE_FROM: Final = 4
ENDS: Final = (1 << 63) - 1
LONGEST_S: Final = 9_000_000_000
GAMMA: Final = 0x9E3779B97F4A7C15
CLOCK_NOISE_NS: Final = 1000
REFUSALS: Final = {  # libpcap's status: in words
    -5: "there is no such interface; `ip link` lists them",
    -8: "no permission to capture; run as root or give the process CAP_NET_RAW",
    -9: "the interface is down; `ip link set dev INTERFACE up` brings it up",
    -11: "no permission to capture; run as root or give the process CAP_NET_RAW",
}
LINKTYPES: Final = {11: 100, 12: 101, 15: 102, 16: 103}  # where libpcap's own number is not the one in files


def _draw(seed: int, index: int) -> int:
    return splitmix64(seed + index * GAMMA)


@dataclass
class Drop:
    """Injected loss; `ftnids.core.faults` says what the thresholds mean."""

    seed: int = 0
    first: int = 0
    after_kept: int = 0
    after_dropped: int = 0
    index: int = 0
    dropping: bool = False

    def next(self) -> bool:
        """Whether to drop the next packet."""
        threshold = self.after_dropped if self.dropping else self.after_kept
        self.dropping = _draw(self.seed, self.index) >> 11 < (threshold if self.index else self.first)
        self.index += 1
        return self.dropping


@dataclass
class Skew:
    """Injected clock error: an offset, a drift in 2**-32, 0 to `jitter_ns`."""

    offset_ns: int = 0
    drift: int = 0
    jitter_ns: int = 0
    seed: int = 0
    index: int = 0
    first_ns: int = 0

    def next(self, stamp_ns: int) -> int:
        """What the faulty clock says at `stamp_ns`."""
        if self.index == 0:
            self.first_ns = stamp_ns
        late = (_draw(self.seed, self.index) >> 1) * (self.jitter_ns + 1) >> 63
        self.index += 1
        return stamp_ns + self.offset_ns + ((stamp_ns - self.first_ns) * self.drift >> 32) + late


class Clock:
    """Capture times on a clock that does not step; `clock.h` says how."""

    def __init__(self, before: int, real: int, after: int) -> None:
        self._set(real - after, real - before)
        self.base = self.old_offset = self.offset
        self.straddling = False
        self.steps = 0

    def _set(self, low: int, high: int) -> None:
        self.low, self.high, self.offset = low, high, low + (high - low) // 2

    def observe(self, before: int, real: int, after: int) -> bool:
        """Real time read between two readings of monotonic time, ns; True if real time has stepped."""
        low, high = real - after, real - before
        if low <= self.high + CLOCK_NOISE_NS and high >= self.low - CLOCK_NOISE_NS:
            self.low = low if self.low < low <= self.high else self.low
            self.high = high if self.low <= high < self.high else self.high
            return False
        self.old_offset = self.offset
        self._set(low, high)
        self.straddling = True
        self.steps += 1
        return True

    def convert(self, stamp: int, low: int, high: int) -> int:
        """The capture time of a stamp of a packet that came between capture times `low` and `high`."""
        now, old = stamp - self.offset + self.base, stamp - self.old_offset + self.base
        outside, old_outside = (max(low - value, value - high, 0) for value in (now, old))
        if not self.straddling or outside <= self.high - self.low + CLOCK_NOISE_NS:
            return now
        return old if old_outside < outside else now


@dataclass
class Pending:
    """A packet whose time and fate are known, on its way into the ring."""

    frame: bytes
    wirelen: int
    stamp_ns: int
    time_ns: int
    dropped: bool


class Source:
    """What both kinds of source share.  CaptureError with the reason when one cannot be opened or read."""

    waits = True  # for room in a full ring

    def __init__(self, linktype: int, snaplen: int) -> None:
        self.linktype, self.snaplen = linktype, snaplen
        self.captured = self.captured_bytes = 0
        self.kernel_drops = self.ring_drops = self.injected_drops = self.left_to_peers = 0
        self._share, self._shares = 0, 1
        self.clock_steps = 0
        self.warning = ""
        self.closed = False
        self._drop, self._skew = Drop(), Skew()
        self._pace, self._interval_ns = "topspeed", 0
        self._seen, self._began_ns, self._first_ns = 0, 0, 0
        self._last_ns = -(1 << 63)

    @staticmethod
    def live(
        interface: str,
        snaplen: int,
        promiscuous: bool,
        buffer_bytes: int,
        bpf: str,
        immediate: bool,
        guard_ns: int,
    ) -> Source:
        """A source on an interface; inbound only."""
        return _Live(interface, snaplen, promiscuous, buffer_bytes, bpf, guard_ns)

    @staticmethod
    def file(path: bytes, snaplen: int, bpf: str) -> Source:
        """A source from a capture file."""
        return _File(os.fsdecode(path), snaplen, bpf)

    def set_pace(self, pace: str, interval_ns: int) -> None:
        """ "topspeed", "file", or "pps" with the time between two packets."""
        self._pace, self._interval_ns = pace, interval_ns

    def set_skew(self, offset_ns: int, drift: int, jitter_ns: int, seed: int) -> None:
        """Inject clock error; `drift` in 2**-32 ns per ns."""
        self._skew = Skew(offset_ns, drift, jitter_ns, seed)

    def set_drop(self, seed: int, first: int, after_kept: int, after_dropped: int) -> None:
        """Inject loss, from the first decision on."""
        self._drop = Drop(seed, first, after_kept, after_dropped)

    @property
    def clock_ns(self) -> int:
        return self._last_ns

    def close(self) -> None:
        """Let go of the source."""
        self.closed = True

    def look(self) -> None:
        """Nothing: the watermark is never older than TICK_S."""

    def run(self, ring: Any, max_packets: int, timeout_ns: int) -> int:
        """Put packets into the ring; how many, -1 at the end of a file."""
        if self.closed:
            raise CaptureError("closed, or already running in another thread")
        ring.check_writable()
        return self._run(ring, max_packets, time.monotonic_ns() + timeout_ns)

    def _run(self, ring: Handle, max_packets: int, deadline: int) -> int:
        raise NotImplementedError

    def _admit(self, stamp_ns: int, wirelen: int, frame: bytes) -> Pending:
        if self._seen == 0:
            self._began_ns, self._first_ns = time.monotonic_ns(), stamp_ns
        self._seen += 1
        time_ns = max(self._skew.next(stamp_ns), self._last_ns)
        return Pending(frame[: self.snaplen], max(wirelen, len(frame)), stamp_ns, time_ns, self._drop.next())

    def _due_ns(self, packet: Pending) -> int:
        if self._pace == "topspeed":
            return 0
        if self._pace == "pps":
            return self._began_ns + (self._seen - 1) * self._interval_ns
        return self._began_ns + packet.stamp_ns - self._first_ns

    def _settle(self, ring: Handle, packet: Pending) -> bool:
        """Bring a packet to where it belongs; False if the ring is full and this source waits."""
        if packet.dropped:
            self.injected_drops += 1
        elif not self.waits and self._left_to_peer(ring, packet):
            self.left_to_peers += 1
        elif self._put(ring, packet):
            self.captured += 1
            self.captured_bytes += packet.wirelen
        elif self.waits:
            return False
        else:
            self.ring_drops += 1
            ring.captured.add(layout.DROPPED)
        self._last_ns = packet.time_ns
        return True

    def set_share(self, mine: int, shares: int) -> None:
        """Keep share `mine` of `shares` alone while the ring is more than a quarter full."""
        self._share, self._shares = mine, shares

    def _left_to_peer(self, ring: Handle, packet: Pending) -> bool:
        if self._shares < 2 or not ring.captured.fuller_than(SHARE_FROM):
            return False
        return hash_frame(packet.frame, ring.description.seed, packet.wirelen) % self._shares != self._share

    def _put(self, ring: Handle, packet: Pending) -> bool:
        hash_ = hash_frame(packet.frame, ring.description.seed, packet.wirelen)
        return ring.captured.put(packet.frame, packet.wirelen, hash_, packet.time_ns) is not None


class _File(Source):
    def __init__(self, path: str, snaplen: int, bpf: str) -> None:
        opened = files.open_file(path)
        super().__init__(opened.linktype, snaplen)
        self._file, self._packets = opened.file, opened.packets
        try:
            self._filter = compile_filter(opened.linktype, bpf) if bpf else None
        except CaptureError:
            self.close()
            raise
        self._next: Pending | None = None
        self._ended = False
        self._filtered = self._matching()

    def close(self) -> None:
        self._file.close()
        self.closed = True

    def _matching(self) -> Iterator[files.Packet]:
        for packet in self._packets:
            if self._filter is None or self._filter.filter(packet[2]):
                yield packet

    def _run(self, ring: Handle, max_packets: int, deadline: int) -> int:
        before = self.captured
        while not self._ended and self.captured - before < max_packets:
            if self._next is None and not self._advance():
                ring.raise_watermark(ENDS)
                break
            packet = self._next
            assert packet is not None
            wait_ns = self._due_ns(packet) - time.monotonic_ns()
            if wait_ns <= 0 and self._settle(ring, packet):
                ring.raise_watermark(self._last_ns)
                self._next = None
                continue
            ring.raise_watermark(packet.time_ns - 1)  # nothing else comes before the pending packet
            left = deadline - time.monotonic_ns()
            if left <= 0:
                break
            time.sleep(min(left, wait_ns) / 1e9 if wait_ns > 0 else min(left / 1e9, FULL_S))
        done = self.captured - before
        return -1 if self._ended and not done else done

    def _advance(self) -> bool:
        """Take the next packet from the file; False at its end."""
        try:
            stamp_ns, wirelen, frame = next(self._filtered)
        except StopIteration:
            self._ended = True
            return False
        except files.TruncatedError:
            self._ended = True
            self.warning = f"truncated at packet {self._seen}; used what came before"
            return False
        except CaptureError as error:
            self._ended = True
            self.warning = f"damaged at packet {self._seen} ({error}); used what came before"
            return False
        except OSError as error:
            raise CaptureError(f"at packet {self._seen}: cannot be read: {error.strerror}") from None
        self._next = self._admit(min(max(stamp_ns, 0), LONGEST_S * 10**9), wirelen, frame)
        return True


class _Live(Source):
    waits = False

    def __init__(
        self, interface: str, snaplen: int, promiscuous: bool, buffer_bytes: int, bpf: str, guard_ns: int
    ) -> None:
        try:
            self._pcap = pcapy.create(interface)
            self._pcap.set_snaplen(snaplen)
            self._pcap.set_promisc(promiscuous)
            self._pcap.set_buffer_size(buffer_bytes)
            self._pcap.set_timeout(1)
            if (status := self._pcap.activate()) < 0:
                raise CaptureError(REFUSALS.get(status, f"cannot be captured on (libpcap status {status})"))
            self._pcap.setdirection(pcapy.PCAP_D_IN)
            self._pcap.setnonblock(True)
        except pcapy.PcapError as error:
            raise CaptureError(" ".join(str(error).split())) from None
        linktype = self._pcap.datalink()
        super().__init__(LINKTYPES.get(linktype, linktype), snaplen)
        if bpf:
            compile_filter(self.linktype, bpf)
            self._pcap.setfilter(bpf)
        self._guard_ns = guard_ns
        self._poll = select.poll()
        self._poll.register(self._pcap.getfd(), select.POLLIN)
        self._clock = Clock(time.monotonic_ns(), time.time_ns(), time.monotonic_ns())
        self._stamp_ns = 0  # of the newest packet, without injected error
        self._kernel_last, self._stats_ns = 0, 0

    @property
    def clock_ns(self) -> int:
        return time.monotonic_ns() + self._clock.base + self._skew.offset_ns

    def close(self) -> None:
        if not self.closed:
            self._update_stats()
            self._pcap.close()
        self.closed = True

    def _run(self, ring: Handle, max_packets: int, deadline: int) -> int:
        before = self.captured
        while self.captured - before < max_packets:
            got = self._dispatch(ring, min(max_packets - (self.captured - before), BATCH))
            left = deadline - time.monotonic_ns()
            if left <= 0:
                break
            if not got:
                self._poll.poll(min(left / 1e6, TICK_S * 1e3))
        if self.captured == before:
            self._update_stats()  # quiet: the counters are up to date
        return self.captured - before

    def _dispatch(self, ring: Handle, count: int) -> bool:
        """Take what libpcap has; whether that was anything."""
        before = time.monotonic_ns()
        if self._clock.observe(before, time.time_ns(), time.monotonic_ns()):
            self.clock_steps = self._clock.steps
            self.warning = f"the real-time clock was stepped ({self.clock_steps} times so far); compensated"
        now_ns = before + self._clock.base
        if before - self._stats_ns > STATS_NS:
            self._update_stats()

        def on_packet(header: Any, frame: bytes) -> None:
            seconds, microseconds = header.getts()
            stamp = seconds * 10**9 + microseconds * 1000
            self._stamp_ns = self._clock.convert(stamp, self._stamp_ns, now_ns)
            self._settle(ring, self._admit(self._stamp_ns, header.getlen(), frame))

        seen = self._seen
        try:
            self._pcap.dispatch(count, on_packet)
        except pcapy.PcapError as error:
            raise CaptureError(str(error)) from None
        if self._seen > seen:
            ring.raise_watermark(self._last_ns)
            return True
        self._clock.straddling = False
        ring.raise_watermark(now_ns - self._guard_ns + self._skew.offset_ns)  # jitter only makes later what is to come
        return False

    def _update_stats(self) -> None:
        _, dropped, interface_dropped = self._pcap.stats()
        drops = dropped + interface_dropped & 0xFFFFFFFF
        self.kernel_drops += drops - self._kernel_last & 0xFFFFFFFF
        self._kernel_last = drops
        self._stats_ns = time.monotonic_ns()


def compile_filter(linktype: int, bpf: str) -> Any:
    """A filter for frames of a link type.  CaptureError when it is bad."""
    own = {file: dlt for dlt, file in LINKTYPES.items()}
    try:
        return pcapy.compile(own.get(linktype, linktype), 262_144, bpf, 1, 0xFFFFFFFF)
    except (pcapy.PcapError, pcapy.BPFError) as error:
        raise CaptureError(f"bad filter: {error}") from None

"""Capture sources as the rooms see them: arguments checked, errors in words."""

from __future__ import annotations

import os
from typing import ClassVar, Self

from ftnids import limits
from ftnids.core.faults import RandomDrop
from ftnids.core.native import Implementation, Source
from ftnids.core.ring import Ring
from ftnids.errors import CaptureError


class Capture:
    """One source, an interface or a capture file, into one ring.  Made with `live` or `file`."""

    native: ClassVar[Implementation]

    def __init__(self, name: str, source: Source, snaplen: int) -> None:
        """Use `live` or `file`."""
        self.name = name
        self.snaplen = snaplen
        self._source = source
        self.guard_ns = 0  # by how much a watermark that is up to date stays behind `clock_ns`

    @classmethod
    def live(
        cls,
        interface: str,
        *,
        snaplen: int,
        promiscuous: bool,
        buffer_bytes: int,
        bpf: str,
        immediate: bool = True,
        clock_offset_ns: int = 0,
        jitter_ns: int = 0,
        seed: int = 0,
    ) -> Self:
        """Capture what comes in on an interface.  CaptureError when it is missing, down, or not ours to capture on.

        Fault injection: the clock is ahead by an offset, and a packet is stamped late by 0 to `jitter_ns` drawn by
        `seed`, so its time may be ahead of `clock_ns` by that much.
        """
        _check_range(interface, "snaplen", snaplen, 1, limits.MAX_SNAPLEN)
        _check_range(interface, "buffer_bytes", buffer_bytes, limits.MIN_CAPTURE_BUFFER, limits.MAX_CAPTURE_BUFFER)
        _check_skew(interface, clock_offset_ns, jitter_ns)
        immediate = immediate and cls.native.IMPL == "c"  # pcapy-ng has no immediate mode
        guard_ns = limits.CAPTURE_GUARD_NS if immediate else limits.CAPTURE_HOLD_NS
        try:
            source = cls.native.Source.live(interface, snaplen, promiscuous, buffer_bytes, bpf, immediate, guard_ns)
        except CaptureError as error:
            raise CaptureError(f"{interface}: {error}") from None
        source.set_skew(clock_offset_ns, 0, jitter_ns, seed & 0xFFFFFFFFFFFFFFFF)
        capture = cls(interface, source, snaplen)
        capture.guard_ns = guard_ns
        return capture

    @classmethod
    def file(
        cls,
        path: str | os.PathLike[str],
        *,
        snaplen: int,
        bpf: str,
        pace: str = "topspeed",
        pps: float = 0,
        clock_offset_ns: int = 0,
        drift_ppm: float = 0,
        jitter_ns: int = 0,
        seed: int = 0,
    ) -> Self:
        """Replay a pcap or pcapng file, `pace` "topspeed" or "file", or at `pps` packets/s when that is above 0.

        The capture time is the file's stamp plus an offset, a drift since the first packet, and 0 to `jitter_ns`
        drawn by `seed`.  CaptureError when the file cannot be opened, is no capture file, or the filter is bad.
        """
        name = os.fspath(path)
        _check_range(name, "snaplen", snaplen, 1, limits.MAX_SNAPLEN)
        _check_skew(name, clock_offset_ns, jitter_ns)
        _check_range(name, "drift_ppm", drift_ppm, -limits.MAX_DRIFT_PPM, limits.MAX_DRIFT_PPM)
        _check_range(name, "pps", pps, 0, limits.MAX_PPS)
        if pace not in ("topspeed", "file"):
            raise CaptureError(f"{name}: pace {pace!r}: must be topspeed or file [capture.pace]")
        try:
            source = cls.native.Source.file(os.fsencode(name), snaplen, bpf)
        except CaptureError as error:
            raise CaptureError(f"{name}: {error}") from None
        source.set_pace("pps" if pps > 0 else pace, int(1e9 / pps) if pps > 0 else 0)
        source.set_skew(clock_offset_ns, round(drift_ppm * (1 << 32) / 1e6), jitter_ns, seed & 0xFFFFFFFFFFFFFFFF)
        return cls(name, source, snaplen)

    def set_drop(self, drop: RandomDrop) -> None:
        """Drop packets from here on as `drop` decides, from its beginning.  A dropped packet takes no position."""
        self._source.set_drop(drop.seed, drop.first, drop.after_kept, drop.after_dropped)

    def set_share(self, mine: int, shares: int) -> None:
        """Keep share `mine` of `shares` alone while a live source's ring is more than a quarter full.

        Which packet is whose share its hash says, to all replicas alike.  `shares` of 1 keeps all.
        """
        self._source.set_share(mine, shares)

    def look(self) -> None:
        """Have a `run` in another thread bring the ring's watermark up to now, soon, though nothing is captured."""
        self._source.look()

    def run(self, ring: Ring, max_packets: int, timeout_ms: int) -> int:
        """Put packets into the ring until there are `max_packets`, the source ends, or `timeout_ms` are over.

        They are in the ring as they come, not only when this returns.  Returns how many were put (0: none in that
        time), or -1 at the end of a file.  CaptureError when reading fails or the ring does not fit the source.
        """
        if ring.snaplen < self.snaplen or ring.linktype != self.linktype:
            raise CaptureError(
                f"{self.name}: link type {self.linktype}, snaplen {self.snaplen} do not fit ring {ring.name}"
                f" (link type {ring.linktype}, snaplen {ring.snaplen}); make the ring for this source"
            )
        try:
            return self._source.run(ring._handle, max_packets, timeout_ms * 1_000_000)
        except CaptureError as error:
            raise CaptureError(f"{self.name}: {error}") from None

    @property
    def linktype(self) -> int:
        """Link type as capture files name it (LINKTYPE_...)."""
        return self._source.linktype

    @property
    def captured(self) -> int:
        """Packets put into the ring."""
        return self._source.captured

    @property
    def captured_bytes(self) -> int:
        """Bytes of these packets, as they were on the link."""
        return self._source.captured_bytes

    @property
    def kernel_drops(self) -> int:
        """Packets that the kernel or the interface dropped, as of the last 100 ms."""
        return self._source.kernel_drops

    @property
    def ring_drops(self) -> int:
        """Packets dropped because the ring was full."""
        return self._source.ring_drops

    @property
    def injected_drops(self) -> int:
        """Packets dropped by `set_drop`."""
        return self._source.injected_drops

    @property
    def left_to_peers(self) -> int:
        """Packets that were not kept because the ring filled and they were a peer's share."""
        return self._source.left_to_peers

    @property
    def clock_steps(self) -> int:
        """How often the real-time clock was stepped, and compensated for, while capturing live."""
        return self._source.clock_steps

    @property
    def clock_ns(self) -> int:
        """Now on the clock of the capture times (live), or the time of the newest packet (file)."""
        return self._source.clock_ns

    @property
    def warning(self) -> str:
        """One line about what is wrong but not fatal; empty if nothing is."""
        text = self._source.warning
        return f"{self.name}: {text}" if text else ""

    def close(self) -> None:
        """Let go of the source.  Twice is once."""
        self._source.close()


def _check_skew(name: str, clock_offset_ns: int, jitter_ns: int) -> None:
    _check_range(name, "clock_offset_ns", clock_offset_ns, -limits.MAX_CLOCK_OFFSET_NS, limits.MAX_CLOCK_OFFSET_NS)
    _check_range(name, "jitter_ns", jitter_ns, 0, limits.MAX_JITTER_NS)


def _check_range(name: str, key: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise CaptureError(f"{name}: {key} {value} is out of range: {least} to {most} [capture]")

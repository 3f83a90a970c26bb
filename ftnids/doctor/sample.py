"""A short capture for `ftnids.doctor.frames`: what one replica sees, as it sees it."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Final

import numpy as np

from ftnids.config import Capture as Settings
from ftnids.core import Capture, Ring, pcap_header
from ftnids.errors import CaptureError
from ftnids.limits import MIN_ARENA_BYTES, MIN_RING_SLOTS, SAMPLE_BYTES, SAMPLE_PACKETS

SAMPLE_S: Final = 2.0
EVERY_S: Final = 10.0  # samples begin at multiples of it, so that those of several hosts cover the same time
RUN_MS: Final = 100


def take(settings: Settings, interface: str, path: Path, now: float | None = None) -> int:
    """Capture on `interface` for SAMPLE_S into the new file `path` (0600); how many frames.

    Begins when the wall clock shows the next multiple of EVERY_S (seconds since the epoch; `now` for tests).
    CaptureError when the interface cannot be captured on or the file cannot be made.
    """
    capture = Capture.live(
        interface,
        snaplen=settings.snaplen,
        promiscuous=settings.promiscuous,
        buffer_bytes=settings.buffer_mb << 20,
        bpf=settings.bpf,
    )
    try:
        ring = Ring.create(
            f"doctor-{os.getpid()}",
            slots=SAMPLE_PACKETS,
            arena_bytes=SAMPLE_BYTES,
            recovered_slots=MIN_RING_SLOTS,
            recovered_bytes=MIN_ARENA_BYTES,
            agreed_slots=MIN_RING_SLOTS,
            linktype=capture.linktype,
            snaplen=capture.snaplen,
            seed=0,
            mode=0o600,
        )
        try:
            begin = _wait(capture, ring, time.time() if now is None else now)
            return _write(ring, begin, path)
        finally:
            ring.close(unlink=True)
    finally:
        capture.close()


def _wait(capture: Capture, ring: Ring, now: float) -> int:
    """Capture until the sample is over; its first position.  What comes before it is freed."""
    start = time.monotonic() + (-now) % EVERY_S
    while (left := start - time.monotonic()) > 0:
        capture.run(ring, SAMPLE_PACKETS, max(int(min(left * 1000, RUN_MS)), 1))
        ring.free_captured(ring.head)
    begin = ring.head
    while time.monotonic() < start + SAMPLE_S and ring.head - begin < SAMPLE_PACKETS:
        capture.run(ring, SAMPLE_PACKETS, RUN_MS)
    return begin


def _write(ring: Ring, begin: int, path: Path) -> int:
    """What is in the ring, as a pcap file."""
    positions = np.arange(begin, ring.head, dtype=np.int64)
    batch, times = ring.gather(positions), np.asarray(ring.times(begin, ring.head))
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(pcap_header(ring.linktype, ring.snaplen))
            place = 0
            for stamp, caplen, wirelen in zip(
                times.tolist(), batch.caplen.tolist(), batch.wirelen.tolist(), strict=True
            ):
                file.write(struct.pack("=IIII", stamp // 10**9, stamp % 10**9 // 1000, caplen, wirelen))
                file.write(batch.data[place : place + caplen])
                place += caplen
    except OSError as error:
        raise CaptureError(f"{path}: cannot be written: {error.strerror}; name a new file") from None
    return len(positions)

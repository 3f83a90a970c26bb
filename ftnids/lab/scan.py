"""Capture files read with the core: the same filter, cut and hash as a replica applies, batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ftnids import limits
from ftnids.core import Capture, Ring
from ftnids.errors import CaptureError
from ftnids.lab import leftovers

_number: Final = itertools.count()


@dataclass(frozen=True)
class Batch:
    """Packets [first, last) of a file, which stand at these positions in `ring` until the next batch is asked for."""

    ring: Ring
    first: int
    last: int


@dataclass(frozen=True)
class Shape:
    """What the lab must know of a capture file before it starts."""

    packets: int
    seconds: float  # from the first packet to the last
    longest_gap_s: float
    linktype: int
    warning: str = ""  # why a part of it was not read


def _ignore(_: str) -> None:
    """Somebody else has said it."""


def batches(path: Path, snaplen: int, seed: int, warn: Callable[[str], None] = _ignore) -> Iterator[Batch]:
    """The packets of `path` in file order, at most LAB_SCAN_PACKETS at once.  CaptureError when it cannot be read.

    `warn` is told what is wrong with a file of which a part could be read.
    """
    capture = Capture.file(str(path), snaplen=snaplen, bpf="", pace="topspeed")
    ring = Ring.create(
        f"{leftovers.ring_tag()}-scan{next(_number)}",
        slots=limits.MIN_RING_SLOTS,
        arena_bytes=limits.LAB_SCAN_BYTES,
        recovered_slots=limits.MIN_RING_SLOTS,
        recovered_bytes=limits.MIN_ARENA_BYTES,
        agreed_slots=limits.MIN_RING_SLOTS,
        linktype=capture.linktype,
        snaplen=snaplen,
        seed=seed,
        mode=0o600,
    )
    try:
        first = 0
        while capture.run(ring, limits.LAB_SCAN_PACKETS, 0) >= 0 or ring.head > first:
            if ring.head > first:
                yield Batch(ring, first, ring.head)
                first = ring.head
                ring.free_captured(first)
        if capture.warning:
            warn(capture.warning)
    finally:
        capture.close()
        ring.close(unlink=True)


def shape(path: Path) -> Shape:
    """Read the whole file once.  CaptureError naming the file and the fault when it is empty or no capture file."""
    packets, begin, end, gap, linktype = 0, 0, 0, 0, 0
    said: list[str] = []
    for batch in batches(path, limits.MAX_SNAPLEN, 0, said.append):
        times = np.asarray(batch.ring.times(batch.first, batch.last))
        if not packets:
            begin = end = int(times[0])
            linktype = batch.ring.linktype
        gap = max(gap, int(np.diff(times, prepend=end).max()))
        end = int(times[-1])
        packets += len(times)
    if not packets:
        raise CaptureError(f"{path}: holds no packet; the lab needs a capture file with at least one")
    return Shape(packets, (end - begin) / 1e9, gap / 1e9, linktype, "; ".join(said))

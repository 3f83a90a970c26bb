"""Delay from capture to stable, measured in batches.

A live packet carries the time at which it came.  For packets read from a file the replica notes at
every turn of its main loop how far the capture stream is (`captured`): a packet counts from the
last turn that had not seen it yet, so a delay is never reported too small, and too large by at most one turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ftnids.limits import DELAY_NOTES
from ftnids.sync.messages import I64

BUCKETS_PER_OCTAVE: Final = 16
LOWEST_MS: Final = 0.01
OCTAVES: Final = 24  # up to 167 s
BUCKETS: Final = BUCKETS_PER_OCTAVE * OCTAVES
RECORDED_PER_OCTAVE: Final = 4  # of the bounds in a record
RECORDED: Final = range(5 * RECORDED_PER_OCTAVE, 19 * RECORDED_PER_OCTAVE + 1)  # 0.32 ms to 5 s


class Histogram:
    """A logarithmic histogram of delays: 4 % resolution, fixed memory."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(BUCKETS, np.int64)
        self.max_ms = 0.0
        self.sum_ms = 0.0

    def add(self, delays_ms: NDArray[np.float64]) -> None:
        """Count `delays_ms` (float64, ms)."""
        if len(delays_ms) == 0:
            return
        self.max_ms = max(self.max_ms, float(delays_ms.max()))
        self.sum_ms += float(np.maximum(delays_ms, 0.0).sum())
        bucket = np.log2(np.maximum(delays_ms, LOWEST_MS) / LOWEST_MS) * BUCKETS_PER_OCTAVE
        self._counts += np.bincount(np.clip(bucket.astype(np.int64), 0, BUCKETS - 1), minlength=BUCKETS)

    def percentile(self, share: float) -> float:
        """The delay in ms that `share` (0 to 1) of the packets do not exceed, to the bucket; 0 when empty."""
        total = int(self._counts.sum())
        if total == 0:
            return 0.0
        bucket = int(np.searchsorted(np.cumsum(self._counts), share * total))
        return float(min(LOWEST_MS * 2 ** ((bucket + 1) / BUCKETS_PER_OCTAVE), self.max_ms))

    def record(self) -> dict[str, list[float]]:
        """`le_ms`: bounds in ms, and infinity left out; `counts`: packets up to each, then all; `sum_ms` of all.

        There are RECORDED_PER_OCTAVE in a factor of two, the first at one; they lie on the bounds of the buckets, so
        that the counts are exact.
        """
        below, step = np.cumsum(self._counts), BUCKETS_PER_OCTAVE // RECORDED_PER_OCTAVE
        counts = [int(below[place * step - 1]) for place in RECORDED]
        bounds = [round(LOWEST_MS * 2 ** (place / RECORDED_PER_OCTAVE), 4) for place in RECORDED]
        return {"le_ms": bounds, "counts": [*counts, int(below[-1])], "sum_ms": [round(self.sum_ms, 3)]}


def between(bounds: Sequence[float], before: Sequence[float], after: Sequence[float], share: float) -> float | None:
    """The delay in ms that `share` of the packets did not exceed that came between two records with these `bounds`.

    None where none came, or the records do not fit.  Inside a bucket the packets count as spread evenly.
    """
    if not len(bounds) + 1 == len(before) == len(after) or after[-1] <= before[-1]:
        return None
    came = [later - earlier for earlier, later in zip(before, after, strict=True)]
    wanted = share * came[-1]
    for place, bound in enumerate(bounds):
        if came[place] >= wanted:
            low, count = (bounds[place - 1], came[place - 1]) if place else (0.0, 0.0)
            inside = came[place] - count
            return low + (bound - low) * ((wanted - count) / inside if inside > 0 else 1.0)
    return bounds[-1] if bounds else None


class DelayMeter:
    """Turns notes of the capture's progress into delays of stable packets."""

    def __init__(self) -> None:
        self.histogram = Histogram()
        self._notes: deque[tuple[int, int]] = deque(maxlen=DELAY_NOTES)  # head, monotonic ns of the turn before
        self._turn_ns = 0

    def captured(self, head: int, now_ns: int) -> None:
        """At `now_ns` (monotonic) everything below position `head` was captured."""
        if not self._notes or head > self._notes[-1][0]:
            self._notes.append((head, self._turn_ns or now_ns))
        self._turn_ns = now_ns

    def stable(self, positions: I64, now_ns: int) -> None:
        """The packets at `positions` (int64, of this replica's stream) are stable at `now_ns`."""
        if len(positions) == 0 or not self._notes:
            return
        heads = np.array([head for head, _ in self._notes])
        times = np.array([at for _, at in self._notes])
        note = np.minimum(np.searchsorted(heads, positions, side="right"), len(times) - 1)
        self.histogram.add((now_ns - times[note]) / 1e6)
        lowest = int(positions.min())
        while len(self._notes) > 1 and self._notes[0][0] <= lowest:
            self._notes.popleft()

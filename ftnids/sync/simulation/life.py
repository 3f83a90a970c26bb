"""One life of a simulated replica: from a start of its process to its end."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from ftnids.sync.engine import Engine
from ftnids.sync.messages import I64, U8, U64, View

FOREVER = int(np.iinfo(np.int64).max)


class SimulatedStream:
    """What one replica captured, released as its time comes; positions beyond the ring's room are dropped."""

    def __init__(self, ids: I64, hashes: U64, times: I64, slots: int) -> None:
        self.ids = ids
        self._hashes = hashes
        self._times = times
        self._slots = slots
        self.head = 0
        self.tail = 0
        self.dropped = 0
        self.watermark_ns = 0

    def until(self, local_ns: int) -> None:
        """All that was captured up to `local_ns` is published."""
        reached = int(self._times.searchsorted(local_ns, side="right"))
        excess = reached - (self.tail + self._slots)
        if excess > 0:
            lost = slice(max(reached - excess, self.head), reached)
            self.dropped += lost.stop - lost.start
            keep = np.ones(len(self.ids), bool)
            keep[lost] = False
            self.ids, self._hashes, self._times = self.ids[keep], self._hashes[keep], self._times[keep]
            reached = lost.start
        self.head = max(self.head, reached)
        self.watermark_ns = max(self.watermark_ns, local_ns)

    @property
    def next_ns(self) -> int:
        """When the next packet is captured."""
        return int(self._times[self.head]) if self.head < len(self._times) else FOREVER // 2

    def quiet_ns(self, local_ns: int) -> int:
        """For how long nothing has been captured."""
        return local_ns - int(self._times[self.head - 1]) if self.head else FOREVER

    def hashes(self, first: int, last: int) -> U64:
        """Hashes of positions [first, last)."""
        assert self.tail <= first <= last <= self.head, "the engine reads a freed or unpublished position"
        return self._hashes[first:last]

    def times(self, first: int, last: int) -> I64:
        """Capture times of positions [first, last)."""
        assert self.tail <= first <= last <= self.head, "the engine reads a freed or unpublished position"
        return self._times[first:last]


class LocalClock:
    """One process's capture clock: true time, offset, drift, and steps ahead.  All times are int64 ns."""

    def __init__(self, epoch: int, offset: int, drift_ppm: float, steps: list[tuple[int, int]]) -> None:
        self._epoch = epoch
        self._offset = offset
        self._drift = drift_ppm * 1e-6
        self._at = [at for at, _ in steps]  # true times
        self._by = np.cumsum([0, *(length for _, length in steps)])

    def stamps(self, true_ns: I64) -> I64:
        """What it shows at true times."""
        steps = self._by[np.searchsorted(self._at, true_ns, side="right")] if self._at else 0
        return np.asarray(true_ns + self._offset + ((true_ns - self._epoch) * self._drift).astype(np.int64) + steps)

    def now(self, true_ns: int) -> int:
        """What it shows at a true time."""
        steps = int(self._by[bisect_right(self._at, true_ns)])
        return true_ns + self._offset + int((true_ns - self._epoch) * self._drift) + steps


@dataclass(eq=False)
class Life:
    """Engine, capture, clock, and what was published, of one process."""

    me: int
    stream: SimulatedStream
    clock: LocalClock
    engine: Engine
    recovered: list[int] = field(default_factory=list)  # true index by recovered number
    freed_recovered: int = 0
    published: list[tuple[I64, I64, U8]] = field(default_factory=list)  # from `stable` on: true index, time, flags
    published_end: int = 0
    stable: int = 0
    first_seq: int = -1  # of the agreed stream here; -1 before the first view
    start: int = -1  # position
    view: View = field(default_factory=View)  # in which the actions that come next were made
    ended: bool = False
    dead: bool = False
    due_ns: int = -1
    stalled_until: int = 0
    stuck_until: int = 0
    hung_until: int = 0
    closing: bool = False
    missed_the_end: bool = False  # the set ended while it was on its way back
    troubled: bool = False  # something befell this replica itself

    def local(self, true_ns: int) -> int:
        """This replica's clock at true time."""
        return self.clock.now(true_ns)

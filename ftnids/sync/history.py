"""The last decided packets: for late duplicates, and for joining replicas to find their place."""

from __future__ import annotations

import numpy as np

from ftnids import limits
from ftnids.sync.messages import I64, U32, U64


class History:
    """Hash, time (ns on the reference clock, never decreasing) and holders (bits of columns) of decided packets."""

    def __init__(self) -> None:
        self._hash: U64 = np.empty(2 * limits.HISTORY_PACKETS, np.uint64)
        self._time: I64 = np.empty(2 * limits.HISTORY_PACKETS, np.int64)
        self._holders: U32 = np.empty(2 * limits.HISTORY_PACKETS, np.uint32)
        self._from = self._to = 0

    @property
    def hash(self) -> U64:
        """Hashes, oldest first."""
        return self._hash[self._from : self._to]

    @property
    def time_ns(self) -> I64:
        """Times on the reference clock."""
        return self._time[self._from : self._to]

    def append(self, hashes: U64, time_ns: I64, holders: U32) -> None:
        """Remember decided packets, forgetting the oldest."""
        count = min(len(hashes), limits.HISTORY_PACKETS)
        if count == 0:
            return
        if self._to + count > len(self._hash):
            keep = slice(max(self._from, self._to - limits.HISTORY_PACKETS + count), self._to)
            size = keep.stop - keep.start
            for column in (self._hash, self._time, self._holders):
                column[:size] = column[keep].copy()
            self._from, self._to = 0, size
        new = slice(self._to, self._to + count)
        self._hash[new], self._time[new], self._holders[new] = hashes[-count:], time_ns[-count:], holders[-count:]
        if self._to > self._from:
            self._time[new] = np.maximum(self._time[new], self._time[self._to - 1])
        self._to += count
        self._from = max(self._from, self._to - limits.HISTORY_PACKETS)

    def claim(
        self, hashes: U64, time_ns: I64, holders: U32, cut_ns: int, tolerance_ns: int, reorder_ns: int, places: int
    ) -> list[int]:
        """For each packet the decided one that it is a late copy of (its index here), or -1.

        A late copy has the same hash and comes from members that lacked the packet.  Up to the time
        `cut_ns`, before which all was decided, it lies within the tolerance.  Behind the cut it is the
        only such packet within tolerance and reorder window, and packets that both have lie
        between, at most `places`.  Each decided packet takes a member's copy once.
        """
        claimed = [-1] * len(hashes)
        if len(hashes) == 0 or self._to == self._from:
            return claimed
        reach = max(tolerance_ns, reorder_ns)
        start = self._from + int(np.searchsorted(self.time_ns, int(time_ns.min()) - reach))
        part = slice(start, self._to)
        known, times, masks = self._hash[part], self._time[part], self._holders[part]
        for i in np.flatnonzero(np.isin(hashes, known)).tolist():
            away = np.abs(times - time_ns[i])
            same = np.flatnonzero((known == hashes[i]) & (away <= reach) & ((masks & holders[i]) == 0))
            near = same[away[same] <= tolerance_ns]
            if len(near) and time_ns[i] <= cut_ns:
                best = int(near[np.argmin(away[near])])
            elif len(same) == 1 and 0 < _common(masks[same[0] :], holders[i]) <= places:
                best = int(same[0])
            else:
                continue
            masks[best] |= holders[i]
            claimed[i] = start - self._from + best
        return claimed


def _common(masks: U32, holders: np.uint32) -> int:
    """How many packets that both a decided packet's holders and `holders` have lie behind it; it is the first."""
    both = masks[0] | holders
    return int(np.count_nonzero((masks[1:] & both) == both))

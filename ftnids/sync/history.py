"""The last decided packets: for late duplicates, and for joining replicas to find their place."""

from __future__ import annotations

import numpy as np

from ftnids import limits
from ftnids.sync.messages import I64, U32, U64


class History:
    """Hash, time (ns on the reference clock, never decreasing), holders and asked of decided packets.

    Holders are the members that had the packet, asked those whose stream was there when it was decided; both
    are bits of columns.
    """

    def __init__(self) -> None:
        self._hash: U64 = np.empty(2 * limits.HISTORY_PACKETS, np.uint64)
        self._time: I64 = np.empty(2 * limits.HISTORY_PACKETS, np.int64)
        self._holders: U32 = np.empty(2 * limits.HISTORY_PACKETS, np.uint32)
        self._asked: U32 = np.empty(2 * limits.HISTORY_PACKETS, np.uint32)
        self._from = self._to = 0

    @property
    def hash(self) -> U64:
        """Hashes, oldest first."""
        return self._hash[self._from : self._to]

    @property
    def time_ns(self) -> I64:
        """Times on the reference clock."""
        return self._time[self._from : self._to]

    @property
    def holders(self) -> U32:
        """Bit masks of those that had the packet."""
        return self._holders[self._from : self._to]

    def append(self, hashes: U64, time_ns: I64, holders: U32, asked: int) -> None:
        """Remember decided packets, forgetting the oldest."""
        count = min(len(hashes), limits.HISTORY_PACKETS)
        if count == 0:
            return
        if self._to + count > len(self._hash):
            keep = slice(max(self._from, self._to - limits.HISTORY_PACKETS + count), self._to)
            size = keep.stop - keep.start
            for column in (self._hash, self._time, self._holders, self._asked):
                column[:size] = column[keep].copy()
            self._from, self._to = 0, size
        new = slice(self._to, self._to + count)
        self._hash[new], self._time[new], self._holders[new] = hashes[-count:], time_ns[-count:], holders[-count:]
        self._asked[new] = asked
        if self._to > self._from:
            self._time[new] = np.maximum(self._time[new], self._time[self._to - 1])
        self._to += count
        self._from = max(self._from, self._to - limits.HISTORY_PACKETS)

    def claim(self, hashes: U64, time_ns: I64, holders: U32, cut_ns: int, tolerance_ns: int) -> list[int]:
        """For each packet the decided one that it is a late copy of (its index here), or -1.

        A late copy has the same hash, lies within the tolerance, and comes from members that lacked
        the packet; each decided packet takes a member's copy once.  Members that were asked reported
        all their copies that can lie behind `cut_ns`, before which all was decided, in time.
        """
        claimed = [-1] * len(hashes)
        if len(hashes) == 0 or self._to == self._from:
            return claimed
        start = self._from + int(np.searchsorted(self.time_ns, int(time_ns.min()) - tolerance_ns))
        part = slice(start, self._to)
        known, times, masks, asked = self._hash[part], self._time[part], self._holders[part], self._asked[part]
        for i in np.flatnonzero(np.isin(hashes, known)).tolist():
            away = np.abs(times - time_ns[i])
            same = (known == hashes[i]) & (away <= tolerance_ns) & ((masks & holders[i]) == 0)
            if time_ns[i] > cut_ns:
                same &= (asked & holders[i]) == 0
            found = np.flatnonzero(same)
            if len(found):
                first = int(found[0])  # not the nearest: a flood that is a little ahead would leave its last ones over
                masks[first] |= holders[i]
                claimed[i] = start - self._from + first
        return claimed

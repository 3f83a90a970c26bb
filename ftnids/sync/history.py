"""The last decided packets: for late duplicates, and for joining replicas to find their place."""

from __future__ import annotations

import numpy as np

from ftnids import limits
from ftnids.sync.messages import I64, U32, U64


class History:
    """Hash, time (ns on the reference clock) and holders (bit mask over columns) of the last decided packets."""

    def __init__(self) -> None:
        self._hash: U64 = np.empty(2 * limits.HISTORY_PACKETS, np.uint64)
        self._time: I64 = np.empty(2 * limits.HISTORY_PACKETS, np.int64)
        self._holders: U32 = np.empty(2 * limits.HISTORY_PACKETS, np.uint32)
        self._from = self._to = 0

    @property
    def hash(self) -> U64:
        return self._hash[self._from : self._to]

    @property
    def time_ns(self) -> I64:
        return self._time[self._from : self._to]

    def append(self, hashes: U64, time_ns: I64, holders: U32) -> None:
        """Remember decided packets, forgetting the oldest."""
        count = min(len(hashes), limits.HISTORY_PACKETS)
        if self._to + count > len(self._hash):
            keep = slice(self._from, self._to)
            size = self._to - self._from
            for column in (self._hash, self._time, self._holders):
                column[:size] = column[keep].copy()
            self._from, self._to = 0, size
        new = slice(self._to, self._to + count)
        self._hash[new], self._time[new], self._holders[new] = hashes[-count:], time_ns[-count:], holders[-count:]
        self._to += count
        self._from = max(self._from, self._to - limits.HISTORY_PACKETS)

    def claim(self, hashes: U64, time_ns: I64, holders: U32, tolerance_ns: int) -> list[int]:
        """For each packet the decided one that it is a late copy of (its index here), or -1.

        A late copy has the same hash, lies within the tolerance, and comes from members that lacked
        the packet; each decided packet takes a member's copy once.
        """
        claimed: list[int] = []
        known, times, masks = self.hash, self.time_ns, self._holders[self._from : self._to]
        suspects = np.isin(hashes, known)
        for i in range(len(hashes)):
            claimed.append(-1)
            if not suspects[i]:
                continue
            same = np.flatnonzero((known == hashes[i]) & (np.abs(times - time_ns[i]) <= tolerance_ns))
            same = same[(masks[same] & holders[i]) == 0]
            if len(same):
                best = int(same[np.argmin(np.abs(times[same] - time_ns[i]))])
                masks[best] |= holders[i]
                claimed[-1] = best
        return claimed

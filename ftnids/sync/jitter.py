"""Time stamps far apart, or packets repeated?

Theory of operation

A packet whose two stamps lie further apart than the clocks' tolerance looks like two packets, of
which each replica lost one: a *parted pair*, equal hashes, close in time, no replica with both.
Under load a kernel stamps a few packets in a hundred late; that must not double them.  But
real links repeat packets, and where replicas lose much, repeats make parted pairs too.

Single replicas tell which it is.  Of packets that are really repeated within the reorder window,
a replica that loses a share p has both with probability (1 - p)^2, and a pair is parted between two
replicas with 2 (p (1 - p))^2: always less.  So where parted pairs outnumber the repeats that
single replicas see, they come from late stamps, and the tolerance is widened to cover them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ftnids import limits
from ftnids.sync.messages import I64, U32, U64

MIX = np.uint64(0x9E3779B97F4A7C15)
MEMORY = 50_000  # packets after which half of what was seen is forgotten
HALF_LIFE_NS = 10e9  # of the widened tolerance


class Jitter:
    """What one link's parted pairs and repeats say.  Times are int64 ns."""

    def __init__(self, reorder_ns: int) -> None:
        self._reorder_ns = reorder_ns
        self._parted = 0.0
        self._repeats = 0.0
        self._wide_ns = 0.0
        self._at_ns = 0

    def tolerance_ns(self, time_ns: int) -> int:
        """The tolerance that late stamps call for at `time_ns`; it shrinks slowly."""
        if self._wide_ns == 0:
            return 0
        return int(self._wide_ns * 0.5 ** (max(time_ns - self._at_ns, 0) / HALF_LIFE_NS))

    def look(self, hashes: U64, first_ns: I64, last_ns: I64, holders: U32, tolerance_ns: int) -> int:
        """Look at merged packets: earliest and latest stamps, bit masks of holders; the tolerance to merge with, or 0.

        The arrays have one element a packet, in merged order.  A packet's stamps lie further apart than the tolerance
        where their order showed that it was late: a wider tolerance covers that, too.
        """
        if len(hashes) == 0:
            return 0
        share = max(len(hashes) // limits.JITTER_SAMPLED, 1)
        at = np.arange(len(hashes))
        if share > 1:
            at = np.flatnonzero((hashes * MIX) >> np.uint64(32) < np.uint64(2**32 // share))
        order = at[np.lexsort((first_ns[at], hashes[at]))]
        gap = np.maximum(last_ns[order][1:], last_ns[order][:-1]) - first_ns[order][:-1]
        near = (hashes[order][1:] == hashes[order][:-1]) & (gap <= self._reorder_ns)
        near &= gap > tolerance_ns  # closer ones are the aligner's: in a flood it leaves some apart
        parted = near & (holders[order][1:] & holders[order][:-1] == 0)
        repeats = near & ~parted
        fade = 0.5 ** (len(hashes) / MEMORY)
        self._parted = self._parted * fade + share * int(parted.sum())
        self._repeats = self._repeats * fade + share * int(repeats.sum())
        if not parted.any() or self._parted <= self._repeats:
            return 0
        spread = last_ns - first_ns
        late = spread[(spread > tolerance_ns) & (spread <= self._reorder_ns)]
        return self._widen(np.concatenate([gap[parted], late]), tolerance_ns, int(last_ns[-1]))

    def _widen(self, gaps: NDArray[np.int64], tolerance_ns: int, now_ns: int) -> int:
        wide = int(gaps.max()) + tolerance_ns + 1_000  # others may come that are later still
        self._wide_ns = max(float(self.tolerance_ns(now_ns)), float(wide))
        self._at_ns = now_ns
        return wide

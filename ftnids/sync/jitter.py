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

from ftnids.sync.survey import Survey

MEMORY = 50_000  # packets after which half of what was seen is forgotten
HALF_LIFE_NS = 10e9  # of the widened tolerance


class Jitter:
    """What one link's parted pairs and repeats say.  Times are int64 ns."""

    def __init__(self) -> None:
        self._parted = 0.0
        self._repeats = 0.0
        self._wide_ns = 0.0
        self._at_ns = 0

    def tolerance_ns(self, time_ns: int) -> int:
        """The tolerance that late stamps call for at `time_ns`; it shrinks slowly."""
        if self._wide_ns == 0:
            return 0
        return int(self._wide_ns * 0.5 ** (max(time_ns - self._at_ns, 0) / HALF_LIFE_NS))

    def look(self, seen: Survey, tolerance_ns: int, now_ns: int) -> int:
        """Take in what a window showed; the tolerance to merge it with instead, or 0.

        A packet's stamps lie further apart than the tolerance where their order showed that it was late: a wider
        tolerance covers that, too.
        """
        fade = 0.5 ** (len(seen.hash) / MEMORY)
        self._parted = self._parted * fade + seen.parted
        self._repeats = self._repeats * fade + seen.repeats
        if not seen.parted or self._parted <= self._repeats:
            return 0
        wide = max(seen.gap_ns, seen.spread_ns) + tolerance_ns + 1_000  # others may come that are later still
        self._wide_ns = max(float(self.tolerance_ns(now_ns)), float(wide))
        self._at_ns = now_ns
        return wide

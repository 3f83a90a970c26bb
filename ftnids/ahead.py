"""Reading ahead: what this replica captured, and nobody has decided yet, goes to an IDS that can be thrown back.

The guess is that the own packets come next, in the order of their capture, at the own clock corrected to the founder's.
It is wrong wherever another replica captured a packet that this one lost.  As soon as a decision says so, what was
published is retracted; where it is known that bytes are still missing, nothing is guessed behind them.
"""

from __future__ import annotations

import numpy as np

from ftnids.core import Ring
from ftnids.sync.engine import Engine
from ftnids.sync.member import Member
from ftnids.sync.messages import I64


class Ahead:
    """Publishes what is captured ahead of what is agreed; `look` is called once a turn, after the actions."""

    def __init__(self, engine: Engine, ring: Ring, me: int) -> None:
        self._engine, self._ring, self._me = engine, ring, me
        self._next = 0  # own positions below are published ahead, as long as anything is

    def look(self) -> None:
        """Compare what is decided and not here yet; publish what was captured since the last look."""
        member = self._engine.member
        if member is None or member.frozen or member.acked != self._ring.agreed:
            return
        first, end = member.acked, member.window.end
        if first < end:
            self._ring.compare_ahead(first, member.window.refs(first, end), member.window.times(first, end))
        elif member.ends_at is None and self._me in member.offset_ns:
            self._publish(member)

    def _publish(self, member: Member) -> None:
        ring, nothing = self._ring, self._ring.speculative <= self._ring.agreed
        positions = self._undecided(member) if nothing else np.arange(self._next, ring.head, dtype=np.int64)
        if not len(positions):
            return
        low = int(positions[0])
        times = ring.times(low, int(positions[-1]) + 1)[positions - low]
        time_us = np.maximum((times + member.offset_ns[self._me]) // 1000, member.time_us)
        count = ring.publish_ahead(positions, time_us)
        self._next = int(positions[count - 1]) + 1 if count else low

    def _undecided(self, member: Member) -> I64:
        positions = np.arange(member.consumed.base, self._ring.head, dtype=np.int64)
        return positions[~np.isin(positions, member.consumed.holes())]

"""What is settled: times, flags, and whether it is a late copy of what was settled before."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ftnids.sync.history import History
from ftnids.sync.messages import I64, U8, U32, U64, Flag
from ftnids.sync.pending import NEVER

AMBIGUOUS, LATE, CLAMPED = (np.uint8(flag) for flag in (Flag.AMBIGUOUS, Flag.LATE, Flag.CLAMPED))


@dataclass(slots=True)
class Settled:
    """n packets whose place in the agreed stream is fixed; columns are the members in order."""

    hash: U64
    time_us: I64  # agreed: whole us on the reference clock, never decreasing
    holders: U32  # bit masks of columns
    positions: list[I64]  # by column, the absolute positions of what that member holds
    flags: U8  # Flag bits
    skipped: dict[int, I64] = field(default_factory=dict)  # positions consumed without an entry of their own
    cut_ns: int = 0  # reference clock: all before it is settled

    @property
    def places(self) -> I64:
        """Positions as a table [n, N], -1 where absent."""
        table = np.full((len(self.hash), len(self.positions)), -1, np.int64)
        for column, own in enumerate(self.positions):
            table[(self.holders & np.uint32(1 << column)) != 0, column] = own
        return table


class Settler:
    """Puts packets out for good, in whole us of agreed time, and remembers the last of them.

    `floor_us` is the agreed time below which none may be put out.
    """

    def __init__(self, floor_us: int) -> None:
        self.history = History()
        self.cut_ns = NEVER  # all before it is settled
        self.ambiguous = self.late = self.clamped = 0
        self._orphaned_ns = NEVER
        self._carried_ns = NEVER, 0  # newest time that another merger settled, and how far its times may err
        self._last_us = floor_us
        self._shift_ns = 0

    def resume(self, settled: tuple[U64, I64, U32], cut_ns: int, shift_ns: int, tolerance_ns: int) -> None:
        """Go on behind another one, as `Merger.resume` says; holders are bits of columns."""
        hashes, times, holders = settled
        self.history.append(hashes, times, holders, 0)
        self.cut_ns, self._shift_ns = cut_ns, shift_ns
        self._carried_ns = int(times.max(initial=NEVER)), tolerance_ns

    def orphaned(self, live: int) -> None:
        """Note up to when settled packets are known that no `live` member had: all live ones may bring them late."""
        alone = self.history.time_ns[(self.history.holders & np.uint32(live)) == 0]
        self._orphaned_ns = max(self._orphaned_ns, int(alone.max(initial=NEVER)))

    def settle(self, settled: Settled, members: tuple[int, ...], live: int, tolerance: int) -> NDArray[np.bool_]:
        """Drop late duplicates, mark what is late, remember; returns which packets all `live` members had.

        `settled` comes with times on the reference clock, never decreasing; they become the agreed ones.
        """
        full: NDArray[np.bool_] = settled.holders == live
        duplicates = self._duplicates(settled, full, tolerance)
        if len(duplicates):
            full = np.delete(full, duplicates)
            _drop(settled, members, duplicates)
        time = settled.time_us
        if self.cut_ns != NEVER:
            settled.flags[: np.searchsorted(time, self.cut_ns - tolerance)] |= LATE
        self.history.append(settled.hash, time, settled.holders, live)
        settled.cut_ns = self.cut_ns = max(self.cut_ns, settled.cut_ns)
        settled.time_us = self._agreed_times(time, settled.flags)
        return full

    def _duplicates(self, settled: Settled, full: NDArray[np.bool_], tolerance: int) -> I64:
        """Which packets are late copies of settled ones that their holders lacked."""
        time = settled.time_us
        if self.cut_ns == NEVER or len(time) == 0:
            return np.empty(0, np.int64)
        newest, err = self._carried_ns
        if int(time[0]) - err <= newest:
            tolerance = max(tolerance, err)
        early = slice(int(np.searchsorted(time, self.cut_ns + tolerance, side="right")))
        overdue = np.flatnonzero(~full[early] | (time[early] - tolerance <= self._orphaned_ns))
        late = settled.hash[overdue], time[overdue], settled.holders[overdue]
        claims = self.history.claim(*late, self.cut_ns, tolerance)
        return overdue[np.array(claims, np.int64) >= 0]

    def _agreed_times(self, time: I64, flags: U8) -> I64:
        """Whole us, never decreasing; marks what had to be raised, and counts."""
        agreed = (time + self._shift_ns + 500) // 1000
        early = slice(int(np.searchsorted(agreed, self._last_us)))
        agreed[early] = self._last_us
        flags[early] |= CLAMPED
        if len(agreed):
            self._last_us = int(agreed[-1])
        if flags.any():
            self.ambiguous += int(np.count_nonzero(flags & AMBIGUOUS))
            self.late += int(np.count_nonzero(flags & LATE))
            self.clamped += int(np.count_nonzero(flags & CLAMPED))
        return agreed


def _drop(settled: Settled, members: tuple[int, ...], duplicates: I64) -> None:
    """Take late duplicates out, and mark as late what was captured before one, whatever its time."""
    gone = np.zeros(len(settled.hash), np.bool_)
    gone[duplicates] = True
    for column, own in enumerate(settled.positions):
        rows = np.flatnonzero(settled.holders & np.uint32(1 << column))
        here = gone[rows]
        settled.skipped[members[column]] = own[here]
        if here.any():
            settled.flags[rows[own < own[here].max()]] |= LATE
        settled.positions[column] = own[~here]
    keep = ~gone
    settled.hash, settled.time_us = settled.hash[keep], settled.time_us[keep]
    settled.holders, settled.flags = settled.holders[keep], settled.flags[keep]

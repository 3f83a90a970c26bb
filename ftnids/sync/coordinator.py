"""What the coordinator of a view does besides being a member: merge the reports into decisions.

Theory of operation.  Reports fill the merger's pending streams, the coordinator's own among them
(it needs no message).  Whenever something new is there, the merger settles what can be settled:
clean stretches, then up to the last anchor, then up to the horizon.  Each settled block becomes
one numbered decision to all members.  Decisions wait while too much is not yet acknowledged, and
reports beyond the merger's room are not taken (their sender sends them again), so that memory is
bounded whatever a member does.
"""

from __future__ import annotations

import numpy as np

from ftnids import limits
from ftnids.sync.member import Member
from ftnids.sync.merge import Merger
from ftnids.sync.merge import Settings as MergeSettings
from ftnids.sync.messages import I64, Decision, Fetch, Install, Report, View
from ftnids.sync.reporter import FULL
from ftnids.sync.settings import Settings, Stream
from ftnids.sync.settle import Settled

NEVER, FOREVER = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)
NO_TIME = -(1 << 62)  # in an INSTALL: nothing was decided in the lineage
ROUNDS_A_TICK = 8  # settled blocks per tick; more wait for the next, so that messages are read in between


class Coordinator:
    """Decides for one view."""

    def __init__(
        self,
        settings: Settings,
        stream: Stream,
        view: View,
        members: tuple[int, ...],
        start: dict[int, int],
        seq: int,
        number: int = 0,
        floor_us: int = NEVER,
    ) -> None:
        self._settings = settings
        self._stream = stream
        self.view = view
        self.members = members
        self.seq = seq  # next to decide
        self.number = number
        self.shift_ns = 0  # add to this replica's capture clock for the founder's
        self.ended = False
        self._ends: set[int] = set()
        self._ahead: dict[int, dict[tuple[int, int], Report]] = {m: {} for m in members}  # that overtook others
        self._asked_ns: dict[tuple[int, int], int] = {}
        self._heard_ns = dict.fromkeys(members, NEVER // 2)  # when each reported, or was asked to
        self._bare = dict.fromkeys(members, True)  # whether it had nothing to report then
        self._mask = sum(1 << m for m in members)
        self._new = False
        self.unfinished = False  # more could be decided at once
        self._own_ns = NO_TIME  # when the local stream was last looked at
        self.reports_refused = self.reports_dropped = self.deciding_waits = 0
        self.merger = Merger(
            members,
            settings.me,
            MergeSettings(
                k=settings.k,
                l=settings.l,
                max_desync=settings.max_desync,
                reorder_ns=settings.reorder_ns,
                reorder_places=settings.reorder_places,
                aligner=settings.aligner,
            ),
            start=start,
            floor_us=floor_us,
        )

    def resume(self, install: Install, member: Member, holes: dict[int, I64]) -> None:
        """Go on where another coordinator stopped: its clocks, its history, what it consumed out of turn."""
        merger, me = self.merger, self._settings.me
        self.shift_ns = install.offset_ns.get(me, 0)
        for m in self.members:
            if m in install.offset_ns:
                tolerance, at_ns = 2 * install.tolerance_ns[m], install.cut_ns - self.shift_ns
                merger.set_offset(m, install.offset_ns[m] - self.shift_ns, tolerance, at_ns)
            if m in holes:
                merger.taken(m, holes[m])
        hashes, time_us, holders = member.history()
        if install.time_us > NO_TIME:
            settled = (hashes, time_us * 1000 - self.shift_ns, holders)
            merger.resume(settled, install.cut_ns - self.shift_ns, self.shift_ns, install.tolerance_ns.get(me, 0))

    def change(self, install: Install, members: tuple[int, ...]) -> None:
        """The next view of the same coordinator: members go and come; one may do both (a new process)."""
        self.view = install.installed
        stay = [m for m in self.members if m in members and m in install.start]
        for m in self.members:
            if m not in stay:
                self.merger.drop_member(m)
                self._ends.discard(m)
        for m in members:
            if m not in stay:
                self.merger.add_member(m)
                offset, at_ns = install.offset_ns[m] - self.shift_ns, install.cut_ns - self.shift_ns
                self.merger.set_offset(m, offset, install.tolerance_ns[m], at_ns)
        self.members = members
        self._mask = sum(1 << m for m in members)
        self._ahead = {m: {} for m in members}
        self._asked_ns = {}
        self._heard_ns = {m: self._heard_ns.get(m, NEVER // 2) for m in members}
        self._bare = {m: self._bare.get(m, True) for m in members}
        self._new = True

    def reported(self) -> dict[int, int]:
        """The next position wanted from each other member."""
        return {m: self.merger.reported(m) for m in self.members if m != self._settings.me}

    # -- what comes in -----------------------------------------------------------------------

    def report(self, report: Report, now_ns: int) -> None:
        """Take in another member's report; one that comes early waits, one that finds no room is not taken."""
        member = report.sender
        self._heard_ns[member], self._bare[member] = now_ns, len(report.hash) + len(report.cluster) == 0
        merger, ahead = self.merger, self._ahead[report.sender]
        merger.place(member, report.start)
        if report.position > merger.reported(member):
            if len(ahead) < limits.MAX_EARLY_REPORTS:
                ahead[report.position, len(report.hash) + len(report.cluster)] = report
            else:
                self.reports_dropped += 1
            return
        self._take(report)
        while ahead and (waiting := min(ahead))[0] <= merger.reported(member):
            self._take(ahead.pop(waiting))

    def _take(self, report: Report) -> None:
        member, merger = report.sender, self.merger
        count = len(report.hash) + report.k * len(report.cluster)
        if report.watermark_ns == NEVER and report.k == 0 and report.position < merger.reported(member):
            merger.add_detail(member, report.position, report.hash, report.time_ns)
            self._new = True
            return
        if merger.pending(member) + count > limits.MAX_PENDING:
            self.reports_refused += 1
            return
        if report.k:
            merger.add_clusters(member, report.position, report.k, report.cluster, report.first_ns, report.last_ns)
        elif len(report.hash):
            merger.add(member, report.position, report.hash, report.time_ns)
        if report.watermark_ns != NEVER:
            merger.watermark(member, report.watermark_ns, end=report.end)
        if report.end:
            self._ends.add(member)
        self._new = self._new or report.end or self.pending

    def own(self, now_ns: int, interval_ns: int, *, ended: bool) -> None:
        """Take in the local stream up to its head: when others have reported, and as often as they would."""
        fresh = self._stream.head - self.merger.reported(self._settings.me)
        if not self._new and fresh < FULL and now_ns - self._own_ns < interval_ns:
            return
        self._own_ns = now_ns
        me = self._settings.me
        watermark = self._stream.watermark_ns
        head = self._stream.head
        first = self.merger.reported(me)
        room = limits.MAX_PENDING - self.merger.pending(me)
        last = min(head, first + room)
        if last > first:
            hashes = np.array(self._stream.hashes(first, last), np.uint64)
            times = np.array(self._stream.times(first, last), np.int64)
            self.merger.add(me, first, hashes, times)
        if last < head:
            watermark = min(watermark, int(self._stream.times(last, last + 1)[0]) - 1)
        ended = ended and last == head
        self.merger.watermark(me, watermark, end=ended)
        if ended:
            self._ends.add(me)
        self._new = self._new or ended or self.pending  # else there is nothing that time could settle

    # -- what goes out ----------------------------------------------------------------------

    def decide(self, acked: int, logged: int = 0) -> list[Decision]:
        """Decisions that can be made now.

        `acked` is the lowest seq that some member has not acknowledged, `logged` how many decisions are kept for
        repair.
        """
        made: list[Decision] = []
        if self.ended or not self._new:
            return made
        self._new = False
        while self.seq - acked < limits.MAX_UNSTABLE and logged + len(made) < limits.MAX_LOG_DECISIONS:
            settled = self.merger.decide()
            if settled is None:
                break
            made.extend(self._decisions(settled))
            if len(made) >= ROUNDS_A_TICK:
                break
        else:
            self._new = True
            self.deciding_waits += 1
        self.unfinished = len(made) >= ROUNDS_A_TICK
        if self.unfinished:
            self._new = True
        elif self._ends.issuperset(self.members) and not any(self.merger.pending(m) for m in self.members):
            self.ended = True
            made.append(self._blank(ends=True))
        return made

    @property
    def pending(self) -> bool:
        """Whether packets wait to be decided."""
        return any(self.merger.pending(m) for m in self.members)

    def late_ns(self, interval_ns: int) -> int:
        """When the first of the members whose watermark is waited for has been silent for too long.

        One with packets reports every `interval_ns`; one that had none to report may be fast asleep.
        """
        if not self.pending:
            return FOREVER
        others = (m for m in self.members if m != self._settings.me and m not in self._ends)
        shortest = self._settings.timers.report
        return min((self._heard_ns[m] + (shortest if self._bare[m] else interval_ns) for m in others), default=FOREVER)

    def asks(self, now_ns: int, interval_ns: int) -> list[tuple[int, Fetch]]:
        """Requests to members that have been silent for too long: what their watermark is."""
        requests: list[tuple[int, Fetch]] = []
        if self.late_ns(interval_ns) > now_ns:
            return requests
        me, incarnation = self._settings.me, self._settings.incarnation
        for m in self.members:
            due = self._heard_ns[m] + (self._settings.timers.report if self._bare[m] else interval_ns)
            if m != me and m not in self._ends and due <= now_ns:
                self._heard_ns[m], self._bare[m] = now_ns, True
                requests.append((m, Fetch(me, incarnation, self.view, position=self.merger.reported(m))))
        return requests

    def wanted(self, now_ns: int) -> list[tuple[int, Fetch]]:
        """Requests for the packet hashes behind summaries that differ."""
        requests: list[tuple[int, Fetch]] = []
        wanted = self.merger.wanted()
        self._asked_ns = {key: at for key, at in self._asked_ns.items() if any(w[:2] == key for w in wanted)}
        for member, position, count in wanted:
            if now_ns - self._asked_ns.get((member, position), NEVER // 2) < self._settings.timers.resend:
                continue
            self._asked_ns[member, position] = now_ns
            fetch = Fetch(self._settings.me, self._settings.incarnation, self.view, position=position, count=count)
            requests.append((member, fetch))
        return requests

    def _blank(self, *, ends: bool = False) -> Decision:
        merger = self.merger
        decision = Decision(
            self._settings.me,
            self._settings.incarnation,
            self.view,
            number=self.number,
            first_seq=self.seq,
            members=self._mask,
            ends=ends,
            ambiguous=merger.ambiguous,
            late=merger.late,
            rounds=merger.rounds,
            dirty_rounds=merger.dirty_rounds,
            desync_level=merger.desync_level,
            max_desync=merger.max_desync,
        )
        decision.offset_ns = {m: merger.offset_ns(m) + self.shift_ns for m in self.members}
        decision.tolerance_ns = {m: merger.tolerance_ns(m) for m in self.members}
        self.number += 1
        return decision

    def _decisions(self, settled: Settled) -> list[Decision]:
        """One settled block as decisions of at most MAX_DECISION_PACKETS."""
        made = []
        count = len(settled.hash)
        columns = [(self.merger.members.index(m), m) for m in self.members]
        bits = [settled.holders >> np.uint32(column) & np.uint32(1) for column, _ in columns]
        holders = np.zeros(count, np.uint32)
        for bit, (_, member) in zip(bits, columns, strict=True):
            holders |= bit << np.uint32(member)
        taken = dict.fromkeys(self.members, 0)
        for first in range(0, max(count, 1), limits.MAX_DECISION_PACKETS):
            part = slice(first, min(first + limits.MAX_DECISION_PACKETS, count))
            decision = self._blank()
            decision.time_us = settled.time_us[part]
            decision.holders = holders[part]
            decision.flags = settled.flags[part]
            decision.hash = settled.hash[part][decision.holders != self._mask]
            for bit, (column, member) in zip(bits, columns, strict=True):
                begin, taken[member] = taken[member], taken[member] + int(bit[part].sum())
                decision.places[member] = settled.positions[column][begin : taken[member]]
            decision.cut_ns = settled.cut_ns + self.shift_ns
            if first == 0:
                decision.skipped = {m: p for m, p in settled.skipped.items() if len(p)}
            self.seq += len(decision.time_us)
            made.append(decision)
        return made

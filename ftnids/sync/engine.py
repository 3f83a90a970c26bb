"""One replica's protocol engine: events in, actions out.

Theory of operation.  The surroundings tell the engine what arrives (`receive`), what they did
(`stored`, `fed`), and that time has passed (`tick`); the local capture stream is read through
`Stream`.  The engine answers with `actions()`.  It knows no sockets, threads, files or clocks: the
caller passes the time, int64 ns on the replica's capture clock, which does not step.

    no view   Membership finds the peers; the first replica up founds the lineage
    in a view Member keeps the agreed stream; Reporter reports to the coordinator;
              where this replica coordinates, Coordinator merges and decides instead;
              Watch judges the others, Views changes the view when one goes or comes
    leaving   what was captured is decided and stable everywhere; then this replica takes its leave

Every message names its view; one of another view changes nothing, and neither does one of this view
once a newer one is promised.  Assertions stay on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ftnids.sync.actions import Action, Change, End, Note, Rejoin, Send, Start
from ftnids.sync.coordinator import NEVER, Coordinator
from ftnids.sync.member import Member
from ftnids.sync.membership import FOREVER, Membership, State
from ftnids.sync.messages import (
    I64,
    U64,
    Ack,
    Bytes,
    Decision,
    Fetch,
    Heartbeat,
    History,
    Install,
    Join,
    Leave,
    Message,
    Nack,
    Promise,
    Propose,
    Report,
    View,
)
from ftnids.sync.pace import interval_ns
from ftnids.sync.reporter import Reporter
from ftnids.sync.settings import MS, Settings, Stream
from ftnids.sync.views import Views
from ftnids.sync.watch import SETTINGS, Watch

IDLE_ACKS: Final = 2  # heartbeats after which an idle member acknowledges again what it did, in case that was lost
WITHIN_A_VIEW: Final = Ack, Bytes, Decision, Fetch, Nack, Report  # they say nothing of who is in it
LIMITS: Final = {  # by counter: what happens, and what an operator may change
    "reports_refused": ("reports wait: the coordinator holds all the undecided packets it may", "sync.failure_ms"),
    "reports_dropped": ("reports that came early found no room; they are sent again", "sync.report_ms"),
    "reporting_waits": ("reports wait: too much is reported and not decided", "sync.failure_ms"),
    "deciding_waits": ("decisions wait: too much is decided and not acknowledged", "ring.slots, ring.arena_mb"),
    "early_dropped": ("packets that overtook their decision found no room; they are asked for", "ring.recovered_mb"),
    "ahead_dropped": ("decisions that overtook others found no room; they are asked for", "sync.report_ms"),
}


class Engine:
    """The protocol of one replica."""

    def __init__(self, settings: Settings, stream: Stream, now_ns: int) -> None:
        self.settings = settings
        self._stream = stream
        self.membership = Membership(settings, stream)
        self.view = View()
        self.members: tuple[int, ...] = ()
        self.member: Member | None = None
        self.reporter: Reporter | None = None
        self.coordinator: Coordinator | None = None
        self.views: Views | None = None
        self.watch: Watch | None = None
        self.stale = 0  # messages of another view, or of this one after a newer one was promised
        self.gone = False  # this replica has left the view, as `leave` asked
        self._counts = dict.fromkeys(LIMITS, 0)  # of views and roles that are over
        self._said: set[str] = set()  # counters whose limit was reported
        self.quiet = False  # nothing is captured, and `tick` is called when something is
        self._fill, self._load = 0.0, 0
        self._leaving = False
        self._drained: int | None = None  # when this is stable everywhere, so is all that was captured here
        self._left_ns: int | None = None
        self._install: Install | None = None
        self._confirmed: set[int] = set()  # members heard in the view since INSTALL
        self._ended = False  # the local capture stream
        self._beat_ns = -(1 << 62)
        self._beats = 0
        self._asked_ns = -(1 << 62)
        self._looked_ns = -(1 << 62)
        self._ticked_ns = now_ns
        self._out: list[Action] = []

    @property
    def state(self) -> State:
        """What this replica is doing."""
        return self.membership.state

    # -- events ----------------------------------------------------------------------------------

    def receive(self, message: Message, now_ns: int) -> None:
        """A message has arrived."""
        if message.sender not in self.membership.peers or not self.membership.heard(message, now_ns):
            self.stale += 1
            return
        if isinstance(message, WITHIN_A_VIEW):
            self._heard_in_view(message, now_ns)
            return
        self._looked_ns = -(1 << 62)
        match message:
            case Heartbeat():
                self.membership.heartbeat(message, now_ns)
                if self.reporter and message.sender == self.view.coordinator:
                    due = self._next_beat_ns() - self.settings.timers.heartbeat // 2
                    self._beat_ns = -(1 << 62) if now_ns >= due else self._beat_ns  # both in one turn
            case Join():
                self.membership.joined(message, now_ns)
            case History():
                self.membership.history(message, now_ns)
            case Install():
                self._installed(message, now_ns)
            case Leave():
                if self.watch:
                    self.watch.leave(message)
            case Propose() if self.views:
                self.views.proposed(message, now_ns)
            case Promise() if self.views:
                self.views.promise(message, now_ns)
            case _:
                self.stale += 1

    def _heard_in_view(self, message: Message, now_ns: int) -> None:
        if self.member is None or message.view != self.view:
            self.stale += 1
            return
        self._confirmed.add(message.sender)
        if self.member.frozen:
            self.stale += 1
        else:
            self._in_view(message, self.member, now_ns)

    def _in_view(self, message: Message, member: Member, now_ns: int) -> None:
        match message:
            case Ack():
                member.acknowledged(message)
                if self.reporter and message.sender == self.view.coordinator:
                    self.reporter.acknowledged(message.reported.get(self.settings.me, 0), now_ns)
            case Decision() if message.sender == self.view.coordinator:
                member.decided(message, now_ns)
                if self.reporter and len(message.time_us):
                    dirty = int((message.holders != message.members).sum())
                    self.reporter.rate.decided(len(message.time_us), dirty)
            case Bytes():
                member.offered(message)
            case Report() if self.coordinator:
                self.coordinator.report(message, now_ns)
            case Nack() if self.coordinator:
                asked = (d for d in member.log_from(message.first) if d.number < message.last)
                self._out.extend(Send(message.sender, decision) for decision in asked)
            case Fetch() if len(message.seq):
                member.fetch(message)
            case Fetch() if self.reporter and message.count == 0:
                self.reporter.asked = True
            case Fetch() if self.reporter:
                detail = self.reporter.detail(self.view, message.position, message.count, now_ns)
                if detail is not None:
                    self._out.append(Send(message.sender, detail))
            case _:
                self.stale += 1

    def stored(self, seq: I64, hashes: U64, refs: I64, now_ns: int) -> None:
        """The packets of a `Store` action are in the ring; `refs` below 0 are not (int64, same shape as `seq`)."""
        if self.member is not None:
            self.member.stored(seq, hashes, refs, now_ns)

    def fed(self, seq: int) -> None:
        """The local feed has passed everything below `seq`; the agreed index may reuse those places."""
        if self.member is not None:
            self.member.fed = max(self.member.fed, seq)

    def filled(self, share: float) -> None:
        """The local ring of captured packets is full to `share`, from 0 to 1."""
        self._fill = share

    def loaded(self, share: float) -> None:
        """The caller's loop is busy for `share` of its time, from 0 to 1."""
        self._load = min(1000, int(1000 * share))

    @property
    def waits(self) -> bool:
        """Whether somebody waits for the local watermark."""
        if self.reporter:
            return self.reporter.asked
        return self.coordinator is not None and self.coordinator.pending

    def leave(self) -> None:
        """The local stream has ended, the others' go on: leave the view in order; `gone` says when that is done."""
        assert self._ended, "a replica that still captures cannot leave in order"
        self._leaving = True

    def ending(self) -> bool:
        """Whether another member's stream has ended, too, so that the set may be ending as a whole."""
        return any(self.membership.peers[m].watermark_ns == FOREVER for m in self.members if m != self.settings.me)

    def counters(self) -> dict[str, int]:
        """What the protocol counts, by name; the names of `LIMITS` count what found a limit reached."""
        counts = dict(self._counts)
        for name in counts:
            for part in (self.coordinator, self.reporter, self.member):
                counts[name] += getattr(part, name, 0)
        return {"stale": self.stale, **counts}

    def all_stable(self) -> bool:
        """Whether every member is known to call the whole ended stream stable."""
        member = self.member
        return member is not None and member.ends_at is not None and min(member.peer_stable.values()) >= member.ends_at

    def end_of_stream(self) -> None:
        """The local capture stream ends at its head."""
        self._ended = self.membership.ended = True
        if self.reporter:
            self.reporter.end()

    # -- time ------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        """Do everything that is due."""
        if self.state is State.FAILED:
            return
        if now_ns - self._ticked_ns > self.settings.timers.failure // 3:
            self.membership.woke(now_ns)  # what the others said meanwhile is still to be read
            if self.watch is not None:
                self.watch.woke()
        self._ticked_ns = now_ns
        beating = now_ns >= self._next_beat_ns()
        if beating:
            self._beats += 1
            self._beat_ns = now_ns
            self._beat(now_ns)
        if self.member is None:
            install = self.membership.tick(now_ns)
            if install is not None:
                self._enter(install, now_ns)
        if self.member is not None:
            self._run(self.member, beating, now_ns)

    def _beat(self, now_ns: int) -> None:
        settings = self.settings
        said = Heartbeat(settings.me, settings.incarnation, self.view, members=sum(1 << m for m in self.members))
        said.fill, said.load, said.speaks = min(1000, int(1000 * self._fill)), self._load, settings.protocol
        if self.watch is not None and self.views is not None:
            self.watch.fill, before = self._fill, self.watch.late
            self.watch.look(now_ns)
            if settings.me in self.watch.late and settings.me not in before:
                reason = self.watch.late[settings.me]
                self._out.append(Note("warning", "cannot_keep_up", {"reason": reason, "setting": SETTINGS[reason]}))
            said.hears, said.promised = self.watch.hears(now_ns), self.views.promised.number
            said.late, said.pinned = sum(1 << m for m in self.watch.late), self.watch.pinned()
        else:
            said.hears = sum(1 << m for m in self.membership.alive(now_ns)) | 1 << settings.me
        self.membership.beat(said, now_ns)
        for name, count in self.counters().items():
            if count and name in LIMITS and name not in self._said:
                self._said.add(name)
                what, setting = LIMITS[name]
                self._out.append(Note("warning", "limit_reached", {"counter": name, "what": what, "setting": setting}))

    def _run(self, member: Member, beating: bool, now_ns: int) -> None:
        reported: dict[int, int] = {}
        if member.frozen:
            pass
        elif self.coordinator:
            self.coordinator.own(now_ns, self._interval_ns(), ended=self._ended)
            self._decide(self.coordinator, member, now_ns)
            reported = self.coordinator.reported()
        elif self.reporter and not (self.quiet and self.reporter.silent()):
            for report in self.reporter.reports(self.view, now_ns, self._interval_ns(), member.consumed.base):
                self._out.append(Send(self.view.coordinator, report))
        member.advance(now_ns)
        member.ack(reported, now_ns, again=beating and (self._beats % IDLE_ACKS == 0 or not self._idle(member)))
        self._out.extend(member.out)
        member.out.clear()
        if member.ends_at is not None and member.stable >= member.ends_at and self.state is State.RUNNING:
            self.membership.state = State.ENDED
            self._out.append(End(member.ends_at))
        self._confirm(now_ns)
        if self._leaving:
            self._depart(member, beating, now_ns)
        elif self.state is State.RUNNING:
            self._watch(now_ns)

    def _depart(self, member: Member, beating: bool, now_ns: int) -> None:
        """Take leave when nothing that was captured here can be lost; stay until the others have gone on."""
        settings = self.settings
        if self._left_ns is None:
            self._watch(now_ns)
            if self._drained is None and member.consumed.base == self._stream.head:
                self._drained = member.window.end
            if self._drained is None or min(member.peer_stable.values()) < self._drained or member.frozen:
                return
            self._left_ns, member.frozen, beating = now_ns, True, True
        others = [m for m in self.members if m != settings.me]
        if beating:
            for m in others:
                self._out.append(Send(m, Leave(settings.me, settings.incarnation, self.view, "stopped")))
        alive = [m for m in self.membership.alive(now_ns) if m in others]
        without = all(not self.membership.peers[m].members >> settings.me & 1 for m in alive)
        self.gone = without or now_ns - self._left_ns > settings.timers.failure

    def _decide(self, coordinator: Coordinator, member: Member, now_ns: int) -> None:
        acked = min(member.peer_acked.values())
        for decision in coordinator.decide(acked, len(member.log)):
            member.decided(decision, now_ns)
            for other in self.members:
                if other != self.settings.me:
                    self._out.append(Send(other, decision))
        for other, fetch in [*coordinator.wanted(now_ns), *coordinator.asks(now_ns, self._interval_ns())]:
            self._out.append(Send(other, fetch))

    def deadline_ns(self) -> int:
        """When `tick` wants to be called next, at the latest."""
        beat = self._next_beat_ns()
        if self.member is None or self.member.frozen:
            return min(beat, self._ticked_ns + 10 * MS)
        if self._idle(self.member):
            return beat
        interval = self._interval_ns()
        if self.reporter:
            silent = self.quiet and self.reporter.silent()
            return min(beat, (self._ticked_ns if silent else self.reporter.last_ns) + interval)
        assert self.coordinator
        if self.coordinator.unfinished:
            return self._ticked_ns
        return min(beat, self._ticked_ns + interval, self.coordinator.late_ns(interval))

    def _next_beat_ns(self) -> int:
        idle = self.member is not None and not self.member.frozen and self._idle(self.member)
        return self._beat_ns + self.settings.timers.heartbeat * (2 if idle else 1)

    def _idle(self, member: Member) -> bool:
        """Whether nothing is under way; heartbeats go on, more slowly."""
        if not self.quiet or self._ended or member.stable < member.window.end:
            return False
        if self.reporter:
            return self.reporter.silent()
        assert self.coordinator
        return not self.coordinator.pending and self.coordinator.merger.reported(self.settings.me) == self._stream.head

    def _interval_ns(self) -> int:
        """The time between reports: to the coordinator, or of those who report here."""
        peers = self.membership.peers
        others = [self.view.coordinator] if self.reporter else [m for m in self.members if m != self.settings.me]
        trip = max((peers[m].trip_ns for m in others), default=0)
        return interval_ns(self.settings.timers, trip, max([self._load, *(peers[m].load for m in others)]))

    @property
    def moved(self) -> bool:
        """Whether actions that were carried out since `tick` let it do more at once."""
        return self.member is not None and self.member.moved

    def actions(self) -> list[Action]:
        """What is to be done, in order; the list is the caller's."""
        out = self.membership.out + self._out
        self.membership.out, self._out = [], []
        return out

    # -- the view ----------------------------------------------------------------------------------

    def _installed(self, message: Install, now_ns: int) -> None:
        """A view to be in: the first one, or the one that this replica promised."""
        if message.incarnations.get(self.settings.me) != self.settings.incarnation:
            return  # without this replica, or meant for the process before it
        if self.member is None:
            if self._captured_since(message):
                self._enter(message, now_ns)
        elif self.views and self.view != message.installed == self.views.promised and self._left_ns is None:
            assert message.number == self.member.number, "INSTALL before the promise was complete"
            self._change(message, {}, now_ns)
        elif self.views and message.installed.number > self.view.number and self.settings.me not in message.start:
            self._rejoin("the set let this replica in anew while it still entered an older view")

    def _captured_since(self, install: Install) -> bool:
        """Whether all that was captured before the view begins is here; else INSTALL comes again.

        A capture that sticks would bring packets later that were decided before this replica came.
        """
        me = self.settings.me
        return me in install.start or self._stream.watermark_ns > install.cut_ns - install.offset_ns[me]

    def _enter(self, install: Install, now_ns: int) -> None:
        """The first view of this process."""
        me = self.settings.me
        self._name(install)
        start = install.start.get(me)
        if start is None:  # a running view: this stream starts behind what is decided
            start = self.membership.position(install.cut_ns - install.offset_ns[me])
        member = Member(self.settings, self.view, self.members, start, install.first_seq, install.number)
        member.cut_ns, member.time_us = install.cut_ns, install.time_us
        member.offset_ns, member.tolerance_ns = dict(install.offset_ns), dict(install.tolerance_ns)
        member.stream = self._stream
        member.recall(install.hash, install.decided_us, install.holders)
        self.member = member
        self.watch = Watch(self.settings, self.membership, member, self._stream)
        self.views = Views(self.settings, self.membership, member, self.watch)
        self.views.entered(self.members, now_ns)
        self._serve(install, start)
        self._out.append(Start(self.view, self.members, start, install.first_seq, install.protocol))

    def _change(self, install: Install, holes: dict[int, I64], now_ns: int) -> None:
        """The next view of the lineage."""
        assert self.member is not None
        assert self.views is not None
        assert self.watch is not None
        leads = self.coordinator is not None and install.installed.coordinator == self.settings.me
        self._name(install)
        self.member.enter(self.view, self.members, install.void)
        if self.coordinator is not None and leads:
            self.coordinator.change(install, self.members)
            self._install, self._confirmed = install, set()
        else:
            self._serve(install, self.member.consumed.base)
            if self.coordinator is not None:
                self.coordinator.resume(install, self.member, holes)
        self.views.entered(self.members, now_ns)
        self._out.append(Change(self.view, self.members, install.first_seq, self.watch.left(), install.protocol))

    def _name(self, install: Install) -> None:
        self.view = install.installed
        self.members = tuple(m for m in range(self.settings.members) if install.members >> m & 1)
        self.membership.enter(self.view, self.members, install.incarnations, install.protocol)

    def _serve(self, install: Install, start: int) -> None:
        """Become the view's coordinator, or one who reports to it."""
        for name in LIMITS:
            self._counts[name] += getattr(self.coordinator, name, 0) + getattr(self.reporter, name, 0)
        self.coordinator = self.reporter = None
        if self.view.coordinator == self.settings.me:
            self._install, self._confirmed = install, set()
            begin = {m: install.start.get(m, 0) for m in self.members}
            begin[self.settings.me] = start
            floor_us = self.member.time_us if self.member else NEVER
            self.coordinator = Coordinator(
                self.settings, self._stream, self.view, self.members, begin, install.first_seq, install.number, floor_us
            )
            for m in self.members:
                if m in install.offset_ns:
                    offset, tolerance = install.offset_ns[m], install.tolerance_ns[m]
                    self.coordinator.merger.set_offset(m, offset, tolerance, install.cut_ns)
        else:
            self.reporter = Reporter(self.settings, self._stream, start)
            if self._ended:
                self.reporter.end()

    def _confirm(self, now_ns: int) -> None:
        """Send INSTALL until every member is heard in the view."""
        if self._install is None or now_ns - self._asked_ns < self.settings.timers.ask // 2:
            return
        self._asked_ns = now_ns
        waiting = [m for m in self.members if m != self.settings.me and m not in self._confirmed]
        known = replace(self._install, hash=self._install.hash[:0], decided_us=self._install.decided_us[:0])
        known.holders = known.holders[:0]  # those who stay remember what was decided
        for member in waiting:
            self._out.append(Send(member, known if member in known.start else self._install))
        if not waiting:
            self._install = None

    def _rejoin(self, reason: str) -> None:
        self.membership.state = State.FAILED
        self._out.append(Note("warning", "left_behind", {"reason": reason}))
        self._out.append(Rejoin(reason))

    def _watch(self, now_ns: int) -> None:
        """Change the view where a member goes or comes; rejoin where the others have gone on.

        That can be told from what the others say of themselves and of views, and from the time that has passed.
        """
        if now_ns - self._looked_ns < self.settings.timers.look:
            return
        self._looked_ns = now_ns
        views, watch = self.views, self.watch
        assert views is not None
        assert watch is not None
        reason = views.overtaken(now_ns)
        if reason and self._leaving:
            self.gone = True
            return
        if reason:
            self._rejoin(reason)
            return
        joining = self.membership.joining.items()
        views.joiners = {m: join for m, join in joining if watch.fits(m, join.incarnation, now_ns)}
        install = views.tick(now_ns)
        if install is not None:
            self._change(install, views.holes(), now_ns)
        self._out.extend(views.out)
        views.out.clear()

"""How replicas find each other and form the first view.

Theory of operation.  Every replica says a HEARTBEAT to every configured member.  Of those that
hear each other the one that started first (the lowest incarnation) founds the lineage:

    SEEKING --(I am the first, and all came or the wait is over)--> FOUNDING --(all ready)--> RUNNING
       |                                                                                        ^
       +--(JOIN to the first)--> HISTORY --(found in my own stream)--> JOIN ready --> INSTALL --+

HISTORY carries the founder's last packets.  A joiner, capturing since before it connected, looks
for them in its own stream; l common packets give the offset between the two clocks, and the
offset gives the position where its stream meets the view's start.  On a quiet link, after a
timeout, the offset measured from heartbeats serves, with a wide tolerance.

All messages are resent until they are answered; each may be lost.

A heartbeat also says how its sender fares, all by the sender's own clock: how far its capture watermark lags behind
its `now`, how full its ring is, and, by what it echoes, whether it hears this replica.  `ftnids.sync.watch` judges.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from ftnids import limits
from ftnids.sync.actions import Action, Fail, Note, Send
from ftnids.sync.messages import I64, U64, Heartbeat, History, Install, Join, Message, View
from ftnids.sync.pace import slow_trip_ns
from ftnids.sync.settings import MS, Settings, Stream

HISTORY_SENT: Final = 4_096  # packets of the founder's stream in HISTORY
FOREVER: Final = int(np.iinfo(np.int64).max)  # the watermark of a stream that has ended


class State(enum.IntEnum):
    """What a replica is doing, as HEARTBEAT says it."""

    SEEKING = 0
    FOUNDING = 1
    RUNNING = 2
    ENDED = 3
    FAILED = 4


@dataclass(slots=True)
class Peer:
    """What was heard of another member."""

    incarnation: int = 0
    state: State = State.SEEKING
    view: View = field(default_factory=View)
    members: int = 0  # bit mask of its view
    hears: int = 0  # bit mask of those that it hears
    late: int = 0  # bit mask of those that cannot keep up, in its eyes
    promised: int = 0  # highest view number that it promised
    fill: int = 0  # of 1000: its ring
    pinned: int = 0  # of 1000: what of it waits for other members
    load: int = 0  # of 1000: how much of its time it is busy
    speaks: int = 1  # the newest protocol version
    watermark_ns: int = -FOREVER  # its capture's, on its own clock
    moved_ns: int = 0  # when that was last seen to move
    lag_ns: int = 0  # of that behind its own clock
    lags_since_ns: int | None = None  # since when that is too much
    hears_me_ns: int = -FOREVER  # when this replica said the last that the peer is known to have heard
    heard_ns: int = 0
    sent_ns: int = 0  # its clock when it sent its last heartbeat ...
    came_ns: int = 0  # ... and mine when that came
    round_trip_ns: int = limits.MAX_TOLERANCE_NS  # of a fast message and its answer, less the time it was held
    trip_ns: int = 0  # the same, of slow ones
    offset_ns: int = 0  # add to my capture clock for this peer's
    joined: bool = False
    ready: Join | None = None


def match_history(theirs: U64, their_ns: I64, mine: U64, my_ns: I64, least: int) -> tuple[int, int] | None:
    """Find one stream's packets in another by hashes that are unique in both.

    Args: hashes (uint64) and capture times (int64 ns) of the two stretches; `least` common packets are needed.
    Returns: (offset, tolerance) in ns, offset to be added to my clock for theirs, or None.
    """
    found = []
    for hashes, times in ((theirs, their_ns), (mine, my_ns)):
        values, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        found.append((values[counts == 1], times[first[counts == 1]]))
    _, a, b = np.intersect1d(found[0][0], found[1][0], assume_unique=True, return_indices=True)
    if len(a) < least:
        return None
    differences = found[0][1][a] - found[1][1][b]
    offset = int(np.median(differences))
    residual = np.sort(np.abs(differences - offset))
    widest = int(residual[int(0.9 * (len(residual) - 1))])  # a tenth may be repeats that only look unique
    return offset, 2 * widest + 10 * limits.TOLERANCE_FLOOR_NS


class Membership:
    """Peers, heartbeats, and the way into the first view."""

    def __init__(self, settings: Settings, stream: Stream) -> None:
        self._settings = settings
        self._stream = stream
        self._born_ns: int | None = None  # of the first tick: an IDS may take longer to load than others are waited for
        self.state = State.SEEKING
        self.peers = {m: Peer() for m in range(settings.members) if m != settings.me}
        self.out: list[Action] = []
        self._asked_ns = -(1 << 62)
        self._history: History | None = None
        self._history_ns = 0
        self._answer: Join | None = None
        self._answer_from = -1
        self._refused: set[int] = set()
        self.ended = False  # the local capture stream
        self.members: dict[int, int] = {}  # incarnation by member of the view, once there is one
        self.protocol = 0  # the view's; 0 before there is one
        self.leads = False  # this replica coordinates the view
        self.joining: dict[int, Join] = {}  # ready to come into the running view

    # -- heartbeats -----------------------------------------------------------------------

    def heard(self, message: Message, now_ns: int) -> bool:
        """Note that a member lives; False when the message is from an incarnation that is gone."""
        peer = self.peers[message.sender]
        if message.incarnation < peer.incarnation:
            return False
        if message.incarnation > peer.incarnation:
            self.peers[message.sender] = peer = Peer(incarnation=message.incarnation, moved_ns=now_ns)
        peer.heard_ns = now_ns
        return True

    def heartbeat(self, message: Heartbeat, now_ns: int) -> None:
        """Take in state and view, and measure the clocks' offset from the round trip."""
        peer = self.peers[message.sender]
        peer.view, peer.members, peer.hears = message.view, message.members, message.hears
        peer.promised, peer.late = message.promised, message.late
        peer.fill, peer.pinned, peer.load, peer.speaks = message.fill, message.pinned, message.load, message.speaks
        self._capture(peer, message, now_ns)
        if message.state in State._value2member_map_:
            peer.state = State(message.state)
        peer.sent_ns, peer.came_ns = message.sent_ns, now_ns
        if message.echo_ns:
            peer.hears_me_ns = max(peer.hears_me_ns, message.echo_ns)
            trip = now_ns - message.echo_ns - message.held_ns
            peer.trip_ns = slow_trip_ns(peer.trip_ns, min(max(trip, 0), self._settings.timers.delay))
            if 0 <= trip <= peer.round_trip_ns + peer.round_trip_ns // 8:
                received_there = message.sent_ns - message.held_ns
                peer.round_trip_ns = trip
                peer.offset_ns = (received_there - message.echo_ns + message.sent_ns - now_ns) // 2

    def _capture(self, peer: Peer, message: Heartbeat, now_ns: int) -> None:
        """Take in how far the peer's capture has come."""
        if message.watermark_ns > peer.watermark_ns:
            peer.watermark_ns, peer.moved_ns = message.watermark_ns, now_ns
        peer.lag_ns = message.sent_ns - message.watermark_ns
        if peer.lag_ns <= self._settings.timers.failure:
            peer.lags_since_ns = None
        elif peer.lags_since_ns is None:
            peer.lags_since_ns = now_ns

    @property
    def watermark_ns(self) -> int:
        """The local capture's watermark, as heartbeats say it."""
        return FOREVER if self.ended else self._stream.watermark_ns

    def beat(self, said: Heartbeat, now_ns: int) -> None:
        """Say HEARTBEAT to all: `said`, with what this replica knows of its capture and of each peer's clock."""
        watermark = self.watermark_ns
        for member, peer in self.peers.items():
            beat = replace(said, state=int(self.state), watermark_ns=watermark, sent_ns=now_ns)
            beat.echo_ns = peer.sent_ns
            beat.held_ns = max(now_ns - peer.came_ns, 0) if peer.sent_ns else 0
            self.out.append(Send(member, beat))

    def woke(self, now_ns: int) -> None:
        """This replica did nothing for a while: nobody is suspected of what it could not hear."""
        for peer in self.peers.values():
            if peer.incarnation:
                peer.heard_ns = peer.moved_ns = now_ns
                peer.hears_me_ns = max(peer.hears_me_ns, now_ns)

    def mutual(self, member: int, now_ns: int) -> bool:
        """Whether `member` is heard, and is known to hear this replica, both within the failure timeout."""
        peer, failure = self.peers[member], self._settings.timers.failure
        return peer.incarnation > 0 and now_ns - min(peer.heard_ns, peer.hears_me_ns) < failure

    def alive(self, now_ns: int) -> list[int]:
        """The other members heard within the failure timeout."""
        return [
            m for m, p in self.peers.items() if p.incarnation and now_ns - p.heard_ns < self._settings.timers.failure
        ]

    def spoken(self, members: Iterable[int]) -> int:
        """The protocol version of a view with `members`: the newest one that all of them and this replica speak."""
        return min([self._settings.protocol, *(self.peers[m].speaks for m in members if m in self.peers)])

    def enter(self, view: View, members: tuple[int, ...], incarnations: dict[int, int], protocol: int) -> None:
        """A view is there that speaks `protocol`, with `members`, each as the process that `incarnations` names."""
        if self.state is not State.ENDED:
            self.state = State.RUNNING
        self.protocol, newest = protocol, self._settings.protocol
        older = [m for m in members if m in self.peers and self.peers[m].speaks < newest]
        if protocol < newest and older:
            facts = {"members": older, "protocol": protocol, "newest": newest, "hint": "upgrade these members, too"}
            self.out.append(Note("info", "older_protocol", facts))
        self.leads = view.coordinator == self._settings.me
        self.members = {m: incarnations.get(m, p.incarnation) for m, p in self.peers.items() if m in members}
        self.joining = {m: j for m, j in self.joining.items() if m not in self.members}

    # -- founding -----------------------------------------------------------------------------

    def tick(self, now_ns: int) -> Install | None:
        """Do what is due while there is no view; an INSTALL when this replica founds one."""
        if self._born_ns is None:
            self._born_ns = now_ns
        alive = self.alive(now_ns)
        views = [self.peers[m] for m in alive if self.peers[m].view.number]
        if views:
            if self.state is State.FOUNDING:  # never found a lineage while a member of one is heard
                self.state, self._history = State.SEEKING, None
            within = [p for p in views if self._reaches(p.view.coordinator, now_ns)] or views
            best = min(within, key=lambda p: (p.view.lineage, -p.members.bit_count(), p.members & -p.members))
            self._ask(best.view.coordinator, now_ns)
            return None
        first = min([(self.peers[m].incarnation, m) for m in alive] + [(self._settings.incarnation, self._settings.me)])
        if first[1] == self._settings.me:
            return self._found(alive, now_ns)
        if self.state is State.FOUNDING:  # an earlier one has come up
            self.state, self._history = State.SEEKING, None
        self._ask(first[1], now_ns)
        return None

    def _reaches(self, member: int, now_ns: int) -> bool:
        return member in self.peers and self.mutual(member, now_ns)

    def _ask(self, member: int, now_ns: int) -> None:
        """Say JOIN to the one who leads, again and again."""
        if member != self._settings.me and now_ns - self._asked_ns >= self._settings.timers.ask:
            self._asked_ns = now_ns
            ready = self._answer if self._answer_from == member else None
            self.out.append(Send(member, ready or self._join()))

    def _join(self) -> Join:
        settings = self._settings
        join = Join(settings.me, settings.incarnation, View(), digest=settings.digest, config=settings.config)
        join.software = settings.software
        return join

    def _found(self, alive: list[int], now_ns: int) -> Install | None:
        settings = self._settings
        joined = [m for m in alive if self.peers[m].joined]
        if self._history is None:
            assert self._born_ns is not None
            waited = now_ns - self._born_ns >= settings.timers.join
            if len(joined) < settings.members - 1 and (settings.wait_for_all or not waited):
                return None
            self.state = State.FOUNDING
            self._history, self._history_ns = self._make_history(now_ns), now_ns
        ready = [m for m in joined if self.peers[m].ready is not None]
        patience = settings.timers.match + 2 * settings.timers.join
        if len(ready) == len(joined) or now_ns - self._history_ns > patience:
            return self._install(ready)
        if now_ns - self._asked_ns >= settings.timers.ask:
            self._asked_ns = now_ns
            for member in joined:
                if self.peers[member].ready is None:
                    self.out.append(Send(member, self._history))
        return None

    def _make_history(self, now_ns: int) -> History:
        settings, stream = self._settings, self._stream
        history = History(settings.me, settings.incarnation, View(), cut_ns=now_ns, digest=settings.digest)
        head = stream.head
        first = max(stream.tail, head - HISTORY_SENT)
        if head > first and not settings.from_start:
            history.hash = np.array(stream.hashes(first, head), np.uint64)
            history.time_ns = np.array(stream.times(first, head), np.int64)
            history.position = first
            history.cut_ns = int(history.time_ns[-1])
        return history

    def _install(self, ready: list[int]) -> Install:
        settings = self._settings
        assert self._history is not None
        view = View(settings.incarnation, 1, settings.me, settings.incarnation)
        install = Install(settings.me, settings.incarnation, view, view)
        install.members, install.protocol = 1 << settings.me | sum(1 << m for m in ready), self.spoken(ready)
        install.start[settings.me] = self.position(self._history.cut_ns)
        install.incarnations = {m: self.peers[m].incarnation for m in ready} | {settings.me: settings.incarnation}
        if not settings.from_start:
            install.cut_ns = self._history.cut_ns
        for member in ready:
            answer = self.peers[member].ready
            assert answer is not None
            install.start[member] = answer.position
            if not settings.from_start:
                install.offset_ns[member] = answer.offset_ns
                install.tolerance_ns[member] = answer.tolerance_ns
        absent = [m for m in self.peers if m not in ready]
        if absent:
            self.out.append(
                Note("warning", "started_without", {"members": absent, "setting": "cluster.join_timeout_s"})
            )
        return install

    def position(self, cut_ns: int) -> int:
        """The position of the first local packet captured after `cut_ns`; 0 when every stream starts there."""
        if self._settings.from_start:
            return 0
        tail, head = self._stream.tail, self._stream.head
        return tail + int(np.searchsorted(self._stream.times(tail, head), cut_ns, side="right"))

    # -- joining ---------------------------------------------------------------------------------

    def joined(self, message: Join, now_ns: int) -> None:
        """A replica asks to be a member, or says that it is ready."""
        peer = self.peers[message.sender]
        if message.digest != self._settings.digest:
            self._refuse(message.sender, f"its settings differ from the cluster's: {self._differing(message.config)}")
        elif self.members.get(message.sender) == message.incarnation:
            pass  # a late one: INSTALL is on its way
        elif self.state is State.RUNNING and self.leads:
            self._let_in(message, now_ns)
        elif self.state in (State.RUNNING, State.ENDED):
            pass  # it will hear who leads
        elif message.ready and self._history is not None:
            if peer.ready is None:
                self._comes(message)
            peer.joined, peer.ready = True, message
        elif self._history is None:
            peer.joined = True

    def _let_in(self, message: Join, now_ns: int) -> None:
        """A replica wants into the running view: send it the last packets, until it is ready."""
        if self._settings.from_start:
            self._refuse(message.sender, "the set replays a file from its start (capture.from_start): restart them all")
        elif message.ready:
            if message.sender not in self.joining:
                self._comes(message)
            self.joining[message.sender] = message
        else:
            self.out.append(Send(message.sender, self._make_history(now_ns)))

    def _comes(self, message: Join) -> None:
        """Say who is let in."""
        facts = {"software": message.software or "not said", "speaks": self.peers[message.sender].speaks}
        self.out.append(Note("info", "member_joins", {"member": message.sender, **facts}))

    def _refuse(self, member: int, why: str) -> None:
        history = History(self._settings.me, self._settings.incarnation, View(), refused=why)
        self.out.append(Send(member, history))
        if member not in self._refused:
            self._refused.add(member)
            self.out.append(Note("warning", "join_refused", {"member": member, "reason": why}))

    def _differing(self, config: str) -> str:
        ours, theirs = set(self._settings.config.split("\n")), set(config.split("\n"))
        return f"the joiner has {', '.join(sorted(theirs - ours))}; the set has {', '.join(sorted(ours - theirs))}"

    def history(self, message: History, now_ns: int) -> None:
        """The founder's packets: find them here and answer, or learn that this replica is not wanted."""
        if self.state is not State.SEEKING:
            return
        if message.refused:
            self.out.append(Fail(f"member {message.sender} does not let this replica in: {message.refused}"))
            self.state = State.FAILED
            return
        if self._answer is None or self._answer_from != message.sender:
            found = self._match(message)
            if found is None:
                if not self._history_ns:
                    self._history_ns = now_ns
                if now_ns - self._history_ns < self._settings.timers.match:
                    return
                found = self._measured(message.sender)
            answer = self._join()
            answer.ready = True
            answer.offset_ns, answer.tolerance_ns = found
            answer.position = self.position(message.cut_ns - answer.offset_ns)
            self._answer, self._answer_from = answer, message.sender
        self.out.append(Send(message.sender, self._answer))

    def _match(self, message: History) -> tuple[int, int] | None:
        if self._settings.from_start:
            return 0, 0
        tail, head = self._stream.tail, self._stream.head
        first = max(tail, head - limits.MAX_WINDOW)
        return match_history(
            message.hash,
            message.time_ns,
            np.asarray(self._stream.hashes(first, head)),
            np.asarray(self._stream.times(first, head)),
            self._settings.l,
        )

    def _measured(self, member: int) -> tuple[int, int]:
        """Offset and a wide tolerance from the best round trip to `member`."""
        peer = self.peers[member]
        self.out.append(
            Note("info", "clock_from_round_trip", {"member": member, "round_trip_us": peer.round_trip_ns // 1000})
        )
        return peer.offset_ns, min(peer.round_trip_ns + MS, limits.MAX_TOLERANCE_NS)

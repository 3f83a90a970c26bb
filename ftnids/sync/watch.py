"""Who of a view's members cannot go on in it, and why.

Theory of operation.  Two questions are kept apart, because their answers travel as two bit masks of the heartbeat.

*Heard?*  A member is heard when it speaks within the failure timeout, in this view, as the process that entered
it, and has not taken its leave.

*Late?*  A member that is heard may still hold up the others, in one of four ways:

    capture   its watermark lags, so that nothing newer can be decided
    feed      its IDS lags by a whole ring, so that it can acknowledge nothing newer; it says so itself
    acks      it does not acknowledge, so that nothing newer becomes stable, and every ring fills
    ring      it does so slowly: what waits for it pins half of somebody's ring, or one of the decision limits is hit

Whoever is late leaves; it costs the set nothing that the others captured, and it may come back when it
keeps up.  But a set that is slow as a whole must not shed members one by one: a member is late only where another is
distinctly better off, and it alone makes the difference.

Clocks.  A capture's lag is told by its own clock within one heartbeat (`sent_ns - watermark_ns`), so neither clock
offsets nor an observer that stood still matter.  A file has stamps of another age; there a capture is late only when
it stands still with room in its ring while another, ahead of it, has filled its own and waits for the set.  A set
that replays files is otherwise as slow as its slowest member: files wait, they lose nothing.

The coordinator judges the members.  The members judge the coordinator, and change the view when all of those that are
left have said in their heartbeats that they do not hear it, or that it is late.
"""

from __future__ import annotations

from collections import deque

from ftnids import limits
from ftnids.sync.member import Member
from ftnids.sync.membership import FOREVER, Membership
from ftnids.sync.messages import Leave
from ftnids.sync.settings import Settings, Stream

CAPTURE = "its capture stands still"
ACKS = "it has acknowledged nothing for long"
FEED = "its IDS is behind by a whole ring"
RING = "what waits for it fills the others' rings"
SETTINGS = {  # what an operator may change, by reason
    CAPTURE: "sync.failure_ms",
    ACKS: "sync.failure_ms",
    FEED: "ring.slots, ring.arena_mb",
    RING: "ring.slots, ring.arena_mb",
}


class Watch:
    """Failure detection, as one member of a view sees it."""

    def __init__(self, settings: Settings, membership: Membership, member: Member, stream: Stream) -> None:
        self._settings = settings
        self._membership = membership
        self._member = member
        self._stream = stream
        self._left: set[tuple[int, int]] = set()  # members and incarnations that took their leave
        self._entered_ns = 0
        self._deaf: dict[tuple[int, int], int] = {}  # (a, b): since when a does not hear b
        self._full_since_ns: int | None = None
        self._acked: dict[int, tuple[int, int]] = {}  # how far each member has acknowledged, since when only so far
        self._looks: deque[tuple[int, int, int, int]] = deque()  # when; decided, acknowledged by somebody, by all
        self.late: dict[int, str] = {}  # members that cannot keep up, with the reason
        self.fill = 0.0  # share of the local ring that is in use

    def entered(self, now_ns: int) -> None:
        """A view begins: nothing that was seen before counts against anyone."""
        self._entered_ns = now_ns
        self._deaf, self._acked, self.late = {}, {}, {}
        self._looks.clear()

    def woke(self) -> None:
        """This replica did nothing for a while: what it saw before says nothing of the others."""
        self._deaf, self._acked, self._full_since_ns = {}, {}, None
        self._looks.clear()

    def leave(self, message: Leave) -> None:
        """A member ends, and says so."""
        self._left = {x for x in self._left if x[0] != message.sender} | {(message.sender, message.incarnation)}

    def left(self) -> tuple[int, ...]:
        """Those whose last process took its leave."""
        return tuple(m for m, incarnation in self._left if self._membership.peers[m].incarnation == incarnation)

    # -- heard ----------------------------------------------------------------------------------------

    def suspects(self, now_ns: int) -> dict[int, str]:
        """Members of the view that must leave it, with the reason."""
        found = {m: reason for m, reason in self.late.items() if m != self._settings.me}
        for m in self._member.members:
            if m != self._settings.me and (reason := self._unheard_because(m, now_ns)):
                found[m] = reason
        return found

    def hears(self, now_ns: int) -> int:
        """Bit mask of the replicas that this one hears: members in its view, others at all; itself included."""
        members = self._member.members
        heard = [m for m in self._membership.alive(now_ns) if m not in members or not self._unheard_because(m, now_ns)]
        return sum(1 << m for m in heard) | 1 << self._settings.me

    def _unheard_because(self, member: int, now_ns: int) -> str:
        """Why `member` of the view does not count as heard in it; empty where it does."""
        peer, view = self._membership.peers[member], self._member.view
        failure = self._settings.timers.failure
        if (member, peer.incarnation) in self._left:
            return "it took its leave"
        if peer.incarnation != self._membership.members.get(member):
            return "it started anew"
        if now_ns - peer.heard_ns > failure:
            return "it is not heard"
        since_ns = now_ns - self._entered_ns
        if peer.view == view or since_ns < failure:
            return ""  # INSTALL may still be under way to it, or its heartbeat to us
        if peer.view.number == 0:
            return "it did not enter the view" if since_ns > 2 * failure else ""
        if peer.view.lineage != view.lineage:
            return "it is in another lineage"
        if peer.view.number < view.number:  # it may still have to hear of this view, but not for ever
            return "it did not enter the view" if since_ns > 3 * failure else ""
        return "" if peer.members >> self._settings.me & 1 else "it is in another view"

    def unheard(self, alive: list[int], now_ns: int) -> dict[int, str]:
        """Members that another live one has not heard for long: of each such pair the higher id, never this one."""
        peers, me = self._membership.peers, self._settings.me
        pairs = {
            (a, b)
            for a in alive
            for b in self._member.members
            if (b in alive or b == me) and peers[a].view == self._member.view and not peers[a].hears >> b & 1
        }
        self._deaf = {pair: self._deaf.get(pair, now_ns) for pair in pairs}
        gone: dict[int, str] = {}
        for a, b in sorted(
            pair for pair, since in self._deaf.items() if now_ns - since > self._settings.timers.failure
        ):
            if a not in gone and b not in gone:
                gone[a if b == me else max(a, b)] = f"members {a} and {b} do not hear each other"
        return gone

    def fits(self, joiner: int, incarnation: int, now_ns: int) -> bool:
        """Whether a joiner would stay: it captures, and all members and it hear each other."""
        peers = self._membership.peers
        peer = peers[joiner]
        if peer.incarnation != incarnation or peer.view.number or not self._membership.mutual(joiner, now_ns):
            return False  # gone, or in a view that it must leave first, or out of reach
        if self._settings.live and peer.lag_ns > self._settings.timers.failure:
            return False
        others = [m for m in self._member.members if m not in (self._settings.me, joiner)]
        heard = [m for m in others if not self._unheard_because(m, now_ns)]
        return all(peers[m].hears >> joiner & 1 and peer.hears >> m & 1 for m in heard)

    # -- late -----------------------------------------------------------------------------------------

    def look(self, now_ns: int) -> None:
        """Judge who is late; once a heartbeat, for what it goes by changes as often."""
        if self._member.frozen:
            self._acked = {}
            self._looks.clear()
            return  # nobody acknowledges now, and who was late stays so until the next view
        alive = [m for m in self._member.members if m != self._settings.me and not self._unheard_because(m, now_ns)]
        stands = self._capture_lags(alive, now_ns) if self._settings.live else self._capture_sticks(alive, now_ns)
        self.late = dict.fromkeys(stands, CAPTURE)
        if self._settings.live and alive:
            self.late |= dict.fromkeys(self._fed_too_little(alive, now_ns), FEED)
            rest = [m for m in alive if m not in self.late]
            self.late |= dict.fromkeys(self._mute(rest, now_ns), ACKS)
            before = self._remember(rest, now_ns)
            if rest and before is not None and self._at_a_limit(alive):
                self.late |= dict.fromkeys(self._laggard(rest, before, now_ns), RING)

    def _capture_lags(self, alive: list[int], now_ns: int) -> list[int]:
        """Live: the watermark lags behind its own clock, and somebody's does not."""
        peers, timers = self._membership.peers, self._settings.timers
        lags = [peers[m].lag_ns for m in alive] + [now_ns - self._membership.watermark_ns]
        if min(lags) > timers.failure:
            return []
        since = [(m, peers[m].lags_since_ns) for m in alive]
        return [m for m, at in since if at is not None and now_ns - at >= 2 * timers.heartbeat]

    def _capture_sticks(self, alive: list[int], now_ns: int) -> list[int]:
        """From a file: no progress for long though there is room, and somebody ahead waits with a full ring."""
        peers = self._membership.peers
        waiting = [peers[m].watermark_ns for m in alive if peers[m].fill >= limits.FULL]
        waiting += [self._membership.watermark_ns] if self.fill * 1000 >= limits.FULL else []
        return [
            m
            for m in alive
            if now_ns - peers[m].moved_ns > self._settings.timers.failure
            and peers[m].fill < limits.FULL
            and peers[m].watermark_ns < max(waiting, default=-FOREVER)
        ]

    def _fed_too_little(self, alive: list[int], now_ns: int) -> list[int]:
        """Members whose feed lags by all that their agreed index holds, this one included, while another goes on."""
        member, me = self._member, self._settings.me
        ahead = max(member.peer_acked[m] for m in alive) - member.acked
        if not member.full or ahead < min(self._settings.agreed_slots // 4, limits.FEED_AHEAD):
            self._full_since_ns = None
        elif self._full_since_ns is None:
            self._full_since_ns = now_ns
        mine = self._full_since_ns is not None and now_ns - self._full_since_ns > self._settings.timers.failure
        return [m for m in alive if self._membership.peers[m].late >> m & 1] + [me] * mine

    def _mute(self, alive: list[int], now_ns: int) -> list[int]:
        """Members that have acknowledged nothing for long, although another had something to acknowledge."""
        acked = {m: self._member.peer_acked[m] for m in (*alive, self._settings.me)}
        front = max(acked.values())
        self._acked = {
            m: before
            if (before := self._acked.get(m)) is not None and before[0] == reached < front
            else (reached, now_ns)
            for m, reached in acked.items()
        }
        patience = 3 * self._settings.timers.failure
        return [m for m in alive if now_ns - self._acked[m][1] > patience]

    def _at_a_limit(self, alive: list[int]) -> bool:
        member = self._member
        pinned = max([self.pinned(), *(self._membership.peers[m].pinned for m in alive)])
        unstable = member.window.end - min(member.peer_acked[m] for m in (*alive, self._settings.me))
        return pinned > limits.PINNED or unstable >= limits.MAX_UNSTABLE or len(member.log) >= limits.MAX_LOG_DECISIONS

    def pinned(self) -> int:
        """Of 1000: how much of the local ring waits for other members, not for the local feed."""
        tail, head = self._stream.tail, self._stream.head
        if head <= tail:
            return 0
        waits = head - min(max(self._member.settled, tail), head)
        return min(1000, int(1000 * self.fill * waits / (head - tail)))

    def _remember(self, alive: list[int], now_ns: int) -> tuple[int, int, int] | None:
        """Note how far the stream is; returns how far it was a while ago: decided, foremost acknowledged, stable."""
        member = self._member
        foremost = max(member.peer_acked[m] for m in (*alive, self._settings.me))
        self._looks.append((now_ns, member.window.end, foremost, member.stable))
        while len(self._looks) > 1 and now_ns - self._looks[1][0] >= self._settings.timers.failure // 3:
            self._looks.popleft()
        at, *reached = self._looks[0]
        return (reached[0], reached[1], reached[2]) if now_ns - at >= self._settings.timers.failure // 3 else None

    def _laggard(self, alive: list[int], before: tuple[int, int, int], now_ns: int) -> list[int]:
        """The one without whom half of what is pinned were free: who acknowledges least, calls least stable, is the
        only one to have what is missing here, or whose capture lags most.

        It must be late by the clock, too: a ring that holds less than that is too small, whoever is in the view.
        """
        member, me = self._member, self._settings.me
        everyone = (*alive, me)
        undecided = self._stream.head - member.consumed.base
        decided, *known = before
        for reached, was in zip((member.peer_acked, member.peer_stable), known, strict=True):
            (lowest, worst), (second, _) = sorted((reached[m], m) for m in everyone)[:2]
            if lowest < was and 2 * (second - lowest) >= member.window.end - lowest + undecided:
                return [worst] if worst != me else []
        if member.acked < decided and not member.full:
            holders = int(member.window.holders(member.acked, member.acked + 1)[0])
            having = [m for m in everyone if holders >> m & 1]
            if len(having) == 1 and having != [me]:
                return having
        lags = {m: self._membership.peers[m].lag_ns for m in alive} | {me: now_ns - self._membership.watermark_ns}
        (second, _), (most, worst) = sorted((lag, m) for m, lag in lags.items())[-2:]
        distinct = most > 2 * max(second, 0) and most > self._settings.timers.failure // 3
        return [worst] if worst != me and distinct else []

"""How a view changes: who is suspected, who proposes, what is carried over.

Theory of operation.  A member is *alive* when it is heard in this view, under the incarnation that
entered it.  Where one is not, or a new one wants in, the *candidate* changes the view: the
coordinator while it lives, else the lowest live id.

    candidate                      each live member
    PROPOSE view n+1, members  ->  suspects all that are left out? promises: takes and acknowledges nothing
                               <-  PROMISE: its decisions that the candidate lacks, missing bytes, positions
    PROPOSE again, with what   ->
    a member lacks             <-  PROMISE
    all have the same log:
    INSTALL                    ->  enters the view

Because every member's promise is needed, and each carries what it knows, the longest log is adopted:
no decision is lost that any survivor acknowledged, and what was fed stays.  A packet becomes *void*
only here, when it is decided and no survivor has its bytes.  A candidate that fails leaves members
that promised; they promise the next candidate, with a higher number.

Nobody forms a view without a member that he hears: a replica that was stopped first reads its
mail, then finds that the others have gone on, and rejoins.  After a partition both sides hear each
other again; the weaker branch (younger lineage, then smaller, then higher lowest id) rejoins.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftnids.sync.actions import Action, Note, Send
from ftnids.sync.member import Member
from ftnids.sync.membership import Membership
from ftnids.sync.messages import I64, Install, Join, Leave, Promise, Propose, View
from ftnids.sync.settings import Settings


def order(view: View) -> tuple[int, int, int]:
    """Views of one lineage by strength: number, then the lower coordinator, then its incarnation."""
    return view.number, -view.coordinator, view.incarnation


@dataclass(slots=True)
class _Attempt:
    """A view that this replica proposes."""

    view: View
    members: tuple[int, ...]  # who must promise, this replica included
    promises: dict[int, Promise] = field(default_factory=dict)


class Views:
    """Failure detection and view changes, as one member of a view sees them."""

    def __init__(self, settings: Settings, membership: Membership, member: Member) -> None:
        self._settings = settings
        self._membership = membership
        self._member = member
        self.me = settings.me
        self.promised = member.view
        self.joiners: dict[int, Join] = {}  # ready to come in
        self._left: set[tuple[int, int]] = set()  # members and incarnations that took their leave
        self.out: list[Action] = []
        self._attempt: _Attempt | None = None
        self._asked_ns = 0
        self._entered_ns = 0
        self._deaf: dict[tuple[int, int], int] = {}  # (a, b): since when a does not hear b

    # -- who is alive ---------------------------------------------------------------------------

    def suspects(self, now_ns: int) -> set[int]:
        """Members of the view that are gone, restarted, or in another view."""
        return {m for m in self._member.members if m != self.me and not self._alive(m, now_ns)}

    def _alive(self, member: int, now_ns: int) -> bool:
        peer = self._membership.peers[member]
        failure = self._settings.timers.failure
        if (member, peer.incarnation) in self._left or peer.incarnation != self._membership.members.get(member):
            return False
        if now_ns - peer.heard_ns > failure:
            return False
        view = self._member.view
        if peer.view == view or peer.view.number == 0 or now_ns - self._entered_ns < failure:
            return True  # INSTALL may still be under way to it, or its heartbeat to us
        if peer.view.lineage != view.lineage:
            return False
        if peer.view.number < view.number:  # it may still have to hear of this view, but not for ever
            return now_ns - self._entered_ns < 3 * failure
        return bool(peer.members >> self.me & 1)

    def leave(self, message: Leave) -> None:
        """A member ends, and says so."""
        self._left = {x for x in self._left if x[0] != message.sender} | {(message.sender, message.incarnation)}

    def left(self) -> tuple[int, ...]:
        """Those whose last process took its leave."""
        return tuple(m for m, incarnation in self._left if self._membership.peers[m].incarnation == incarnation)

    def hears(self, now_ns: int) -> int:
        """Bit mask of the members that this one does not suspect, itself included."""
        suspects = self.suspects(now_ns)
        return sum(1 << m for m in self._member.members if m not in suspects)

    def _unheard(self, alive: list[int], now_ns: int) -> set[int]:
        """Members that another live one has not heard for long: of each such pair the higher id, never this one."""
        pairs = {
            (a, b)
            for a in alive
            for b in self._member.members
            if self._membership.peers[a].view == self._member.view and not self._membership.peers[a].hears >> b & 1
        }
        self._deaf = {pair: self._deaf.get(pair, now_ns) for pair in pairs}
        patience = 2 * self._settings.timers.failure  # whoever does not hear this replica has gone on by then
        gone: set[int] = set()
        for a, b in sorted(pair for pair, since in self._deaf.items() if now_ns - since > patience):
            if a not in gone and b not in gone:
                gone.add(a if b == self.me else max(a, b))
        return gone

    def overtaken(self, now_ns: int) -> str:
        """Why this replica must rejoin: the others have gone on without it, or a stronger branch is heard."""
        view, members = self._member.view, self._member.members
        for other in self._membership.alive(now_ns):
            peer = self._membership.peers[other]
            if peer.view.number == 0 or peer.members >> self.me & 1 or peer.view == view:
                continue
            name = f"member {other} is in view {peer.view.number} without this replica"
            if other in members and peer.view.lineage == view.lineage and peer.view.number > view.number:
                return name
            if other not in members and self._strength(peer.view, peer.members) < self._strength(
                view, sum(1 << m for m in members)
            ):
                return f"{name}, and that branch is the stronger one"
        return ""

    @staticmethod
    def _strength(view: View, members: int) -> tuple[int, int, int]:
        """Sorts the stronger branch first: older lineage, larger, lowest id."""
        return view.lineage, -members.bit_count(), (members & -members).bit_length()

    # -- the candidate ---------------------------------------------------------------------------

    def tick(self, now_ns: int) -> Install | None:
        """Propose where it is this replica's turn; an INSTALL when all have promised."""
        suspects = self.suspects(now_ns)
        alive = [m for m in self._member.members if m != self.me and m not in suspects]
        coordinator = self._member.view.coordinator
        if coordinator == self.me:
            suspects |= self._unheard(alive, now_ns)
            alive = [m for m in alive if m not in suspects]
        if not suspects and not (self.joiners and coordinator == self.me):
            self._attempt = None if self.promised == self._member.view else self._attempt
            if self._attempt is None:
                return None
        if coordinator != self.me and (coordinator not in suspects or any(m < self.me for m in alive)):
            self._attempt = None
            return None
        members = tuple(sorted([*alive, self.me]))
        if self._attempt is None or self._attempt.members != members or self.promised != self._attempt.view:
            self._attempt = self._begin(members)
            self._asked_ns = now_ns - self._settings.timers.promise
        if now_ns - self._asked_ns >= self._settings.timers.promise:
            self._asked_ns = now_ns
            self._ask(self._attempt)
        return self._complete(self._attempt)

    def _begin(self, members: tuple[int, ...]) -> _Attempt:
        highest = max([self.promised.number, *(self._membership.peers[m].promised for m in members if m != self.me)])
        view = View(self._member.view.lineage, highest + 1, self.me, self._settings.incarnation)
        self.promised = view
        self._member.frozen = True
        return _Attempt(view, members)

    def _ask(self, attempt: _Attempt) -> None:
        mask = sum(1 << m for m in (*attempt.members, *self.joiners))
        for m in attempt.members:
            if m == self.me:
                continue
            propose = Propose(self.me, self._settings.incarnation, self._member.view, attempt.view, mask)
            propose.number = self._member.number
            if m in attempt.promises:
                propose.log = self._member.log_from(attempt.promises[m].number)
            self.out.append(Send(m, propose))

    def promise(self, message: Promise, now_ns: int) -> None:
        """A member promised: take what it knows and this replica does not."""
        attempt = self._attempt
        if attempt is None or message.proposed != attempt.view or message.sender not in attempt.members:
            return
        known = attempt.promises.get(message.sender)
        if known is not None and known.number > message.number:
            return
        attempt.promises[message.sender] = message
        before = self._member.number
        for decision in message.log:
            self._member.decided(decision, now_ns)
        behind = any(p.number < self._member.number for p in attempt.promises.values())
        if self._member.number > before or (behind and known is None):
            self._ask(attempt)

    def _complete(self, attempt: _Attempt) -> Install | None:
        others = [m for m in attempt.members if m != self.me]
        promises = [attempt.promises.get(m) for m in others]
        if any(p is None or p.number != self._member.number for p in promises):
            return None
        settings, member = self._settings, self._member
        install = Install(self.me, settings.incarnation, attempt.view, attempt.view)
        everyone = tuple(sorted({*attempt.members, *self.joiners}))
        install.members = sum(1 << m for m in everyone)
        install.first_seq, install.number = member.window.end, member.number
        nowhere = member.missing()
        for p in promises:
            assert p is not None
            nowhere = np.intersect1d(nowhere, p.missing)
            install.start[p.sender] = p.consumed
        install.start[self.me] = member.consumed.base
        install.void = np.union1d(nowhere, member.void())
        if member.last is not None:
            install.cut_ns = member.last.cut_ns
            install.offset_ns, install.tolerance_ns = dict(member.last.offset_ns), dict(member.last.tolerance_ns)
        mine = install.offset_ns.get(self.me, 0)
        for m, join in self.joiners.items():
            install.offset_ns[m], install.tolerance_ns[m] = join.offset_ns + mine, join.tolerance_ns
        return install

    def holes(self) -> dict[int, I64]:
        """By member: positions above its start that decisions have consumed already."""
        found = {self.me: self._member.consumed.holes()}
        if self._attempt is not None:
            found |= {m: p.holes for m, p in self._attempt.promises.items()}
        return found

    # -- the others -------------------------------------------------------------------------------

    def proposed(self, message: Propose, now_ns: int) -> None:
        """Promise a newer view, unless it leaves out somebody who is heard."""
        view, member = message.proposed, self._member
        if view.lineage != member.view.lineage or message.members >> self.me & 1 == 0:
            return
        if view.coordinator != message.sender or order(view) < order(self.promised) or view == member.view:
            return  # not the proposer's to propose, or an old one
        outside = {m for m in member.members if message.members >> m & 1 == 0}
        if message.sender != member.view.coordinator and not outside <= self.suspects(now_ns):
            return
        self.promised = view
        self._attempt = None
        member.frozen = True
        for decision in message.log:
            member.decided(decision, now_ns)
        promise = Promise(self.me, self._settings.incarnation, member.view, view, member.view, member.number)
        promise.log = member.log_from(message.number)
        promise.missing, promise.consumed = member.missing(), member.consumed.base
        promise.holes = member.consumed.holes()
        self.out.append(Send(message.sender, promise))

    def entered(self, members: tuple[int, ...], now_ns: int) -> None:
        """The view is installed."""
        self.promised = self._member.view
        self.joiners = {m: j for m, j in self.joiners.items() if m not in members}
        self._attempt = None
        self._entered_ns = now_ns
        self._deaf = {}
        self.out.append(Note("info", "view_changed", {"number": self.promised.number, "members": list(members)}))

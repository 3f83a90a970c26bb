"""How a view changes: who proposes, who promises, what is carried over.

Theory of operation.  `ftnids.sync.watch` says which members must leave.  Where one must, or a new one wants in, the
*candidate* changes the view: the coordinator while nothing is said against it, else the lowest live id, once all that
are left have said in their heartbeats that the coordinator must go.

    candidate                      each live member
    PROPOSE view n+1, members  ->  is this the candidate, and its view mine? promises: takes, acknowledges nothing
                               <-  PROMISE: its decisions that the candidate lacks, missing bytes, positions
    PROPOSE again, with what   ->
    a member lacks             <-  PROMISE
    all have the same log:
    INSTALL                    ->  enters the view

Because every member's promise is needed, and each carries what it knows, the longest log is adopted:
no decision is lost that any survivor acknowledged, and what was fed stays.  A packet becomes *void*
only here, when it is decided and no survivor has its bytes.

A promise holds until a view is entered.  A candidate that fails leaves members that promised; they promise the next
one, with a higher number.  One that gives up, because the coordinator is heard again, leaves them, too: the
coordinator sees a promise in their heartbeats that it never asked for, and proposes a view of its own.

Two branches never mix.  A member promises only to one whose view is its own, or its own's ancestor, or the one that
it has promised and not entered yet.

Nobody forms a view without a member that he hears and that hears him: a replica that was stopped first reads its
mail, then finds that the others have gone on, and rejoins.  One that only hears them is deaf to nobody and goes
on: it is the others that lost something.  After a partition both sides hear each other again; the weaker
branch (younger lineage, then smaller, then higher lowest id) rejoins.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ftnids.sync.actions import Action, Note, Send
from ftnids.sync.member import Member
from ftnids.sync.membership import Membership
from ftnids.sync.messages import I64, Install, Join, Promise, Propose, View
from ftnids.sync.settings import Settings
from ftnids.sync.watch import SETTINGS, Watch


def order(view: View) -> tuple[int, int, int]:
    """Views of one lineage by strength: number, then the lower coordinator, then its incarnation."""
    return view.number, -view.coordinator, view.incarnation


@dataclass(slots=True)
class _Attempt:
    """A view that this replica proposes."""

    view: View
    members: tuple[int, ...]  # who must promise, this replica included
    begun_ns: int
    promises: dict[int, Promise] = field(default_factory=dict)


class Views:
    """View changes, as one member of a view sees them."""

    def __init__(self, settings: Settings, membership: Membership, member: Member, watch: Watch) -> None:
        self._settings = settings
        self._membership = membership
        self._member = member
        self._watch = watch
        self.me = settings.me
        self.promised = member.view
        self.joiners: dict[int, Join] = {}  # ready to come in
        self.out: list[Action] = []
        self._attempt: _Attempt | None = None
        self._asked_ns = 0

    # -- branches -------------------------------------------------------------------------------

    def overtaken(self, now_ns: int) -> str:
        """Why this replica must rejoin: the others have gone on without it, or a stronger branch is heard."""
        view, members = self._member.view, self._member.members
        for other in self._membership.alive(now_ns):
            peer = self._membership.peers[other]
            if peer.view.number == 0 or peer.members >> self.me & 1 or peer.view == view:
                continue
            if not self._membership.mutual(other, now_ns):
                continue  # it would not hear this replica join
            name = f"member {other} is in view {peer.view.number} without this replica"
            if other in members and peer.view.lineage == view.lineage:
                if self._gone_on(peer.view, peer.members, now_ns):
                    return name
            elif self._strength(peer.view, peer.members) < self._strength(view, sum(1 << m for m in members)):
                return f"{name}, and that branch is the stronger one"
        return ""

    def _gone_on(self, theirs: View, members: int, now_ns: int) -> bool:
        """Whether a view that members of this one formed is ahead, and not just theirs who lost touch with the rest."""
        mine = self.promised if self.promised.coordinator != self.me else self._member.view
        if order(theirs) <= order(mine):
            return False
        suspects = self._watch.suspects(now_ns)
        left = [m for m in self._member.members if m == self.me or (m not in suspects and not members >> m & 1)]
        return members.bit_count() >= len(left)

    @staticmethod
    def _strength(view: View, members: int) -> tuple[int, int, int]:
        """Sorts the stronger branch first: older lineage, larger, lowest id."""
        return view.lineage, -members.bit_count(), (members & -members).bit_length()

    # -- the candidate ---------------------------------------------------------------------------

    def tick(self, now_ns: int) -> Install | None:
        """Propose where it is this replica's turn; an INSTALL when all have promised."""
        suspects = self._watch.suspects(now_ns)
        alive = [m for m in self._member.members if m != self.me and m not in suspects]
        if self._member.view.coordinator == self.me:
            suspects |= self._watch.unheard(alive, now_ns)
            alive = [m for m in alive if m not in suspects]
            wanted = bool(suspects or self.joiners or self._restless(alive))
            if not wanted and self.promised == self._member.view:
                self._attempt = None
                return None
        elif not self._elected(suspects, alive):
            self._attempt = None
            return None
        members = tuple(sorted([*alive, self.me]))
        if self._attempt is None or self._attempt.members != members or self._outbid(self._attempt, now_ns):
            self._attempt = self._begin(members, suspects, now_ns)
            self._asked_ns = now_ns - self._settings.timers.promise
        if now_ns - self._asked_ns >= self._settings.timers.promise:
            self._asked_ns = now_ns
            self._ask(self._attempt)
        return self._complete(self._attempt)

    def _restless(self, alive: list[int]) -> bool:
        """Whether a member promised somebody else's view, and waits for it in vain."""
        peers, view = self._membership.peers, self._member.view
        return any(peers[m].view == view and peers[m].promised > self.promised.number for m in alive)

    def _elected(self, suspects: dict[int, str], alive: list[int]) -> bool:
        """Whether the coordinator must go, as all say who are left, and this replica is the lowest of them."""
        view, coordinator = self._member.view, self._member.view.coordinator
        if coordinator not in suspects or any(m < self.me for m in alive):
            return False
        voters = [peer for m in alive if (peer := self._membership.peers[m]).view == view]
        return not any(peer.hears >> coordinator & 1 and not peer.late >> coordinator & 1 for peer in voters)

    def _outbid(self, attempt: _Attempt, now_ns: int) -> bool:
        """Whether a member has promised another view that this one's number does not beat."""
        if self.promised != attempt.view:
            return True
        patient = now_ns - attempt.begun_ns <= 4 * self._settings.timers.promise
        for m in attempt.members:
            promised = self._membership.peers[m].promised if m != self.me else 0
            if promised > attempt.view.number:
                return True
            if promised == attempt.view.number and m not in attempt.promises and not patient:
                return True
        return False

    def _begin(self, members: tuple[int, ...], suspects: dict[int, str], now_ns: int) -> _Attempt:
        highest = max([self.promised.number, *(self._membership.peers[m].promised for m in members if m != self.me)])
        view = View(self._member.view.lineage, highest + 1, self.me, self._settings.incarnation)
        self.promised = view
        self._member.freeze()
        for m, reason in sorted(suspects.items()):
            setting = {"setting": SETTINGS[reason]} if reason in SETTINGS else {}
            self.out.append(Note("warning", "member_leaves", {"member": m, "reason": reason, **setting}))
        return _Attempt(view, members, now_ns)

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
        moved = known is None or known.number < message.number
        if self._member.number > before or (behind and moved):
            self._ask(attempt)

    def _complete(self, attempt: _Attempt) -> Install | None:
        others = [m for m in attempt.members if m != self.me]
        promises = [attempt.promises.get(m) for m in others]
        if any(p is None or p.number != self._member.number for p in promises):
            return None
        settings, member = self._settings, self._member
        install = Install(self.me, settings.incarnation, attempt.view, attempt.view)
        everyone = tuple(sorted({*attempt.members, *self.joiners}))
        install.members, install.protocol = sum(1 << m for m in everyone), self._membership.spoken(everyone)
        install.first_seq, install.number = member.window.end, member.number
        install.incarnations = {m: self._membership.members[m] for m in others} | {self.me: settings.incarnation}
        nowhere = member.nowhere()
        for p in promises:
            assert p is not None
            nowhere = np.intersect1d(nowhere, p.missing)
            install.start[p.sender] = p.consumed
        install.start[self.me] = member.consumed.base
        install.void = nowhere
        install.cut_ns, install.time_us = member.cut_ns, member.time_us
        install.offset_ns, install.tolerance_ns = dict(member.offset_ns), dict(member.tolerance_ns)
        mine = install.offset_ns.get(self.me, 0)
        for m, join in self.joiners.items():
            install.incarnations[m] = join.incarnation
            install.offset_ns[m], install.tolerance_ns[m] = join.offset_ns + mine, join.tolerance_ns
        if self.joiners:
            install.hash, install.decided_us, install.holders = member.history()
        return install

    def holes(self) -> dict[int, I64]:
        """By member: positions above its start that decisions have consumed already."""
        found = {self.me: self._member.consumed.holes()}
        if self._attempt is not None:
            found |= {m: p.holes for m, p in self._attempt.promises.items()}
        return found

    # -- the others -------------------------------------------------------------------------------

    def proposed(self, message: Propose, now_ns: int) -> None:
        """Promise a newer view, to whom it is due."""
        view, member = message.proposed, self._member
        if view.lineage != member.view.lineage or message.members >> self.me & 1 == 0:
            return
        if view.coordinator != message.sender or order(view) < order(self.promised) or view == member.view:
            return  # not the proposer's to propose, or an old one
        if not self._follows(message) or not self._due(message, now_ns):
            return
        self.promised = view
        self._attempt = None
        member.freeze()
        for decision in message.log:
            member.decided(decision, now_ns)
        promise = Promise(self.me, self._settings.incarnation, member.view, view, member.view, member.number)
        promise.log = member.log_from(message.number)
        promise.missing, promise.consumed = member.nowhere(), member.consumed.base
        promise.holes = member.consumed.holes()
        self.out.append(Send(message.sender, promise))

    def _follows(self, message: Propose) -> bool:
        """Whether the proposer's view and this replica's lie on one branch, so that their decisions go together."""
        view, base = self._member.view, message.view
        if base == self.promised:
            return True  # it has entered what this replica promised, and whose INSTALL was lost
        older = base.lineage == view.lineage and base.number < view.number
        member = self._membership.members.get(message.sender) == message.incarnation
        return member and (base == view or older)

    def _due(self, message: Propose, now_ns: int) -> bool:
        """Whether the proposer is the coordinator, or the lowest live member when that one must go."""
        sender = message.sender
        leader = (message.view if message.view == self.promised else self._member.view).coordinator
        if sender == leader:
            return True
        suspects = self._watch.suspects(now_ns)
        gone = leader in suspects or leader not in self._member.members
        return gone and all(m in suspects for m in self._member.members if m < sender and m != self.me)

    def entered(self, members: tuple[int, ...], now_ns: int) -> None:
        """The view is installed."""
        self.promised = self._member.view
        self.joiners = {m: j for m, j in self.joiners.items() if m not in members}
        self._attempt = None
        self._watch.entered(now_ns)
        self.out.append(Note("info", "view_changed", {"number": self.promised.number, "members": list(members)}))

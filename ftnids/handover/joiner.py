"""The joiner's end of a state transfer, without I/O.

Theory of operation

    IDLE --begin--> ASKING --OFFER--> CHECKING --it is of use--> RECEIVING --all is here--> RESTORING --> OVER
                      ^  |                |                         |                         |
                      |  +-- refused, silent, gone: the next donor -+                         |
                      +-----------------------------------------------                         |
    from any of them: the wait is over, the ring fills, nobody is left to ask, the image does not start --> OVER, cold

One member is asked at a time, in the order of `candidates`; it is asked again until it answers.  Who refuses for good
is not asked again, who is busy is asked again later; a transfer that begins and fails counts, and a few such failures
end the wait.  Whatever happens ends in exactly one `Restore` that succeeds or one `Cold`.

Each try has a number of its own, drawn at random, so that nothing of an earlier one is taken for a later one's.
Pieces come in order; one that is missing is sent again, because TAKEN says how many are here.  TAKEN is said when a
piece comes, not when it is on disk, but not while STATE_WINDOW wait to be written: as many may be on their way then, so
that twice as many may have to be held in memory, and no more are.
Times are int ns of any clock that does not step.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Final

from ftnids.handover.actions import Action, Check, Cold, Forget, Restore, Write, clipped
from ftnids.limits import (
    STATE_ASK_S,
    STATE_BUSY_S,
    STATE_DONORS,
    STATE_FILL,
    STATE_SILENCE_S,
    STATE_WAIT_S,
    STATE_WINDOW,
)
from ftnids.sync.actions import Note, Send
from ftnids.sync.messages import Ask, Chunk, Offer, Refuse, Taken, View

SECOND: Final = 1_000_000_000
QUARTERS: Final = 4


class Phase(enum.Enum):
    """What a joiner is doing."""

    IDLE = "idle"
    ASKING = "asking"
    CHECKING = "checking"
    RECEIVING = "receiving"
    RESTORING = "restoring"
    OVER = "over"


class Joiner:
    """One replica's way to a state for its IDS; `draw` gives a random uint64."""

    def __init__(self, me: int, incarnation: int, draw: Callable[[], int]) -> None:
        self._head = me, incarnation, View()
        self._draw = draw
        self.phase = Phase.IDLE
        self.candidates: Sequence[int] = ()  # members that may be asked now, the best first; the owner keeps it
        self.donor = -1  # who is asked
        self.transfer = 0
        self.bytes = self.total = 0  # of the image, written and in all
        self.failures = 0  # transfers that did not come to their end
        self.cold = False  # whether it has ended without a state
        self.seq, self._facts = 0, b""  # its first packet
        self._began_ns = self._tried_ns = self._heard_ns = self._said_ns = 0
        self._refused: dict[int, str] = {}  # for good, and why
        self._busy: dict[int, int] = {}  # when each may be asked again
        self._why = ""  # of the last failure
        self._pieces = self._taken = self._told = self._written = self._quarter = 0
        self._out: list[Action] = []

    @property
    def active(self) -> bool:
        """Whether an image is waited for."""
        return self.phase not in (Phase.IDLE, Phase.OVER)

    @property
    def _whole(self) -> bool:
        """Whether all pieces are here, and some of them not written yet."""
        return self.phase is Phase.RECEIVING and self._taken == self._pieces

    def actions(self) -> list[Action]:
        """What is to be done, in order; the list is the caller's."""
        out, self._out = self._out, []
        return out

    # -- events ----------------------------------------------------------------------------------

    def begin(self, seq: int, facts: bytes, now_ns: int) -> None:
        """This replica is in a running view, and its first packet there is `seq`."""
        assert self.phase is Phase.IDLE
        self.seq, self._facts, self._began_ns = seq, facts, now_ns
        self.phase = Phase.ASKING
        self._ask_somebody(now_ns)

    def received(self, message: Offer | Chunk | Refuse, now_ns: int) -> None:
        """Something came; what is of another transfer changes nothing."""
        if message.transfer != self.transfer or message.sender != self.donor or not self.transfer:
            if isinstance(message, Chunk | Offer):  # its sender need not go on
                self._send(message.sender, Refuse(*self._head, message.transfer, reason="not wanted any more"))
            return
        self._heard_ns = now_ns
        if self.phase in (Phase.RESTORING, Phase.OVER):
            if isinstance(message, Chunk):
                self._say_taken(now_ns)
        elif isinstance(message, Refuse):
            if not self._whole:
                self._refusal(message, now_ns)
        elif isinstance(message, Chunk):
            self._chunk(message, now_ns)
        elif message.manifest and self.phase is Phase.ASKING:
            self.phase = Phase.CHECKING
            self._out.append(Check(message))

    def checked(self, transfer: int, reason: str, pieces: int, total: int, now_ns: int) -> None:
        """The offer of `transfer` can be used, and comes in so many pieces and bytes; or not: `reason`."""
        if transfer != self.transfer or self.phase is not Phase.CHECKING:
            return
        if reason:
            self._refused[self.donor] = reason
            self._failed(reason, now_ns)
            return
        self.phase, self._pieces, self.total, self._heard_ns = Phase.RECEIVING, pieces, total, now_ns
        self._out.append(Note("info", "state_comes", {"member": self.donor, "bytes": total}))
        self._say_taken(now_ns)
        self._complete()

    def wrote(self, transfer: int, reason: str, count: int, now_ns: int) -> None:
        """The next piece is on disk, with it `count` bytes in all; or it could not be taken: `reason`."""
        if transfer != self.transfer or self.phase is not Phase.RECEIVING:
            return
        if reason:
            self._failed(reason, now_ns)
            return
        self._written += 1
        self.bytes = count
        if self._taken - self._written == STATE_WINDOW - 1:  # there is room again
            self._say_taken(now_ns)
        self._complete()

    def restored(self, transfer: int, reason: str, now_ns: int) -> None:
        """The IDS goes on from the image; or a cold one has begun in its place: `reason`."""
        if transfer != self.transfer or self.phase is not Phase.RESTORING:
            return
        if reason:
            self.failures += 1
        else:
            took = round((now_ns - self._began_ns) / SECOND, 3)
            facts: dict[str, object] = {"member": self.donor, "bytes": self.total, "seconds": took}
            self._out.append(Note("info", "state_restored", facts))
        self._out.append(Forget(transfer))
        self._end(reason)

    def filled(self, thousandths: int, now_ns: int) -> None:
        """How full the ring is of what the IDS has to catch up with."""
        if self.active and thousandths >= STATE_FILL and self.phase is not Phase.RESTORING:
            self._give_up(f"the ring is {thousandths // 10} % full (ring.slots, ring.arena_mb){self._so_far()}")

    def tick(self, now_ns: int) -> None:
        """Do everything that is due."""
        if not self.active or self.phase is Phase.RESTORING:
            return
        if now_ns - self._began_ns > STATE_WAIT_S * SECOND:
            self._give_up(f"no state after {STATE_WAIT_S:.0f} s{self._so_far()}")
        elif not self.transfer:
            self._ask_somebody(now_ns)
        elif self._whole:
            return  # what is to be written still needs no donor, who may have forgotten this transfer
        elif self.donor not in self.candidates:
            self._failed(f"member {self.donor} is gone", now_ns)
        elif now_ns - self._heard_ns > STATE_SILENCE_S * SECOND:
            self._failed(f"member {self.donor} is silent for {STATE_SILENCE_S:.0f} s", now_ns)
        elif now_ns - max(self._said_ns, self._heard_ns) > STATE_ASK_S * SECOND:
            if self.phase is Phase.ASKING:
                self._ask(now_ns)
            elif self.phase is Phase.RECEIVING:
                self._say_taken(now_ns)

    def abandon(self) -> None:
        """The replica ends."""
        if self.active:
            self._leave_donor("this replica ends")
            self.phase = Phase.OVER

    # -- who is asked ----------------------------------------------------------------------------

    def _ask_somebody(self, now_ns: int) -> None:
        """The next who may be asked; nobody yet where all are busy; a cold start where nobody is left."""
        left = [m for m in self.candidates if m not in self._refused]
        ready = [m for m in left if self._busy.get(m, 0) <= now_ns]
        if ready:
            self.donor, self.transfer = ready[0], self._draw()
            self.phase, self._tried_ns, self._heard_ns = Phase.ASKING, now_ns, now_ns
            self.bytes = self.total = self._pieces = self._taken = self._told = self._written = self._quarter = 0
            self._ask(now_ns)
        elif not left and (self.candidates or now_ns - self._began_ns > STATE_BUSY_S * SECOND):
            said = [f"member {member}: {why}" for member, why in self._refused.items()]
            self._give_up(f"no replica gives its state: {'; '.join(said) or 'none is there that could'}")

    def _ask(self, now_ns: int) -> None:
        if self._said_ns < self._tried_ns or self._said_ns == 0:
            self._out.append(Note("info", "state_asked", {"asked": self.donor, "seq": self.seq}))
        self._said_ns = now_ns
        self._send(self.donor, Ask(*self._head, self.transfer, self.seq, self._facts))

    def _refusal(self, message: Refuse, now_ns: int) -> None:
        if message.again and self.phase is Phase.ASKING:
            self._busy[self.donor] = now_ns + int(STATE_BUSY_S * SECOND)
            self._why = f"member {self.donor}: {message.reason}"
        elif self.phase is Phase.ASKING:
            self._refused[self.donor] = message.reason
        else:
            self._failed(f"member {self.donor}: {message.reason}", now_ns, tell=False)
            return
        self.transfer = 0
        self._ask_somebody(now_ns)

    # -- one transfer ----------------------------------------------------------------------------

    def _chunk(self, message: Chunk, now_ns: int) -> None:
        if self.phase is not Phase.RECEIVING:
            return
        room = self._taken - self._written < 2 * STATE_WINDOW
        if message.number == self._taken < self._pieces and room:
            self._taken += 1
            self._out.append(Write(self.transfer, message.data))
        if self._taken - self._written < STATE_WINDOW:
            self._say_taken(now_ns)

    def _say_taken(self, now_ns: int) -> None:
        self._said_ns = now_ns
        if self._taken - self._written < STATE_WINDOW:
            self._told = self._taken
        self._send(self.donor, Taken(*self._head, self.transfer, self._told))

    def _complete(self) -> None:
        quarter = QUARTERS * self._written // self._pieces if self._pieces else QUARTERS
        if quarter > self._quarter:
            self._quarter = quarter
            facts: dict[str, object] = {"member": self.donor, "percent": 100 * quarter // QUARTERS, "bytes": self.bytes}
            self._out.append(Note("info", "state_progress", facts))
        if self._written == self._pieces:
            self.phase = Phase.RESTORING
            self._out.append(Restore(self.transfer))

    def _failed(self, reason: str, now_ns: int, *, tell: bool = True) -> None:
        """This transfer comes to nothing: try the next donor, or the same one again, a few times."""
        self.failures += 1
        self._why = reason
        self._out.append(Note("warning", "state_failed", {"member": self.donor, "reason": reason}))
        self._leave_donor(reason if tell else "")
        self._busy[self.donor] = now_ns + int(STATE_BUSY_S * SECOND)  # others first
        if self.failures >= STATE_DONORS:
            self._give_up(f"{self.failures} transfers failed, the last one because {reason}")
        else:
            self._ask_somebody(now_ns)

    def _leave_donor(self, reason: str) -> None:
        if self.transfer:
            if reason:
                self._send(self.donor, Refuse(*self._head, self.transfer, reason=clipped(reason)))
            self._out.append(Forget(self.transfer))
        self.transfer = 0
        self.phase = Phase.ASKING

    def _so_far(self) -> str:
        return f"; {self._why}" if self._why else ""

    def _give_up(self, reason: str) -> None:
        self._leave_donor(reason)
        self._end(reason)
        self._out.append(Cold(reason))

    def _end(self, reason: str) -> None:
        self.phase = Phase.OVER
        if reason:
            self.cold = True
            self._out.append(Note("warning", "state_cold", {"reason": reason, "hint": "the IDS starts cold"}))

    def _send(self, member: int, message: Ask | Taken | Refuse) -> None:
        self._out.append(Send(member, message))

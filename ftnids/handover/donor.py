"""The donor's end of a state transfer, without I/O.

Theory of operation

    FREE --ASK--> PREPARING --the image is taken and described--> OFFERED --TAKEN--> SENDING --TAKEN all--> FREE
                                                                     |                  |
    from any of them: refused, silent, gone, unreadable --> FREE, and the image is removed

One joiner at a time; another one is told to ask again.  The IDS pauses while its image is taken, not while it is sent.

Pieces must not hold up the hashes and heartbeats of the same connection, which wait behind them in its queue.  So
few are on their way at once: one more for each that is acknowledged within STATE_DELAY_S of the fastest, half as many
where one takes longer, at most STATE_WINDOW; and of those at most STATE_TURN leave in one turn of the main loop.
Pieces that are not acknowledged for STATE_ASK_S are sent again, from the first one that is missing.
Times are int ns of any clock that does not step.
"""

from __future__ import annotations

import enum
from typing import Final

from ftnids.handover.actions import Action, Drop, Prepare, Read, clipped
from ftnids.limits import (
    STATE_ASK_S,
    STATE_DELAY_S,
    STATE_READ,
    STATE_REST_S,
    STATE_SILENCE_S,
    STATE_TURN,
    STATE_WAIT_S,
    STATE_WINDOW,
)
from ftnids.sync.actions import Note, Send
from ftnids.sync.messages import Ask, Chunk, Offer, Refuse, Taken, View

SECOND: Final = 1_000_000_000
LEAST: Final = 2  # pieces on their way, however slow they are
BUSY: Final = "it gives its state to another replica"
RESTS: Final = "it has given its state away a moment ago"
OVER: Final = "this transfer is over"


class Phase(enum.Enum):
    """What a donor is doing."""

    FREE = "free"
    PREPARING = "preparing"
    OFFERED = "offered"
    SENDING = "sending"


class Donor:
    """One replica's gifts.  While `refusal` or `later` are not empty there are none, for good or now; they say why."""

    def __init__(self, me: int, incarnation: int, refusal: str = "") -> None:
        self._head = me, incarnation, View()
        self.refusal, self.later = refusal, ""
        self.phase = Phase.FREE
        self.joiner = -1
        self.transfer = 0
        self.sent = 0  # transfers that came to their end
        self.failures = 0  # and those that did not
        self.acked = self.pieces = 0
        self._manifest = b""
        self._heard_ns = self._acked_ns = 0
        self._began_ns: int | None = None  # the newest transfer
        self._next = self._highest = 0  # the piece that is sent next; those below `_highest` were sent before
        self._window, self._calm = LEAST, 0
        self._fastest_ns = 0  # from a piece to its acknowledgement
        self._read: dict[int, bytes] = {}  # pieces from `acked` on
        self._asked = 0  # of the image, pieces that were asked for
        self._sent_ns: dict[int, int] = {}
        self._again = 0  # pieces that were sent again
        self._out: list[Action] = []

    def actions(self) -> list[Action]:
        """What is to be done, in order; the list is the caller's."""
        out, self._out = self._out, []
        return out

    # -- events ----------------------------------------------------------------------------------

    def received(self, message: Ask | Taken | Refuse, now_ns: int) -> None:
        """A joiner said something."""
        mine = message.transfer == self.transfer and message.sender == self.joiner and self.phase is not Phase.FREE
        if mine:
            self._heard_ns = now_ns
        if isinstance(message, Ask):
            self._ask(message, mine, now_ns)
        elif isinstance(message, Refuse):
            if mine:
                self._end(f"member {self.joiner}: {message.reason}", tell=False)
        elif not mine:
            self._refuse(message.sender, message.transfer, OVER)
        elif self.phase in (Phase.OFFERED, Phase.SENDING):
            self._acknowledged(message.chunks, now_ns)

    def prepared(self, transfer: int, manifest: bytes, pieces: int, reason: str, now_ns: int) -> None:
        """The image is there, described and in so many pieces; or there is none: `reason`."""
        if transfer != self.transfer or self.phase is not Phase.PREPARING:
            return
        if reason:
            self._end(reason)
            return
        self.phase, self._manifest, self.pieces, self._heard_ns = Phase.OFFERED, manifest, pieces, now_ns
        self._offer()
        self._prefetch()

    def read(self, transfer: int, first: int, data: list[bytes], reason: str) -> None:
        """Pieces from `first` on; or they cannot be read: `reason`."""
        if transfer != self.transfer or self.phase is Phase.FREE:
            return
        if reason:
            self._end(reason)
            return
        self._read.update(enumerate(data, first))

    def present(self, members: tuple[int, ...]) -> None:
        """Who is in the view."""
        if self.phase is not Phase.FREE and self.joiner not in members:
            self._end(f"member {self.joiner} is gone", tell=False)

    def tick(self, now_ns: int) -> None:
        """Send what may be sent, and give up on who does not answer."""
        if self.phase is Phase.FREE:
            return
        if self._began_ns is not None and now_ns - self._began_ns > (STATE_WAIT_S + STATE_SILENCE_S) * SECOND:
            self._end(f"member {self.joiner} has not taken it after {STATE_WAIT_S + STATE_SILENCE_S:.0f} s")
            return
        if now_ns - self._heard_ns > STATE_SILENCE_S * SECOND:
            self._end(f"member {self.joiner} is silent for {STATE_SILENCE_S:.0f} s")
            return
        if self.phase is not Phase.SENDING:
            return
        if self._next > self.acked and now_ns - self._acked_ns > STATE_ASK_S * SECOND:
            self._next, self._window, self._acked_ns = self.acked, LEAST, now_ns
        for _ in range(STATE_TURN):
            if self._next >= self.acked + self._window or self._next not in self._read:
                break
            if self._next == self.acked:
                self._acked_ns = now_ns
            if self._next >= self._highest:
                self._sent_ns[self._next] = now_ns
            else:
                self._again += 1
            chunk = Chunk(*self._head, self.transfer, self._next, self._read[self._next])
            self._out.append(Send(self.joiner, chunk))
            self._next += 1
            self._highest = max(self._highest, self._next)

    @property
    def eager(self) -> bool:
        """Whether there is more to send in the next turn."""
        sending = self.phase is Phase.SENDING
        return sending and self._next < self.acked + self._window and self._next in self._read

    def abandon(self) -> None:
        """The replica ends."""
        if self.phase is not Phase.FREE:
            self._end("this replica ends")

    # -- one transfer ------------------------------------------------------------------------------

    def _ask(self, message: Ask, mine: bool, now_ns: int) -> None:
        if mine:
            if self.phase is not Phase.SENDING:
                self._offer()
            return
        if self.refusal:
            self._refuse(message.sender, message.transfer, self.refusal)
            return
        busy = BUSY if self.phase is not Phase.FREE and message.sender != self.joiner else ""
        if not busy and self._began_ns is not None and now_ns - self._began_ns < STATE_REST_S * SECOND:
            busy = RESTS  # each image costs a pause of the feed
        if busy or self.later:
            self._refuse(message.sender, message.transfer, self.later or busy, again=True)
            return
        if self.phase is not Phase.FREE:
            self._end(f"member {self.joiner} asks anew", tell=False)
        self.phase, self.joiner, self.transfer = Phase.PREPARING, message.sender, message.transfer
        self._heard_ns = self._began_ns = now_ns
        self.acked = self.pieces = self._next = self._highest = self._asked = self._calm = self._again = 0
        self._window, self._manifest, self._fastest_ns = LEAST, b"", int(STATE_SILENCE_S * SECOND)
        self._read, self._sent_ns = {}, {}
        self._out.append(Note("info", "state_wanted", {"member": self.joiner, "seq": message.seq}))
        self._out.append(Prepare(self.transfer, message.seq, message.facts))
        self._offer()

    def _offer(self) -> None:
        self._out.append(Send(self.joiner, Offer(*self._head, self.transfer, self._manifest)))

    def _acknowledged(self, chunks: int, now_ns: int) -> None:
        if self.phase is Phase.OFFERED:
            self.phase, self._acked_ns = Phase.SENDING, now_ns
        if not self.acked <= chunks <= self._highest:
            return
        if chunks > self.acked:
            sent_ns = self._sent_ns.get(chunks - 1)
            if sent_ns is not None:
                self._pace(now_ns - sent_ns, chunks)
            for number in range(self.acked, chunks):
                self._read.pop(number, None)
                self._sent_ns.pop(number, None)
            self.acked, self._next, self._acked_ns = chunks, max(self._next, chunks), now_ns
        self._prefetch()
        if self.acked == self.pieces:
            assert self._began_ns is not None
            took = round((now_ns - self._began_ns) / SECOND, 3)
            facts: dict[str, object] = {"member": self.joiner, "seconds": took, "pieces": self.pieces}
            self._out.append(Note("info", "state_sent", facts | {"again": self._again, "window": self._window}))
            self.sent += 1
            self._release()

    def _pace(self, took_ns: int, chunks: int) -> None:
        """One more on its way, or half as many, at most once for all that were on their way then."""
        self._fastest_ns = min(self._fastest_ns, took_ns)
        if took_ns - self._fastest_ns <= STATE_DELAY_S * SECOND:
            self._window = min(self._window + 1, STATE_WINDOW)
        elif chunks > self._calm:
            self._window, self._calm = max(self._window // 2, LEAST), self._next

    def _prefetch(self) -> None:
        """Have the next pieces read, some at a time."""
        last = min(self.acked + STATE_READ, self.pieces)
        if last > self._asked and (last - self._asked >= STATE_READ // 4 or last == self.pieces):
            self._out.append(Read(self.transfer, self._asked, last))
            self._asked = last

    def _refuse(self, member: int, transfer: int, reason: str, *, again: bool = False) -> None:
        self._out.append(Send(member, Refuse(*self._head, transfer, again, clipped(reason))))

    def _end(self, reason: str, *, tell: bool = True) -> None:
        self.failures += 1
        self._out.append(Note("warning", "state_not_given", {"member": self.joiner, "reason": reason}))
        if tell:
            self._refuse(self.joiner, self.transfer, reason)
        self._release()

    def _release(self) -> None:
        self._out.append(Drop(self.transfer))
        self.phase, self.transfer = Phase.FREE, 0
        self._read, self._sent_ns, self._manifest = {}, {}, b""

"""Whether speculating pays: what packets gain by being fed early, against what checkpoints and rollbacks cost them.

Both are sums of packet-seconds.  A packet that was fed before it was stable gained the time between the two.  While
a checkpoint is taken, or gone back to, nothing is fed: who comes in that time waits for half of it in the mean.

Where the IDS itself takes the checkpoints (`daq.py`), nobody sees how long that was.  But packets that it has taken
and that are not stable, summed over time, are the packet-seconds gained, and those that are stable and not taken the
packet-seconds lost: the checkpoints, the way back and what is read again are in there.  What was gained since a
checkpoint that is gone back to is nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ftnids.limits import SPECULATION_JUDGE_S, SPECULATION_PAUSE_S, SPECULATION_TRIALS
from ftnids.log import get

log = get("feed")


class Policy:
    """Judges after each SPECULATION_TRIALS checkpoints, and of an IDS that is `watched` not before SPECULATION_JUDGE_S
    are over; where they cost more than they gain, pauses.

    With `always` it never does.
    """

    def __init__(self, *, always: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.pauses = 0
        self._always = always
        self._until = 0.0
        self._trials = 0
        self._gained = self._lost = 0.0
        self._early = self._watched = self._judge_at = 0.0
        self._checkpoint: object = None

    @property
    def speculates(self) -> bool:
        """Whether the next packets that are not stable may be fed."""
        return self.clock() >= self._until

    def waited(self, seconds: float, packets: int) -> None:
        """A checkpoint or a rollback took `seconds`, in which `packets` came."""
        self._lost += seconds * packets / 2

    def gained(self, seconds: float, packets: int) -> None:
        """So many packets were fed `seconds` before they were stable."""
        self._gained += seconds * packets

    def watched(self, lead: int, checkpoint: object) -> None:
        """An IDS that reads by itself has taken `lead` packets that are not stable, or lags by -`lead`; to be called
        often.  `checkpoint` names the one that stands, if any (else None): another one means that the last is over."""
        now = self.clock()
        if not self._watched:
            self._judge_at = now + SPECULATION_JUDGE_S
        spell, self._watched = now - (self._watched or now), now
        if lead > 0:
            self._early += lead * spell
        else:
            self._lost -= lead * spell
        if checkpoint != self._checkpoint:
            if self._checkpoint is not None:
                self._gained += self._early
                self.closed()
            self._early, self._checkpoint = 0.0, checkpoint

    def set_back(self) -> None:
        """To the checkpoint that stood: what was early since is read again."""
        self._early, self._checkpoint = 0.0, None
        self.closed()

    def failed(self) -> None:
        """No checkpoint could be taken: not again for a while, even with `always`."""
        self._until = self.clock() + SPECULATION_PAUSE_S

    def closed(self) -> None:
        """What began with a checkpoint is over: confirmed or rolled back."""
        self._trials += 1
        if self._trials < SPECULATION_TRIALS or self.clock() < self._judge_at:
            return
        self._judge_at = self.clock() + SPECULATION_JUDGE_S if self._watched else 0.0
        if self._lost > self._gained and not self._always:
            self.pauses += 1
            self._until = self.clock() + SPECULATION_PAUSE_S
            sums = {"gained_packet_s": round(self._gained, 3), "lost_packet_s": round(self._lost, 3)}
            log.info("speculating does not pay", pause_s=SPECULATION_PAUSE_S, **sums)
        self._trials, self._gained, self._lost = 0, 0.0, 0.0

"""Whether speculating pays: what packets gain by being fed early, against what checkpoints and rollbacks cost them.

Both are sums of packet-seconds.  A packet that was fed before it was stable gained the time between the two.  While
a checkpoint is taken, or gone back to, nothing is fed: who comes in that time waits for half of it in the mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from ftnids.limits import SPECULATION_PAUSE_S, SPECULATION_TRIALS

log = structlog.get_logger()


class Policy:
    """Judges after each SPECULATION_TRIALS checkpoints; where they cost more than they gain, pauses.

    With `always` it never does.
    """

    def __init__(self, *, always: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.pauses = 0
        self._always = always
        self._until = 0.0
        self._trials = 0
        self._gained = self._lost = 0.0

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

    def failed(self) -> None:
        """No checkpoint could be taken: not again for a while, even with `always`."""
        self._until = self.clock() + SPECULATION_PAUSE_S

    def closed(self) -> None:
        """What began with a checkpoint is over: confirmed or rolled back."""
        self._trials += 1
        if self._trials < SPECULATION_TRIALS:
            return
        if self._lost >= self._gained and not self._always:
            self.pauses += 1
            self._until = self.clock() + SPECULATION_PAUSE_S
            sums = {"gained_packet_s": round(self._gained, 3), "lost_packet_s": round(self._lost, 3)}
            log.info("speculating does not pay", pause_s=SPECULATION_PAUSE_S, **sums)
        self._trials, self._gained, self._lost = 0, 0.0, 0.0

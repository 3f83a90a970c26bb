"""The way through the ring: the IDS reads it by itself, through the DAQ module, and reports how far it is.

Nothing is copied here and nothing is waited for: this sink's position is what the module reports as done with.  A
packet is done with when the IDS gave it back, so a run begins exactly where the one before it died, with the packet in
hand.  If the next one dies with the same packet in hand, that one is left out, counted and said.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

import structlog

from ftnids.core import Ring
from ftnids.core.reader import Reader, Report, State
from ftnids.errors import RingError
from ftnids.feed.ids import DeathError, Ids, Run
from ftnids.limits import FEED_LOOK_S, FEED_WAIT_S, IDS_START_S
from snort_adapter.launchers import IdsLauncher

log = structlog.get_logger()


class DaqIds(Ids):
    """Supervises an IDS that reads `ring` itself.  `group`: who else may read the ring; for the rest see `Ids`."""

    ring: Ring

    def __init__(
        self,
        ring: Ring,
        launcher: IdsLauncher,
        log_dir: Path,
        cpus: Collection[int] = (),
        *,
        group: str | None = None,
    ) -> None:
        super().__init__(ring, launcher, log_dir, cpus)
        self._group = group
        self._reader: Reader | None = None
        self._stumbled = -1  # the packet that the last run died with in hand
        self.left_out = 0  # packets that two runs in a row died with

    def counters(self) -> dict[str, int]:
        """Those of every IDS, and `left_out`: packets that two runs in a row died with."""
        return {**super().counters(), "left_out": self.left_out}

    def note(self) -> None:
        """Everything stable: the IDS may be that far."""
        if self._run_now is not None:
            self._note(self.ring.stable)

    def _input(self, log_dir: Path) -> list[str]:
        self.note()  # for the last alerts of the run before
        self._reader = Reader.create(self.ring, start=self.position, group=self._group)
        return self.launcher.ring_command(self.ring.name, log_dir)

    def _open(self, run: Run) -> None:
        deadline = time.monotonic() + IDS_START_S
        while self._look().state < State.READS:
            if run.process.poll() is not None:
                raise DeathError("before it read the ring")
            if self._stop.is_set() or time.monotonic() > deadline:
                raise DeathError(f"killed: it did not read the ring after {IDS_START_S:.0f} s")
            time.sleep(FEED_LOOK_S)

    def _drain(self) -> bool:
        while not self._stop.is_set():
            dead = self._current.process.poll() is not None  # before the last report that it can have made
            self._follow(self._look())
            if self.ring.ended and self.position >= self.ring.agreed:
                return True
            if dead:
                raise DeathError("while it was fed")
            if self.ring.wait_stable(self.position, FEED_WAIT_S) > self.position:  # it is at work
                self._stop.wait(FEED_LOOK_S)
        return False

    def _look(self) -> Report:
        assert self._reader is not None
        try:
            return self._reader.report()
        except RingError as error:
            raise DeathError(f"killed: {error}") from None

    def _follow(self, report: Report) -> None:
        if report.fed > self.position:
            self._note(report.fed)  # while its entries are there
            self.position = report.fed
            self.moved()

    def _bury(self, when: str) -> None:
        """As for every IDS; the next run begins with the packet that this one had in hand, unless both had it."""
        super()._bury(when)
        if self._reader is None or self._stop.is_set():
            return
        try:
            report = self._reader.report()
        except RingError:
            return
        self._follow(report)
        if report.taken == report.fed:
            return
        if self.position == self._stumbled:
            self._note(self.position + 1)
            self.position += 1
            self.left_out += 1
            hint = "two runs in a row died with it; agreed.pcap has it, if feed.agreed_pcap is set"
            log.error("packet left out", ids=self.name, seq=self._stumbled, left_out=self.left_out, hint=hint)
            self.moved()
        else:
            self._stumbled = self.position

    def _shut(self) -> None:
        pass  # the ring says by itself that it has ended

    def _close(self) -> None:
        super()._close()
        if self._reader is not None:
            self._reader.close()

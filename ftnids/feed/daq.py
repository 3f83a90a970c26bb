"""The way through the ring: the IDS reads it by itself, through the DAQ module, and reports how far it is.

Nothing is copied here and nothing is waited for: this sink's position is what the module reports as done with.  A
packet is done with when the IDS gave it back, so a run begins exactly where the one before it died, with the packet in
hand.  If the next one dies with the same packet in hand, that one is left out, counted and said.

With `ahead` the IDS goes beyond what is stable, and forks before it does (`reader.h`).  Where the ring says that what
could be read has changed, this thread looks how far the IDS has gone.  If it has taken anything wrong it is killed,
its log is cut to the size noted at the fork, and the child goes on.  What stands in the log behind that size is not
read before it is certain.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Final

from ftnids.core import Ring
from ftnids.core.reader import Mode, Reader, Report, State
from ftnids.errors import RingError
from ftnids.feed.checkpoint import Adopted, gone
from ftnids.feed.ids import DeathError, Ids, Run
from ftnids.feed.policy import Policy
from ftnids.limits import AHEAD_SPAN, FEED_LOOK_S, FEED_WAIT_S, IDS_START_S, IDS_TERM_S, SPECULATION_JUDGE_S
from ftnids.log import get
from snort_adapter.launchers import IdsLauncher

log = get("feed")
PR_SET_CHILD_SUBREAPER: Final = 36
GO_ON_S: Final = 0.0002  # between two looks whether a checkpoint has gone on


class DaqIds(Ids):
    """Supervises an IDS that reads `ring` itself, with `ahead` beyond what is stable.

    `group`: who else may read the ring; `policy`: when it reads ahead, always without one; for the rest see `Ids`.
    """

    ring: Ring

    def __init__(
        self,
        ring: Ring,
        launcher: IdsLauncher,
        log_dir: Path,
        cpus: Collection[int] = (),
        *,
        group: str | None = None,
        ahead: bool = False,
        policy: Policy | None = None,
    ) -> None:
        super().__init__(ring, launcher, log_dir, cpus)
        self._group = group
        self._reader: Reader | None = None
        self._stumbled = -1  # the packet that the last run died with in hand
        self.left_out = 0  # packets that two runs in a row died with
        self.retracted = 0  # lines of the log that were cut off
        self.ahead = ahead
        self._policy = policy or Policy(always=True)
        self._taken, self._active_at = -1, 0.0  # how far it was, and since when
        self._fell = False  # the last run died while it read ahead: the next one does not
        self._taken_before = 0  # checkpoints of earlier runs
        self._changes: deque[tuple[int, int]] = deque()  # epoch, and the first seq that changed
        self._news = threading.Event()
        if ahead:
            ring.changed = self._changed
            _adopt_orphans()

    def counters(self) -> dict[str, int]:
        """Those of every IDS, packets that two runs died with (`left_out`), and alerts taken back (`retracted`)."""
        return {**super().counters(), "left_out": self.left_out, "retracted": self.retracted}

    @property
    def checkpoints(self) -> int:
        report = self._report()
        return self._taken_before + (report.checkpoints if report is not None else 0)

    def bound(self, run: Run) -> None:
        """What was logged when the newest checkpoint was taken, or all, if there is none before and after that."""
        if not self.ahead or self._reader is None:
            return
        lines, path = run.reader.lines, run.reader.lines.path
        if run.ended or run is not self._run_now:
            lines.limit = None
            return
        before = self._report()
        size = path.stat().st_size if path.exists() else 0
        after = self._report()
        if before is None or after is None:
            return
        certain = before.checkpoint is None and after.checkpoint is None and before.checkpoints == after.checkpoints
        lines.limit = size if certain else max(lines.limit or 0, before.log_bytes)

    def note(self) -> None:
        """Everything stable: the IDS may be that far."""
        if self._run_now is not None:
            self._note(self.ring.stable)

    def _input(self, log_dir: Path) -> list[str]:
        self.note()  # for the last alerts of the run before
        if self._reader is not None:
            self._taken_before = self.checkpoints
            self._reader.close()
        mode = Mode.FORK if self.ahead and not self._fell else Mode.STABLE_ONLY
        self._changes.clear()
        span = min(AHEAD_SPAN, self.ring.agreed_slots // 4)
        self._reader = Reader.create(self.ring, start=self.position, mode=mode, span=span, group=self._group)
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
            self._heed()
            report = self._look()
            self._follow(report)
            if self.ahead:
                self._weigh(report)
            if self.ring.ended and self.position >= self.ring.agreed:
                return True
            if dead:
                raise DeathError("while it was fed")
            self._wait()
        return False

    def _wait(self) -> None:
        behind = self.position < self.ring.stable
        if self.ahead:  # not on the ring: a change must end it
            lately = time.monotonic() - self._active_at < SPECULATION_JUDGE_S  # it is watched
            self._news.wait(FEED_LOOK_S if behind or lately else FEED_WAIT_S)
        elif behind or self.ring.wait_stable(self.position, FEED_WAIT_S) > self.position:  # it is at work
            self._stop.wait(FEED_LOOK_S)

    def _weigh(self, report: Report) -> None:
        """Let the policy see how far it is, and say whether it is to run ahead."""
        if report.taken != self._taken:
            self._taken, self._active_at = report.taken, time.monotonic()
        stands = report.checkpoints if report.checkpoint is not None else None
        self._policy.watched(report.taken - self.ring.stable, stands)
        assert self._reader is not None
        self._reader.lead(self._policy.speculates)

    # -- reading ahead ---------------------------------------------------------------------------------

    def _changed(self, epoch: int, seq: int) -> None:
        """Called by the thread that publishes: as of `epoch` what could be read from `seq` on was wrong."""
        self._changes.append((epoch, seq))
        self._news.set()

    def _heed(self) -> None:
        """Whatever has changed since: throw the IDS back if it has taken it, and let it go on."""
        self._news.clear()
        if not self._changes:
            return
        assert self._reader is not None
        epoch, wrong = self._changes.popleft()
        while self._changes:
            epoch, seq = self._changes.popleft()
            wrong = min(wrong, seq)
        report = self._look()
        if report.checkpoint is not None and report.taken > wrong:
            self._roll_back(wrong)
        self._reader.good(epoch)

    def _roll_back(self, wrong: int) -> None:
        """The IDS has taken `wrong`, which is another packet: go on with the checkpoint.  DeathError without one."""
        assert self._reader is not None
        run, began = self._current, time.monotonic()
        run.process.kill()
        gone(run.process.pid, IDS_TERM_S)
        run.process.wait(IDS_TERM_S)
        report = self._look()
        if report.checkpoint is None:
            raise DeathError("killed: it had read ahead, and its checkpoint is gone")
        self._cut(run, report.log_bytes, wrong)
        self._reader.go_on()
        while self._look().pid != report.checkpoint_pid:
            if time.monotonic() - began > IDS_TERM_S:
                raise DeathError("killed: it had read ahead, and its checkpoint does not go on")
            time.sleep(GO_ON_S)
        run.process = Adopted(report.checkpoint_pid)
        self.rollbacks += 1
        self._policy.set_back()
        took = round((time.monotonic() - began) * 1e3, 3)
        log.debug(
            "IDS rolled back", ids=self.name, seq=report.checkpoint, wrong=wrong, taken=report.taken, took_ms=took
        )

    def _cut(self, run: Run, size: int, wrong: int) -> None:
        """Cut its log to `size`, because packet `wrong` was another one, and count what goes."""
        path = run.reader.lines.path
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(size)
            while data := file.read(1 << 20):
                self.retracted += data.count(b"\n")
        with run.cuts.cut(size, wrong):
            os.truncate(path, size)

    def _dead(self, run: Run) -> None:
        """A log that may hold what never was is cut; a checkpoint that nobody will need is ended."""
        if not self.ahead:
            return
        report = self._report()
        self._fell = report is not None and report.checkpoint is not None and not self._stop.is_set()
        if report is not None and report.checkpoint is not None:
            self._cut(run, report.log_bytes, report.checkpoint)
        _end_forks(run.group)

    def _signal(self, number: signal.Signals) -> None:
        """A fork has no thread that looks at signals."""
        forked = self._run_now is not None and isinstance(self._run_now.process, Adopted)
        super()._signal(signal.SIGKILL if forked else number)

    # -- reports ---------------------------------------------------------------------------------------

    def _report(self) -> Report | None:
        """What the IDS says, if that can be."""
        try:
            return self._reader.report() if self._reader is not None else None
        except RingError:
            return None

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
        if self._stop.is_set():
            return
        report = self._report()
        if report is None:
            return
        self._follow(report)
        if report.taken == report.fed or report.checkpoint is not None:  # of those ahead, who knows which it was
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


def _adopt_orphans() -> None:
    """Be the parent of processes whose parent has died: a checkpoint's is the IDS that was killed for it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_forks(group: int) -> None:
    """End what a dead IDS has left asleep, also a fork that it died before it could report."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        while True:
            os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # ChildProcessError: none is ours
            os.killpg(group, signal.SIGKILL)
            os.waitpid(-group, 0)

"""An IDS on a FIFO that is fed packets before they are stable, and goes back when they turn out to be others.

Theory of operation

`next` is what the IDS is handed next.  While all below it is stable, this is `FifoIds` as it always was.  Before the
first packet that is not stable a checkpoint is taken at `next`; from then on the hashes of what is handed out are kept,
and compared with what is decided as soon as that is stable.

    plain --[a packet that is not stable]--> take a checkpoint --> ahead
    ahead --[all that was handed out is stable and the same, and no more is there]--> plain, the checkpoint is dropped
    ahead --[something else was decided, or the IDS died]--> restore the checkpoint --> plain, fed again from there

`position`, below which the ring may free packets and this IDS is done for good, stays at the checkpoint while one
stands.  What the IDS logs meanwhile may be taken back: the reader of its log goes no further than the log went at
the checkpoint (`LineFollower.limit`), so that nothing unconfirmed gets an id or leaves this replica.

Mis-speculation is a difference of hash, order or presence, or a time that differs by more than AHEAD_TOLERANCE_US.
Entries beyond `stable` may change while they are read; an entry that reads the same before and after it was handed out
was handed out as it reads, anything else counts as mis-speculation.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ftnids.errors import RingError
from ftnids.feed.checkpoint import CheckpointError
from ftnids.feed.criu_checkpoints import CriuCheckpoints
from ftnids.feed.fifo import wait_writable
from ftnids.feed.ids import DeathError
from ftnids.feed.kept import KeptIds
from ftnids.feed.policy import Policy
from ftnids.feed.ring import AgreedRing, agreed_hashes
from ftnids.limits import AHEAD_SPAN, AHEAD_TOLERANCE_US, FEED_BATCH, FEED_WAIT_S
from ftnids.log import get
from snort_adapter.launchers import IdsLauncher

log = get("feed")


class SpeculativeRing(AgreedRing, Protocol):
    """A ring whose entries in [stable, speculative) may be read ahead, and may still change."""

    agreed_slots: int

    @property
    def speculative(self) -> int: ...
    def wait_news(self, stable: int, ahead: int, timeout_s: float) -> int: ...
    def export_ahead(self, fd: int, first_seq: int, last_seq: int) -> int: ...
    def ahead_entries(
        self, first: int, last: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]: ...


class Ahead:
    """What was handed out since a checkpoint and is not known to be right: its hashes and times, by seq."""

    def __init__(self, seq: int) -> None:
        self.first = self.checked = self.next = seq
        self._hashes = np.zeros(0, np.uint64)
        self._times = np.zeros(0, np.int64)
        self._fed_at: list[tuple[int, float]] = []  # (seq, when) of the end of each batch

    def add(self, hashes: NDArray[np.uint64], times: NDArray[np.int64], now: float) -> None:
        """These were handed out from `next` on."""
        self._hashes = np.concatenate((self._hashes, hashes))
        self._times = np.concatenate((self._times, times))
        self.next += len(hashes)
        self._fed_at.append((self.next, now))

    def agrees(self, hashes: NDArray[np.uint64], times: NDArray[np.int64]) -> bool:
        """Whether what was decided from `checked` on is what was handed out; then it is checked."""
        count = len(hashes)
        if not np.array_equal(self._hashes[:count], hashes) or _apart(self._times[:count], times):
            return False
        self._hashes, self._times = self._hashes[count:], self._times[count:]
        self.checked += count
        return True

    def gained(self, now: float) -> list[tuple[float, int]]:
        """(seconds, packets) for each batch that has been checked to its end, once."""
        done, before = [], self.first
        while self._fed_at and self._fed_at[0][0] <= self.checked:
            end, when = self._fed_at.pop(0)
            done.append((now - when, end - before))
            before = end
        self.first = before
        return done


class OptimisticIds(KeptIds):
    """`KeptIds` that speculates as `policy` says.

    With `distrust` every speculation counts as wrong, as soon as it could be compared: to see rollbacks.
    """

    ring: SpeculativeRing

    def __init__(
        self,
        ring: SpeculativeRing,
        launcher: IdsLauncher,
        run_dir: Path,
        log_dir: Path,
        cpus: Collection[int] = (),
        *,
        checkpoints: CriuCheckpoints,
        policy: Policy | None = None,
        distrust: bool = False,
    ) -> None:
        super().__init__(ring, launcher, run_dir, log_dir, cpus, checkpoints=checkpoints)
        self._policy = policy or Policy()
        self._distrust = distrust
        self._plain_until = 0  # below this seq it gets stable packets only
        self._ahead: Ahead | None = None
        self._span = min(AHEAD_SPAN, ring.agreed_slots // 4)
        self.ahead = True
        self._taken = 0

    @property
    def checkpoints(self) -> int:
        return self._taken

    def _kill(self) -> None:
        super()._kill()
        self._ahead = None

    @property
    def _settled(self) -> bool:
        return self._ahead is None

    def _feed(self) -> bool:
        while not self._stop.is_set():
            stable = self.ring.stable
            if self._ahead is not None:
                self._look_back(self._ahead, stable)
            if self._ahead is None and self.position < stable:
                self.position = self._take(self.position, min(stable, self.position + FEED_BATCH))
                self.moved()
            elif not self._go_ahead() and self._ahead is None:
                if self.ring.ended and self.position >= self.ring.agreed:
                    return True
                self._idle()
        return False

    def _go_ahead(self) -> bool:
        """Hand out packets that are not stable, or wait for some; whether there is more to do at once."""
        ahead = self._ahead
        first, checked = (self.position, self.position) if ahead is None else (ahead.next, ahead.checked)
        may = first - self.position < self._span if ahead is not None else self._may_speculate()
        if not may or self._wanted or self.ring.ended:
            return self.ring.wait_stable(checked, FEED_WAIT_S) > checked
        readable = self.ring.wait_news(checked, first, FEED_WAIT_S)
        if readable <= first:
            return self.ring.stable > checked
        if ahead is None:
            return self.ring.stable > first or self._checkpoint()
        self._speculate(ahead, min(readable, first + FEED_BATCH, self.position + self._span))
        return True

    def _may_speculate(self) -> bool:
        return self._backend.running and self.position >= self._plain_until and self._policy.speculates

    def _checkpoint(self) -> bool:
        """Take a checkpoint at `position`; whether there is one."""
        run, began, there = self._current, self._policy.clock(), self.ring.speculative
        run.reader.lines.limit = _size(run.reader.lines.path)  # what is behind it may not have been read yet
        try:
            image = self._backend.take(self.position)
        except CheckpointError as error:
            run.reader.lines.limit = None
            self._failed(error)
            self._policy.failed()
            self._idle()
            return False
        run.reader.lines.limit = image.sizes.get(run.reader.lines.path.name, 0)
        self._taken += 1
        self._ahead = Ahead(self.position)
        self._policy.waited(self._policy.clock() - began, self.ring.speculative - there)
        return True

    def _speculate(self, ahead: Ahead, last: int) -> None:
        """Hand out what stands in the ring from `ahead.next` on, up to `last`."""
        first = ahead.next
        try:
            refs, times, _ = self.ring.ahead_entries(first, last)
            hashes = agreed_hashes(self.ring, refs)
        except RingError:  # it changed since it could be read: there will be news
            return
        try:
            taken = self.ring.export_ahead(self._fd, first, last)
        except BrokenPipeError:
            self._brought_back(ahead)
            return
        except RingError:
            self._roll_back("what it was handed changed meanwhile")
            return
        if taken == first:
            wait_writable(self._fd)
            return
        again, times_again, _ = self.ring.ahead_entries(first, taken)
        count = taken - first
        if not np.array_equal(refs[:count], again) or _apart(times[:count], times_again):
            self._roll_back("what it was handed changed meanwhile")
            return
        ahead.add(hashes[:count], times[:count], self._policy.clock())

    def _look_back(self, ahead: Ahead, stable: int) -> None:
        """Compare what was handed out with what is stable."""
        if self._current.process.poll() is not None:
            self._brought_back(ahead)
            return
        upto = min(stable, ahead.next)
        if upto > ahead.checked:
            refs, times, _ = self.ring.agreed_entries(ahead.checked, upto)
            if self._distrust or not ahead.agrees(agreed_hashes(self.ring, refs), times):
                self._roll_back("")
                return
            for gain in ahead.gained(self._policy.clock()):
                self._policy.gained(*gain)
        if self.ring.ended and stable >= self.ring.agreed and ahead.next > stable:
            self._roll_back("")  # packets that never came to be
        elif ahead.checked == ahead.next and self._is_enough(ahead):
            self._confirm(ahead)

    def _is_enough(self, ahead: Ahead) -> bool:
        """Whether a checkpoint after which all was right has served: nothing is ahead, or it is far behind.

        As long as it stands what comes is handed out at once: to take the next one costs time.
        """
        far = ahead.next - self.position >= self._span
        return far or self._wanted or self.ring.ended or max(self.ring.stable, self.ring.speculative) <= ahead.next

    def _brought_back(self, ahead: Ahead) -> None:
        """It died ahead: it goes back, and what it was handed comes again when it is stable."""
        self.deaths += 1
        self._roll_back("it died while it speculated")
        self._plain_until = ahead.next

    def _confirm(self, ahead: Ahead) -> None:
        if ahead.next > self.position:  # it was handed something before all was stable
            self._note(ahead.next)  # before what it logged is read
        self._current.reader.lines.limit = None
        self.position = ahead.next
        self._ahead = None
        self._backend.discard()
        self._policy.closed()
        self.moved()

    def _roll_back(self, why: str) -> None:
        """Bring the IDS back to the checkpoint, at `position`; DeathError, and a cold one, where that fails."""
        run, began, there = self._current, self._policy.clock(), self.ring.stable
        wrong = self._ahead.checked if self._ahead is not None else self.position
        if why:
            log.warning("IDS goes back to its checkpoint", ids=self.name, run=run.number, seq=self.position, why=why)
        try:
            with run.cuts.cut(run.reader.lines.limit or 0, wrong):
                run.process = self._backend.restore()
        except CheckpointError as error:
            self._failed(error)
            raise DeathError(f"when it was to go back to its checkpoint: {error}") from None
        run.reader.lines.limit = None
        self.rollbacks += 1
        self._ahead = None
        self._backend.discard()
        self._policy.waited(self._policy.clock() - began, self.ring.stable - there)
        self._policy.closed()


def _apart(times: NDArray[np.int64], others: NDArray[np.int64]) -> bool:
    """Whether an IDS could mind that it was told these times instead of the others."""
    return bool((np.abs(times - others) > AHEAD_TOLERANCE_US).any())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

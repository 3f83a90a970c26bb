"""An IDS on a FIFO, in namespaces of its own, so that CRIU can take an image of it, or start it from another replica's.

Theory of operation

This is `FifoIds` but for who starts the process.  What goes beyond it is asked for by another thread and done by the
supervisor's, at a moment when all below `position` is in the pipe, and nothing behind it:

    donate(seq)    an image for another replica, as soon as `position` is at `seq`; the feed pauses for the dump
    hold()         nothing is fed any more, or nothing is started yet: the ring keeps all from `position` on
    begin(None)    ends the hold: the IDS is fed from `position` on
    begin(image)   ends the hold: in place of the IDS, if there is one, comes that of the image, at its seq

An image that cannot be restored means what `begin(None)` means: a cold IDS is fed from where the hold began.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from ftnids.errors import FeedError
from ftnids.feed.checkpoint import CheckpointError, IdsProcess
from ftnids.feed.criu_checkpoints import OUTGOING, CriuCheckpoints
from ftnids.feed.fifo import FifoIds
from ftnids.feed.ids import Run, Voids
from ftnids.feed.images import Image, Images
from ftnids.feed.ring import AgreedRing
from ftnids.feed.sinks import Sink
from ftnids.feed.transfer import Manifest
from ftnids.limits import FEED_WAIT_S, MAX_IMAGE_VOIDS
from ftnids.log import get
from snort_adapter.launchers import IdsLauncher

log = get("feed")


@dataclass(frozen=True, slots=True)
class Donation:
    """An image that was taken for another replica, and what it has to know of the run."""

    image: Image
    pid: int  # of the IDS, which goes on
    base_seq: int
    base_us: int
    voids: tuple[int, ...]
    pause_s: float  # for which nothing was fed


class _AnotherError(Exception):
    """The IDS that runs is to make room for another one."""


class KeptIds(FifoIds):
    """See above; for the arguments `FifoIds`."""

    def __init__(
        self,
        ring: AgreedRing,
        launcher: IdsLauncher,
        run_dir: Path,
        log_dir: Path,
        cpus: Collection[int] = (),
        *,
        checkpoints: CriuCheckpoints,
    ) -> None:
        super().__init__(ring, launcher, run_dir, log_dir, cpus)
        self._path = run_dir / "ids" / f"{launcher.name}.fifo"  # alone in its folder
        self._backend = checkpoints
        self._outgoing = run_dir / OUTGOING
        self._images: Images | None = None
        self.failures = 0  # checkpoints that could not be taken or not be gone back to
        self.held = False
        self._begun = threading.Event()
        self._begun.set()
        self._incoming: tuple[Image, Manifest, Future[int]] | None = None
        self._order: tuple[int, Future[Donation]] | None = None
        self._ordering = threading.Lock()  # of _order, _incoming and _over
        self._over = False  # nobody does what is asked for any more

    def counters(self) -> dict[str, int]:
        """Those of every IDS, and checkpoints that could not be taken or not be gone back to."""
        return {**super().counters(), "checkpoints_failed": self.failures}

    @property
    def criu_version(self) -> str:
        """Of the CRIU that takes and restores images."""
        return self._backend.version

    # -- asked for by another thread -------------------------------------------------------------------

    def hold(self) -> None:
        """Feed nothing from now on; before `start`: start nothing either, and return from it at once."""
        self._begun.clear()
        self.held = True

    def begin(self, incoming: tuple[Image, Manifest] | None) -> Future[int]:
        """End the hold; with the seq at which an IDS goes on, or the CheckpointError for which a cold one begins."""
        future: Future[int] = Future()
        if incoming is None:
            future.set_result(self.position)
        else:
            with self._ordering:
                if self._over:
                    future.cancel()
                else:
                    self._incoming = *incoming, future
        self.held = False
        self._begun.set()
        return future

    def donate(self, seq: int) -> Future[Donation]:
        """An image taken at `seq` or later, which the caller removes by `returned`; CheckpointError: there is none."""
        future: Future[Donation] = Future()
        with self._ordering:
            if self._order is not None:
                self._order[1].cancel()
            if self._over:
                future.cancel()
            else:
                self._order = seq, future
        return future

    def returned(self, image: Image) -> None:
        """An image that was donated is not needed any more."""
        if self._images is not None:
            self._images.remove(image.folder)

    def start(self) -> None:
        if self.held:
            self._ready.set()  # an IDS that does not start is started again: it is too late to refuse the replica
            Sink.start(self)
        else:
            super().start()

    def start_at(self, seq: int) -> None:
        if self._run_now is None:
            Sink.start_at(self, seq)
        else:
            super().start_at(seq)

    # -- done by the supervisor's ------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._begun.wait(FEED_WAIT_S):
            if self._stop.is_set():
                return
        super()._work()

    def _drain(self) -> bool:
        try:
            return self._feed()
        except _AnotherError:
            return False

    def _feed(self) -> bool:
        return super()._drain()

    def _take(self, first: int, last: int) -> int:
        self._attend()
        return super()._take(first, last)

    def _idle(self) -> None:
        super()._idle()
        self._attend()

    @property
    def _settled(self) -> bool:
        """Whether the IDS was given what is below `position`, and no more."""
        return True

    @property
    def _wanted(self) -> bool:
        """Whether something waits for the IDS to be settled."""
        order = self._order
        return self.held or (order is not None and not order[1].cancelled())

    def _attend(self) -> None:
        """Do what was asked for, if this is the moment."""
        if not self._settled:
            return
        while not self._begun.wait(FEED_WAIT_S):
            super()._idle()
            if self._stop.is_set():
                return
        if self._incoming is not None:
            raise _AnotherError
        with self._ordering:
            order = self._order
            if order is None or not (self.position >= order[0] or order[1].cancelled()):
                return
            self._order = None
        if order[1].set_running_or_notify_cancel():
            self._donate(order[1])

    def _donate(self, future: Future[Donation]) -> None:
        run, began = self._current, time.monotonic()
        try:
            if not self._backend.running:
                raise CheckpointError("its IDS runs where CRIU does not reach it")
            self._images = self._images or Images(self._outgoing)
            image = self._backend.copy(self.position, self._images)
        except CheckpointError as error:
            future.set_exception(error)
            return
        older, voids = run.voids.newest(MAX_IMAGE_VOIDS, self.position)
        pause_s = time.monotonic() - began
        # A run that began later by as many seqs as had no packet numbers the packets behind them alike.
        future.set_result(Donation(image, run.process.pid, run.base_seq + older, run.base_us, voids, pause_s))

    def _launch(self) -> None:
        if self._incoming is None:
            super()._launch()
            return
        (image, manifest, future), self._incoming = self._incoming, None
        try:
            self._launch_from(image, manifest)
        except (FeedError, OSError) as error:
            future.set_exception(error if isinstance(error, CheckpointError) else CheckpointError(str(error)))
            self._shut()
            self._backend.close()
            super()._launch()
        else:
            future.set_result(self.position)

    def _launch_from(self, image: Image, manifest: Manifest) -> None:
        """Start a run that is another replica's, as of the image."""
        number, log_dir = self._new_log()
        self.launcher.prepare(log_dir)
        super()._input(log_dir)
        process, self._fd = self._backend.start_from(image, self._path, log_dir, self._cpus)
        voids = Voids()
        for seq in manifest.voids:
            voids.append(seq)
        run = Run(number, manifest.base_seq, log_dir, self.launcher.reader(log_dir), process, process.pid)
        run.base_us, run.voids = manifest.base_us, voids
        run.reader.lines.skip(image.sizes.get(run.reader.lines.path.name, 0))
        with self._noting:
            self._run_now, self._noted = run, manifest.seq
            self.position = manifest.seq
        self.runs.append(run)
        log.info("IDS goes on from an image", ids=self.name, run=number, pid=process.pid, seq=manifest.seq)

    def _input(self, log_dir: Path) -> list[str]:
        super()._input(log_dir)
        return self.launcher.command(*self._backend.inside(self._path))

    def _begin(self, command: list[str], log_dir: Path) -> IdsProcess:
        env = {**os.environ, **self.launcher.environment()}
        try:
            return self._backend.start(command, env, self._path, log_dir, self._cpus)
        except CheckpointError as error:
            self._failed(error)  # it is fed stable packets only
            return super()._begin(self.launcher.command(self._path, log_dir), log_dir)

    def _opened(self) -> None:
        """The FIFO stays: a restored IDS opens it again."""

    def _kill(self) -> None:
        super()._kill()
        self._backend.close()

    def _close(self) -> None:
        super()._close()
        with self._ordering:
            self._over = True
            for waiting in (self._order, self._incoming):
                if waiting is not None:
                    waiting[-1].cancel()
            self._order = self._incoming = None

    def _failed(self, error: CheckpointError) -> None:
        self.failures += 1
        self._limiter.log(log, "error", "checkpoint", "checkpoint failed", ids=self.name, reason=str(error))

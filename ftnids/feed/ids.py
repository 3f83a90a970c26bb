"""The supervisor of one IDS process that is fed the agreed stream.

`Ids` is a sink.  Its thread starts the IDS, waits until it is ready for packets (by then its rules are loaded), follows
how far it is, and when the stream has ended lets it end by itself.  An IDS that dies is reported with its last
words and started again: at once the first time, then after growing pauses.  Each life is a `Run` with a log folder of
its own.  How packets reach the IDS is in the subclasses: `fifo.py` writes a pcap stream, `daq.py` lets the IDS read the
ring.

The IDS has a session of its own and no standard input, and the kernel kills it when this process
dies.  The kernel means the thread that forked it, so the thread that forks is the one that outlives it.

An IDS whose disk is full goes on and loses what it logs, without a word to its supervisor: `log_fails` looks for it.

The log folders of the newest IDS_RUNS runs stay, those of earlier processes among them.  By the time that a folder goes
its alerts have long been read.
"""

from __future__ import annotations

import abc
import bisect
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np

from ftnids import affinity
from ftnids import log as logs
from ftnids.errors import FeedError
from ftnids.feed import logdisk, tether
from ftnids.feed.checkpoint import IdsProcess
from ftnids.feed.cuts import Cuts
from ftnids.feed.ring import AgreedRing
from ftnids.feed.sinks import Sink, private_file
from ftnids.limits import (
    FEED_WAIT_S,
    IDS_BACKOFF_S,
    IDS_END_S,
    IDS_LAST_WORDS,
    IDS_RUNS,
    IDS_TERM_S,
    IDS_VOIDS,
)
from ftnids.log import get
from snort_adapter.launchers import AlertReader, IdsLauncher

log = get("feed")


class DeathError(Exception):
    """The IDS is gone, or never came up: in words, when."""


class Voids(Sequence[int]):
    """Seqs that had no packet to feed, rising.  Of more than IDS_VOIDS the older half is counted, not remembered.

    One thread appends, another looks.  What is only counted reads as if it had been at the beginning.
    """

    def __init__(self) -> None:
        self._seqs: tuple[int, list[int]] = 0, []  # how many are only counted, the others

    def append(self, seq: int) -> None:
        """`seq` is void, and later than all before."""
        counted, seqs = self._seqs
        if len(seqs) == IDS_VOIDS:
            counted, seqs = self._seqs = counted + IDS_VOIDS // 2, seqs[IDS_VOIDS // 2 :]
        seqs.append(seq)

    def newest(self, most: int, below: int) -> tuple[int, tuple[int, ...]]:
        """Of those below `below` the newest, at most so many, and how many there are before them."""
        counted, seqs = self._seqs
        end = bisect.bisect_left(seqs, below)
        begin = max(0, end - most)
        return counted + begin, tuple(seqs[begin:end])

    def __len__(self) -> int:
        counted, seqs = self._seqs
        return counted + len(seqs)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        counted, seqs = self._seqs
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index += len(self) if index < 0 else 0
        if not 0 <= index < counted + len(seqs):
            raise IndexError(index)
        return seqs[index - counted] if index >= counted else index


@dataclass(slots=True)
class Run:
    """One life of the IDS process: packet number n (from 1) of this run is seq `base_seq` + n - 1, voids apart."""

    number: int
    base_seq: int
    log_dir: Path
    reader: AlertReader
    process: IdsProcess
    group: int  # its process group
    base_us: int = 0  # agreed time of the first packet; 0 until it is fed
    voids: Voids = field(default_factory=lambda: Voids())  # seqs from base_seq on that had no packet to feed
    ended: bool = False  # the process is gone and has logged all that it ever will
    cuts: Cuts = field(default_factory=Cuts)  # of its log


class Ids(Sink, abc.ABC):
    """Feeds and supervises one IDS, which logs into a folder `ids/run-N` of `log_dir` for each run.

    It runs on `cpus`, without any on all.
    """

    def __init__(self, ring: AgreedRing, launcher: IdsLauncher, log_dir: Path, cpus: Collection[int] = ()) -> None:
        self.name = launcher.name
        self._cpus = sorted(cpus or affinity.AT_START)
        super().__init__(ring)
        self.launcher = launcher
        self.runs: list[Run] = []  # those whose logs may hold more
        self.deaths = 0
        self._forgotten = {"invalid": 0, "trimmed": 0, "overlong": 0}  # of logs that are read
        self.removed = 0  # log folders of old runs
        self.ahead = False  # whether it may be fed what is not stable
        self.rollbacks = 0
        self.log_failures = 0  # looks at which its log could not be written
        self._limiter = logs.Limiter()
        self._log_dir = log_dir / "ids"
        self._run_now: Run | None = None
        self._ready = threading.Event()
        self._noted = -1  # seqs below it have been looked at for voids, in this run
        self._noting = threading.Lock()

    # -- how packets reach it ------------------------------------------------------------------------

    @abc.abstractmethod
    def _input(self, log_dir: Path) -> list[str]:
        """Make what the next run reads from, and the command that reads it.  FeedError, OSError."""

    @abc.abstractmethod
    def _open(self, run: Run) -> None:
        """Wait until the IDS is ready for packets.  DeathError when it ends or hangs before."""

    @abc.abstractmethod
    def _shut(self) -> None:
        """Nothing more comes; called again, nothing happens."""

    def _exhausted(self, run: Run) -> bool:
        """At the end of the stream: whether there is nothing that the IDS could finish, so that it is killed."""
        return False

    def _dead(self, run: Run) -> None:
        """The process of `run` is gone, and its log is about to count as complete."""

    def bound(self, run: Run) -> None:
        """Before its log is read: how much of it may be.  Any thread."""

    def note(self) -> None:
        """Note which stable seqs are void, which must be known before an alert behind them gets its id.  Any thread."""

    # -- seen by others ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the IDS and wait until it is ready to read; FeedError, with its last words, when it is not."""
        super().start()
        while not self._ready.wait(FEED_WAIT_S):
            if self.ended:
                raise self.error or FeedError(f"{self.name}: stopped before it was ready")

    def start_at(self, seq: int) -> None:
        super().start_at(seq)
        with self._noting:
            self._current.base_seq = self._noted = seq

    def forget(self, run: Run) -> None:
        """The log of an ended run has been read to its end."""
        self._count(self._forgotten, run)
        self.runs.remove(run)

    def counters(self) -> dict[str, int]:
        """Deaths, looks at which its log could not be written (`log_failures`, one a second), and lines of its logs
        that are no records (`invalid`), too long (`overlong`) or cut (`trimmed`)."""
        counts = {"deaths": self.deaths, "log_failures": self.log_failures, **self._forgotten}
        for run in list(self.runs):
            self._count(counts, run)
        return counts

    @staticmethod
    def _count(counts: dict[str, int], run: Run) -> None:
        counts["invalid"] += run.reader.invalid
        counts["trimmed"] += run.reader.trimmed
        counts["overlong"] += run.reader.lines.overlong

    @property
    def checkpoints(self) -> int:
        """Checkpoints taken, of all runs."""
        return 0

    def log_fails(self) -> bool:
        """Look whether the IDS's log cannot be written, and say so; to be called about once a second."""
        run = self._run_now
        if run is None or self.ended:
            return bool(self.warning)  # as it was when it ended
        file, reason = str(run.reader.lines.path), logdisk.fault(self._log_dir)
        if reason:
            self.log_failures += 1
            hint = "alerts of this IDS are lost, and its silence counts for nothing: make room in replica.log_dir"
            self._limiter.log(log, "error", "log", "IDS log cannot be written", file=file, reason=reason, hint=hint)
        elif self.warning:
            log.warning("IDS log can be written again", file=file, log_failures=self.log_failures)
        self.warning = f"{self.name}: cannot write {file}: {reason}; its alerts are lost" if reason else ""
        return bool(reason)

    def stop(self) -> None:
        super().stop()
        self._signal(signal.SIGTERM)

    def join(self, timeout_s: float | None = None) -> bool:
        """As `Sink.join`; after `stop`, an IDS that ignores SIGTERM is killed."""
        if self._stop.is_set() and not super().join(IDS_TERM_S):
            self._signal(signal.SIGKILL)
        return super().join(timeout_s)

    def _work(self) -> None:
        deaths_in_a_row = 0
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self._launch()
                self._ready.set()
                if self._drain():
                    self._end()
                    return
            except DeathError as death:
                self._bury(str(death))
            finally:
                self._kill()
            if self._stop.is_set():
                return
            deaths_in_a_row = 0 if time.monotonic() - started > IDS_BACKOFF_S else deaths_in_a_row + 1
            self._stop.wait(min(2.0 ** (deaths_in_a_row - 2), IDS_BACKOFF_S) if deaths_in_a_row > 1 else 0)

    # -- one run -------------------------------------------------------------------------------------

    def _launch(self) -> None:
        """Start a run; DeathError when it ends or hangs before it is ready."""
        number, log_dir = self._new_log()
        try:
            self.launcher.prepare(log_dir)
            command = self._input(log_dir)
        except OSError as error:
            raise FeedError(f"{self.name}: cannot prepare {error.filename}: {error.strerror}") from None
        process = self._begin(command, log_dir)
        run = Run(number, self.position, log_dir, self.launcher.reader(log_dir), process, process.pid)
        with self._noting:
            self._run_now, self._noted = run, run.base_seq
        self.runs.append(run)
        self._open(run)
        log.info("IDS reads", ids=self.name, run=number, pid=process.pid, seq=run.base_seq)

    def _new_log(self) -> tuple[int, Path]:
        """Number and log folder, to be made, of the next run; folders of old ones go."""
        earlier = _runs(self._log_dir)
        self._remove(earlier[: max(0, len(earlier) + 1 - IDS_RUNS)])
        number = 1 + max(earlier, default=-1)
        return number, self._log_dir / f"run-{number}"

    def _begin(self, command: list[str], log_dir: Path) -> IdsProcess:
        """Start the IDS; what it prints goes to `ids.log`."""
        output = private_file(log_dir / "ids.log")
        try:
            cpus = f"--cpus={','.join(map(str, self._cpus))}"
            return subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), cpus),
                    *command,
                ],
                env={**os.environ, **self.launcher.environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.close(output)

    def _remove(self, numbers: Sequence[int]) -> None:
        """Remove the log folders of old runs; one that cannot be removed is said, and tried again next time."""
        for number in numbers:
            try:
                shutil.rmtree(self._log_dir / f"run-{number}")
            except OSError as error:
                log.warning("IDS log not removed", ids=self.name, run=number, reason=error.strerror or str(error))
            else:
                self.removed += 1
                log.info("old IDS log removed", ids=self.name, run=number, kept=IDS_RUNS, removed=self.removed)

    def _note(self, last: int) -> None:
        """Note the voids below `last`, which are stable and not freed, and when the run's first packet was."""
        with self._noting:
            run, first = self._current, self._noted
            if last <= first:
                return
            refs, time_us, _ = self.ring.agreed_entries(first, last)
            if run.base_us == 0:
                run.base_us = int(time_us[0])
            for seq in first + np.flatnonzero(refs < 0):
                run.voids.append(int(seq))
            self._noted = last

    def _idle(self) -> None:
        if self._current.process.poll() is not None:
            raise DeathError("while it was fed")

    def _end(self) -> None:
        """The stream has ended: let the IDS finish, with some force if need be."""
        run = self._current
        self._shut()
        if idle := self._exhausted(run):
            run.process.kill()
        for patience, force in ((IDS_END_S, signal.SIGTERM), (IDS_TERM_S, signal.SIGKILL), (None, None)):
            try:
                status = run.process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                log.warning("IDS does not end by itself", ids=self.name, run=run.number, after_s=patience)
                run.process.send_signal(force)  # type: ignore[arg-type]
        self._dead(run)
        run.ended = True
        if status != 0 and not idle and not self._stop.is_set():
            self._bury("at the end of the stream")

    def _bury(self, when: str) -> None:
        """Report a death; FeedError when the IDS has never been ready, for then it never will be."""
        if self._stop.is_set():
            return
        self._kill()
        run = self._current
        status = run.process.returncode or 0
        report = f"{self.name}: {_cause(status)} {when}{_last_words(run.log_dir / 'ids.log')}"
        if not self._ready.is_set():
            raise FeedError(f"{report}; check it with: {' '.join(self.launcher.check_command(run.log_dir))}")
        self.deaths += 1
        log.error("IDS died", ids=self.name, run=run.number, seq=self.position, report=report)

    def _kill(self) -> None:
        """Leave nothing of the current run but its logs."""
        run = self._run_now
        if run is None or run.ended:
            return
        self._shut()
        if run.process.poll() is None:
            try:
                run.process.wait(FEED_WAIT_S)  # a dying process closes what it reads before it can be waited for
            except subprocess.TimeoutExpired:
                run.process.kill()
                run.process.wait()
        self._dead(run)
        run.ended = True

    def _close(self) -> None:
        self._kill()

    @property
    def _current(self) -> Run:
        assert self._run_now is not None
        return self._run_now

    def _signal(self, number: signal.Signals) -> None:
        if self._run_now is not None and self._run_now.process.poll() is None:
            self._run_now.process.send_signal(number)


_RUN = re.compile(r"run-(0|[1-9]\d*)")


def _runs(folder: Path) -> list[int]:
    """The numbers of the runs that have logged into `folder`, oldest first."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(found[1]) for found in map(_RUN.fullmatch, names) if found)


def _cause(status: int | None) -> str:
    if status is None:
        return "gone"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _last_words(path: Path) -> str:
    """The last lines that the IDS printed, on one line."""
    with path.open("rb") as output:
        output.seek(max(0, path.stat().st_size - IDS_LAST_WORDS))
        lines = output.read().decode(errors="replace").strip().splitlines()
    return f": {' | '.join(lines[-3:])}" if lines else ""

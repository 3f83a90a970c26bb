"""Checkpoints of an IDS process: the one interface that every back-end has.

Theory of operation

An optimistic feed hands its IDS packets that are not stable yet.  Before the first of them the IDS is *parked*: it has
finished all packets below some seq, its alerts on them are in its log, and it asks for nothing but the next packet.
There a checkpoint is taken, and the size of its log is noted.  When all that it was handed since is stable, and is what
was decided, the checkpoint is discarded.  When something else was decided (a mis-speculation) the supervisor kills
the process, cuts the log to the size noted, and lets the back-end bring back the process as it was:

    take(process, seq) -> discard()                          nothing was wrong
    take(process, seq) -> [kill, cut the log] -> restore()   something was

There is one checkpoint at a time, and all calls come from the thread of the supervisor.  A back-end that fails raises
CheckpointError; then the IDS is started cold from the first packet that the ring still holds for it, and that is
counted and said.  The ring itself is shared memory and is never rolled back: the position in it is the process's own.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ftnids.errors import FeedError


class CheckpointError(FeedError):
    """A checkpoint that could not be taken, or not be gone back to."""


class IdsProcess(Protocol):
    """A running IDS, as `subprocess.Popen` offers it."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


class Checkpoints(Protocol):
    """A back-end: `name` is what `feed.checkpoint` calls it."""

    name: str

    def self_test(self) -> str:
        """Why it does not work on this machine, or "".  Before any IDS is started; may take a second."""

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that starts the IDS so that it can be checkpointed."""

    def take(self, process: IdsProcess, seq: int) -> None:
        """A checkpoint of `process`, which is parked before packet `seq`; it goes on unharmed.  CheckpointError."""

    def discard(self) -> None:
        """The checkpoint is not needed any more.  Without one, nothing."""

    def restore(self) -> IdsProcess:
        """The process as it was when the checkpoint was taken, parked; the one before is dead and reaped.

        The checkpoint is used up.  CheckpointError.
        """

    def close(self) -> None:
        """Leave nothing behind."""


class Adopted:
    """A process that became a child of this one because its parent died (this one is a subreaper)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()  # one thread reaps it

    def poll(self) -> int | None:
        """The exit status as `subprocess` has it, None while it runs."""
        with self._lock:
            if self.returncode is None:
                self._reap(os.WNOHANG)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; subprocess.TimeoutExpired after `timeout` seconds."""
        if not gone(self.pid, timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, sig: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _reap(self, options: int) -> None:
        try:
            pid, status = os.waitpid(self.pid, options)
        except ChildProcessError:  # somebody else reaped it: how it ended is not known
            self.returncode = -signal.SIGKILL
        else:
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)


class Log:
    """The file that the IDS appends its alerts to: noted when a checkpoint is taken, cut when it is gone back to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mark: int | None = None  # its size at the checkpoint

    def note(self) -> None:
        """Remember the size as it is now."""
        try:
            self.mark = self.path.stat().st_size
        except FileNotFoundError:
            self.mark = 0

    def cut(self) -> None:
        """Cut off what was written since.  CheckpointError."""
        try:
            if self.mark is not None and self.path.exists():
                os.truncate(self.path, self.mark)
        except OSError as error:
            raise CheckpointError(f"cannot cut {self.path} to {self.mark} bytes: {error.strerror}") from None


def gone(pid: int, timeout: float | None = None) -> bool:
    """Wait until a child has ended, which `subprocess` notices up to 50 ms late; whether it has.  It is not reaped."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1_000))
    finally:
        os.close(process)

"""What the feeds that set an IDS back have in common: its process, by whatever parent, and how that fails.

Theory of operation

An optimistic feed hands its IDS packets that are not stable yet.  Before the first of them a checkpoint is taken, and
the size of its log is noted.  When all that it was handed since is stable, and is what was decided, the checkpoint is
discarded.  When something else was decided (a mis-speculation) the process is killed, its log is cut to that size, and
the process comes back as it was: a fork of it that slept until then (`daq.py`), or an image by CRIU (`optimistic.py`).

There is one checkpoint at a time, and all calls come from the thread of the supervisor.  Where going back fails, the
IDS is started cold from the first packet that the ring still holds for it, and that is counted and said.  The ring
itself is shared memory and is never rolled back: the position in it is the process's own.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
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

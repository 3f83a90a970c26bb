"""Child processes that end when the lab ends, however it ends.

Each child leads a session of its own, so that a Ctrl-C in the terminal reaches the lab alone, which then
ends its children in order; and the kernel kills it should the lab be killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ftnids import limits
from ftnids.errors import FtnidsError
from ftnids.feed import tether

POLL_S: Final = 0.05


class Child:
    """One running program; what it says goes to `log`, or through `read_line` when `talks` is set."""

    def __init__(self, name: str, command: Sequence[str], log: Path, talks: bool = False) -> None:
        self.name, self.log = name, log
        program = shutil.which(command[0])
        if program is None:
            raise FtnidsError(f"{command[0]} is not installed; the lab runs {name} with it")
        tied = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), program, *command[1:]]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                tied,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def status(self) -> int | None:
        """The exit status, None while it runs."""
        return self.process.poll()

    def last_words(self) -> str:
        """Why it ended: the signal that killed it, or the last line of its log."""
        if self.status is not None and self.status < 0:
            return f"killed by {signal.Signals(-self.status).name}"
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"

    def read_line(self, seconds: float) -> str:
        """The next line of its output.  FtnidsError when it ends or is silent for `seconds`."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline().decode(errors="replace").strip() if ready else ""
        if not line:
            why = f"silent for {seconds:g} s" if self.status is None and not ready else self.last_words()
            raise FtnidsError(f"{self.name} did not start: {why} (log: {self.log})")
        return line

    def signal(self, number: int) -> None:
        """Send it a signal if it still runs."""
        if self.status is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it, and what it started and left in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Children:
    """The children of a run.  A context manager: none is left when the block is left."""

    def __init__(self) -> None:
        self._all: list[Child] = []

    def start(self, name: str, command: Sequence[str], log: Path, talks: bool = False) -> Child:
        """Start a program.  FtnidsError when there is no such program."""
        self._all.append(Child(name, command, log, talks))
        return self._all[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for child in self._all:
            child.signal(signal.SIGTERM)
        with contextlib.suppress(FtnidsError):
            wait_until(lambda: all(child.status is not None for child in self._all), limits.LAB_STOP_SECONDS, "")
        for child in self._all:
            child.kill()


def wait_until(reached: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until `reached()`.  FtnidsError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise FtnidsError(f"{what} did not happen within {seconds:g} s")
        time.sleep(POLL_S)

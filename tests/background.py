"""The fresh seeds of the simulation, run beside the other tests on processor time that nobody else wants.

Most scenarios wait for something most of the time.  The seeds take that time, at idle priority; once the test that
reports them waits itself, they go on as an ordinary process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import psutil

import ftnids
from ftnids.limits import SIMULATE_MAX_SEED

COUNT: Final = int(os.environ.get("FTNIDS_SEEDS", "500"))
JOBS: Final = min(len(os.sched_getaffinity(0)), 8)


def version() -> int:
    """A number that every change of the protocol's code changes: one version always runs the same seeds."""
    root = Path(ftnids.__file__).parent
    code = sorted(p for part in ("sync", "core") for p in (root / part).rglob("*") if p.suffix in (".py", ".c", ".h"))
    assert code, root
    return int.from_bytes(hashlib.blake2b(b"".join(p.read_bytes() for p in code), digest_size=4).digest(), "big")


class FreshSeeds:
    """The running simulation of seeds that no version before has seen."""

    def __init__(self) -> None:
        first = 1 + version() % (SIMULATE_MAX_SEED - COUNT)
        self.seeds = f"{first}:{first + COUNT - 1}"
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - open until `stop`
        command = [sys.executable, "-m", "ftnids", "simulate", "--seeds", self.seeds, "--jobs", str(JOBS)]
        self._process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT)
        self._schedule(os.SCHED_IDLE)

    def processes(self) -> set[int]:
        """The ids of all its processes."""
        return {process.pid for process in self._tree()}

    def result(self, timeout_s: float) -> tuple[int, str]:
        """Exit status (-1: it did not end in time) and output; until then it runs as fast as it can."""
        self._schedule(os.SCHED_OTHER)
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(timeout_s)
        self._output.seek(0)
        return -1 if status is None else status, self._output.read().decode()

    def stop(self) -> None:
        """End it, wherever it is."""
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._output.close()

    def _tree(self) -> list[psutil.Process]:
        if self._process.poll() is not None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            return [*process.children(recursive=True), process]
        return []

    def _schedule(self, policy: int) -> None:
        for process in self._tree():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.sched_setscheduler(process.pid, policy, os.sched_param(0))

"""What the machine itself did to a measurement: how late a sleeper wakes, how much time the host took.

A process that does nothing but sleep a millisecond at a time runs beside the measurement: that it wakes late is the
machine's doing.  *steal* is processor time that the host gave to others while this machine had work for it, *busy* what
all processes of this machine used, from /proc/stat.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from select import select
from types import TracebackType
from typing import Final, Self

import numpy as np

SLEEP_S: Final = 0.001
IDLE, STEAL = slice(3, 5), 7  # places among the figures of /proc/stat; waiting for a disk is idle, too


class Host:
    """A context manager: what the machine did while its block ran."""

    late_p99_ms = late_max_ms = 0.0
    steal = busy = 0.0  # shares of all processors' time

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "bench._host"]
        root = Path(__file__).resolve().parent.parent
        self._sleeper = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._sleeper.stdout
        self._sleeper.stdout.readline()
        self._before = _jiffies()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        after = _jiffies()
        told, _ = self._sleeper.communicate()  # which closes its input
        self.late_p99_ms, self.late_max_ms = json.loads(told)
        passed = [now - then for now, then in zip(after, self._before, strict=True)]
        whole = max(1, sum(passed))
        self.steal, self.busy = passed[STEAL] / whole, 1 - (sum(passed[IDLE]) + passed[STEAL]) / whole


def _jiffies() -> list[int]:
    """The processors' time by kind: user, nice, system, idle, iowait, irq, softirq, steal."""
    return [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]


def sleep_until_told() -> list[float]:
    """Sleep and wake until the input ends: by how many ms the wakings were late, 99th percentile and the most."""
    late = []
    while True:
        began = time.monotonic()
        if select([sys.stdin], [], [], SLEEP_S)[0]:
            break
        late.append((time.monotonic() - began - SLEEP_S) * 1e3)
    return [float(np.percentile(late or [0.0], 99)), max(late, default=0.0)]


if __name__ == "__main__":
    print("ready", flush=True)
    print(json.dumps(sleep_until_told()))

"""How long an IDS stands still for a checkpoint by CRIU, and how long setting it back takes; by a fork, too.

Each IDS that is here reads a FIFO, as a replica starts it, and is given part of a capture.  Then, again and again: a
checkpoint, more packets, and back.

* checkpoint: the IDS stands still, and its image is written
* rollback: from the decision until the first packet can be fed again: kill, empty the FIFO, cut the logs, restore
* image: bytes on disk

*large*: Snort with generated rules and `search_method = 'ac_full'`, whose tables take some 600 MB, all of which it has
written; by a fork in the DAQ module, too (that of Snort as shipped is in `python -m bench snort`).

Needs root and CRIU.  Images are in shared memory.

options: --trace FILE (FTNIDS_TRACE), --turns N (20), --quick (5 turns)
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.__main__ import SKIPPED
from bench._progress import progress
from bench._results import Results, Row
from bench.snort import filled, rollbacks
from ftnids.errors import FtnidsError
from ftnids.feed.criu_checkpoints import CriuCheckpoints
from snort_adapter.launchers import LAUNCHERS, IdsLauncher, Snort, launcher

BEFORE: Final = 16 << 20  # bytes of the capture that an IDS has read before
BETWEEN: Final = 1 << 16  # and that it is given after each checkpoint
START_S: Final = 60.0
GOALS: Final = {"snort": "<= 150", "snort, large": "<= 800"}  # for a rollback, ms
FORK_MS: Final = "<= 25"  # the same by a fork, large
RULES: Final = 8_000  # that make Snort so large
RULE: Final = 'alert tcp any any -> any any (msg:"bench {n}"; content:"{text}"; sid:{sid}; rev:1;)\n'
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
HEAD: Final = 24


class Subject:
    """One IDS that has read the first part of a capture."""

    def __init__(self, ids: IdsLauncher, trace: bytes, folder: Path) -> None:
        self.checkpoints = CriuCheckpoints(folder / "run")
        self._trace, self._at = trace, _end_of_record(trace, BEFORE)
        fifo, logs = folder / "fifo/ids.fifo", folder / "log"
        fifo.parent.mkdir()
        os.mkfifo(fifo, 0o600)
        ids.prepare(logs)
        command = ids.command(*self.checkpoints.inside(fifo))
        child = self.checkpoints.start(command, {**os.environ, **ids.environment()}, fifo, logs)
        deadline = time.monotonic() + START_S
        while True:
            try:
                self._fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError:
                if child.poll() is not None or time.monotonic() > deadline:
                    raise FtnidsError(f"{ids.name} does not open its input") from None
                time.sleep(0.01)
        os.set_blocking(self._fd, True)
        os.write(self._fd, trace[: self._at])

    def turn(self) -> tuple[float, float, int]:
        """Seconds of a checkpoint and of a rollback, bytes of the image."""
        began = time.perf_counter()
        image = self.checkpoints.take(0)
        taken = time.perf_counter() - began
        size = image.bytes()
        os.write(self._fd, self._trace[self._at : _end_of_record(self._trace, self._at + BETWEEN)])
        began = time.perf_counter()
        self.checkpoints.restore()
        back = time.perf_counter() - began
        self.checkpoints.discard()
        return taken, back, size

    def close(self) -> None:
        """End it."""
        self.checkpoints.close()
        os.close(self._fd)


def _end_of_record(trace: bytes, least: int) -> int:
    at = HEAD
    while at < least and at + 16 <= len(trace):
        at += 16 + int.from_bytes(trace[at + 8 : at + 12], "little")
    return min(at, len(trace))


def large(folder: Path) -> IdsLauncher:
    """A Snort whose rules take some 600 MB of memory; their files are made in `folder`."""
    letters = random.Random(1)
    texts = ["".join(letters.choices(LETTERS, k=32)) for _ in range(RULES)]
    rules, config = folder / "large.rules", folder / "large.lua"
    rules.write_text("".join(RULE.format(n=n, text=text, sid=9_000_000 + n) for n, text in enumerate(texts)))
    config.write_text(Snort.shipped_config.read_text() + "\nsearch_engine = { search_method = 'ac_full' }\n")
    return launcher("snort", config=str(config), rules=[rules])


def measure_fork(results: Results, snort: IdsLauncher, trace: Path, count: int, folder: Path) -> None:
    """The rows of a Snort that forks."""
    if reason := snort.ring_fault():
        raise FtnidsError(reason)
    packets = 1 << 17
    with filled(trace, packets, trace.stat().st_size) as ring:
        back, memory = rollbacks(ring, snort, folder / "fork", count)
    what = f"snort {snort.version}, large, fork"
    results.add(Row(f"{what}: rollback", statistics.median(back), "ms", goal=FORK_MS))
    results.add(Row(f"{what}: rollback, slowest", max(back), "ms"))
    results.add(Row(f"{what}: memory, {RULES:,} rules, ac_full", memory / 1e6, "MB"))


def measure(results: Results, ids: IdsLauncher, trace: bytes, turns: int, kind: str = "") -> None:
    """The rows of one IDS."""
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        subject = Subject(ids, trace, Path(name))
        try:
            found = [subject.turn() for _ in progress(range(turns))]
        finally:
            subject.close()
    taken, back, sizes = zip(*found, strict=True)
    what = f"{ids.name} {ids.version}{kind}"
    results.add(Row(f"{what}: checkpoint", statistics.median(taken) * 1e3, "ms"))
    results.add(Row(f"{what}: rollback", statistics.median(back) * 1e3, "ms", goal=GOALS.get(ids.name + kind)))
    results.add(Row(f"{what}: rollback, slowest", max(back) * 1e3, "ms"))
    results.add(Row(f"{what}: image", statistics.median(sizes) / 1e6, "MB"))


def main(arguments: list[str]) -> int:
    """Print the table and write rollback.json; 0 when the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m bench rollback", description=__doc__)
    parser.add_argument("--trace", type=Path, default=Path(os.environ.get("FTNIDS_TRACE", "")))
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    if not options.trace.is_file():
        print("rollback: needs a capture file; name one with --trace or FTNIDS_TRACE", file=sys.stderr)
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-") as folder:
        reason = CriuCheckpoints(Path(folder)).self_test()
    if reason:
        print(f"rollback: {reason}", file=sys.stderr)
        return SKIPPED
    shown = [one for one in arguments if not one.startswith("/") and one != "--trace"]
    results = Results("rollback", shown, f"a real trace of {options.trace.stat().st_size >> 20} MB")
    results.heading()
    turns = 5 if options.quick else options.turns
    for name in sorted(LAUNCHERS):
        try:
            measure(results, launcher(name), options.trace.read_bytes(), turns)
        except FtnidsError as error:
            print(f"rollback: {error}", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix="ftnids-bench-") as folder:
            ids = large(Path(folder))
            measure(results, ids, options.trace.read_bytes(), turns, ", large")
            measure_fork(results, ids, options.trace, turns, Path(folder))
    except FtnidsError as error:
        print(f"rollback: {error}", file=sys.stderr)
    return results.finish() if results.rows else SKIPPED

"""Checkpoints and rollbacks a second against the rate of the traffic (the paper's 5.4: they fall as it grows).

Two replicas on the lab's hub, a Snort behind each that reads the ring ahead of agreement and forks, always; UDP frames
of 64 bytes.  A checkpoint is used on while packets keep coming, so at a high rate there are few; a rollback follows
from what only the other replica captured, so without loss there is hardly one.  Figures are of one replica, in the
mean.

Needs root, and Snort 3 with the DAQ module.

options: --turns N (2), --quick three rates, one turn of 2 s
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from bench.__main__ import SKIPPED
from bench._hub import Hub
from bench._plots import curves
from bench._progress import progress
from bench._results import FOLDER, Results, Row
from bench._traces import write_small
from bench.alert_delay import RUN_S, missing, run_ahead
from ftnids.errors import FtnidsError
from ftnids.lab.processes import wait_until

RATES: Final = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000)
QUICK: Final = (30, 1_000, 10_000)
LOSSES: Final = (0.0, 0.01)
SECONDS, QUICK_S = 3.0, 2.0
COUNTED: Final = ("checkpoints", "rollbacks")

Case = tuple[int, float]  # packets/s, loss


def measure(hub: Hub, rate: int, loss: float, trace: Path) -> tuple[float, float]:
    """Checkpoints and rollbacks a second, of a replica.  FtnidsError when the run fails."""
    run_ahead(hub, "optimistic")
    try:
        hub.up(loss=loss, ids=True)
        before = hub.settled(time.time())
        with hub.sending(rate, trace) as traffic:
            wait_until(lambda: traffic.over, RUN_S, "the end of the traffic")
        hub.await_quiet()
        after = hub.settled(time.time())
    finally:
        for name in hub.live[:]:
            hub.kill(name)
        hub.down()
    grown = [sum(after[n]["counters"][key] - before[n]["counters"][key] for n in after) for key in COUNTED]
    checkpoints, rollbacks = (count / len(after) / hub.seconds for count in grown)
    return checkpoints, rollbacks


def main(arguments: list[str]) -> int:
    """Print the table, write checkpoints.json and a plot; 0 when no run failed."""
    parser = argparse.ArgumentParser(prog="python -m bench checkpoints", description=__doc__)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    rates, turns, seconds = (QUICK, 1, QUICK_S) if options.quick else (RATES, options.turns, SECONDS)
    if reason := missing():
        print(f"skipped: {reason}")
        return SKIPPED
    results = Results("checkpoints", arguments, "generated, 64 bytes")
    results.heading()
    cases = [(rate, loss) for loss in LOSSES for rate in rates]
    found: dict[Case, list[tuple[float, float]]] = {case: [] for case in cases}
    failed = []
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        folder = Path(name)
        traces = {rate: folder / f"{rate}.pcap" for rate in rates}
        for rate, trace in traces.items():
            write_small(trace, int(rate * seconds), rate=float(rate))
        with Hub(folder / "out", traces[rates[0]], ids="snort") as hub:
            for rate, loss in progress(turns * cases):
                try:
                    found[rate, loss].append(measure(hub, rate, loss, traces[rate]))
                except (FtnidsError, RuntimeError) as error:
                    failed.append(f"{rate:,}/s, loss {loss:g}: {error}")
    lines: dict[str, list[tuple[float, float]]] = {}
    for (rate, loss), runs in found.items():
        for name, figures in zip(COUNTED, zip(*runs, strict=True), strict=False):
            results.add(Row(f"{rate:,}/s, loss {100 * loss:g} %: {name}", statistics.median(figures), "a second"))
            lines.setdefault(f"{name}, loss {100 * loss:g} %", []).append((rate, statistics.median(figures)))
    results.add(Row("runs that failed", len(failed), "runs", goal="== 0"))
    print("\n".join(failed), file=sys.stderr)
    status = results.finish()
    curves("Snort, fork: checkpoints and rollbacks", "packets/s", "a second", lines, FOLDER / "checkpoints.png")
    return status

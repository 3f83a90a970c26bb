"""How the cost of agreement grows with the number of replicas.

As `sync`, at 1 % loss, for 2, 3 and 5 replicas. What counts is the processor time that a replica takes for an agreed
packet: it may grow no faster than the number of replicas. *baseline*: that of two replicas, times N / 2.

options: --packets N (500000), --turns N (5), --quick 200,000 packets, 2 turns
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Final

from bench._progress import progress
from bench._results import Results, Row
from bench._sets import Outcome, Setup, run
from bench._traces import write_small

SIZE: Final = 64
LOSS: Final = 0.01
SIZES: Final = (2, 3, 5)


def main(arguments: list[str]) -> int:
    """Print the table and write sync-n.json; 0 when the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m bench sync-n", description=__doc__)
    parser.add_argument("--packets", type=int, default=500_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    packets, turns = (200_000, 2) if options.quick else (options.packets, options.turns)
    results = Results("sync-n", arguments, f"generated, {packets:,} packets of {SIZE} bytes")
    outcomes: dict[int, list[Outcome]] = {n: [] for n in SIZES}
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        folder = Path(name)
        trace = folder / "small.pcap"
        write_small(trace, packets)
        for n in progress(turns * SIZES):
            outcomes[n].append(run(Setup(trace, packets, SIZE * packets, loss=LOSS, replicas=n), folder))
    results.heading()
    costs = {n: statistics.median(outcome.cpu_ns for outcome in found) for n, found in outcomes.items()}
    for n, found in outcomes.items():
        baseline, goal = (None, None) if n == SIZES[0] else (costs[SIZES[0]] * n / SIZES[0], "<= 1")
        what = f"loss {100 * LOSS:g} %, N = {n}"
        results.add(Row(f"{what}: processor time of a replica", costs[n], "ns/packet", baseline, goal))
        results.add(Row(f"{what}: agreed", statistics.median(outcome.rate for outcome in found), "packets/s"))
        wrong = sum(not outcome.right for outcome in found)
        results.add(Row(f"{what}: unequal streams, or a packet lost", wrong, "runs", goal="== 0"))
    return results.finish()

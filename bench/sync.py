"""How fast two replicas agree, against how fast one takes packets in (paper, section 5.3).

Each replica is a process; the whole input is in its ring before they begin, so that only agreement, recovery and
what they send each other (ZeroMQ with CURVE, over loopback) take time.  *baseline*: the packets/s at which the slower
replica had put the same file into its ring, alone on a core.  Each run is checked: all streams equal, nothing lost
that either captured.

options: --packets N (500000), --turns N (5; 3 of what has no goal), --quick 250,000 packets, 3 turns, what has a goal
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
from bench._traces import imix_bytes, write_imix

LOSSES: Final = (0.0, 0.0005, 0.01, 0.05, 0.2, 0.5)
K: Final = 56
CLUSTERS: Final = (8, K, 1024)  # k; of all but the default at the losses with a goal
FEW: Final = 3  # turns of what has no goal
GOALS: Final = {0.0: ">= 0.4", 0.01: ">= 0.25", 0.2: ">= 0.12"}  # of the ingest rate


def add(results: Results, loss: float, k: int, outcomes: list[Outcome]) -> None:
    """The rows of one loss and one k."""
    what = f"loss {100 * loss:g} %, k = {k}"
    median = sorted(outcomes, key=lambda outcome: outcome.rate / outcome.ingest)[len(outcomes) // 2]
    results.add(Row(f"{what}: agreed", median.rate, "packets/s", median.ingest, GOALS.get(loss) if k == K else None))
    cost = statistics.median(outcome.cpu_ns for outcome in outcomes)
    results.add(Row(f"{what}: processor time of a replica", cost, "ns/packet"))
    if k == K and loss in GOALS:
        for stage in outcomes[0].told[0]["stages"]:
            spent = [sum(one["stages"][stage] for one in outcome.told) / outcome.packets for outcome in outcomes]
            replicas = len(outcomes[0].told)
            results.add(Row(f"{what}: {stage}", statistics.median(spent) / replicas * 1e9, "ns/packet"))
    wrong = sum(not outcome.right for outcome in outcomes)
    results.add(Row(f"{what}: unequal streams, or a packet lost", wrong, "runs", goal="== 0"))


def main(arguments: list[str]) -> int:
    """Print the table and write sync.json; 0 when the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m bench sync", description=__doc__)
    parser.add_argument("--packets", type=int, default=500_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    packets, turns = (250_000, 3) if options.quick else (options.packets, options.turns)
    cases = [(loss, K) for loss in (GOALS if options.quick else LOSSES)]
    cases += [] if options.quick else [(loss, k) for k in CLUSTERS if k != K for loss in GOALS]
    results = Results("sync", arguments, f"generated, {packets:,} packets, IMIX")
    outcomes: dict[tuple[float, int], list[Outcome]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        folder = Path(name)
        trace = folder / "imix.pcap"
        write_imix(trace, packets)
        plan = [(loss, k) for turn in range(turns) for loss, k in cases if turn < FEW or (loss in GOALS and k == K)]
        for loss, k in progress(plan):
            outcomes[loss, k].append(run(Setup(trace, packets, imix_bytes(packets), loss=loss, k=k), folder))
    results.heading()
    for (loss, k), found in outcomes.items():
        add(results, loss, k, found)
    return results.finish()

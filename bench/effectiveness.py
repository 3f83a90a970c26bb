"""What a set still misses, and what it puts out of order (paper, section 5.2 and figure 2).

Generated packets without repeats, each lost by each replica independently. *missing*: packets that are not in the
agreed stream; *baseline*: what theory says that all N replicas lose, p^N of them. They must be, to the packet, those
that every replica lost in this run. *displaced*: the fewest packets that would have to be moved to bring the agreed
stream into the order of the link; *behind one that came later*: packets whose predecessor in the agreed stream was
on the link behind them, which is the simple way of counting.

options: --packets N (1000000), --quick 200,000 packets, losses 1 and 20 %
"""

from __future__ import annotations

import argparse
import tempfile
from bisect import bisect_left
from pathlib import Path
from typing import Final

import numpy as np

from bench._progress import progress
from bench._results import Results, Row
from bench._sets import Outcome, Setup, run
from bench._traces import write_small
from ftnids.lab import verify
from ftnids.peers import keys
from ftnids.sync.messages import I64, U64

SIZE: Final = 64
SNAPLEN: Final = 2_048
LOSSES: Final = (0.0005, 0.005, 0.01, 0.05, 0.2, 0.5)
QUICK: Final = (0.01, 0.2)
SIZES: Final = (2, 3)


def hashes(trace: Path, folder: Path) -> U64:
    """The hashes of all packets on the link, with the seed of the last run."""
    seed = keys.cluster_seed(keys.load_secret(folder / "secret"))
    return verify.read_pcap(trace, SNAPLEN, seed).hash


def places(agreed: U64, trace: U64) -> I64:
    """Where on the link each packet of the agreed stream was."""
    order = np.argsort(trace)
    return np.asarray(order[np.searchsorted(trace[order], agreed)])


def displaced(order: I64) -> int:
    """All but the longest rising subsequence."""
    ends: list[int] = []
    for place in order.tolist():
        at = bisect_left(ends, place)
        ends[at : at + 1] = [place]
    return len(order) - len(ends)


def add(results: Results, loss: float, n: int, outcome: Outcome, packets: int, trace: U64) -> None:
    """The rows of one loss and one N."""
    what = f"loss {100 * loss:g} %, N = {n}"
    missing, lost_by_all = packets - outcome.packets, packets - len(outcome.union)
    if n == SIZES[0]:
        alone = packets - len(outcome.captured[0])
        results.add(Row(f"loss {100 * loss:g} %, one sensor: missing", alone, "packets", packets * loss))
    results.add(Row(f"{what}: missing", missing, "packets", packets * loss**n))
    results.add(Row(f"{what}: missing though a replica had it", missing - lost_by_all, "packets", goal="== 0"))
    results.add(Row(f"{what}: unequal streams, or a packet twice", int(not outcome.right), "runs", goal="== 0"))
    order = places(outcome.agreed[0], trace)
    results.add(Row(f"{what}: displaced", displaced(order), "packets"))
    results.add(Row(f"{what}: behind one that came later", int((np.diff(order) < 0).sum()), "packets"))


def main(arguments: list[str]) -> int:
    """Print the table and write effectiveness.json; 0 when nothing is missing that a replica had."""
    parser = argparse.ArgumentParser(prog="python -m bench effectiveness", description=__doc__)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    packets, losses = (200_000, QUICK) if options.quick else (options.packets, LOSSES)
    results = Results("effectiveness", arguments, f"generated, {packets:,} packets of {SIZE} bytes")
    results.heading()
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        folder = Path(name)
        trace = folder / "small.pcap"
        write_small(trace, packets)
        for loss, n in progress([(loss, n) for loss in losses for n in SIZES]):
            outcome = run(Setup(trace, packets, SIZE * packets, loss=loss, replicas=n), folder)
            add(results, loss, n, outcome, packets, hashes(trace, folder))
    return results.finish()

"""Whether a replica grows: its memory after one million packets and after many times as many.

Two replicas read generated packets of 64 bytes, each losing 1 %, as fast as they agree on them. What counts is the
memory of each process at the end, its share of the ring included (proportional set size), after a run over the first
million packets and after a run over all of them.

options: --packets N (10000000; 50000000 takes three minutes), --quick 5,000,000
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Final

from bench._results import Results, Row
from bench._sets import Setup, run
from bench._traces import write_small

SIZE: Final = 64
LOSS: Final = 0.01
FIRST: Final = 1_000_000
SLOTS: Final = 1 << 16
MB: Final = 1 << 20
GOAL: Final = "<= 1.05"


def main(arguments: list[str]) -> int:
    """Print the table and write memory.json; 0 when the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m bench memory", description=__doc__)
    parser.add_argument("--packets", type=int, default=10_000_000)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    packets = 5_000_000 if options.quick else options.packets
    results = Results("memory", arguments, f"generated, {packets:,} packets of {SIZE} bytes")
    results.heading()
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        folder = Path(name)
        outcomes = []
        for count in (FIRST, packets):
            trace = folder / "small.pcap"
            write_small(trace, count)
            outcomes.append(run(Setup(trace, count, SIZE * count, loss=LOSS, slots=SLOTS), folder))
        for first, last in zip(*(outcome.told for outcome in outcomes), strict=True):
            what = f"memory after {packets:,} packets, against after {FIRST:,}"
            results.add(Row(what, last["memory"] / MB, "MiB", first["memory"] / MB, GOAL))
        results.add(Row("agreed", outcomes[1].rate, "packets/s"))
    return results.finish()

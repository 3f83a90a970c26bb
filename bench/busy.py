"""One replica's processor is taken by another process: what it loses, and what the set still has (paper, 5.5.2).

Two replicas capture live on the lab's hub while 50,000 crafted packets of 125 bytes pass at 50 Mbit/s, a second of
traffic.  On r0's core a process of real-time priority runs for 100 ms of every 250; r1 shares the other core with what
sends.  A kernel buffer of 8 MB bridges 79 ms of this traffic on either side, so r0 loses packets at each turn.

*lost*: dropped by the kernel or at a full ring.  *missing*: packets of the link that are not in the agreed stream.
*twice*: more often in it than on the link, which the lab's hub is known for (docs/lab.md).  Medians of the runs, but
for what has a goal: the sum over all.  The paper's busy replica lost 385 packets, all recovered.  Needs root.

options: --turns N (5), --quick 2 turns
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.__main__ import SKIPPED
from bench._hub import SNAPLEN
from bench._progress import progress
from bench._results import Results, Row
from bench._traces import CRAFTED, write_crafted
from ftnids.errors import FtnidsError
from ftnids.lab import lives, netns, verify
from ftnids.lab.options import Options
from ftnids.lab.stage import Stage

PACKETS: Final = 50_000
RATE: Final = 50_000  # packets/s
BUFFER_MB: Final = 8
TAKEN: Final = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
while True:
    began = time.monotonic()
    while time.monotonic() - began < 0.1:
        pass
    time.sleep(0.15)
"""


@dataclass(frozen=True)
class Outcome:
    """Packets, of one run."""

    busy: int  # lost by r0
    other: int  # lost by r1
    recovered: int  # by r0
    missing: int
    twice: int


def _adjust(name: str, tables: dict[str, Any]) -> None:
    tables["feed"]["agreed_pcap"] = ""
    tables["capture"] |= {"snaplen": SNAPLEN, "buffer_mb": BUFFER_MB}


@contextlib.contextmanager
def taken(core: int) -> Iterator[None]:
    """Another process takes a core again and again while the block lasts."""
    with subprocess.Popen([sys.executable, "-c", TAKEN, str(core)]) as process:
        try:
            yield
        finally:
            process.kill()


def play(stage: Stage, cores: list[int]) -> None:
    """r0 on the first core, all else on the others; what is started inherits where it may run."""
    try:
        os.sched_setaffinity(0, cores[:1])
        stage.start("r0")
        os.sched_setaffinity(0, cores[1:])
        stage.start("r1")
        stage.together("r0", "r1")
        with taken(cores[0]):
            stage.send(tap=False)
            stage.finish()
    finally:
        os.sched_setaffinity(0, cores)


def run(trace: Path, seed: int, out: Path) -> Outcome:
    """One run.  FtnidsError when the set does not come up, or breaks up."""
    options = Options(out=out, seed=seed, pcap=trace, pps=RATE, ids="none", netns=True)
    with Stage(options, _adjust) as stage:
        play(stage, sorted(os.sched_getaffinity(0)))
        told = lives.read_all(stage)
        if [len(life.views) for life in told] != [1, 1]:
            raise FtnidsError("the set broke up")
        if trouble := lives.disagreements(told):
            raise FtnidsError(trouble[0])
        link, agreed = verify.read_pcap(trace, SNAPLEN, stage.hash_seed).hash, told[0].stream.hash
        status = [stage.status(name)["counters"] for name in options.names]
    busy, other = (int(one["kernel_drops"]) + int(one["ring_drops"]) for one in status)
    missing, twice = len(lives.surplus(link, agreed)), len(lives.surplus(agreed, link))
    return Outcome(busy, other, int(status[0]["recovered"]), missing, twice)


def add(results: Results, outcomes: list[Outcome], failed: int) -> None:
    """The rows: medians, and sums where there is a goal."""
    busy, other, recovered, twice = (
        statistics.median(getattr(one, key) for one in outcomes) for key in ("busy", "other", "recovered", "twice")
    )
    results.add(Row("lost by the busy replica", busy, "packets"))
    results.add(Row("lost by the other replica", other, "packets"))
    results.add(Row("recovered by the busy replica", recovered, "packets", busy))
    results.add(Row("twice in the agreed stream", twice, "packets"))
    results.add(Row("missing from the agreed stream", sum(one.missing for one in outcomes), "packets", goal="== 0"))
    idle = sum(one.busy == 0 for one in outcomes)
    results.add(Row("runs in which the busy replica lost nothing", idle, "runs", goal="== 0"))
    results.add(Row("runs that failed, or unequal streams", failed, "runs", goal="== 0"))


def main(arguments: list[str]) -> int:
    """Print the table and write busy.json; 0 when nothing is missing."""
    parser = argparse.ArgumentParser(prog="python -m bench busy", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    if len(os.sched_getaffinity(0)) < 2:
        print("skipped: needs two processors")
        return SKIPPED
    try:
        netns.check_host("hub")
    except FtnidsError as error:
        print(f"skipped: {error}")
        return SKIPPED
    outcomes, failed = [], 0
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        trace = Path(name, "crafted.pcap")
        write_crafted(trace, PACKETS, rate=RATE)
        for seed in progress(range(1, 1 + (2 if options.quick else options.turns))):
            try:
                outcomes.append(run(trace, seed, Path(name, "out")))
            except FtnidsError as error:
                print(f"a run failed: {error}", file=sys.stderr)
                failed += 1
    sizes = f"kernel buffers of {BUFFER_MB} MB; one core taken for 100 ms of 250"
    results = Results("busy", arguments, f"generated, {PACKETS:,} packets of {CRAFTED} bytes at {RATE:,}/s; {sizes}")
    results.heading()
    if outcomes:
        add(results, outcomes, failed)
        return results.finish()
    return 1

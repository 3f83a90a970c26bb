"""Bursts that overflow a small ring while what it feeds is slow: one sensor against a set (paper, 5.5.1).

Bursts of crafted packets of 125 bytes go over the lab's hub at 20,000/s, to one replica alone and to two, in turns,
with rings of 4,096 slots.  What each replica feeds reads its FIFO as an IDS does, 8,000 packets/s, and has read all
before the next burst comes.  The smallest burst makes a single sensor lose about what the paper's lost.

*lost*: packets that are in no agreed stream.  *dropped*: at a replica's full ring.  *left to the peer*: packets that a
replica did not keep, because its ring was filling and they were the other one's share.  The paper's single sensor lost
1,070 packets, each replica 1,266, the set 552: 0.516 of the single sensor's.  Medians of the runs.  Needs root.

options: --turns N (5), --quick one turn
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import _reader
from bench.__main__ import SKIPPED
from bench._hub import SNAPLEN
from bench._progress import progress
from bench._results import Results, Row
from bench._traces import CRAFTED, write_bursts
from ftnids.errors import FtnidsError
from ftnids.lab import lives, netns, verify
from ftnids.lab.options import Options
from ftnids.lab.stage import Stage

BURSTS: Final = (8_000, 10_000, 15_000)  # packets
RATE: Final = 20_000  # packets/s within a burst
EVERY_S: Final = 2.5
SLOTS: Final = 4_096
READ: Final = 8_000  # packets/s that an IDS reads
GOAL: Final = "<= 0.516"
NAMES: Final = ("r0", "r1")
IDS: Final = f'#!/bin/sh\nexec "{sys.executable}" -I -S "{_reader.__file__}" {READ} "$@"\n'


@dataclass(frozen=True)
class Outcome:
    """Packets, of one run."""

    lost: list[int]  # by burst
    dropped: float  # by a replica, their mean
    left: float
    recovered: float


def run(names: tuple[str, ...], trace: Path, seed: int, out: Path) -> Outcome:
    """One run of these replicas.  FtnidsError when it fails, or the set breaks up."""
    ids = out.parent / "ids"
    ids.write_text(IDS)
    ids.chmod(0o700)

    def adjust(name: str, tables: dict[str, Any]) -> None:
        tables["feed"] |= {"agreed_pcap": "", "ids": "suricata", "ids_binary": str(ids)}
        tables["capture"]["snaplen"] = SNAPLEN
        tables["ring"] = {"slots": SLOTS}
        tables["cluster"] |= {"wait_for_all": len(names) > 1, "join_timeout_s": 1.0 if len(names) == 1 else 60.0}

    with Stage(Options(out=out, seed=seed, pcap=trace, ids="none", netns=True), adjust) as stage:
        stage.start(*names)
        stage.together(*names)
        stage.send(tap=False)
        stage.finish()
        told = [life for name in names for life in lives.read(stage.places.replica(name), name)]
        if any(len(life.views) != 1 for life in told) or len(told) != len(names):
            raise FtnidsError("the set broke up")
        if trouble := lives.disagreements(told):
            raise FtnidsError(trouble[0])
        link = verify.read_pcap(trace, SNAPLEN, stage.hash_seed).hash
        counters = [stage.status(name)["counters"] for name in names]
    absent = np.split(~np.isin(link, told[0].stream.hash), np.cumsum(BURSTS)[:-1])
    lost = [int(part.sum()) for part in absent]
    dropped = statistics.mean(one["ring_drops"] + one["kernel_drops"] for one in counters)
    left, recovered = (statistics.mean(one[of] for one in counters) for of in ("left_to_peers", "recovered"))
    return Outcome(lost, dropped, left, recovered)


def add(results: Results, alone: list[Outcome], of_set: list[Outcome]) -> None:
    """The rows, medians."""
    for burst, size in enumerate(BURSTS):
        single, lost = (statistics.median(one.lost[burst] for one in runs) for runs in (alone, of_set))
        results.add(Row(f"burst of {size:,}: lost by a single sensor", single, "packets"))
        results.add(Row(f"burst of {size:,}: lost by the set", lost, "packets", single, GOAL))
    single, dropped = (statistics.median(one.dropped for one in runs) for runs in (alone, of_set))
    results.add(Row("all bursts: dropped by a replica of the set", dropped, "packets", single))
    left = statistics.median(one.left for one in of_set)
    results.add(Row("all bursts: left to the peer by a replica of the set", left, "packets"))
    recovered = statistics.median(one.recovered for one in of_set)
    results.add(Row("all bursts: recovered by a replica of the set", recovered, "packets"))


def main(arguments: list[str]) -> int:
    """Print the table and write spikes.json; 0 when the set loses as little as the paper's."""
    parser = argparse.ArgumentParser(prog="python -m bench spikes", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    try:
        netns.check_host("hub")
    except FtnidsError as error:
        print(f"skipped: {error}")
        return SKIPPED
    turns = 1 if options.quick else options.turns
    found: dict[int, list[Outcome]] = {1: [], 2: []}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        trace = Path(name, "bursts.pcap")
        write_bursts(trace, BURSTS, rate=RATE, every_s=EVERY_S)
        for number, replicas in enumerate(progress(turns * (1, 2))):
            try:
                found[replicas].append(run(NAMES[:replicas], trace, 1 + number // 2, Path(name, "out")))
            except FtnidsError as error:
                print(f"a run failed: {error}", file=sys.stderr)
                failed += 1
    told = f"bursts of packets of {CRAFTED} bytes at {RATE:,}/s; rings of {SLOTS:,} slots, read at {READ:,}/s"
    results = Results("spikes", arguments, f"generated, {told}")
    results.heading()
    if found[1] and found[2]:
        add(results, found[1], found[2])
    results.add(Row("runs that failed, or unequal streams", failed, "runs", goal="== 0"))
    return results.finish()

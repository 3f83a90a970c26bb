"""One of two replicas is killed under load, and comes back: what the other one notices.

A file goes over the lab's hub at a given rate to two replicas, each of which loses 1 % of it after capture.  After
some seconds r1 is killed with -9, three seconds later started again.  Needs root.

* gap: the longest time in which r0's agreed stream did not grow, from a second before the kill to three behind it
* noticed: from the kill until r0 works in a view without r1
* missing: packets that r0 captured, by the file and its drop generator, and that are not in its agreed stream
* rejoined: from the start of the new process until it is in the set's view (and from the moment it was up)
* recovered: packets that r1 got from r0 after that

options: --rate R packets/s (50000), --runs N (5), --quick (one run)
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.__main__ import SKIPPED
from bench._progress import progress
from bench._results import Results, Row
from ftnids.core import RandomDrop, Ring
from ftnids.errors import FtnidsError
from ftnids.lab import generate, lives, netns, verify
from ftnids.lab.options import Options
from ftnids.lab.stage import Stage

RATE: Final = 50_000
LOSS: Final = 0.01
BEFORE_S, AWAY_S, AFTER_S = 4.0, 3.0, 6.0  # before the kill, until the restart, and behind it
SNAPLEN: Final = 2_048
POLL_S: Final = 0.001
MAX_GAP_S: Final = 1.0  # promise 7


@dataclass(frozen=True)
class Outcome:
    """What one run showed."""

    gap_s: float
    noticed_s: float
    captured: int
    missing: int
    kernel_drops: int
    rejoined_s: float
    joined_s: float
    recovered: int
    after: int  # packets of r1's stream after it rejoined
    rate: float  # packets/s that were sent
    delay_ms: float  # p99 on r0, capture to stable


def at(folder: Path, event: str, number: int = 0) -> float:
    """When a replica logged an event for the `number`-th time, seconds since the epoch."""
    found = [one for one in lives.events(folder / "replica.log") if one.get("event") == event and "waits_s" not in one]
    return datetime.fromisoformat(found[number]["timestamp"]).timestamp()


def watch(ring: Ring, until: float, seen: list[tuple[float, int]]) -> None:
    """Note when the agreed stream grows, until the monotonic time `until`."""
    while (now := time.monotonic()) < until:
        stable = ring.stable
        if not seen or stable != seen[-1][1]:
            seen.append((now, stable))
        time.sleep(POLL_S)


def play(stage: Stage) -> tuple[float, float, float]:
    """The story; r0's gap, and the times of the kill and of the restart in seconds since the epoch."""
    stage.start("r0", "r1")
    stage.together("r0", "r1")
    ring = Ring.attach(stage.ring("r0"))
    try:
        stage.send(tap=False)
        seen: list[tuple[float, int]] = []
        while ring.stable == 0:
            time.sleep(POLL_S)
        killed = time.monotonic() + BEFORE_S
        watch(ring, killed, seen)
        killed_at = time.time()
        stage.signal("r1", signal.SIGKILL)  # without waiting for its end: r0 is watched
        watch(ring, killed + AWAY_S, seen)
        stage.kill("r1")
        times = np.array([when for when, _ in seen if when > killed - 1.0])
        gap = float(np.diff(times).max()) if len(times) > 1 else AWAY_S
    finally:
        ring.close()
    restarted_at = time.time()
    stage.start("r1")
    stage.together("r0", "r1")
    stage.finish()
    return gap, killed_at, restarted_at


def run(path: Path, packets: int, rate: int, out: Path) -> Outcome:
    """One run.  FtnidsError when the set does not come up, or not to its end."""
    options = Options(out=out, replicas=2, loss=LOSS, seed=1, pcap=path, pps=rate, ids="none", netns=True)

    def adjust(name: str, tables: dict[str, Any]) -> None:
        tables["capture"] |= {"snaplen": SNAPLEN, "buffer_mb": 256}
        tables["feed"]["agreed_pcap"] = ""

    with Stage(options, adjust) as stage:
        gap, killed_at, restarted_at = play(stage)
        folders = [stage.places.replica(name) for name in options.names]
        survivors, victims = (lives.read(folder, name) for folder, name in zip(folders, options.names, strict=True))
        if (len(survivors), len(victims)) != (1, 2):
            raise FtnidsError(
                f"the set broke up by itself, {len(survivors)} and {len(victims)} lives: {rate:,}/s is too much"
            )
        survivor, victim = survivors[0], victims[1]
        counters = {name: stage.status(name)["counters"] for name in options.names}
        source = verify.read_pcap(path, SNAPLEN, stage.hash_seed)
        kept = ~np.asarray(RandomDrop(LOSS, 1.0, options.drop_seed(0)).decide(packets), bool)
        return Outcome(
            gap,
            at(folders[0], "view_changed") - killed_at,
            int(kept.sum()),
            len(lives.surplus(source.hash[kept], survivor.stream.hash)),
            sum(int(one["kernel_drops"]) + int(one["ring_drops"]) for one in counters.values()) + stage.tap_missed,
            at(folders[1], "view", 1) - restarted_at,
            at(folders[1], "view", 1) - at(folders[1], "replica_up", 1),
            int(counters["r1"]["recovered"]),
            len(victim.stream),
            stage.sent / float(stage.seconds),
            float(counters["r0"]["delay_p99_ms"]),
        )


def add(results: Results, outcomes: list[Outcome], failed: int) -> None:
    """The rows: medians, and sums where nothing may be."""
    for what, key, unit in (
        ("sent", "rate", "packets/s"),
        ("noticed", "noticed_s", "s"),
        ("gap", "gap_s", "s"),
        ("rejoined, from the start of the process", "rejoined_s", "s"),
        ("rejoined, from when it captured", "joined_s", "s"),
        ("captured by the survivor", "captured", "packets"),
        ("recovered after the return", "recovered", "packets"),
        ("agreed after the return", "after", "packets"),
        ("delay of the survivor, p99", "delay_ms", "ms"),
    ):
        results.add(Row(what, statistics.median(getattr(one, key) for one in outcomes), unit))
    results.add(Row("longest gap of all runs", max(one.gap_s for one in outcomes), "s", goal=f"<= {MAX_GAP_S:g}"))
    results.add(Row("missing", sum(one.missing for one in outcomes), "packets", goal="== 0"))
    dropped = sum(one.kernel_drops for one in outcomes)
    results.add(Row("dropped by a kernel or at a full ring", dropped, "packets", goal="== 0"))
    results.add(Row("runs that failed", failed, "runs", goal="== 0"))


def main(arguments: list[str]) -> int:
    """Print the table and write kill.json; 0 when the survivor always went on within a second and missed nothing."""
    parser = argparse.ArgumentParser(prog="python -m bench kill", description=__doc__)
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(arguments)
    try:
        netns.check_host("hub")
    except FtnidsError as error:
        print(f"skipped: {error}")
        return SKIPPED
    seconds = BEFORE_S + AWAY_S + AFTER_S
    outcomes, failed = [], 0
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-") as folder:
        path = Path(folder, "traffic.pcap")
        amount = int(asked.rate * seconds)
        packets = generate.write(path, 1, amount // 26, amount // 11, seconds)
        size = path.stat().st_size / packets
        for _ in progress(range(1 if asked.quick else asked.runs)):
            try:
                outcomes.append(run(path, packets, asked.rate, Path(folder, "out")))
            except FtnidsError as error:
                print(f"a run failed: {error}", file=sys.stderr)
                failed += 1
    results = Results("kill", arguments, f"generated, {packets:,} packets of {size:.0f} bytes at {asked.rate:,}/s")
    results.heading()
    if not outcomes:
        return 1
    add(results, outcomes, failed)
    return results.finish()

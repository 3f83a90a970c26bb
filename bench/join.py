"""A replica is killed and comes back with the state of another one's IDS: how long until its IDS is live again.

Two replicas on the lab's hub, each with an IDS, and traffic.  Again and again r1 is killed with -9, started again, and
gets an image of the IDS of r0 over the sync network, with CURVE.

* live: from r1's first question until its IDS has been fed all that is stable
* of that, asked: until r0 has taken and described the image; sent: until all of it is on r1's disk; restored
* pause: for which r0 feeds nothing to its IDS, because its image is taken
* started: from the start of r1's process until its IDS is live
* image: bytes that travel

Needs root, CRIU and an IDS; images are in shared memory.  All runs on one machine: the way between the replicas is
fast, and both compete for the processor.

options: --joins N (6), --rate R packets/s (1000), --quick (3 joins)
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bench.__main__ import SKIPPED
from bench._progress import progress
from bench._results import Results, Row
from ftnids.errors import FtnidsError
from ftnids.feed.criu_checkpoints import CriuCheckpoints
from ftnids.lab import generate, lives, netns
from ftnids.lab.options import Options
from ftnids.lab.processes import wait_until
from ftnids.lab.stage import Stage
from snort_adapter.launchers import LAUNCHERS, launcher

JOIN_S: Final = 15.0  # of traffic for each join
SNAPLEN: Final = 2_048
GOALS: Final = {"snort": ("<= 2", "<= 150")}  # live, s; pause, ms: of an IDS of some 45 MB


@dataclass(frozen=True)
class Join:
    """One join."""

    live_s: float
    asked_s: float
    sent_s: float
    restored_s: float
    pause_ms: float
    started_s: float
    megabytes: float


class Log:
    """A replica's log, read on from where it was left."""

    def __init__(self, folder: Path) -> None:
        self._path, self._read = folder / "replica.log", 0

    def news(self) -> dict[str, tuple[float, dict[str, Any]]]:
        """Each event since the last time, with when it was, in seconds since the epoch."""
        found = [one for one in lives.events(self._path) if "event" in one]
        fresh, self._read = found[self._read :], len(found)
        return {one["event"]: (datetime.fromisoformat(one["timestamp"]).timestamp(), one) for one in fresh}


def join(stage: Stage, joiner: Log, donor: Log) -> Join:
    """Kill r1, start it again, and wait until its IDS is live.  FtnidsError when it begins cold."""
    stage.kill("r1")
    stage.together("r0")
    joiner.news()
    donor.news()
    began, here, there = time.time(), {}, {}

    def live() -> bool:
        here.update(joiner.news())
        return "state_live" in here or "state_cold" in here

    stage.start("r1")
    wait_until(live, 60, "the state of r1's IDS")
    there.update(donor.news())
    if "state_cold" in here:
        raise FtnidsError(f"r1 began cold: {here['state_cold'][1]['reason']}")
    asked = here["state_asked"][0]
    comes, whole, done = (here[event][0] for event in ("state_comes", "state_progress", "state_restored"))
    return Join(
        float(here["state_live"][1]["seconds"]),
        comes - asked,
        whole - comes,
        done - whole,
        float(there["state_taken"][1]["pause_ms"]),
        here["state_live"][0] - began,
        int(here["state_restored"][1]["bytes"]) / 1e6,
    )


def run(ids: str, joins: int, rate: int, folder: Path) -> tuple[list[Join], int]:
    """So many joins of one IDS, and how many began cold."""
    path = folder / "traffic.pcap"
    seconds = (joins + 1) * JOIN_S
    if not path.exists():
        generate.write(path, 1, int(rate * seconds) // 26, int(rate * seconds) // 11, seconds)
    options = Options(out=folder / ids, replicas=2, loss=0.01, seed=1, pcap=path, ids=ids, netns=True)

    def adjust(name: str, tables: dict[str, Any]) -> None:
        tables["capture"]["snaplen"] = SNAPLEN
        tables["feed"] |= {"state": "transfer", "agreed_pcap": "", "hashes": ""}
        tables["replica"]["run_dir"] = str(folder / f"{ids}-{name}")

    found, failed = [], 0
    with Stage(options, adjust) as stage:
        stage.begin()
        stage.agree(rate, "r0")
        joiner, donor = (Log(stage.places.replica(name)) for name in ("r1", "r0"))
        for _ in progress(range(joins)):
            try:
                found.append(join(stage, joiner, donor))
            except FtnidsError as error:
                print(f"join: {error}", file=sys.stderr)
                failed += 1
                if "began cold" not in str(error):
                    break
            stage.agree(rate // 2, "r0")
        stage.finish(early=True)
    return found, failed


def add(results: Results, what: str, found: list[Join], failed: int, goals: tuple[str, str]) -> None:
    """The rows of one IDS: medians, and the worst where there is a goal for others."""
    middle = {name: statistics.median(getattr(one, name) for one in found) for name in Join.__dataclass_fields__}
    live, pause = goals if all(goals) else (None, None)
    results.add(Row(f"{what}: live", middle["live_s"], "s", goal=live))
    results.add(Row(f"{what}: live, slowest", max(one.live_s for one in found), "s"))
    results.add(Row(f"{what}: asked", middle["asked_s"], "s"))
    results.add(Row(f"{what}: sent", middle["sent_s"], "s"))
    results.add(Row(f"{what}: restored", middle["restored_s"], "s"))
    results.add(Row(f"{what}: pause", middle["pause_ms"], "ms", goal=pause))
    results.add(Row(f"{what}: pause, longest", max(one.pause_ms for one in found), "ms"))
    results.add(Row(f"{what}: started", middle["started_s"], "s"))
    results.add(Row(f"{what}: image", middle["megabytes"], "MB"))
    results.add(Row(f"{what}: joins that failed", failed, "joins", goal="== 0"))


def main(arguments: list[str]) -> int:
    """Print the table and write join.json; 0 when the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m bench join", description=__doc__)
    parser.add_argument("--joins", type=int, default=6)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args(arguments)
    joins = 3 if asked.quick else asked.joins
    try:
        netns.check_host("hub")
        with tempfile.TemporaryDirectory(prefix="ftnids-bench-") as folder:
            reason = CriuCheckpoints(Path(folder)).self_test()
    except FtnidsError as error:
        reason = str(error)
    if reason:
        print(f"join: {reason}", file=sys.stderr)
        return SKIPPED
    results = Results("join", arguments, f"generated, {asked.rate:,} packets/s")
    results.heading()
    for name in sorted(LAUNCHERS):
        with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as folder:
            try:
                what = f"{name} {launcher(name).version}"
                found, failed = run(name, joins, asked.rate, Path(folder))
            except FtnidsError as error:
                print(f"join: {error}", file=sys.stderr)
                continue
        if found:
            add(results, what, found, failed, GOALS.get(name, ("", "")))
    return results.finish() if results.rows else SKIPPED

"""How long from a packet to its alert: an IDS that is fed ahead, with provisional alerts, against one that is not.

Two replicas on the lab's hub, a Snort behind each that reads the ring (fork as checkpoint), UDP datagrams of 64
bytes; some of them raise an alert.  From the capture time in the alert to the moment at which its first line,
provisional or confirmed, is read from the output of the replica that leads.  *provisional*: the share of alerts that
came so first; *wrong*: alerts that were retracted, and not confirmed after all; *sleeper*: how late a process that
only sleeps a millisecond at a time was woken meanwhile; *steal*: processor time that the host of this virtual machine
gave to others.

Needs root, and Snort 3 with the DAQ module.

options: --turns N (3), --quick one turn of 2 s
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.__main__ import SKIPPED
from bench._host import Host
from bench._hub import Hub
from bench._progress import progress
from bench._results import Results, Row
from bench._traces import CANARY, write_canaries
from ftnids.errors import FeedError, FtnidsError
from ftnids.feed.watch import LogWatch
from ftnids.lab.processes import wait_until
from snort_adapter.launchers import launcher

GOAL: Final = "<= 2"  # ms, optimistic without loss
RATES: Final = {100: 5, 10_000: 100}  # packets/s, and one alert in so many packets
LOSSES: Final = (0.0, 0.01)
MODES: Final = ("pessimistic", "optimistic")
SECONDS: Final = 5.0
QUICK_S: Final = 2.0
RUN_S: Final = 60.0
LAST_S: Final = 1.5  # for the last alerts to be confirmed
LOOK_MS: Final = 100  # at least so often, whatever inotify says
OUTPUT: Final = "alerts.jsonl"

Case = tuple[str, int, float]  # mode, packets/s, loss


@dataclass
class Seen:
    """The lines of a growing output of alerts, and when each alert was first read, in ms after its capture time."""

    path: Path
    delays: dict[str, float] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)
    provisional: int = 0
    _at: int = 0

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """While the block lasts, what is new is read as soon as it is there."""
        watch, over = LogWatch(), threading.Event()
        watch.follow(self.path.parent)

        def run() -> None:
            poll = select.poll()
            poll.register(watch.fd, select.POLLIN)
            while not over.is_set():
                poll.poll(LOOK_MS)
                watch.news()
                self.look()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            watch.close()

    def look(self) -> None:
        """Read what is new."""
        now = time.time_ns()
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._at += whole
        for line in data[:whole].splitlines():
            self._note(json.loads(line), now)

    def _note(self, record: dict[str, Any], now_ns: int) -> None:
        alert_id, status = record["ftnids"]["id"], record["ftnids"]["status"]
        if record["alert"]["signature_id"] != CANARY:
            return
        if alert_id not in self.delays:
            taken_us = np.datetime64(record["timestamp"][:26], "us").astype(np.int64)
            self.delays[alert_id] = (now_ns // 1000 - int(taken_us)) / 1000
            self.provisional += status == "provisional"
        if self.last.get(alert_id) != "confirmed":
            self.last[alert_id] = status


@dataclass(frozen=True)
class Run:
    """What one run showed: delays in ms, alerts that were provisional first, that were wrong, rollbacks; the host."""

    delays: list[float]
    provisional: int
    wrong: int
    rollbacks: int
    late: float  # ms, p99 of a process that only sleeps
    steal: float


def run_ahead(hub: Hub, mode: str) -> None:
    """From the next start on the replicas feed Snort by `mode`, and write alerts to OUTPUT in their folders."""
    for name in hub.options.names:
        place = hub.places.replica(name) / OUTPUT
        place.unlink(missing_ok=True)
        hub.tables[name]["feed"] |= {"mode": mode, "checkpoint": "fork" if mode == "optimistic" else "none"}
        hub.tables[name]["feed"]["speculate"] = "always"
        hub.tables[name]["alerts"] = {"output": str(place), "eve_output": "", "provisional": mode == "optimistic"}


def missing() -> str:
    """Why nothing can be measured here, or ""."""
    try:
        return "needs root" if os.geteuid() else launcher("snort").ring_fault()
    except FeedError as error:
        return str(error)


def measure(hub: Hub, case: Case, trace: Path) -> Run:
    """One run.  FtnidsError when it fails."""
    mode, rate, loss = case
    run_ahead(hub, mode)
    try:
        hub.up(loss=loss, ids=True)
        leader = hub.status(hub.options.names[0])["coordinator"]
        seen = Seen(hub.places.replica(leader) / OUTPUT)
        seen.path.touch()
        with seen.followed(), Host() as host:
            with hub.sending(rate, trace) as traffic:
                wait_until(lambda: traffic.over, RUN_S, "the end of the traffic")
            time.sleep(LAST_S)
        status = hub.settled(time.time())
    finally:
        for name in hub.live[:]:
            hub.kill(name)
        hub.down()
    wrong = sum(word == "retracted" for word in seen.last.values())
    counters = [one["counters"] for one in status.values()]
    back = sum(one["rollbacks"] for one in counters)
    return Run(list(seen.delays.values()), seen.provisional, wrong, back, host.late_p99_ms, host.steal)


def add(results: Results, case: Case, runs: list[Run]) -> None:
    """The rows of one case: the medians of its runs."""
    mode, rate, loss = case
    what = f"{mode}, {rate:,}/s, loss {100 * loss:g} %"
    goal = GOAL if mode == "optimistic" and not loss else None
    for share, name in ((50, "p50"), (99, "p99")):
        of_runs = [float(np.percentile(run.delays, share)) for run in runs]
        results.add(Row(f"{what}: {name}", statistics.median(of_runs), "ms", goal=goal if share == 50 else None))
    results.add(Row(f"{what}: sleeper late, p99", statistics.median(run.late for run in runs), "ms"))
    results.add(Row(f"{what}: steal", 100 * statistics.median(run.steal for run in runs), "% of processor time"))
    if mode == "pessimistic":
        return
    alerts = sum(len(run.delays) for run in runs)
    results.add(Row(f"{what}: provisional", 100 * sum(run.provisional for run in runs) / alerts, "% of alerts"))
    results.add(Row(f"{what}: wrong", 100 * sum(run.wrong for run in runs) / alerts, "% of alerts"))
    results.add(Row(f"{what}: rollbacks", statistics.median(run.rollbacks for run in runs), "in a run, both replicas"))


def main(arguments: list[str]) -> int:
    """Print the table and write alert-delay.json; 0 when the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m bench alert-delay", description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    turns, seconds = (1, QUICK_S) if options.quick else (options.turns, SECONDS)
    if reason := missing():
        print(f"skipped: {reason}")
        return SKIPPED
    results = Results("alert-delay", arguments, f"generated, 64 bytes; Snort {launcher('snort').version}")
    results.heading()
    cases = [(mode, rate, loss) for rate in RATES for loss in LOSSES for mode in MODES]
    found: dict[Case, list[Run]] = {case: [] for case in cases}
    failed = []
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        folder = Path(name)
        traces = {rate: folder / f"{rate}.pcap" for rate in RATES}
        for rate, trace in traces.items():
            write_canaries(trace, int(rate * seconds), every=RATES[rate], rate=float(rate))
        with Hub(folder / "out", traces[min(RATES)], ids="snort") as hub:
            for case in progress(turns * cases):
                try:
                    run = measure(hub, case, traces[case[1]])
                except (FtnidsError, RuntimeError) as error:
                    failed.append(f"{case}: {error}")
                    continue
                (found[case] if run.delays else failed).append(run if run.delays else f"{case}: no alert")  # type: ignore[arg-type]
    for case, runs in found.items():
        if runs:
            add(results, case, runs)
    results.add(Row("runs that failed", len(failed), "runs", goal="== 0"))
    print("\n".join(failed), file=sys.stderr)
    return results.finish()

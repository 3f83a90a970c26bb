"""How long from capture to stable (promise 5): in simulated time, on the lab's hub, and at 100,000 packets/s.

*simulated*: nothing but the protocol takes time, and messages a sixth of the promised 20 ms at most.  *hub*: two
replicas capture live in network namespaces (needs root).  *loopback*: they read one file at its rate, since two
processors cannot also send as much over a hub; a delay may be counted too long by a turn of the main loop.

All cases take turns; of each figure the slower replica counts, and the median of the runs.  *sleeper*: how late a
process that only sleeps a millisecond at a time was woken in the same runs; *steal*: processor time that the host of
this virtual machine gave to others meanwhile; *busy*: what all processes used, this bench's and others'.  On loopback
the processor time of the main loop's longest turns is told, too: a packet waits for several, one by one.

options: --turns N (5), --simulated without real replicas, --quick one turn, less traffic
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import _sets
from bench._host import Host
from bench._hub import Hub
from bench._progress import progress
from bench._results import Results, Row
from bench._traces import write_imix, write_small
from ftnids.errors import FtnidsError
from ftnids.lab.processes import wait_until
from ftnids.lab.stage import DRAINED_S
from ftnids.sync.settings import MS
from ftnids.sync.simulation import BrokenPromiseError, Simulation, Weather

GOAL: Final = "<= 20"  # ms
LOSSES: Final = (0.0, 0.01)
SIZES: Final = (2, 3)
SIMULATED: Final = {10: 300, 1_000: 5_000, 100_000: 100_000}  # packets of a simulated run, by packets/s
QUICK_SIMULATED: Final = {10: 30, 1_000: 500, 100_000: 60_000}
REAL: Final = {10: 5.0, 1_000: 2.0, 100_000: 2.0}  # seconds of traffic in a real run
QUICK: Final = {10: 1.0, 1_000: 1.0, 100_000: 1.0}
RUN_S: Final = 60.0
LOOPBACK: Final = 100_000  # from this rate on packets come from a file
SMALL: Final = 64
SLOTS: Final = 1 << 18

Case = tuple[int, float]  # packets/s, loss


@dataclass(frozen=True)
class Delays:
    """Of one real run, in ms; steal and busy as shares."""

    p50: float
    p99: float
    most: float
    late: float  # the sleeper
    steal: float
    busy: float
    cores: float = 0.0  # that the busier replica uses ...
    turn: float = 0.0  # ... and the longest turns of its main loop, processor time; where they are told

    @classmethod
    def of(cls, replicas: Sequence[dict[str, Any]], host: Host) -> Delays:
        """The slowest replica's."""
        p50, p99, most = (max(float(one[f"delay_{key}_ms"]) for one in replicas) for key in ("p50", "p99", "max"))
        if "cpu" not in replicas[0]:
            return cls(p50, p99, most, host.late_p99_ms, host.steal, host.busy)
        cores = max(one["cpu"] / one["seconds"] for one in replicas)
        turn = max(one["turn_p99_ms"] for one in replicas)
        return cls(p50, p99, most, host.late_p99_ms, host.steal, host.busy, cores, turn)


def simulated(case: tuple[int, float, int, int]) -> tuple[float, float]:
    """One run of the protocol in virtual time, by packets/s, loss, replicas, packets: p99 and the longest in ms.

    Messages take 0.2 to 3.3 ms; clocks are up to 1 ms apart, drift by up to 20 ppm and jitter by up to 5 us.
    """
    rate, loss, n, packets = case
    weather = Weather(
        seed=1,
        replicas=n,
        packets=packets,
        rate=float(rate),
        loss=(loss,) * n,
        offset=tuple(MS * i for i in range(n)),
        drift=tuple(20.0 * i for i in range(n)),
        jitter=5_000,
        delay=200_000,
        delay_spread=3_100_000,
    )
    simulation = Simulation(weather)
    try:
        result = simulation.run()
    except BrokenPromiseError as broken:
        if "delay:" not in str(broken):
            raise
        delays = simulation.judge.delays_ms(simulation.replicas[0].view)  # a single packet was over the limit
        return float(np.percentile(delays, 99)), float(delays.max())
    return result.delay_p99_ms, result.delay_max_ms


def add_simulated(results: Results, quick: bool) -> None:
    """The rows of all simulated cases; several at a time, since their clock is their own."""
    packets = QUICK_SIMULATED if quick else SIMULATED
    cases = [(rate, loss, n, packets[rate]) for rate in packets for loss in LOSSES for n in SIZES]
    with Pool(os.cpu_count()) as pool:
        for (rate, loss, n, _), (p99, most) in zip(cases, pool.imap(simulated, cases), strict=True):
            what = f"simulated, {rate:,}/s, loss {100 * loss:g} %, N = {n}"
            results.add(Row(f"{what}: p99", p99, "ms", goal=GOAL))
            results.add(Row(f"{what}: longest", most, "ms"))


def live(hub: Hub, trace: Path, rate: int, loss: float) -> Delays:
    """One run of two replicas on the lab's hub.  FtnidsError when it fails."""
    try:
        hub.up(loss=loss)
        with Host() as host:
            with hub.sending(rate, trace) as traffic:
                wait_until(lambda: traffic.over, RUN_S, "the end of the traffic")
            status = hub.settled(time.time() + DRAINED_S)
        return Delays.of([one["counters"] for one in status.values()], host)
    finally:
        for name in hub.live[:]:
            hub.kill(name)
        hub.down()


def loopback(trace: Path, rate: int, loss: float, seed: int, folder: Path, packets: int) -> Delays:
    """One run of two replicas that read a file."""
    setup = _sets.Setup(trace, packets, SMALL * packets, loss=loss, pps=rate, slots=SLOTS, seed=seed)
    with Host() as host:
        outcome = _sets.run(setup, folder)
    return Delays.of(outcome.told, host)


def measure(turns: int, seconds: dict[int, float], folder: Path) -> tuple[dict[Case, list[Delays]], list[str]]:
    """All real runs, the cases taking turns; and why some failed."""
    cases = [(rate, loss) for rate in seconds for loss in LOSSES]
    found: dict[Case, list[Delays]] = {case: [] for case in cases}
    packets = {rate: int(rate * spell) for rate, spell in seconds.items()}
    traces = {rate: folder / f"{rate}.pcap" for rate in seconds}
    for rate, trace in traces.items():
        (write_small if rate >= LOOPBACK else write_imix)(trace, packets[rate], rate=float(rate))
    failed = []
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(Hub(folder / "out", traces[min(seconds)])) if min(seconds) < LOOPBACK else None
        for number, (rate, loss) in enumerate(progress(turns * cases)):
            try:
                if rate < LOOPBACK and hub is not None:
                    one = live(hub, traces[rate], rate, loss)
                else:
                    one = loopback(traces[rate], rate, loss, 1 + number // len(cases), folder, packets[rate])
            except (FtnidsError, RuntimeError) as error:
                failed.append(f"{rate:,}/s, loss {loss:g}: {error}")
            else:
                found[rate, loss].append(one)
    return found, failed


def add_real(results: Results, case: Case, runs: list[Delays]) -> None:
    """The rows of one real case: the medians of its runs."""
    rate, loss = case
    what = f"{'loopback' if rate >= LOOPBACK else 'hub'}, {rate:,}/s, loss {100 * loss:g} %"
    p50, p99, most, late, steal, busy, cores, turn = (
        statistics.median(getattr(run, field.name) for run in runs) for field in dataclasses.fields(Delays)
    )
    results.add(Row(f"{what}: p50", p50, "ms"))
    results.add(Row(f"{what}: p99", p99, "ms", goal=GOAL))
    results.add(Row(f"{what}: p99 of the best run", min(run.p99 for run in runs), "ms"))
    results.add(Row(f"{what}: longest", most, "ms"))
    results.add(Row(f"{what}: sleeper late, p99", late, "ms"))
    results.add(Row(f"{what}: steal", 100 * steal, "% of processor time"))
    results.add(Row(f"{what}: busy", 100 * busy, "% of processor time"))
    if rate >= LOOPBACK:
        results.add(Row(f"{what}: processor time of the busier replica", cores, "cores"))
        results.add(Row(f"{what}: processor time of a turn of its main loop, p99", turn, "ms"))


def main(arguments: list[str]) -> int:
    """Print the table and write delay.json; 0 when the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m bench delay", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--simulated", action="store_true")
    options = parser.parse_args(arguments)
    turns, seconds = (1, QUICK) if options.quick else (options.turns, REAL)
    if os.geteuid():
        print("without root, hence without the hub")
        seconds = {rate: spell for rate, spell in seconds.items() if rate >= LOOPBACK}
    results = Results("delay", arguments, "generated, IMIX, at 100,000/s 64 bytes")
    results.heading()
    add_simulated(results, options.quick)
    if not options.simulated:
        with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
            found, failed = measure(turns, seconds, Path(name))
        for case, runs in found.items():
            if runs:
                add_real(results, case, runs)
        results.add(Row("runs that failed", len(failed), "runs", goal="== 0"))
        print("\n".join(failed), file=sys.stderr)
    return results.finish()

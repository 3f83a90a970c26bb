"""How long from capture to stable: promise 5, in simulated time and on real interfaces.

The limit holds in simulated time, where nothing but the protocol takes time, and messages take up to a sixth of it.
On real interfaces the machine has its say: the lab's rows are medians of several runs, and tell, they do not judge.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from bench._traces import write_imix
from bench.align import ROOT
from ftnids.sync.settings import MS
from ftnids.sync.simulation import BrokenPromiseError, Simulation, Weather

LIMIT_MS: Final = 20.0
RATES: Final = (10, 1_000)  # packets/s
LOSSES: Final = (0.0, 0.2, 0.5)
SIZES: Final = (2, 3)
SECONDS: Final = {10: 20, 1_000: 5}  # of traffic in one run of the lab
SIMULATED: Final = {10: 300, 1_000: 5_000}  # packets


def simulated(rate: int, loss: float, n: int) -> tuple[float, float]:
    """One run of the protocol in virtual time: p99 and maximum in ms.

    Messages take 0.2 to 3.3 ms; clocks are up to 1 ms apart, drift by up to 20 ppm and jitter by up to 5 us.
    """
    weather = Weather(
        seed=1,
        replicas=n,
        packets=SIMULATED[rate],
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


def lab(trace: Path, loss: float, n: int, seed: int, folder: Path) -> float:
    """One run of the lab behind its hub: the highest p99 of its replicas in ms; NaN where the run failed."""
    command = [sys.executable, "-m", "ftnids", "lab", "--netns", "--ids", "none", "--json", "-n", str(n)]
    command += ["--loss", str(loss), "--seed", str(seed), "--pcap", str(trace), "-o", str(folder / "lab")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, check=False)
    if done.returncode:
        return float("nan")
    return max(float(replica["delay_p99_ms"]) for replica in json.loads(done.stdout)["replicas"])


def spread(values: list[float]) -> str:
    """The median of the runs that ended well, all of them in brackets."""
    good = sorted(value for value in values if value == value)
    if not good:
        return "no run ended well"
    failed = f", {len(values) - len(good)} failed" if len(good) < len(values) else ""
    return f"{statistics.median(good):.1f} ({', '.join(f'{value:.1f}' for value in good)}{failed})"


def main(arguments: list[str]) -> int:
    """Print the table; 0 when the limit is kept in simulated time in every row."""
    parser = argparse.ArgumentParser(prog="python -m bench delay", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run of the lab for each row")
    parser.add_argument("--simulated", action="store_true", help="without the lab, which needs root")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="of the lab, for each row (3)")
    options = parser.parse_args(arguments)
    runs = 1 if options.quick else options.runs
    if options.simulated or os.geteuid():
        runs = 0
    met = True
    print("| packets/s | loss each | replicas | simulated: p99, most (ms) | limit | lab: median p99 (each run) (ms) |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-") as name:
        folder = Path(name)
        for rate in RATES:
            trace = folder / f"{rate}.pcap"
            write_imix(trace, rate * SECONDS[rate], rate=float(rate))
            for loss in LOSSES:
                for n in SIZES:
                    p99, most = simulated(rate, loss, n)
                    kept = p99 <= LIMIT_MS
                    met = met and kept
                    real = spread([lab(trace, loss, n, seed, folder) for seed in range(1, runs + 1)]) if runs else "-"
                    verdict = "met" if kept else "**NOT met**"
                    print(f"| {rate:,} | {loss:.0%} | {n} | {p99:.1f}, {most:.1f} | {verdict} | {real} |", flush=True)
    return 0 if met else 1

"""`make soak`: nothing grows over millions of packets; then fresh seeds of the simulation for as long as it is told.

Exit status: 0 nothing grew and every promise held, 1 otherwise, 2 usage.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from typing import Final

from soak import growth, replicas

SHOWN: Final = 16  # the largest tables of each replica
SHARES: Final = (0.1, 0.5, 1.0)
SEEDS: Final = 1 << 20  # a turn of the simulation gets no further in any time that it is told


def main() -> int:
    """Run both parts."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--packets", type=int, default=10_000_000, help="over the link; 0 leaves this part out")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--loss", type=float, default=0.05, help="of each replica, 0 to 1")
    parser.add_argument("--minutes", type=float, default=5, help="of simulation; 0 leaves this part out")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the replicas are ended
    good = options.packets == 0 or soak(options.packets, options.replicas, options.loss)
    if options.minutes > 0:
        good = simulate(options.minutes) and good
    return 0 if good else 1


def soak(packets: int, count: int, loss: float) -> bool:
    """Send packets through real replicas, and show what they held on the way; whether nothing grew."""
    print(f"{packets:,} packets to {count} replicas with {100 * loss:g} % loss each ...", flush=True)
    started = time.monotonic()
    try:
        runs = replicas.run(packets, count, loss)
        found = {one.name: growth.faults(one.samples) for one in runs}
    except (replicas.SoakError, ValueError) as error:
        print(f"soak: {error}")
        return False
    seconds = time.monotonic() - started
    for one in runs:
        print(table(one))
    agreed = {one.agreed for one in runs}
    print(f"\n{runs[0].agreed:,} agreed in {seconds:.0f} s, {sum(one.alerts_out for one in runs):,} alerts out")
    for name, lines in found.items():
        for line in lines:
            print(f"soak: {name}: {line}")
    if len(agreed) > 1:
        print(f"soak: the replicas end with different streams: {sorted(agreed)} packets")
    return len(agreed) == 1 and not any(found.values())


def table(run: replicas.Run) -> str:
    """Memory and the largest tables of one replica at 10, 50 and 100 %."""
    points = [growth.at(run.samples, share) for share in SHARES]
    peaks: dict[str, int] = {}
    for sample in run.samples:
        for name, size in sample.sizes.items():
            peaks[name] = max(size, peaks.get(name, 0))
    names = sorted(peaks, key=lambda name: -peaks[name])[:SHOWN]
    wide = max(len(name) for name in names)
    head = "".join(f"{f'{100 * share:.0f} %':>12}" for share in SHARES) + f"{'most':>12}"
    lines = [f"\n{run.name:<{wide}}{head}"]
    memory = "".join(f"{point.memory / 1e6:>12.1f}" for point in points)
    lines.append(f"{'memory, MB':<{wide}}{memory}{max(one.memory for one in run.samples) / 1e6:>12.1f}")
    for name in names:
        sizes = "".join(f"{point.sizes.get(name, 0):>12,}" for point in points)
        lines.append(f"{name:<{wide}}{sizes}{peaks[name]:>12,}")
    return "\n".join(lines)


def simulate(minutes: float) -> bool:
    """Fresh seeds for `minutes`; whether every promise held."""
    first = 1 + time.time_ns() // 1_000_000 % ((1 << 31) - SEEDS)  # never twice the same in a lifetime of weeks
    command = [sys.executable, "-m", "ftnids", "simulate", "--seeds", f"{first}:{first + SEEDS - 1}"]
    command += ["--jobs", str(os.cpu_count() or 1), "--minutes", f"{minutes:g}"]
    print(f"\n$ ftnids {' '.join(command[3:])}", flush=True)
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

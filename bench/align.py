"""How close `ftnids align` comes to what can be known, and how fast it is.

Lossy copies of a real trace are merged and judged burst by burst: packets missing and too many,
and how many must be moved to restore the true order; means over the seeds.  The trace, the tool that
makes the copies and the judge are those of the folder `shared` beside the project (or FTNIDS_SHARED);
without them nothing can be judged, and the bench says so.

options: --seeds N (5) seeds a row, --quick one seed and fewer rows
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench._traces import write_imix

ROOT: Final = Path(__file__).resolve().parent.parent
SHARED: Final = Path(os.environ.get("FTNIDS_SHARED", ROOT.parent / "shared"))
PLAIN: Final = ("--offset-us", "300", "--jitter-us", "20")
SPEED_GOAL: Final = 200_000  # packets/s of one copy, two copies at 1 % loss


@dataclass(frozen=True)
class Row:
    """One line of the table: how the copies are made, and the limits, given the floor where they depend on it."""

    name: str
    options: tuple[str, ...]
    missing: tuple[float, float]  # limit = factor * floor + constant
    extra: float = 0
    displaced: float | None = None
    each_run: bool = False  # the limit of extra packets holds for each run, else for the mean


ROWS: Final = (
    Row("1 %", ("--loss", "0.01", *PLAIN), (1.05, 2), 0, 8),
    Row("5 %", ("--loss", "0.05", *PLAIN), (1.05, 2), 0, 53),
    Row("20 %", ("--loss", "0.2", *PLAIN), (1.05, 2), 0, 570),
    Row("50 %", ("--loss", "0.5", *PLAIN), (1.05, 2), 0, 1657),
    Row(
        "5 %, 200 us jitter, 50 ppm",
        ("--loss", "0.05", "--offset-us", "300", "--jitter-us", "200", "--drift-ppm", "50"),
        (1, 60),
        25,
        each_run=True,
    ),
    Row("1 %, 0.1 % reordered", ("--loss", "0.01", *PLAIN, "--reorder", "0.001"), (1, 6), 5),
    Row("5 % in bursts of 50", ("--loss", "0.05", *PLAIN, "--burst", "50"), (1.05, 4)),
    Row("20 %, N = 3", ("--loss", "0.2", *PLAIN, "-n", "3"), (1.05, 4)),
)


def measure(trace: Path, row: Row, seed: int, folder: Path) -> dict[str, float]:
    """Make copies, merge and judge them; the judge's figures and align's speed."""
    copies = folder / "copies"
    tools = SHARED / "tools"
    make = [sys.executable, str(tools / "lossy_copies.py"), str(trace), str(copies), *row.options, "--seed", str(seed)]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    files = sorted(copies.glob("r*.pcap"))
    merge = [sys.executable, "-m", "ftnids", "align", *map(str, files), "-w", str(folder / "agreed.pcap")]
    done = subprocess.run(
        [*merge, "--map", str(folder / "map"), "--json"], check=True, stdout=subprocess.PIPE, cwd=ROOT
    )
    judge = [sys.executable, str(tools / "judge_align.py"), str(trace), str(copies), str(folder / "map")]
    judged = subprocess.run(judge, check=True, stdout=subprocess.PIPE)
    figures: dict[str, float] = json.loads(judged.stdout)
    figures["speed"] = json.loads(done.stdout)["packets_per_second"]
    for file in copies.iterdir():
        file.unlink()
    return figures


def judge(row: Row, trace: Path, seeds: int, folder: Path) -> bool:
    """Run one row over its seeds and print it; whether all limits are kept."""
    runs = [measure(trace, row, seed, folder) for seed in range(1, seeds + 1)]
    mean = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
    limit = row.missing[0] * mean["floor"] + row.missing[1]
    most_extra = max(run["extra"] for run in runs)
    met = mean["missing"] <= limit and (most_extra if row.each_run else mean["extra"]) <= row.extra
    met = met and (row.displaced is None or mean["displaced"] <= row.displaced)
    displaced = f"{mean['displaced']:.1f}" + (f" ({row.displaced:g})" if row.displaced is not None else "")
    extra = f"{mean['extra']:.1f}, {most_extra:g} ({row.extra:g}{' in each' if row.each_run else ''})"
    missing = f"{mean['missing']:.1f} ({limit:.1f})"
    speed = f"{statistics.median(run['speed'] for run in runs):,.0f}"
    verdict = "met" if met else "**NOT met**"
    print(f"| {row.name} | {mean['floor']:.1f} | {missing} | {extra} | {displaced} | {speed} | {verdict} |", flush=True)
    return met


def speed(trace: Path, folder: Path) -> bool:
    """The speed at 1 % loss: median of 5 runs."""
    runs = [measure(trace, ROWS[0], seed, folder)["speed"] for seed in range(1, 6)]
    median = statistics.median(runs)
    print(f"\nalign, two copies at 1 % loss: median of 5 runs {median:,.0f} packets/s, goal {SPEED_GOAL:,}")
    return median >= SPEED_GOAL


def main(arguments: list[str]) -> int:
    """Print the table; 0 when every limit is kept."""
    parser = argparse.ArgumentParser(prog="python -m bench align", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    seeds = 1 if options.quick else options.seeds
    real = SHARED / "pcaps" / "real-mix.pcap"
    if not (SHARED / "tools" / "judge_align.py").exists():
        print(f"no judge in {SHARED / 'tools'} (FTNIDS_SHARED names another folder): nothing can be measured")
        return 77
    print("| loss each | floor | missing (limit) | extra: mean, most (limit) | displaced (limit) | packets/s | |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    met = []
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-") as name:
        folder = Path(name)
        imix = folder / "imix.pcap"
        write_imix(imix, 60_000)
        met += [judge(row, real, seeds, folder) for row in ROWS[: 4 if options.quick else None]]
        for loss in ("0.05", "0.5"):
            row = Row(f"IMIX, {float(loss):.0%}", ("--loss", loss, *PLAIN), (0, 0))
            met.append(judge(row, imix, seeds, folder))
        met.append(speed(real, folder))
    return 0 if all(met) else 1

"""How close `ftnids align` comes to what can be known, and how fast it is.

Lossy copies of a real trace are merged and judged burst by burst: packets missing and too many,
and how many must be moved to restore the true order; means over the seeds.  The trace, the tool that
makes the copies and the judge are those of the folder `shared` beside the project (or FTNIDS_SHARED);
without them nothing can be judged, and the bench says so.

options: --seeds N (5) seeds a row, --quick one seed
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

from bench.__main__ import SKIPPED
from bench._progress import progress
from bench._results import Results, Row
from bench._traces import write_imix

ROOT: Final = Path(__file__).resolve().parent.parent
SHARED: Final = Path(os.environ.get("FTNIDS_SHARED", ROOT.parent / "shared"))
PLAIN: Final = ("--offset-us", "300", "--jitter-us", "20")
SPEED_RUNS: Final = {True: 3, False: 5}  # by whether it is quick
SPEED_GOAL: Final = 200_000  # packets/s of one copy, two copies at 1 % loss


@dataclass(frozen=True)
class Case:
    """How the copies are made, and the limits, given the floor where they depend on it."""

    name: str
    options: tuple[str, ...]
    missing: tuple[float, float]  # limit = factor * floor + constant
    extra: float = 0
    displaced: float | None = None
    each_run: bool = False  # the limit of extra packets holds for each run, else for the mean


CASES: Final = (
    Case("1 %", ("--loss", "0.01", *PLAIN), (1.05, 2), 0, 8),
    Case("5 %", ("--loss", "0.05", *PLAIN), (1.05, 2), 0, 53),
    Case("20 %", ("--loss", "0.2", *PLAIN), (1.05, 2), 0, 570),
    Case("50 %", ("--loss", "0.5", *PLAIN), (1.05, 2), 0, 1657),
    Case(
        "5 %, 200 us jitter, 50 ppm",
        ("--loss", "0.05", "--offset-us", "300", "--jitter-us", "200", "--drift-ppm", "50"),
        (1, 60),
        25,
        each_run=True,
    ),
    Case("1 %, 0.1 % reordered", ("--loss", "0.01", *PLAIN, "--reorder", "0.001"), (1, 6), 5),
    Case("5 % in bursts of 50", ("--loss", "0.05", *PLAIN, "--burst", "50"), (1.05, 4)),
    Case("20 %, N = 3", ("--loss", "0.2", *PLAIN, "-n", "3"), (1.05, 4)),
)


def measure(trace: Path, case: Case, seed: int, folder: Path) -> dict[str, float]:
    """Make copies, merge and judge them; the judge's figures and align's speed."""
    copies = folder / "copies"
    tools = SHARED / "tools"
    make = [sys.executable, str(tools / "lossy_copies.py"), str(trace), str(copies), *case.options, "--seed", str(seed)]
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


def judge(results: Results, case: Case, trace: Path, seeds: int, folder: Path) -> None:
    """Run one case over its seeds, and add its rows."""
    runs = [measure(trace, case, seed, folder) for seed in range(1, seeds + 1)]
    mean = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
    limit = case.missing[0] * mean["floor"] + case.missing[1]
    most = max(run["extra"] for run in runs)
    results.add(Row(f"{case.name}: floor", mean["floor"], "packets"))
    results.add(Row(f"{case.name}: missing", mean["missing"], "packets", goal=f"<= {limit:.4g}"))
    extra = "extra, most in one run" if case.each_run else "extra"
    figure = most if case.each_run else mean["extra"]
    results.add(Row(f"{case.name}: {extra}", figure, "packets", goal=f"<= {case.extra:g}"))
    displaced = None if case.displaced is None else f"<= {case.displaced:g}"
    results.add(Row(f"{case.name}: displaced", mean["displaced"], "packets", goal=displaced))
    results.add(Row(f"{case.name}: speed", statistics.median(run["speed"] for run in runs), "packets/s"))


def main(arguments: list[str]) -> int:
    """Print the table and write align.json; 0 when every limit is kept."""
    parser = argparse.ArgumentParser(prog="python -m bench align", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    seeds = 1 if options.quick else options.seeds
    real = SHARED / "pcaps" / "real-mix.pcap"
    if not (SHARED / "tools" / "judge_align.py").exists():
        print(f"skipped: no judge in {SHARED / 'tools'} (FTNIDS_SHARED names another folder)")
        return SKIPPED
    results = Results("align", arguments, f"real, 64,906 packets, {seeds} seeds")
    results.heading()
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-") as name:
        folder = Path(name)
        imix = folder / "imix.pcap"
        write_imix(imix, 60_000)
        for case in progress(CASES):
            judge(results, case, real, seeds, folder)
        for loss in ("0.05", "0.5"):
            judge(results, Case(f"IMIX, {float(loss):.0%}", ("--loss", loss, *PLAIN), (0, 0)), imix, seeds, folder)
        runs = [measure(real, CASES[0], seed, folder)["speed"] for seed in range(1, SPEED_RUNS[options.quick] + 1)]
        results.add(Row("1 %: speed, more runs", statistics.median(runs), "packets/s", goal=f">= {SPEED_GOAL}"))
    return results.finish()

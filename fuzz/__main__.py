"""`make fuzz`: every target for some seconds each; a table at the end, exit status 1 where something was found.

The corpus that a run gathers stays in .cache/fuzz/corpus and is where the next one goes on from.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fuzz import replay, seeds
from fuzz.build import ROOT, SOURCES, build

FUZZ: Final = ROOT / "fuzz"
CACHE: Final = ROOT / ".cache/fuzz"
TARGETS: Final = (*replay.PYTHON, *SOURCES)
SLOWEST_S: Final = 10  # for one input; a slower one counts as a hang
MEMORY_MB: Final = 2048
LONGEST: Final = 1 << 16  # bytes of one input
NO_ATHERIS: Final = "atheris is not to be had: seeded mutations instead, which look at no coverage"


@dataclass
class Outcome:
    """What one target's run came to."""

    target: str
    runs: int
    coverage: str
    fault: str = ""  # how to see it again


def main() -> int:
    """Fuzz what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    options = parser.parse_args()
    if unknown := sorted(set(options.targets) - set(TARGETS)):
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    sys.path.insert(0, str(CACHE / "python"))
    outcomes = []
    for target in options.targets or TARGETS:
        print(f"{target}: {options.seconds} s ...", flush=True)
        outcomes.append(fuzz(target, options.seconds))
    print(f"\n{'target':<10} {'inputs':>12} {'features':>9}  found")
    for one in outcomes:
        print(f"{one.target:<10} {one.runs:>12,} {one.coverage:>9}  {one.fault or 'nothing'}")
    return 1 if any(one.fault for one in outcomes) else 0


def fuzz(target: str, seconds: int) -> Outcome:
    """Run one target for `seconds`."""
    corpus, start = CACHE / "corpus" / target, CACHE / "seeds" / target
    corpus.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(start, ignore_errors=True)
    seeds.write(target, start)
    for path in replay.found(target):
        shutil.copy(path, start)
    crashes = CACHE / "crashes" / target
    crashes.mkdir(parents=True, exist_ok=True)
    options = [
        *(f"-max_total_time={seconds}", f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={LONGEST}"),
        *("-print_final_stats=1", f"-artifact_prefix={crashes}/"),
    ]
    if (words := FUZZ / f"{target}.dict").exists():
        options.append(f"-dict={words}")
    options += [str(corpus), str(start)]
    if target in SOURCES:
        programs = CACHE / "programs"
        programs.mkdir(exist_ok=True)
        return _under_libfuzzer(target, [build(target, "clang", programs, fuzzer=True), *options])
    if importlib.util.find_spec("atheris") is None:
        print(f"{target}: {NO_ATHERIS}")
        return _by_mutation(target, seconds, crashes)
    return _under_libfuzzer(target, [sys.executable, "-m", "fuzz.engine", target, *options])


def _under_libfuzzer(target: str, command: list[str | Path]) -> Outcome:
    log = CACHE / f"{target}.log"
    path = os.pathsep.join((str(CACHE / "python"), os.environ.get("PYTHONPATH", "")))
    with log.open("w") as out:
        done = subprocess.run(
            command, stdout=out, stderr=out, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=False
        )
    text = log.read_text(errors="replace")
    runs = re.findall(r"stat::number_of_executed_units: (\d+)", text)
    features = re.findall(r"\bft: (\d+)", text)
    fault = ""
    if done.returncode:
        kept = re.findall(r"Test unit written to (\S+)", text)
        fault = f"{kept[-1]}, see {log}" if kept else f"status {done.returncode}, see {log}"
    return Outcome(target, int(runs[-1]) if runs else 0, features[-1] if features else "-", fault)


def _by_mutation(target: str, seconds: int, crashes: Path) -> Outcome:
    check, until, runs = replay.checker(target), time.monotonic() + seconds, 0
    for turn in range(1 << 30):
        for data in replay.inputs(target):
            for mutant in replay.mutations(data, 100, turn):
                runs += 1
                try:
                    check(mutant)
                except Exception as error:
                    path = crashes / f"mutant-{turn}"
                    path.write_bytes(mutant)
                    return Outcome(target, runs, "-", f"{path}: {error!r}")
            if time.monotonic() > until:
                return Outcome(target, runs, "-")
    return Outcome(target, runs, "-")


if __name__ == "__main__":
    sys.exit(main())

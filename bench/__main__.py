"""Runs the benches: `python -m bench [NAME] [options]`; all of them without a name, each in a process of its own."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Final

import bench
from bench._results import FOLDER, goals

SKIPPED: Final = 77  # what a bench returns when it has nothing to measure with
INTERRUPTED: Final = 130
AGAIN_S: Final = 2.0
BY_NAME: Final = {"adversarial", "align", "hostile", "kill"}  # long; no goal of theirs is a speed of the machine
MODULES: Final = [module.name for module in pkgutil.iter_modules(bench.__path__) if not module.name.startswith("_")]
NAMES: Final = sorted(name.replace("_", "-") for name in MODULES)


def run(name: str, arguments: list[str]) -> int:
    """Run one bench under a heading; its exit status."""
    module = _module(name)
    assert module.__doc__, f"bench/{name}.py must say what it prints"
    print(f"== {name}: {module.__doc__.splitlines()[0]}", flush=True)
    started = time.monotonic()
    try:
        status: int = module.main(arguments)
    except KeyboardInterrupt:
        status = INTERRUPTED
    verdict = {0: "met", SKIPPED: "skipped", INTERRUPTED: "interrupted"}.get(status, "NOT met")
    print(f"== {name}: {verdict}, {time.monotonic() - started:.0f} s\n", flush=True)
    return 0 if status == SKIPPED else status


def run_all(arguments: list[str]) -> int:
    """Run the benches, whatever becomes of one, and tell which goals are met; the worst status."""
    names = NAMES if arguments else [name for name in NAMES if name not in BY_NAME]
    started, statuses = time.time(), {}
    for name in names:
        command = [sys.executable, "-m", "bench", name, *arguments]
        with subprocess.Popen(command, cwd=Path(__file__).resolve().parent.parent) as process:
            try:
                statuses[name] = process.wait()
            except KeyboardInterrupt:  # the bench has got it, too, and tidies up
                statuses[name] = process.wait()
        if statuses[name] == INTERRUPTED and not _go_on():
            break
    fresh = [name for name in names if (path := FOLDER / f"{name}.json").exists() and path.stat().st_mtime > started]
    print("\n".join(goals(fresh)))
    if silent := [name for name in names if name not in fresh]:
        print(f"\nwithout figures, skipped or failed: {', '.join(silent)}")
    if left_out := [name for name in NAMES if name not in names]:
        print(f"\nrun by name, or with --quick: {', '.join(left_out)}")
    print(f"\nall benches: {time.time() - started:.0f} s")
    return max(map(abs, statuses.values()), default=0)


def _go_on() -> bool:
    """Whether nobody interrupts again."""
    print(f"the next one follows; interrupt again within {AGAIN_S:g} s to end", flush=True)
    try:
        time.sleep(AGAIN_S)
    except KeyboardInterrupt:
        return False
    return True


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"bench.{name.replace('-', '_')}")


def listed() -> str:
    """Each bench with the first line of what it says of itself."""
    docs = {name: _module(name).__doc__ or "" for name in NAMES}
    return "\n".join(f"  {name:13} {doc.splitlines()[0]}" for name, doc in docs.items())


def main(arguments: list[str]) -> int:
    """Run the bench that the first argument names, or all; 0 only if every one of them is met."""
    if arguments in ([], ["--quick"]):
        return run_all(arguments)
    if arguments[0] in ("-h", "--help"):
        print("usage: python -m bench [NAME] [options]\n\nRuns the bench NAME; NAME --help: its options.")
        print(f"Without a name all but {', '.join(sorted(BY_NAME))}; --quick alone: all, fewer and shorter runs.\n")
        print(listed())
        return 0
    if arguments[0] in NAMES:
        return run(arguments[0], arguments[1:])
    print(f"bench: no bench {arguments[0]!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Runs the benches: `python -m bench [NAME [options]]`; all of them without a name."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
from types import ModuleType
from typing import Final

import bench

SKIPPED: Final = 77  # what a bench returns when it has nothing to measure with
MODULES: Final = [module.name for module in pkgutil.iter_modules(bench.__path__) if not module.name.startswith("_")]
NAMES: Final = sorted(name.replace("_", "-") for name in MODULES)


def run(name: str, arguments: list[str]) -> int:
    """Run one bench under a heading; its exit status."""
    module = _module(name)
    assert module.__doc__, f"bench/{name}.py must say what it prints"
    print(f"== {name}: {module.__doc__.splitlines()[0]}", flush=True)
    started = time.monotonic()
    status: int = module.main(arguments)
    verdict = {0: "met", SKIPPED: "skipped"}.get(status, "NOT met")
    print(f"== {name}: {verdict}, {time.monotonic() - started:.0f} s\n", flush=True)
    return 0 if status == SKIPPED else status


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"bench.{name.replace('-', '_')}")


def listed() -> str:
    """Each bench with the first line of what it says of itself."""
    docs = {name: _module(name).__doc__ or "" for name in NAMES}
    return "\n".join(f"  {name:12} {doc.splitlines()[0]}" for name, doc in docs.items())


def main(arguments: list[str]) -> int:
    """Run the bench that the first argument names, or all; 0 only if every one of them is met."""
    if not arguments:
        return max([run(name, []) for name in NAMES], default=0)
    if arguments[0] in ("-h", "--help"):
        print("usage: python -m bench [NAME [options]]\n\nRuns the bench NAME, or all. NAME --help: its options.\n")
        print(listed())
        return 0
    if arguments[0] in NAMES:
        return run(arguments[0], arguments[1:])
    print(f"bench: no bench {arguments[0]!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

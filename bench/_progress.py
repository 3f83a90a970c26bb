"""How far a bench is, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def progress(steps: Sequence[T]) -> Iterator[T]:
    """Each of `steps`, with a line that tells which one is under way; no line where nobody watches."""
    shown = sys.stderr.isatty()
    for number, step in enumerate(steps, 1):
        if shown:
            print(f"\r\x1b[K{number} of {len(steps)}: {step}", end="", file=sys.stderr, flush=True)
        yield step
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)

"""What people see while the lab works: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

LINE_S: Final = 5.0  # between two plain lines

Watch = Callable[[list[dict[str, Any]]], None]


class Voice:
    """Speaks to people on `console`, which is standard error when standard output carries JSON."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(f"lab: {text}", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def watching(self, names: list[str], total: int | None) -> Iterator[Watch]:
        """Show the replicas' work while the block runs; `total` packets to come, None when nobody knows.

        Hands out a function that takes the status snapshots of all replicas.
        """
        if not self.console.is_terminal:
            yield self._lines(total)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
        )
        with Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True) as bars:
            tasks = [bars.add_task(name, total=total, text="") for name in names]

            def show(states: list[dict[str, Any]]) -> None:
                for task, state in zip(tasks, states, strict=True):
                    counters = state["counters"]
                    text = f"{counters.get('agreed', 0):,} agreed, {counters.get('alerts', 0):,} alerts"
                    bars.update(task, completed=seen_by(state), text=text)

            yield show

    def _lines(self, total: int | None) -> Watch:
        last = time.monotonic()

        def show(states: list[dict[str, Any]]) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_S:
                last = time.monotonic()
                seen = min(seen_by(state) for state in states)
                agreed = min(state["counters"].get("agreed", 0) for state in states)
                of = f" of {total:,}" if total is not None else ""
                self.say(f"{seen:,}{of} packets seen by every replica, {agreed:,} agreed")

        return show


def seen_by(state: dict[str, Any]) -> int:
    """Packets that reached a replica, those included that it left to a peer or that fault injection dropped."""
    return sum(int(state["counters"].get(of, 0)) for of in ("captured", "injected_drops", "left_to_peers"))

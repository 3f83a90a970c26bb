"""What a bench found: rows that know their goals, as a table and as JSON."""

from __future__ import annotations

import json
import operator
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from bench._plots import draw

FOLDER: Final = Path(os.environ.get("FTNIDS_BENCH_RESULTS", Path(__file__).resolve().parent / "results"))
COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {">=": operator.ge, "<=": operator.le, "==": operator.eq}
VERDICTS: Final = {None: "", True: "met", False: "**NOT met**"}


@dataclass(frozen=True)
class Row:
    """One figure; its goal, as ">= 0.6", is for the ratio where there is a baseline, else for the figure itself."""

    what: str
    measured: float
    unit: str
    baseline: float | None = None
    goal: str | None = None

    @property
    def ratio(self) -> float | None:
        """Measured over baseline."""
        return self.measured / self.baseline if self.baseline else None

    @property
    def limit(self) -> float | None:
        """What the goal asks of the figure itself."""
        if self.goal is None:
            return None
        return float(self.goal.split()[1]) * (self.baseline or 1.0)

    @property
    def shown(self) -> str:
        """The figure, short."""
        return _figure(self.measured)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        sense, limit = self.goal.split()
        figure = self.measured if self.ratio is None else self.ratio
        return COMPARE[sense](figure, float(limit))

    def record(self) -> dict[str, Any]:
        """The row of NAME.json."""
        return {
            "what": self.what,
            "measured": self.measured,
            "unit": self.unit,
            "baseline": self.baseline,
            "ratio": self.ratio,
            "goal": self.goal,
            "met": self.met,
        }


def machine() -> dict[str, Any]:
    """Where a figure comes from."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


@dataclass
class Results:
    """All rows of one run of a bench."""

    name: str
    arguments: list[str]
    trace: str
    rows: list[Row] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=machine)

    def heading(self) -> None:
        """Print the table's head."""
        print("\n".join(heading()), flush=True)

    def add(self, row: Row) -> None:
        """Print a row, and keep it."""
        self.rows.append(row)
        print(line(row), flush=True)

    @property
    def met(self) -> bool:
        """Whether no goal is missed."""
        return all(row.met is not False for row in self.rows)

    def finish(self) -> int:
        """Write NAME.json and NAME.png, say where; 0 when no goal is missed, else 1."""
        path = self._save()
        draw(f"{self.name}: {self.trace}", self.rows, path.with_suffix(".png"))
        print(f"\n{path}", file=sys.stderr)
        return 0 if self.met else 1

    def _save(self) -> Path:
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"{self.name}.json"
        command = " ".join(["python -m bench", self.name, *self.arguments])
        told = {"name": self.name, "command": command, "machine": self.machine, "trace": self.trace}
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(told | {"rows": [row.record() for row in self.rows]}, indent=1) + "\n")
        temporary.replace(path)
        return path


def heading() -> list[str]:
    """The head of a table of rows."""
    return ["| what | measured | unit | baseline | ratio | goal | |", "| --- | --- | --- | --- | --- | --- | --- |"]


def line(row: Row) -> str:
    """A row of the table."""
    baseline = "" if row.baseline is None else _figure(row.baseline)
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
    return f"| {' | '.join((row.what, row.shown, row.unit, baseline, ratio, row.goal or '', VERDICTS[row.met]))} |"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def load(name: str) -> tuple[dict[str, Any], list[Row]]:
    """What NAME.json tells, and its rows."""
    told: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    keys = [field.name for field in fields(Row)]
    return told, [Row(**{key: row[key] for key in keys}) for row in told["rows"]]


def goals(names: Sequence[str]) -> list[str]:
    """A table of all rows of these benches that have a goal, those that miss it first; and how many are met."""
    found = [(name, row) for name in names for row in load(name)[1] if row.goal is not None]
    found.sort(key=lambda one: one[1].met is True)
    met = sum(row.met is True for _, row in found)
    lines = [f"{met} of {len(found)} goals are met.", "", "| bench | what | measured | goal | |", "| --- " * 5 + "|"]
    for name, row in found:
        figure = f"{row.shown} {row.unit}" if row.ratio is None else f"{row.ratio:.3g} of the baseline"
        lines.append(f"| {name} | {row.what} | {figure} | {row.goal} | {VERDICTS[row.met]} |")
    return lines

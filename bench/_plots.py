"""A picture of a bench's rows: bars by unit, what they were measured against, and the goals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import matplotlib as mpl

if TYPE_CHECKING:
    from bench._results import Row

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS: Final = {True: "#2a7f62", False: "#b3392f", None: "#5b6c7d"}  # a goal that is met, one that is not, none
BAR: Final = 0.32  # inches
SPREAD: Final = 1_000  # largest over smallest figure from which on the axis is logarithmic


def draw(title: str, rows: Sequence[Row], path: Path) -> None:
    """Draw all rows but the mere checks into `path`, a PNG file; none where every run failed."""
    units: dict[str, list[Row]] = {}
    for row in rows:
        if row.unit != "runs":
            units.setdefault(row.unit, []).append(row)
    if not units:
        path.unlink(missing_ok=True)
        return
    heights = [len(group) + 2 for group in units.values()]
    figure, axes = plt.subplots(
        len(units), 1, figsize=(10, BAR * sum(heights) + 0.6), height_ratios=heights, squeeze=False
    )
    for axis, (unit, group) in zip(axes[:, 0], units.items(), strict=True):
        _bars(axis, unit, group)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def curves(title: str, x: str, y: str, lines: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Draw named curves of (x, y) into `path`, a PNG file, the x axis logarithmic."""
    figure, axis = plt.subplots(figsize=(8, 5))
    for name, points in lines.items():
        dashed = "--" if name.startswith("rollbacks") else "-"
        axis.plot(*zip(*points, strict=True), dashed, marker="o", markersize=4, label=name)
    axis.set_xscale("log")
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _bars(axis: Axes, unit: str, rows: list[Row]) -> None:
    places = range(len(rows), 0, -1)
    axis.barh(list(places), [row.measured for row in rows], color=[COLOURS[row.met] for row in rows], height=0.7)
    for place, row in zip(places, rows, strict=True):
        if row.baseline is not None:
            axis.plot([row.baseline] * 2, [place - 0.4, place + 0.4], color="black", linewidth=2)
        if row.limit is not None:
            axis.plot([row.limit] * 2, [place - 0.4, place + 0.4], color="#c98a1b", linewidth=2, linestyle=":")
        axis.annotate(f" {row.shown}", (row.measured, place), va="center", fontsize=8)
    axis.set_yticks(list(places), [row.what for row in rows], fontsize=8)
    figures = [abs(row.measured) for row in rows if row.measured]
    if figures and max(figures) > SPREAD * min(figures):
        axis.set_xscale("symlog", linthresh=max(min(figures), 1e-3))
    axis.set_xlabel(f"{unit} (black: baseline, dotted: goal)", fontsize=8)
    axis.margins(x=0.12)

"""Tells growth from noise in what was sampled over a run.

The run after its first tenth is cut into windows.  Queues go up and down, so each window counts with its median; a
thing grows when the median rises in *every* window and by more than a little in all.  By chance that
happens to one in 362,880 of what only fluctuates, and a steady leak does nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from ftnids import limits

WINDOWS: Final = 9
WARM: Final = 0.1  # of the run: tables fill
ENTRIES: Final = 16  # a table that rises by less has not grown
MEMORY: Final = 4 << 20  # bytes, the same of memory
SHARE: Final = 0.02  # and by less than this share
CLOCK: Final = ("_t", "_d", "_knot_t", "_knot_d", "_bend[]")
# Tables that take longer than a short run to fill up to their limit, by the end of the name that the census gives them.
FILLING: Final[Mapping[str, int]] = {
    "desk._dedup._done": limits.ALERT_TABLE,
    "_identifiers[]._seen": limits.ALERT_TABLE,
    "desk._sender._kept": limits.ALERT_TABLE,  # of the last seconds, in batches ...
    "desk._sender._kept[][]": limits.ALERT_KEPT_BYTES,  # ... and bytes
    **{f".clock.{name}": limits.MAX_MEMBERS * limits.CLOCK_SAMPLES for name in CLOCK},
}


@dataclass(frozen=True)
class Sample:
    """What was there after `packets` agreed packets."""

    packets: int
    memory: int  # bytes
    sizes: Mapping[str, int]


def at(samples: Sequence[Sample], share: float) -> Sample:
    """The sample nearest to a share of the run."""
    end = samples[-1].packets
    return min(samples, key=lambda one: abs(one.packets - share * end))


def faults(samples: Sequence[Sample]) -> list[str]:
    """What grows, one line each.  ValueError when there are too few samples to tell."""
    windows = _windows(samples)
    found, filling = [], False
    for name in sorted({name for sample in samples for name in sample.sizes}):
        medians = [median(one.sizes.get(name, 0) for one in window) for window in windows]
        last = samples[-1].sizes.get(name, 0)
        limit = next((limit for end, limit in FILLING.items() if name.endswith(end)), None)
        if limit is not None and last > limit:
            found.append(f"{name} has {last:,} entries, over its limit of {limit:,}")
        elif limit is not None:
            filling = filling or medians[-1] > medians[-2]
        elif _rises(medians, ENTRIES):
            found.append(f"{name} grows: {', '.join(f'{value:,.0f}' for value in medians)}")
    memory = [median(one.memory for one in window) for window in windows]
    if _rises(memory, MEMORY) and not filling:
        found.append(f"memory grows: {', '.join(f'{value / 1e6:.1f}' for value in memory)} MB")
    return found


def _windows(samples: Sequence[Sample]) -> list[list[Sample]]:
    end = samples[-1].packets if samples else 0
    edges = [end * (WARM + (1 - WARM) * i / WINDOWS) for i in range(WINDOWS + 1)]
    windows = [[one for one in samples if low < one.packets <= high] for low, high in pairwise(edges)]
    if not end or not all(windows):
        raise ValueError(f"{len(samples)} samples are too few to tell growth; take more packets")
    return windows


def _rises(medians: Sequence[float], least: float) -> bool:
    always = all(after > before for before, after in pairwise(medians))
    return always and medians[-1] - medians[0] > max(least, SHARE * medians[0])

"""The aligner: N lossy captures of one link, on one clock, become one sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ftnids.sync import bursts
from ftnids.sync.messages import I64, U8, U64


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged sequence of m packets out of N captures."""

    place: I64  # [m, N] index into each input, -1 where absent
    time_ns: I64  # [m] mean of the holders' corrected times, never decreasing
    flags: U8  # [m] Flag bits


def merge(
    hashes: Sequence[U64],
    times: Sequence[I64],
    tolerance_ns: Sequence[int],
    reorder_ns: int,
    reorder_places: int,
) -> Merged:
    """Merge N >= 2 captures into one sequence.

    `hashes[r]` (uint64) and `times[r]` (int64 ns on the common clock, never decreasing) are capture
    r; `tolerance_ns[r]` bounds its clock's error against the common clock.  Packets of one hash are
    one packet only when they lie within the widest tolerance of its holders, unless they were reordered,
    which is looked for within `reorder_ns` and `reorder_places`.
    """
    return Merged(*bursts.merge(hashes, times, tolerance_ns, reorder_ns, reorder_places))


def aligner(name: str) -> Callable[..., Merged]:
    """The merge function by its name: "default" or "difflib"."""
    return {"default": merge}[name]

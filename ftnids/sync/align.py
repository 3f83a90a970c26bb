"""The aligner: N lossy captures of one link, on one clock, become one sequence.

`merge` is the default, in C (`ftnids/core/merge.c`) or Python (`ftnids.sync.bursts`, which tells the
theory), as FTNIDS_IMPL says.  `merge_difflib` is the reference: what `difflib.SequenceMatcher` makes
of the hashes alone, quadratic and blind to time but for the tolerance.  Both keep the same contract.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ftnids.core import aligner as kernels
from ftnids.errors import UsageError
from ftnids.sync import bursts
from ftnids.sync.messages import I64, U8, U64

DIFFLIB_WINDOW: Final = 1_024  # packets of each side that SequenceMatcher sees at once


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged sequence of m packets out of N captures."""

    place: I64  # [m, N] index into each input, -1 where absent
    time_ns: I64  # [m] mean of the holders' times, then made never to decrease
    flags: U8  # [m] Flag bits

    def first(self, count: int) -> Merged:
        """The first `count` packets."""
        return Merged(self.place[:count], self.time_ns[:count], self.flags[:count])


Aligner = Callable[[Sequence[U64], Sequence[I64], Sequence[int], int, int], Merged]


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
    one packet only when they lie within the widest tolerance of its holders, unless they were
    reordered, which is looked for within `reorder_ns` and `reorder_places` (further away only where the
    window itself shows reordering).
    """
    native = kernels.chosen()
    return Merged(*(native.merge if native else bursts.merge)(hashes, times, tolerance_ns, reorder_ns, reorder_places))


def merge_difflib(
    hashes: Sequence[U64],
    times: Sequence[I64],
    tolerance_ns: Sequence[int],
    reorder_ns: int,
    reorder_places: int,
) -> Merged:
    """The same by `difflib`: capture after capture into the merged sequence; reordering is not looked for."""
    captures = len(hashes)
    merged: list[bursts.Group] = []
    for r in range(captures):
        own = [bursts.Group(bursts.Packet(r, i, t, tolerance_ns[r])) for i, t in enumerate(times[r].tolist())]
        theirs = [int(hashes[g.packets[0].capture][g.packets[0].place]) for g in merged]
        joined = set()
        for i, j in _matches(theirs, hashes[r].tolist()):
            if merged[i].fits(own[j]):
                merged[i].join(own[j])
                joined.add(j)
        merged += [g for j, g in enumerate(own) if j not in joined]
        merged = [merged[g] for g in bursts.topological(merged, captures)[0]]
    return Merged(*bursts.as_arrays(merged, captures))


def _matches(a: list[int], b: list[int]) -> list[tuple[int, int]]:
    """Pairs that SequenceMatcher finds, window after window; each begins behind the last match."""
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        window_a, window_b = a[i : i + DIFFLIB_WINDOW], b[j : j + DIFFLIB_WINDOW]
        matcher = difflib.SequenceMatcher(None, window_a, window_b, autojunk=False)
        found = [(i + m.a + n, j + m.b + n) for m in matcher.get_matching_blocks() for n in range(m.size)]
        pairs += found
        if found:
            i, j = found[-1][0] + 1, found[-1][1] + 1
        else:
            i, j = i + len(window_a), j + len(window_b)
    return pairs


def aligner(name: str) -> Aligner:
    """The aligner called `name`: "default" or "difflib"."""
    found: dict[str, Aligner] = {"default": merge, "difflib": merge_difflib}
    if name not in found:
        raise UsageError(f"aligner {name!r}: there are {' and '.join(found)}")
    return found[name]

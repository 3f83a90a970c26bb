"""One look at what the aligner merged: who holds what, where the captures are in step, which stamps are far apart.

Theory of operation

Three questions are asked of a merged window, and one pass answers them.

* *Who holds each packet*, and which packets of each capture come in which order: what is settled is made of that.
* *Where are the anchors*: runs of `length` packets, all different, that all captures hold contiguously.  A packet
  equal to one of the few before it begins a new run, as floods make no anchors.  An anchor *holds* when no packet that
  some capture lacks lies within the tolerance and the reorder window before its end: its missing copy may still come.
* *Which packets look like one* (`ftnids.sync.jitter`): two equal ones, one after the other, further apart than their
  captures' tolerance but within the reorder window.  No capture has both: they are *parted*; else they are a repeat.
  Each packet is compared with the one before it in its slot of a table: a slot that two hashes share may hide a pair,
  and makes none up.

`survey` is in C (`ftnids/core/merge_survey.c`) or, its twin and equal to it to the bit, here, as FTNIDS_IMPL says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ftnids.core import aligner as kernels
from ftnids.sync.messages import I64, U32, U64

FLOOD_LOOK: Final = 16  # packets of an anchor that must differ from each other, at most
MIX: Final = np.uint64(0x9E3779B97F4A7C15)
NONE_LACKED: Final = int(np.iinfo(np.int64).min) // 2


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen of m merged packets out of N captures.  Times are ns."""

    hash: U64  # [m]
    holders: U32  # [m] bit masks of captures
    index: list[I64]  # of each capture, its packets in merged order
    anchored: int  # packets up to the last anchor that holds, 0 if none does
    widest: int  # packets from one anchor to the next, at most
    behind: int  # packets behind the last anchor
    parted: int  # pairs of equal packets of which no capture has both ...
    repeats: int  # ... and of which one does
    gap_ns: int  # the widest gap of a parted pair
    spread_ns: int  # the widest between the stamps of one packet, where wider than the tolerance

    def held(self, count: int) -> list[I64]:
        """Of each capture, its packets among the first `count`."""
        if count == len(self.holders):
            return self.index
        masks = self.holders[:count]
        return [own[: np.count_nonzero(masks & np.uint32(1 << r))] for r, own in enumerate(self.index)]


def survey(
    place: I64,
    time_ns: I64,
    hashes: Sequence[U64],
    times: Sequence[I64],
    positions: Sequence[I64],
    tolerance_ns: Sequence[int],
    reorder_ns: int,
    length: int,
) -> Survey:
    """Look at m >= 1 merged packets, `place` [m, N] and `time_ns` [m] as the aligner put them out.

    `hashes`, `times` (on the common clock), `positions` and `tolerance_ns` are those of the captures, `length` is an
    anchor's.
    """
    if native := kernels.chosen():
        given = place, time_ns, hashes, times, positions, tolerance_ns, reorder_ns, length
        return Survey(*native.survey(*given))
    here = place >= 0
    full: NDArray[np.bool_] = np.asarray(here.all(axis=1))
    merged = np.empty(len(place), np.uint64)
    first, last = np.full(len(place), np.iinfo(np.int64).max), np.full(len(place), np.iinfo(np.int64).min)
    for r, column in enumerate(place.T):
        own = here[:, r]
        merged[own], stamps = hashes[r][column[own]], times[r][column[own]]
        first[own], last[own] = np.minimum(first[own], stamps), np.maximum(last[own], stamps)
    holders = (here * (1 << np.arange(here.shape[1]))).sum(axis=1).astype(np.uint32)
    ends = _anchors(full, _follows(place, positions, full), merged, length)
    lacked = np.maximum.accumulate(np.where(full, NONE_LACKED, time_ns))
    certain = ends[time_ns[ends] - lacked[ends] > max(*tolerance_ns, reorder_ns)]
    gaps = np.diff(np.concatenate([[-1], ends, [len(place) - 1]]))
    before, behind = _equal(merged)
    apart = np.maximum(last[before], last[behind]) - np.minimum(first[before], first[behind])
    near = (apart <= reorder_ns) & (apart > _widest(holders[before] | holders[behind], tolerance_ns))
    parted = near & (holders[before] & holders[behind] == 0)
    spread = last - first
    spread = spread[(spread > _widest(holders, tolerance_ns)) & (spread <= reorder_ns)]
    return Survey(
        merged,
        holders,
        [column[column >= 0] for column in place.T],
        int(certain[-1]) + 1 if len(certain) else 0,
        int(gaps.max()),
        int(gaps[-1]),
        int(parted.sum()),
        int((near & ~parted).sum()),
        int(apart[parted].max(initial=0)),
        int(spread.max(initial=0)),
    )


def _widest(holders: U32, tolerance_ns: Sequence[int]) -> I64:
    """The widest tolerance of each packet's captures."""
    widest = np.zeros(len(holders), np.int64)
    for r, tolerance in enumerate(tolerance_ns):
        own = holders & np.uint32(1 << r) != 0
        widest[own] = np.maximum(widest[own], tolerance)
    return widest


def _follows(place: I64, positions: Sequence[I64], full: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which packets come right behind the one before them in every capture."""
    follows = full.copy()
    follows[:1] = False
    follows[1:] &= full[:-1]
    for own, column in zip(positions, place.T, strict=True):
        if len(own):
            follows[1:] &= np.diff(own[column]) == 1
    return follows


def _anchors(full: NDArray[np.bool_], follows: NDArray[np.bool_], hashes: U64, length: int) -> I64:
    """Indices at which a run of `length` different packets ends that all captures hold contiguously."""
    fresh = full.copy()
    for back in range(1, min(length, FLOOD_LOOK, len(hashes))):
        fresh[back:] &= hashes[back:] != hashes[:-back]
    index = np.arange(len(full))
    starts = np.maximum.accumulate(np.where(follows & fresh, -1, index))  # where the run that a packet is in began
    return np.flatnonzero(fresh & (index - starts >= length - 1))


def _equal(hashes: U64) -> tuple[I64, I64]:
    """Pairs of equal packets of which the first is the one before the second in its slot."""
    bits = max(4, (2 * len(hashes) - 1).bit_length())
    slot = (hashes * MIX) >> np.uint64(64 - bits)
    order = np.argsort(slot, kind="stable")
    same = np.flatnonzero((slot[order][1:] == slot[order][:-1]) & (hashes[order][1:] == hashes[order][:-1]))
    return order[same], order[same + 1]

"""Anchors: runs of packets that all captures hold, and by which a merge knows where it is."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ftnids.sync.messages import I64, U64

FLOOD_LOOK: Final = 16  # packets of an anchor that must differ from each other, at most


def anchors(full: NDArray[np.bool_], follows: NDArray[np.bool_], hashes: U64, length: int) -> I64:
    """Indices at which a run of `length` different packets ends that all captures hold contiguously.

    A packet equal to one of the few before it starts a new run: floods make no anchors.
    """
    fresh = full.copy()
    for back in range(1, min(length, FLOOD_LOOK, len(hashes))):
        fresh[back:] &= hashes[back:] != hashes[:-back]
    index = np.arange(len(full))
    starts = np.maximum.accumulate(np.where(follows & fresh, -1, index))  # where the run that a packet is in began
    return np.flatnonzero(full & fresh & (index - starts >= length - 1))

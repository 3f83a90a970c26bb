"""Injected loss: which packets a replica pretends not to have captured.

Loss comes in runs.  The state is whether the packet before was dropped; a packet is dropped when its draw, 53 bits of
splitmix64 of the seed and the packet's index, is below the threshold of that state.  The thresholds are chosen so that
the share of dropped packets is `loss` and a run is `burst` packets long on average.  Independent losses already come in
runs of 1 / (1 - loss) on average: a shorter `burst` means independent losses.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ftnids.errors import CaptureError

ONE: Final = 1 << 53  # a probability of 1
GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
U64 = NDArray[np.uint64]


class RandomDrop:
    """Decides, packet by packet in the order before loss, whether to drop it; the C capture loop decides the same.

    `loss` is a fraction from 0 to 1, `burst` a mean run length of at least 1.  CaptureError when they are not.
    """

    def __init__(self, loss: float, burst: float = 1.0, seed: int = 0) -> None:
        if not 0.0 <= loss <= 1.0:
            raise CaptureError(f"loss {loss}: must be a fraction from 0 to 1 [capture.drop.loss]")
        if not 1.0 <= burst < float("inf"):
            raise CaptureError(f"burst {burst}: must be at least 1 packet [capture.drop.burst]")
        ends = min(1.0 - loss, 1.0 / burst)  # probability that a run of losses ends
        self.loss, self.burst = loss, burst
        self.seed = seed & 0xFFFFFFFFFFFFFFFF
        self.first = int(loss * ONE)
        self.after_dropped = int((1.0 - ends) * ONE)
        self.after_kept = min(int(loss * ends / (1.0 - loss) * ONE) if loss < 1.0 else ONE, self.after_dropped)
        self._index = 0
        self._dropping = False

    def decide(self, n: int) -> NDArray[np.bool_]:
        """Decisions for the next n packets, bool[n]; True: drop."""
        if n == 0:
            return np.empty(0, np.bool_)
        index = np.arange(self._index, self._index + n, dtype=np.uint64)
        draws = _splitmix64(index * GAMMA + np.uint64(self.seed)) >> np.uint64(11)
        drop = draws < self.after_kept
        settled = drop | (draws >= self.after_dropped)  # whatever the state was
        if self._index == 0:
            drop[0], settled[0] = draws[0] < self.first, True
        elif not settled[0]:
            drop[0], settled[0] = self._dropping, True
        last_settled = np.maximum.accumulate(np.where(settled, np.arange(n), 0))
        decided: NDArray[np.bool_] = drop[last_settled]
        self._index += n
        self._dropping = bool(decided[-1])
        return decided


def _splitmix64(values: U64) -> U64:
    z: U64 = values + GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

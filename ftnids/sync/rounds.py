"""The paper's words for how a merge goes: rounds, dirty rounds, desync level.

A round is one comparison of the replicas' next k packets; it is dirty when some replica lacks one of them.  The
desync level says by how many clusters of k the dirty window has grown without an anchor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Rounds:
    """Counts rounds of `k` settled packets, and desync levels up to `max_desync`."""

    def __init__(self, k: int, max_desync: int) -> None:
        self._k = k
        self._limit = max_desync
        self._open = 0  # packets in the round that is not full
        self._open_dirty = False
        self._full = 0
        self.dirty_rounds = 0
        self.desync_level = 0
        self.max_desync = 0

    def settle(self, full: NDArray[np.bool_]) -> None:
        """Count settled packets; `full` says which of them all members had."""
        first, total = self._open, self._open + len(full)
        dirty = np.unique((np.flatnonzero(~full) + first) // self._k)
        self._full += total // self._k
        self.dirty_rounds += len(dirty) - int(self._open_dirty and len(dirty) > 0 and dirty[0] == 0)
        last = total // self._k
        self._open = total % self._k
        self._open_dirty = (len(dirty) > 0 and int(dirty[-1]) == last) or (self._open_dirty and last == 0)

    @property
    def rounds(self) -> int:
        """Rounds so far, the one that is begun included."""
        return self._full + (self._open > 0)

    def window(self, widest: int, behind: int) -> None:
        """Note a dirty window: packets from one anchor to the next, at most, and behind the last one."""
        self.desync_level = min(behind // self._k, self._limit)
        self.max_desync = max(self.max_desync, min(widest // self._k, self._limit))

    def clean(self) -> None:
        """Note that all members' next packets are equal: the replicas are in step."""
        self.desync_level = 0

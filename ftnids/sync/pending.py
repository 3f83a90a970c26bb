"""One member's reported, undecided packets: in detail, then summaries whose details are still to come."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ftnids.sync.clocks import Clock
from ftnids.sync.messages import I64, U64

NEVER = int(np.iinfo(np.int64).min)
FOREVER = int(np.iinfo(np.int64).max)


@dataclass(slots=True)
class Detail:
    """Packets one by one: absolute positions, hashes, raw times."""

    position: I64
    hash: U64
    time_ns: I64

    def __len__(self) -> int:
        return len(self.position)


@dataclass(slots=True)
class Summary:
    """A cluster: `count` packets from `position` on, known by one hash and the times of the first and last."""

    position: int
    count: int
    cluster: int
    first_ns: int
    last_ns: int

    def __len__(self) -> int:
        return self.count


class Stream:
    """What one member has reported and no decision has consumed, in capture order.

    `position`, `hash` and `time_ns` are its known front; positions may have holes where packets
    were consumed out of turn.  `behind` holds what follows the first unanswered summary.
    """

    def __init__(self, start: int, clock: Clock) -> None:
        self.clock = clock
        self.reported = start
        self.ended = False
        self.watermark_ns = NEVER
        self.position: I64 = np.empty(0, np.int64)
        self.hash: U64 = np.empty(0, np.uint64)
        self.time_ns: I64 = np.empty(0, np.int64)
        self.behind: deque[Detail | Summary] = deque()
        self.taken: I64 = np.empty(0, np.int64)  # positions that an earlier view consumed out of turn
        self._fresh: list[Detail] = []  # joined to the front when it is next looked at

    @property
    def consumed(self) -> int:
        """The lowest position that no decision has consumed."""
        self.fold()
        if len(self.position):
            return int(self.position[0])
        return int(self.behind[0].position) if self.behind else self.reported  # type: ignore[arg-type]

    @property
    def pending(self) -> int:
        """Reported packets that no decision has consumed."""
        return len(self.position) + sum(map(len, self._fresh)) + sum(map(len, self.behind))

    def add(self, position: int, hashes: U64, times: I64) -> None:
        """Append packets from `position` on; what was reported before is ignored."""
        known = self._overlap(position, len(hashes))
        if known >= len(hashes):
            return
        count = len(hashes) - known
        detail = Detail(np.arange(self.reported, self.reported + count), hashes[known:], times[known:])
        (self.behind if self.behind else self._fresh).append(detail)
        self.reported += count

    def add_clusters(self, position: int, k: int, cluster: U64, first_ns: I64, last_ns: I64) -> None:
        """Append clusters of `k` packets from `position` on."""
        known = self._overlap(position, k * len(cluster))
        if known % k:
            known += k - known % k  # half of a cluster is known: it comes again in detail
        for i in range(known // k, len(cluster)):
            if position + i * k != self.reported:
                break
            self.behind.append(Summary(self.reported, k, int(cluster[i]), int(first_ns[i]), int(last_ns[i])))
            self.reported += k

    def _overlap(self, position: int, count: int) -> int:
        if position > self.reported:
            raise ValueError(f"report starts at position {position}, expected {self.reported}")
        return min(self.reported - position, count)

    def answer(self, position: int, hashes: U64, times: I64) -> None:
        """Put details in the place of the summaries that [position, position + len(hashes)) covers."""
        end = position + len(hashes)
        for i, part in enumerate(self.behind):
            if isinstance(part, Summary) and position <= part.position and part.position + part.count <= end:
                at = part.position - position
                self.behind[i] = Detail(
                    np.arange(part.position, part.position + part.count),
                    hashes[at : at + part.count],
                    times[at : at + part.count],
                )

    def fold(self) -> None:
        """Bring the front up to the first unanswered summary."""
        while self.behind and isinstance(self.behind[0], Detail):
            self._fresh.append(self.behind.popleft())  # type: ignore[arg-type]
        if self._fresh:
            parts = [Detail(self.position, self.hash, self.time_ns), *self._fresh]
            self._fresh = []
            self.position = np.concatenate([p.position for p in parts])
            self.hash = np.concatenate([p.hash for p in parts])
            self.time_ns = np.maximum.accumulate(np.concatenate([p.time_ns for p in parts]))
            if len(self.taken):
                self.consume(np.flatnonzero(np.isin(self.position, self.taken)))
                self.taken = self.taken[self.taken >= self.reported]

    def known_until(self, count: int) -> int:
        """Raw time up to which the first `count` packets of the front are all that the member captured."""
        if count < len(self.position):
            return int(self.time_ns[count]) - 1
        if self.behind:
            summary = self.behind[0]
            assert isinstance(summary, Summary)
            return summary.first_ns - 1
        return FOREVER if self.ended else self.watermark_ns

    def consume_front(self, count: int) -> None:
        """Drop the first `count` packets."""
        self.position, self.hash, self.time_ns = self.position[count:], self.hash[count:], self.time_ns[count:]

    def consume(self, indices: I64) -> None:
        """Drop the packets at `indices` of the front, in any order."""
        count = len(indices)
        if count == 0:
            return
        if int(indices.max()) == count - 1:
            self.consume_front(count)
            return
        keep = np.ones(len(self.position), bool)
        keep[indices] = False
        self.position, self.hash, self.time_ns = self.position[keep], self.hash[keep], self.time_ns[keep]

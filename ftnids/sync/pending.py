"""One member's reported, undecided packets: in detail, then summaries whose details are still to come."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

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
    measured: NDArray[np.bool_]  # the times are the member's own, not made from the reference's

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
    unknown: bool = False  # the reference has no such packets: they must be asked for

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
        self.measured: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.behind: deque[Detail | Summary] = deque()
        self.taken: I64 = np.empty(0, np.int64)  # positions that an earlier view consumed out of turn
        self._fresh: list[Detail] = []  # joined to the front when it is next looked at

    @property
    def consumed(self) -> int:
        """The lowest position that no decision has consumed."""
        self.fold()
        if len(self.position):
            return int(self.position[0])
        if self.behind:
            assert isinstance(self.behind[0], Summary)
            return self.behind[0].position
        return self.reported

    @property
    def pending(self) -> int:
        """Reported packets that no decision has consumed."""
        return len(self.position) + sum(map(len, self._fresh)) + sum(map(len, self.behind))

    @property
    def state(self) -> tuple[int, ...]:
        """Changes when something comes in, or goes out."""
        return self.reported, self.watermark_ns, self.ended, len(self.position), len(self.behind)

    def tolerance_ns(self, count: int) -> int:
        """How far the times of the first `count` packets may err: by a clock learnt after them, or one that is old."""
        if count == 0:
            return self.clock.tolerance_ns()
        return max(self.clock.tolerance_ns(int(self.time_ns[i])) for i in (0, count // 2))

    def add(self, position: int, hashes: U64, times: I64) -> None:
        """Append packets from `position` on; what was reported before is ignored."""
        known = self._overlap(position, len(hashes))
        if known >= len(hashes):
            return
        count = len(hashes) - known
        positions = np.arange(self.reported, self.reported + count)
        detail = Detail(positions, hashes[known:], times[known:], np.ones(count, np.bool_))
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

    def answer(self, position: int, hashes: U64, times: I64, *, measured: bool = True) -> None:
        """Put details in the place of the summaries that [position, position + len(hashes)) covers.

        `measured`: all times are the member's own; else only those of the first and the last packet.
        """
        end = position + len(hashes)
        for i, part in enumerate(self.behind):
            if isinstance(part, Summary) and part.position >= end:
                break
            if isinstance(part, Summary) and position <= part.position and part.position + part.count <= end:
                own = np.full(part.count, measured)
                own[[0, -1]] = True
                at = slice(part.position - position, part.position - position + part.count)
                positions = np.arange(part.position, part.position + part.count)
                self.behind[i] = Detail(positions, hashes[at], times[at], own)

    def run(self, limit: int) -> list[Summary]:
        """The next summaries, at most `limit`, of equally many packets each and without a gap, none of them unknown."""
        found: list[Summary] = []
        for part in islice(self.behind, limit):
            if not isinstance(part, Summary) or part.unknown or (found and part.count != found[0].count):
                break
            found.append(part)
        return found

    def answer_run(self, count: int, hashes: U64, times: I64) -> None:
        """Put details in the place of the next `count` summaries, a `run`; the outer times of each are measured."""
        k = len(hashes) // count
        front = self.behind[0]
        assert isinstance(front, Summary)
        for _ in range(count):
            self.behind.popleft()
        measured = np.zeros((count, k), np.bool_)
        measured[:, [0, -1]] = True
        positions = np.arange(front.position, front.position + len(hashes))
        self.behind.appendleft(Detail(positions, hashes, times, measured.ravel()))

    def summaries(self, limit: int) -> list[Summary]:
        """The first `limit` unanswered summaries."""
        found = (part for part in self.behind if isinstance(part, Summary))
        return list(islice(found, limit))

    def fold(self) -> None:
        """Bring the front up to the first unanswered summary."""
        while self.behind and isinstance(part := self.behind[0], Detail):
            self._fresh.append(part)
            self.behind.popleft()
        if self._fresh:
            parts = [Detail(self.position, self.hash, self.time_ns, self.measured), *self._fresh]
            self._fresh = []
            self.position = np.concatenate([p.position for p in parts])
            self.hash = np.concatenate([p.hash for p in parts])
            self.time_ns = np.maximum.accumulate(np.concatenate([p.time_ns for p in parts]))
            self.measured = np.concatenate([p.measured for p in parts])
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

    def take(self, which: I64 | int) -> I64:
        """Drop packets from the front, by their indices or the first so many; their positions."""
        if isinstance(which, int):
            positions = self.position[:which]
            self._keep(slice(which, None))
        else:
            positions = self.position[which]
            self.consume(which)
        return positions

    def consume(self, indices: I64) -> None:
        """Drop the packets at `indices` of the front, in any order."""
        count = len(indices)
        if count == 0:
            return
        keep: slice | NDArray[np.bool_] = slice(count, None)
        if int(indices.max()) >= count:  # no prefix: packets consumed out of turn leave holes
            keep = np.ones(len(self.position), np.bool_)
            keep[indices] = False
        self._keep(keep)

    def _keep(self, which: slice | NDArray[np.bool_]) -> None:
        self.position, self.hash = self.position[which], self.hash[which]
        self.time_ns, self.measured = self.time_ns[which], self.measured[which]


def leading(equal: NDArray[np.bool_]) -> int:
    """How many leading elements are true."""
    return len(equal) if equal.all() else int(equal.argmin())

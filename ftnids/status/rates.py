"""What a viewer makes of counters that only grow: rates over the last seconds, and their history."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ftnids.limits import TOP_SAMPLES
from ftnids.status.delay import between
from ftnids.status.roster import SetView
from ftnids.status.snapshot import Snapshot

DELAY_SPAN_S: Final = 9.5  # the same of a delay
SPAN_S: Final = 2.5  # that a rate is taken over, at least, where there are so many samples
COUNTED: Final = (
    *("captured", "captured_bytes", "kernel_drops", "ring_drops", "injected_drops", "left_to_peers"),
    *("recovered", "lost", "agreed", "ambiguous", "late", "alerts"),
)
DROPS: Final = ("kernel_drops", "ring_drops", "injected_drops")
KEPT: Final = ("captured", "left_to_peers")  # by this replica, or by a peer in its place


@dataclass(frozen=True)
class Sample:
    """Counters of one replica at one moment of its clock."""

    time: float  # s
    life: tuple[int, float]  # pid and start: others begin at 0
    counts: dict[str, float]
    delay: dict[str, list[float]]  # the histogram of the snapshot


class History:
    """The samples of one replica."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=TOP_SAMPLES)

    def add(self, snapshot: Snapshot) -> None:
        """Take a snapshot in; the same one twice counts once, and one of another life begins anew."""
        life = snapshot.pid, snapshot.started
        if self._samples and self._samples[-1].life != life:
            self._samples.clear()
        if not self._samples or snapshot.time > self._samples[-1].time:
            counts = {name: float(snapshot.counters.get(name, 0)) for name in COUNTED}
            self._samples.append(Sample(snapshot.time, life, counts, snapshot.delay))

    def rate(self, name: str) -> float:
        """Of a counter, a second, over the last SPAN_S or so; 0 while there are not two samples."""
        if len(self._samples) < 2:
            return 0.0
        return _rate(self._ago(SPAN_S), self._samples[-1], name)

    def delay(self, share: float) -> float | None:
        """In ms, what `share` of the packets did not exceed in the last DELAY_SPAN_S or so; None where none came."""
        if len(self._samples) < 2:
            return None
        oldest, newest = self._ago(DELAY_SPAN_S).delay, self._samples[-1].delay
        bounds = newest.get("le_ms", [])
        if oldest.get("le_ms") != bounds:
            return None
        return between(bounds, oldest.get("counts", []), newest.get("counts", []), share)

    def loss(self) -> float:
        """The share of what came over the link that this replica did not capture, lately: 0 to 1."""
        return _share(sum(map(self.rate, DROPS)), sum(map(self.rate, KEPT)))

    def series(self, name: str, count: int) -> list[float]:
        """The newest `count` rates from sample to sample, oldest first; fewer where there are fewer samples."""
        samples = list(self._samples)[-count - 1 :]
        return [_rate(one, other, name) for one, other in itertools.pairwise(samples)]

    def losses(self, count: int) -> list[float]:
        """The same of the share that was lost."""
        drops = [sum(one) for one in zip(*(self.series(name, count) for name in DROPS), strict=True)]
        kept = [sum(one) for one in zip(*(self.series(name, count) for name in KEPT), strict=True)]
        return [_share(lost, others) for lost, others in zip(drops, kept, strict=True)]

    def _ago(self, seconds: float) -> Sample:
        """The newest sample that is at least so much older than the newest one; the oldest, where none is."""
        first, newest = self._samples[0], self._samples[-1].time
        return next(one for one in reversed(self._samples) if newest - one.time >= seconds or one is first)


class Histories:
    """Those of all members."""

    def __init__(self) -> None:
        self._of: dict[str, History] = {}

    def __getitem__(self, name: str) -> History:
        """Of the member `name`; empty where nothing is known."""
        return self._of.setdefault(name, History())

    def add(self, view: SetView) -> None:
        """Take a view in."""
        for member in view.members:
            if member.snapshot is not None:
                self[member.name].add(member.snapshot)


def _rate(one: Sample, other: Sample, name: str) -> float:
    seconds = other.time - one.time
    return max(0.0, other.counts[name] - one.counts[name]) / seconds if seconds > 0 else 0.0


def _share(lost: float, others: float) -> float:
    return lost / (lost + others) if lost + others > 0 else 0.0


def peak(values: Iterable[float]) -> float:
    """The largest, 0.0 of none."""
    return max(values, default=0.0)

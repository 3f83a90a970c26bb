"""Feeds over made-up rings."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ftnids.feed import Feed, FifoIds, Ids, Sink

from .fake_ids import FakeIds
from .fake_ring import FakeRing, Packet


def packets(count: int, seed: int) -> list[Packet]:
    """Packets of 60 to 300 bytes, some tens of microseconds apart."""
    rng = random.Random(seed)
    time_us = 1_700_000_000_000_000
    made = []
    for _ in range(count):
        time_us += rng.randint(0, 60)
        made.append(Packet(time_us, rng.randbytes(rng.randint(60, 300))))
    return made


@dataclass
class Bench:
    """One ring, its feed, and a folder; `ids` adds a stand-in IDS."""

    folder: Path
    ring: FakeRing
    feed: Feed = field(init=False)

    def __post_init__(self) -> None:
        self.feed = Feed(self.ring)

    def add(self, *sinks: Sink) -> None:
        for sink in sinks:
            self.feed.add(sink)

    def ids(self, **orders: float) -> Ids:
        ids = FifoIds(self.ring, FakeIds(self.folder, **orders), self.folder / "run", self.folder / "log")
        self.feed.add(ids)
        return ids

    def finish(self) -> None:
        self.ring.stabilise(self.ring.agreed, end=True)
        assert self.feed.join(60)


@pytest.fixture
def bench(tmp_path: Path, seed: int) -> Iterator[Bench]:
    bench = Bench(tmp_path, FakeRing(packets(2500, seed)))
    yield bench
    bench.feed.stop()

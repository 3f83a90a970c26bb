"""An IDS that is fed ahead of agreement logs what one that waited logs, whatever was guessed."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from ftnids.alerts.readers import Record
from ftnids.feed import Feed
from ftnids.feed.checkpoint import CheckpointError
from ftnids.feed.criu_checkpoints import CriuCheckpoints
from ftnids.feed.optimistic import Ahead, OptimisticIds
from ftnids.feed.policy import Policy
from ftnids.limits import AHEAD_TOLERANCE_US

from .conftest import packets
from .fake_ids import FakeIds
from .speculative import SpeculativeRing

COUNT = 400


@dataclass
class Bench:
    """The stand-in IDS, fed from a ring of guesses; `read` follows its alerts as the replica does."""

    folder: Path
    ring: SpeculativeRing
    feed: Feed = field(init=False)
    read: list[Record] = field(default_factory=list)

    def start(self, *, distrust: bool = False, **orders: float) -> OptimisticIds:
        self.feed = Feed(self.ring)
        fake = FakeIds(self.folder, **orders)
        self.checkpoints = CriuCheckpoints(self.folder / "run")
        folders = self.folder / "run", self.folder / "log"
        policy = Policy(always=True)
        self.ids = OptimisticIds(
            self.ring, fake, *folders, checkpoints=self.checkpoints, policy=policy, distrust=distrust
        )
        self.feed.add(self.ids)
        self.feed.start()
        return self.ids

    def poll(self) -> None:
        for run in list(self.ids.runs):
            self.read += run.reader.poll(final=run.ended)

    def until(self, holds: Callable[[], bool]) -> None:
        """Read alerts until something is so."""
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline, vars(self.ids)
            self.poll()
            time.sleep(0.002)

    def logged(self) -> list[tuple[str, int]]:
        """(time, number) of each packet in the newest log, without regard to what may be read."""
        path = self.ids.runs[-1].log_dir / "eve.json"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line["timestamp"], line["pcap_cnt"]) for line in map(json.loads, lines)]

    def finish(self) -> None:
        """Decide the rest: every packet is logged once, in order, and read as often."""
        self.ring.decide(len(self.ring.truth), end=True)
        assert self.feed.join(60)
        self.poll()
        assert self.feed.errors == []

    def expect(self, first: int = 0, *, skip: int = 0) -> None:
        """From `first` on the alerts are those of a plain run."""
        times = [packet.time_us for packet in self.ring.truth[first:]]
        found = [record for record in self.read[skip:] if record["event_type"] == "alert"]
        assert [record["pcap_cnt"] for record in found] == list(range(1, len(times) + 1))
        assert [int(record["timestamp"][20:26]) for record in found] == [time % 1_000_000 for time in times]


@pytest.fixture
def bench(needs_criu: Path, tmp_path: Path, seed: int) -> Iterator[Bench]:
    bench = Bench(tmp_path, SpeculativeRing(packets(COUNT, seed)))
    yield bench
    bench.feed.stop()


def test_right_guesses_are_confirmed_without_a_rollback(bench: Bench) -> None:
    ids = bench.start()
    for upto in (100, 200, 300):
        bench.ring.guess(upto)
        bench.until(lambda upto=upto: len(bench.logged()) == upto)  # type: ignore[misc]
        assert ids.position == upto - 100, "what may be taken back is kept in the ring"
        assert len(bench.read) == upto - 100, "and not told"
        bench.ring.decide(upto)
        bench.until(lambda upto=upto: ids.position == upto)  # type: ignore[misc]
    bench.finish()
    bench.expect()
    assert (ids.checkpoints, ids.rollbacks, ids.failures, ids.deaths) == (3, 0, 0, 0)
    assert bench.ring.fed == COUNT
    assert not list((bench.folder / "run/checkpoints").iterdir())


def test_wrong_guesses_leave_no_trace(bench: Bench) -> None:
    ids = bench.start()
    for base in (0, 100, 200):
        bench.ring.guess(base + 80, wrong=(base + 50, base + 51))
        bench.until(lambda base=base: len(bench.logged()) == base + 80)  # type: ignore[misc]
        bench.ring.decide(base + 60)
        bench.until(lambda base=base: ids.position == base + 60)  # type: ignore[misc]
        bench.ring.decide(base + 100)
        bench.until(lambda base=base: ids.position == base + 100)  # type: ignore[misc]
    bench.finish()
    bench.expect()
    assert ids.rollbacks >= 3
    assert (ids.deaths, ids.runs[0].reader.lines.restarts) == (0, 0)


def test_every_speculation_wrong(bench: Bench, seed: int) -> None:
    """Forced rollbacks under random progress: nothing is lost, doubled or out of place."""
    ids, rng, stable, ahead = bench.start(distrust=True), random.Random(seed), 0, 0
    while ids.rollbacks < 12 and stable < COUNT - 20:
        ahead = min(COUNT, max(ahead, stable + rng.randint(1, 30)))
        bench.ring.guess(ahead)
        if rng.random() < 0.7:
            bench.until(lambda ahead=ahead: len(bench.logged()) == ahead)  # type: ignore[misc]
        stable = rng.randint(stable, ahead)
        bench.ring.decide(stable)
        bench.poll()
    bench.finish()
    bench.expect()
    assert ids.rollbacks > 3
    assert (ids.failures, ids.deaths) == (0, 0)


def test_guesses_that_never_came_to_be_are_taken_back(bench: Bench) -> None:
    """The stream ends before them."""
    ids, truth = bench.start(), bench.ring.truth
    bench.ring.guess(COUNT)
    bench.until(lambda: len(bench.logged()) == COUNT)
    bench.ring.truth = truth[:300]
    bench.finish()
    bench.expect()
    assert ids.rollbacks == 1


def test_an_ids_that_dies_ahead_comes_back_and_is_fed_what_is_stable(bench: Bench) -> None:
    ids = bench.start()
    bench.ring.decide(100)
    bench.until(lambda: ids.position == 100)
    bench.ring.guess(200)
    bench.until(lambda: len(bench.logged()) == 200)
    with capture_logs() as said:
        os.kill(ids.runs[0].process.pid, signal.SIGKILL)
        bench.until(lambda: ids.rollbacks == 1)
    assert [line["why"] for line in said if "why" in line] == ["it died while it speculated"]
    bench.ring.decide(200)
    bench.until(lambda: ids.position == 200)
    bench.finish()
    bench.expect()
    assert (ids.deaths, ids.checkpoints, len(ids.runs)) == (1, 1, 1)


def test_a_restore_that_fails_is_a_cold_start_at_the_checkpoint(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        bench.checkpoints._child.kill()  # type: ignore[union-attr]
        raise CheckpointError("criu restore failed: no reason")

    ids = bench.start()
    bench.ring.decide(100)
    bench.until(lambda: len(bench.read) == 100)
    monkeypatch.setattr(bench.checkpoints, "restore", fail)
    bench.ring.guess(200, wrong=(150,))
    bench.until(lambda: len(bench.logged()) == 200)
    with capture_logs() as said:
        bench.ring.decide(200)
        bench.until(lambda: len(ids.runs) == 2)
    (death,) = [line["report"] for line in said if "report" in line]
    assert "when it was to go back to its checkpoint: criu restore failed: no reason" in death
    bench.finish()
    assert ids.runs[1].base_seq == 100
    bench.expect(100, skip=100)
    assert (ids.failures, ids.deaths, ids.rollbacks) == (1, 1, 0)


def test_a_checkpoint_that_fails_leaves_a_pessimistic_feed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(seq: int) -> None:
        raise CheckpointError("criu dump failed: No space left on device")

    ids = bench.start()
    monkeypatch.setattr(bench.checkpoints, "take", fail)
    with capture_logs() as said:
        bench.ring.guess(COUNT)
        bench.until(lambda: ids.failures == 1)
    assert [line["reason"] for line in said if "reason" in line] == ["criu dump failed: No space left on device"]
    for upto in (100, 200, 300):
        bench.ring.decide(upto)
        bench.until(lambda upto=upto: len(bench.read) == upto)  # type: ignore[misc]
    bench.finish()
    bench.expect()
    assert (ids.failures, ids.checkpoints, ids.deaths) == (1, 0, 0)


def test_without_namespaces_the_feed_is_pessimistic(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CheckpointError("namespaces for the IDS: unshare: Operation not permitted")

    monkeypatch.setattr(CriuCheckpoints, "start", refuse)
    ids = bench.start()
    bench.ring.guess(COUNT)
    bench.finish()
    bench.expect()
    assert (ids.failures, ids.checkpoints) == (1, 0)


def test_no_more_than_the_span_is_handed_out_ahead(bench: Bench) -> None:
    ids = bench.start()
    ids._span = 50
    bench.ring.guess(COUNT)
    bench.until(lambda: len(bench.logged()) == 50)
    bench.ring.decide(50)
    bench.until(lambda: len(bench.logged()) == 100)
    bench.finish()
    bench.expect()


def test_stop_while_ahead_leaves_nothing(bench: Bench) -> None:
    bench.start()
    bench.ring.guess(COUNT)
    bench.until(lambda: len(bench.logged()) == COUNT)
    bench.feed.stop()
    bench.poll()
    assert bench.read == [], "what nobody confirmed is nobody's alert"
    assert not list((bench.folder / "run/checkpoints").iterdir())


@pytest.mark.parametrize(
    ("late_us", "agrees"), [(0, True), (AHEAD_TOLERANCE_US, True), (AHEAD_TOLERANCE_US + 1, False)]
)
def test_a_time_within_the_tolerance_is_no_mistake(late_us: int, agrees: bool) -> None:
    ahead = Ahead(7)
    hashes, times = np.arange(5, dtype=np.uint64), np.arange(5, dtype=np.int64)
    ahead.add(hashes, times, 1.0)
    assert ahead.agrees(hashes[:3], times[:3] - late_us) == agrees
    assert ahead.checked == (10 if agrees else 7)


def test_what_was_gained_is_told_once_for_each_batch() -> None:
    ahead = Ahead(0)
    zeros = np.zeros(10, np.uint64), np.zeros(10, np.int64)
    ahead.add(*zeros, 1.0)
    ahead.add(*zeros, 2.0)
    assert ahead.agrees(zeros[0], zeros[1])
    assert ahead.gained(3.0) == [(2.0, 10)]
    assert ahead.gained(3.0) == []
    assert ahead.agrees(zeros[0], zeros[1])
    assert ahead.gained(4.0) == [(2.0, 10)]

"""An IDS that is given away goes on as if nothing had been; one that is begun from an image goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ftnids.alerts.identity import Identifier
from ftnids.feed import Feed
from ftnids.feed.checkpoint import CheckpointError
from ftnids.feed.criu_checkpoints import OUTGOING, CriuCheckpoints
from ftnids.feed.images import Image
from ftnids.feed.kept import Donation, KeptIds
from ftnids.feed.optimistic import OptimisticIds
from ftnids.feed.policy import Policy
from ftnids.feed.transfer import Manifest, Packer, Unpacker, facts, manifest_of

from .conftest import packets
from .fake_ids import FakeIds
from .fake_ring import FakeRing
from .speculative import SpeculativeRing

COUNT = 600
WAIT_S = 30
VOIDS = (30, 31, 290, 400)


@dataclass
class Side:
    """One replica: its ring, its IDS, and the alerts that were read of it, as seqs."""

    folder: Path
    seed: int
    first: int = 0
    ids: KeptIds = field(init=False)
    read: list[int] = field(default_factory=list)
    cold: set[int] = field(default_factory=set)  # of these

    def __post_init__(self) -> None:
        self.ring = SpeculativeRing(packets(COUNT, self.seed))
        self.ring.void(*VOIDS)
        self.ring.true_refs = self.ring.refs.copy()
        self.ring.fed = self.first
        self.folder.mkdir()
        self.feed = Feed(self.ring)
        self._named: dict[int, Identifier] = {}

    def make(self, *, optimistic: bool = False) -> KeptIds:
        ids, folders = FakeIds(self.folder), (self.folder / "run", self.folder / "log")
        backend = CriuCheckpoints(folders[0])
        if optimistic:
            self.ids = OptimisticIds(self.ring, ids, *folders, checkpoints=backend, policy=Policy(always=True))
        else:
            self.ids = KeptIds(self.ring, ids, *folders, checkpoints=backend)
        self.feed.add(self.ids)
        return self.ids

    def poll(self) -> None:
        for run in list(self.ids.runs):
            ended = run.ended
            records = run.reader.poll(final=ended)
            if records:
                named = self._named.setdefault(run.number, Identifier("x", run.base_seq, run.base_us, voids=run.voids))
                for record in records:
                    about = named.identify({"src_ip": "", "dest_ip": "", "proto": "", **record})["ftnids"]
                    self.read.append(about["seq"])
                    self.cold |= {about["seq"]} if about.get("cold") else set()

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, vars(self.ids)
            self.poll()
            time.sleep(0.002)

    def finish(self) -> list[int]:
        """The seqs of all alerts, the last ones included."""
        self.ring.decide(COUNT, end=True)
        assert self.feed.join(60)
        assert self.feed.errors == []
        self.poll()
        return self.read


def expected(first: int) -> list[int]:
    return [seq for seq in range(first, COUNT) if seq not in VOIDS]


@pytest.fixture
def donor(needs_criu: Path, tmp_path: Path, seed: int) -> Iterator[Side]:
    side = Side(tmp_path / "donor", seed)
    yield side
    side.feed.stop()


@pytest.fixture
def joiner(needs_criu: Path, tmp_path: Path, seed: int) -> Iterator[Side]:
    side = Side(tmp_path / "joiner", seed, first=250)
    yield side
    side.feed.stop()


def given(side: Side, future: Future[Donation]) -> Donation:
    side.until(future.done)
    return future.result()


def carried(donation: Donation, folder: Path) -> tuple[Image, Manifest]:
    about = facts("fake", "d", "4.1", donation.pid)
    more = {"base_seq": donation.base_seq, "base_us": donation.base_us}
    manifest = manifest_of(donation.image, about, **more, voids=donation.voids)
    unpacker, packer = Unpacker(manifest, folder), Packer(donation.image, manifest)
    for number in range(packer.count):
        unpacker.take(packer.read(number))
    packer.close()
    return unpacker.image(), manifest


def test_an_ids_begins_where_another_one_was(donor: Side, joiner: Side, tmp_path: Path) -> None:
    ids = donor.make()
    donor.feed.start()
    donor.ring.decide(200)
    donor.until(lambda: ids.position == 200)
    future = ids.donate(250)
    donor.ring.decide(300)
    donation = given(donor, future)
    assert (donation.image.seq, donation.voids, donation.base_seq) == (300, (30, 31, 290), 0)
    assert donation.pause_s > 0

    other = joiner.make()
    other.hold()
    joiner.feed.start()
    other.start_at(250)
    joiner.ring.decide(320)
    assert other.runs == []
    assert other.position == 250, "the ring keeps what may have to be fed"
    future_start = other.begin(carried(donation, tmp_path / "in"))
    joiner.until(future_start.done)
    assert future_start.result() == 300
    ids.returned(donation.image)
    assert not list((donor.folder / "run" / OUTGOING).iterdir())
    assert donor.finish() == expected(0)
    assert joiner.finish() == expected(300)
    assert joiner.cold == donor.cold == set(), "it remembers what the donor's does"
    assert (ids.deaths, other.deaths, joiner.ring.fed) == (0, 0, COUNT)


def test_an_ids_that_is_up_makes_room_for_another_one(donor: Side, joiner: Side, tmp_path: Path) -> None:
    """A set was found late: the joiner's IDS has been started, and was fed nothing."""
    ids, other = donor.make(), joiner.make()
    donor.feed.start()
    joiner.feed.start()
    assert len(other.runs) == 1
    other.start_at(250)
    other.hold()
    joiner.ring.decide(400)
    donor.ring.decide(280)
    donation = given(donor, ids.donate(250))
    future = other.begin(carried(donation, tmp_path / "in"))
    joiner.until(future.done)
    assert future.result() == 280
    assert joiner.finish() == expected(280)
    assert other.deaths == 0
    assert len(other.runs) == 2


@pytest.mark.parametrize("up", [False, True])
def test_a_hold_that_ends_without_an_image_loses_nothing(joiner: Side, up: bool) -> None:
    ids = joiner.make()
    if up:
        joiner.feed.start()
    ids.hold()
    if not up:
        joiner.feed.start()
    ids.start_at(250)
    joiner.ring.decide(400)
    assert ids.begin(None).result() == 250
    assert joiner.finish() == expected(250)
    assert joiner.cold == set(expected(250))


def test_an_image_that_cannot_be_restored_is_a_cold_start_where_the_hold_began(
    donor: Side, joiner: Side, tmp_path: Path
) -> None:
    ids, other = donor.make(), joiner.make()
    donor.feed.start()
    other.hold()
    joiner.feed.start()
    other.start_at(250)
    donor.ring.decide(300)
    image, manifest = carried(given(donor, ids.donate(250)), tmp_path / "in")
    for path in image.criu.glob("core-*.img"):
        path.write_bytes(b"rubbish")
    future = other.begin((image, manifest))
    assert "criu restore failed" in str(future.exception(WAIT_S))
    assert joiner.finish() == expected(250)
    assert len(other.runs) == 1


def test_a_dump_that_fails_costs_nothing(donor: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = donor.make()
    donor.feed.start()

    def full(seq: int, images: object) -> Image:
        raise CheckpointError("criu dump failed: no room")

    monkeypatch.setattr(ids._backend, "copy", full)
    future = ids.donate(100)
    donor.ring.decide(100)
    assert "no room" in str(future.exception(WAIT_S))
    assert donor.finish() == expected(0)
    assert ids.deaths == 0


def test_what_is_asked_for_is_cancelled_at_the_end(donor: Side, joiner: Side) -> None:
    ids, other = donor.make(), joiner.make()
    donor.feed.start()
    first, second = ids.donate(COUNT), ids.donate(COUNT)
    other.hold()
    joiner.feed.start()
    donor.feed.stop()
    joiner.feed.stop()
    assert first.cancelled()
    with pytest.raises(CancelledError):
        second.result(WAIT_S)
    assert (other.runs, joiner.feed.errors) == ([], [])


def test_an_ids_that_is_ahead_is_given_away_when_it_is_not(donor: Side, joiner: Side, tmp_path: Path) -> None:
    ids, other = donor.make(optimistic=True), joiner.make(optimistic=True)
    donor.feed.start()
    donor.ring.decide(200)
    donor.until(lambda: ids.position == 200)
    donor.ring.guess(300, wrong=(270,))
    donor.until(lambda: ids.checkpoints == 1 and ids._ahead is not None)  # type: ignore[attr-defined]
    future = ids.donate(250)
    donor.ring.decide(260)
    donor.ring.decide(300)
    donation = given(donor, future)
    assert donation.image.seq == 300
    other.hold()
    joiner.feed.start()
    other.start_at(250)
    start = other.begin(carried(donation, tmp_path / "in"))
    joiner.until(start.done)
    donor.ring.guess(500)
    joiner.ring.guess(500)
    assert joiner.finish() == expected(300)
    assert donor.finish() == expected(0)


def test_an_image_that_nobody_wants_any_more_does_not_keep_an_ids_from_running_ahead(donor: Side) -> None:
    ids = donor.make(optimistic=True)
    donor.feed.start()
    future = ids.donate(10 * COUNT)
    donor.ring.decide(100)
    donor.until(lambda: ids.position == 100)
    donor.ring.guess(200)
    assert ids.checkpoints == 0
    assert future.cancel()
    donor.until(lambda: ids.checkpoints > 0)
    assert donor.finish() == expected(0)
    donor.feed.stop()
    assert ids.donate(0).cancelled()  # nobody is there to do it


def test_a_ring_without_speculation_will_do(needs_criu: Path, tmp_path: Path, seed: int) -> None:
    ring = FakeRing(packets(100, seed))
    folders = tmp_path / "run", tmp_path / "log"
    ids = KeptIds(ring, FakeIds(tmp_path), *folders, checkpoints=CriuCheckpoints(folders[0]))
    feed = Feed(ring)
    feed.add(ids)
    feed.start()
    ring.stabilise(100, end=True)
    assert feed.join(60)
    assert [record["pcap_cnt"] for record in ids.runs[0].reader.poll(final=True)] == list(range(1, 101))

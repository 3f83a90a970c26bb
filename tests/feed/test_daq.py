"""The supervisor of an IDS that reads the ring itself: what is done with, deaths, packets that kill, the end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from ftnids.alerts.identity import Identifier
from ftnids.core import Ring, hash_frame
from ftnids.core.packets import VOID, PacketBatch
from ftnids.core.reader import SUFFIX
from ftnids.core.segment import path_of
from ftnids.errors import FeedError
from ftnids.feed import DaqIds, Feed, daq
from snort_adapter import launchers
from snort_adapter.launchers import launcher

from .fake_daq import FakeReader

COUNT = 600
VOIDS = (0, 5, 6, 300, 599)


@pytest.fixture
def ring(seed: int) -> Iterator[Ring]:
    """A ring with COUNT agreed packets, some void, and nothing stable."""
    rng = random.Random(seed)
    ring = Ring.create(
        f"daq-{os.getpid()}",
        slots=1024,
        arena_bytes=1 << 20,
        recovered_slots=1024,
        recovered_bytes=1 << 20,
        agreed_slots=1024,
        linktype=1,
        snaplen=2000,
        seed=3,
    )
    frames = [rng.randbytes(60) for _ in range(COUNT)]
    sizes = np.full(COUNT, 60, np.uint32)
    hashes = np.array([hash_frame(frame, 3) for frame in frames], np.uint64)
    refs, flags = ring.store_recovered(PacketBatch(hashes, sizes, sizes, b"".join(frames))), np.zeros(COUNT, np.uint8)
    refs[list(VOIDS)], flags[list(VOIDS)] = -1, VOID
    ring.publish_agreed(0, refs, np.arange(COUNT, dtype=np.int64) + 1_700_000_000_000_000, flags)
    yield ring
    ring.close(unlink=True)


@pytest.fixture
def start(ring: Ring, tmp_path: Path) -> Iterator[Callable[..., DaqIds]]:
    """Starts a supervisor over the ring, with orders for its IDS."""
    feed = Feed(ring)

    def begin(**orders: float) -> DaqIds:
        supervisor = DaqIds(ring, FakeReader(tmp_path, **orders), tmp_path / "log")
        feed.add(supervisor)
        feed.start()
        return supervisor

    yield begin
    feed.stop()


def finish(ring: Ring, supervisor: DaqIds) -> None:
    ring.set_stable(COUNT)
    ring.set_end()
    assert supervisor.join(60)
    assert supervisor.error is None


def seqs(supervisor: DaqIds) -> list[list[int]]:
    """The seqs that each run's alerts name, by way of the voids that the supervisor noted."""
    found = []
    for run in supervisor.runs:
        identifier = Identifier("a", run.base_seq, run.base_us, voids=run.voids)
        found.append([identifier._seq(record["pcap_cnt"]) for record in run.reader.poll(final=True)])
        run.reader.close()
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


FED = [seq for seq in range(COUNT) if seq not in VOIDS]


def test_what_is_done_with_is_free_and_the_end_comes(ring: Ring, start: Callable[..., DaqIds]) -> None:
    supervisor = start()
    (run,) = supervisor.runs
    ring.set_stable(200)
    until(lambda: ring.fed == 200)
    supervisor.note()
    assert list(run.voids) == [0, 5, 6]
    finish(ring, supervisor)
    assert (ring.fed, supervisor.position, run.process.returncode) == (COUNT, COUNT, 0)
    assert list(run.voids) == list(VOIDS)
    assert seqs(supervisor) == [FED]
    assert run.base_us == 1_700_000_000_000_000
    assert not path_of(ring.name, SUFFIX).exists()


def test_a_killed_ids_goes_on_with_the_packet_it_had_in_hand(ring: Ring, start: Callable[..., DaqIds]) -> None:
    supervisor = start(die_at=400)
    finish(ring, supervisor)
    first, second = seqs(supervisor)
    assert first + second == FED
    assert second[0] == supervisor.runs[1].base_seq == 400
    assert supervisor.counters() | {"deaths": 1, "left_out": 0} == supervisor.counters()


def test_a_packet_that_kills_two_runs_is_left_out(ring: Ring, start: Callable[..., DaqIds]) -> None:
    with capture_logs() as logs:
        supervisor = start(die_at=400, runs=9)
        finish(ring, supervisor)
    assert [run.base_seq for run in supervisor.runs] == [0, 400, 401]
    assert list(chain.from_iterable(seqs(supervisor))) == [seq for seq in FED if seq != 400]
    assert supervisor.counters() | {"deaths": 2, "left_out": 1} == supervisor.counters()
    (said,) = [line for line in logs if line["event"] == "packet left out"]
    assert said["seq"] == 400


def test_a_death_without_a_packet_in_hand_leaves_nothing_out(ring: Ring, start: Callable[..., DaqIds]) -> None:
    supervisor = start()
    ring.set_stable(100)
    for deaths in (1, 2, 3):
        until(lambda: supervisor.position == 100 and len(supervisor.runs) == deaths)  # noqa: B023
        supervisor.runs[-1].process.send_signal(signal.SIGKILL)
        until(lambda: supervisor.deaths == deaths)  # noqa: B023
    finish(ring, supervisor)
    assert supervisor.left_out == 0
    assert list(chain.from_iterable(seqs(supervisor))) == FED


def test_a_report_that_cannot_be_ends_the_run(ring: Ring, start: Callable[..., DaqIds]) -> None:
    with capture_logs() as logs:
        supervisor = start(nonsense=1)
        finish(ring, supervisor)
    assert list(chain.from_iterable(seqs(supervisor))) == FED
    (died,) = [line for line in logs if line["event"] == "IDS died"]
    assert "reports nonsense" in died["report"]


def test_an_ids_that_does_not_attach(ring: Ring, start: Callable[..., DaqIds], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daq, "IDS_START_S", 0.3)
    with pytest.raises(FeedError, match=r"SIGKILL killed: it did not read the ring after"):
        start(deaf=1)


def test_an_ids_that_ends_at_once(ring: Ring, start: Callable[..., DaqIds]) -> None:
    with pytest.raises(FeedError, match=r"^fake: ended with status 3 before it read the ring: fake reader starts; "):
        start(exit=3)


def test_a_stop_ends_it_where_it_is(ring: Ring, start: Callable[..., DaqIds]) -> None:
    supervisor = start()
    ring.set_stable(50)
    until(lambda: supervisor.position == 50)
    supervisor.stop()
    assert supervisor.join(60)
    assert (supervisor.deaths, supervisor.error, ring.fed) == (0, None, 50)


def test_snort_that_is_killed_goes_on(needs_snort: Path, ring: Ring, tmp_path: Path) -> None:
    snort = launcher("snort", str(needs_snort))
    if reason := snort.ring_fault():
        pytest.skip(reason)
    supervisor = DaqIds(ring, snort, tmp_path)
    supervisor.start()
    try:
        ring.set_stable(200)
        until(lambda: supervisor.position == 200)
        supervisor.runs[0].process.kill()
        until(lambda: len(supervisor.runs) == 2)
        finish(ring, supervisor)
        assert (supervisor.runs[1].base_seq, supervisor.deaths, supervisor.position) == (200, 1, COUNT)
        assert supervisor.runs[1].process.returncode == 0
    finally:
        supervisor.stop()
        supervisor.join()


def test_snort_says_why_it_cannot_read_a_ring(
    needs_snort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snort = launcher("snort", str(needs_snort))
    monkeypatch.setattr(launchers, "DAQ_FOLDER", tmp_path)
    assert "is not built, because libdaq 3 was not found" in snort.ring_fault()
    (tmp_path / "daq_ftnids.so").write_text("no module")
    assert snort.ring_fault().startswith("its libdaq does not load ")

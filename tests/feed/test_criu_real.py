"""Real IDSs on the real trace, thrown back again and again by CRIU: they alert as if nothing had been."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from ftnids.alerts.compare import Comparison, compare
from ftnids.alerts.identity import Identifier
from ftnids.alerts.readers import Record
from ftnids.feed import Feed
from ftnids.feed.checkpoint import CheckpointError
from ftnids.feed.criu_checkpoints import CriuCheckpoints
from ftnids.feed.optimistic import OptimisticIds
from ftnids.feed.policy import Policy
from snort_adapter.launchers import LAUNCHERS, IdsLauncher, launcher

from .fake_ring import read_pcap, record_offsets
from .speculative import SpeculativeRing
from .test_real_ids import identified, reference

WRONG = 2_000  # packets fed after each checkpoint that are taken back
START_S = 60


@pytest.fixture(params=sorted(LAUNCHERS))
def ids(request: pytest.FixtureRequest) -> IdsLauncher:
    """Each IDS that this machine has, as it is by default."""
    return launcher(request.param, str(request.getfixturevalue(f"needs_{request.param}")))


@pytest.fixture
def backend(needs_criu: Path, tmp_path: Path) -> Iterator[CriuCheckpoints]:
    backend = CriuCheckpoints(tmp_path / "run")
    yield backend
    backend.close()


def writing_end(fifo: Path) -> int:
    deadline = time.monotonic() + START_S
    while True:
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < deadline, "the IDS does not open its input"
            time.sleep(0.01)
        else:
            os.set_blocking(fd, True)
            return fd


def test_an_ids_that_is_thrown_back_alerts_as_if_nothing_had_been(
    ids: IdsLauncher, backend: CriuCheckpoints, needs_shared_trace: Path, tmp_path: Path
) -> None:
    expected = reference(ids, needs_shared_trace, tmp_path / "reference")
    fifo, logs = tmp_path / "fifo/ids.fifo", tmp_path / "log"
    fifo.parent.mkdir()
    os.mkfifo(fifo, 0o600)
    ids.prepare(logs)
    env = {**os.environ, **ids.environment()}
    child = backend.start(ids.command(*backend.inside(fifo)), env, fifo, logs)
    fd = writing_end(fifo)
    trace = needs_shared_trace.read_bytes()
    at = record_offsets(trace)
    cuts = [0, 1, 9_999, 30_000, len(at) - 1 - WRONG, len(at) - 1]  # the first before any packet
    try:
        os.write(fd, trace[: at[0]])
        for first, last in pairwise(cuts):
            backend.take(first)
            os.write(fd, trace[at[first] : at[first + WRONG]])  # what is to be taken back
            os.write(fd, trace[at[0] : at[WRONG]])
            child = backend.restore()
            backend.discard()
            os.write(fd, trace[at[first] : at[last]])
    except CheckpointError as error:
        pytest.fail(f"{error}: {(logs / 'ids.log').read_text()[-500:]}")
    finally:
        os.close(fd)
    if child.wait(100) == -11:
        pytest.skip("the IDS crashed on the trace, which it does on rare occasions")
    assert child.returncode == 0
    reader = ids.reader(logs)
    raised = identified(reader.poll(final=True), Identifier("a"))
    reader.close()
    assert (reader.invalid, reader.lines.overlong, reader.lines.restarts) == (0, 0, 0)
    assert len(raised) > 5_000
    assert compare(raised, expected) == Comparison()
    ids_of = [Counter(record["ftnids"]["id"] for record in records) for records in (raised, expected)]
    assert ids_of[0] == ids_of[1]


def test_every_speculation_wrong_on_the_real_trace(
    ids: IdsLauncher, needs_criu: Path, needs_shared_trace: Path, tmp_path: Path, seed: int
) -> None:
    """Wrong packets are fed after each checkpoint, and the set's alerts do not show it."""
    expected = reference(ids, needs_shared_trace, tmp_path / "reference")
    rng = random.Random(seed)
    ring = SpeculativeRing(read_pcap(needs_shared_trace))
    supervisor = OptimisticIds(
        ring,
        ids,
        tmp_path / "run",
        tmp_path,
        checkpoints=CriuCheckpoints(tmp_path / "run"),
        policy=Policy(always=True),
    )
    raised: list[Record] = []
    identifier = Identifier("a")
    feed = Feed(ring)
    feed.add(supervisor)
    feed.start()
    reader = supervisor.runs[0].reader
    try:
        count, stable = len(ring.truth), 0
        while stable < count:
            ahead = min(count, stable + WRONG)
            before = supervisor.checkpoints
            ring.guess(ahead, wrong=tuple(rng.sample(range(stable, ahead), 5)))
            wait_for(lambda before=before: supervisor.checkpoints > before or supervisor.ended)  # type: ignore[misc]
            wait_for(lambda ahead=ahead: handed_out(supervisor) == ahead or supervisor.ended)  # type: ignore[misc]
            stable = min(count, ahead + 10 * WRONG)
            ring.decide(stable)
            raised += identified(reader.poll(), identifier)
            wait_for(lambda stable=stable: supervisor.position == stable or supervisor.ended)  # type: ignore[misc]
        ring.decide(count, end=True)
        assert feed.join(100)
    finally:
        feed.stop()
    assert feed.errors == []
    if supervisor.deaths:
        pytest.skip("the IDS crashed on the trace, which it does on rare occasions")
    raised += identified(reader.poll(final=True), identifier)
    reader.close()
    assert (supervisor.rollbacks, supervisor.failures) == (supervisor.checkpoints, 0)
    assert supervisor.rollbacks >= 3
    assert len(raised) > 5_000
    assert compare(raised, expected) == Comparison()
    ids_of = [Counter(record["ftnids"]["id"] for record in records) for records in (raised, expected)]
    assert ids_of[0] == ids_of[1]


def handed_out(supervisor: OptimisticIds) -> int:
    ahead = supervisor._ahead
    return ahead.next if ahead else -1


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)

"""The real ring and the real IDSs on the real trace: what is fed alerts as the file does, whichever way it goes."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftnids.alerts.compare import Comparison, compare
from ftnids.alerts.dedup import Deduplicator
from ftnids.alerts.identity import Identifier
from ftnids.alerts.readers import Record
from ftnids.core import Ring
from ftnids.feed import DaqIds, Feed, FifoIds, Hashes, Ids, PcapFile
from ftnids.limits import IDS_TERM_S
from snort_adapter.launchers import LAUNCHERS, IdsLauncher, launcher

from .fake_ring import read_pcap
from .traced import traced


@pytest.fixture
def ring(needs_shared_trace: Path) -> Iterator[Ring]:
    """A ring with the whole trace in it, all of it agreed and nothing stable."""
    with traced(needs_shared_trace, "feed") as ring:
        count = ring.head
        ring.publish_agreed(
            0, np.arange(count, dtype=np.int64), ring.times(0, count) // 1000, np.zeros(count, np.uint8)
        )
        yield ring


WAYS = [*((name, "fifo") for name in sorted(LAUNCHERS)), ("snort", "ring")]


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> str:
    """How packets reach the IDS of fixture `ids`."""
    return str(request.param[1])


@pytest.fixture
def ids(request: pytest.FixtureRequest, way: str) -> IdsLauncher:
    """Each IDS that this machine has, as it is by default."""
    name = request.node.callspec.params["way"][0]
    found = launcher(name, str(request.getfixturevalue(f"needs_{name}")))
    if way == "ring" and (reason := found.ring_fault()):
        pytest.skip(reason)
    return found


def supervise(ring: Ring, ids: IdsLauncher, way: str, folder: Path) -> Ids:
    """The supervisor of one IDS."""
    return DaqIds(ring, ids, folder) if way == "ring" else FifoIds(ring, ids, folder, folder)


def identified(records: list[Record], identifier: Identifier) -> list[Record]:
    return [identifier.identify(record) for record in records if record["event_type"] == "alert"]


_REFERENCES: dict[tuple[str, Path], list[Record]] = {}


def reference(ids: IdsLauncher, source: Path, log_dir: Path) -> list[Record]:
    """The alerts of the IDS over the file itself; made once."""
    if (ids.name, source) not in _REFERENCES:
        _REFERENCES[ids.name, source] = _reference(ids, source, log_dir)
    return copy.deepcopy(_REFERENCES[ids.name, source])


def _reference(ids: IdsLauncher, source: Path, log_dir: Path) -> list[Record]:
    """The IDS may crash once."""
    for _ in range(2):
        ids.prepare(log_dir)
        (log_dir / ids.alert_file).unlink(missing_ok=True)
        done = subprocess.run(
            ids.command(source, log_dir), env={**os.environ, **ids.environment()}, capture_output=True, check=False
        )
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr.decode()
    reader = ids.reader(log_dir)
    records = reader.poll(final=True)
    reader.close()
    assert (reader.invalid, reader.lines.overlong) == (0, 0)
    return identified(records, Identifier("reference"))


def feed(ring: Ring, supervisor: Ids, folder: Path, *, kill_at: int | None = None) -> None:
    """Make the agreed stream stable in pieces, and feed it to the IDS and to two files."""
    feed = Feed(ring)
    for sink in (supervisor, PcapFile(ring, folder / "agreed.pcap"), Hashes(ring, folder / "hashes.txt")):
        feed.add(sink)
    feed.start()
    try:
        for seq in range(0, ring.agreed, 1777):
            if kill_at is not None and supervisor.position > kill_at and not supervisor.deaths:
                kill(supervisor)
            ring.set_stable(seq)
            while kill_at is not None and supervisor.position < seq:
                time.sleep(0.001)
        ring.set_stable(ring.agreed)
        ring.set_end()
        assert feed.join(100)
    finally:
        feed.stop()
    assert feed.errors == []


def kill(supervisor: Ids) -> None:
    """Kill the IDS as a crash would, and wait until the supervisor knows."""
    supervisor.runs[0].process.send_signal(signal.SIGSEGV)
    while len(supervisor.runs) < 2:
        time.sleep(0.001)


def test_alerts_are_those_of_the_file(
    ids: IdsLauncher, way: str, ring: Ring, needs_shared_trace: Path, tmp_path: Path
) -> None:
    expected = reference(ids, needs_shared_trace, tmp_path / "reference")
    supervisor = supervise(ring, ids, way, tmp_path)
    feed(ring, supervisor, tmp_path)
    assert ring.fed == ring.agreed
    assert read_pcap(tmp_path / "agreed.pcap") == read_pcap(needs_shared_trace)
    if supervisor.deaths:
        pytest.skip("the IDS crashed on the trace, which it does on rare occasions")
    raised = identified(supervisor.runs[0].reader.poll(final=True), Identifier("a"))
    assert len(raised) > 5000
    assert compare(raised, expected) == Comparison()
    ids_of = [Counter(record["ftnids"]["id"] for record in records) for records in (raised, expected)]
    assert ids_of[0] == ids_of[1]
    assert max(ids_of[0].values()) == 1
    seqs = [record["ftnids"]["seq"] for record in raised if record["ftnids"]["seq"] is not None]
    assert seqs == sorted(seqs)
    assert 0 <= seqs[0] <= seqs[-1] < ring.agreed


def test_an_ids_without_a_packet_ends(ids: IdsLauncher, way: str, tmp_path: Path) -> None:
    """A replica that is stopped before it agreed on anything."""
    sizes: dict[str, Any] = {"slots": 1024, "arena_bytes": 1 << 20, "recovered_slots": 1024, "recovered_bytes": 1 << 20}
    ring = Ring.create(f"feed-{os.getpid()}", **sizes, agreed_slots=1024, linktype=1, snaplen=65535, seed=7)
    supervisor = supervise(ring, ids, way, tmp_path)
    try:
        supervisor.start()
        ring.set_end()
        assert supervisor.join(IDS_TERM_S * 4)
    finally:
        supervisor.stop()
        supervisor.join()
        ring.close(unlink=True)
    assert (supervisor.deaths, supervisor.error) == (0, None)


def test_crash_of_one_ids_does_not_show_in_the_alerts_of_the_set(
    ids: IdsLauncher, way: str, ring: Ring, needs_shared_trace: Path, tmp_path: Path
) -> None:
    """The restarted IDS lacks the memory of older flows; the other replica's has it."""
    expected = reference(ids, needs_shared_trace, tmp_path / "reference")
    supervisor = supervise(ring, ids, way, tmp_path)
    feed(ring, supervisor, tmp_path, kill_at=ring.agreed // 2)
    assert supervisor.deaths == 1
    raised = []
    for run in supervisor.runs:
        identifier = Identifier("b", run.base_seq, run.base_us)
        raised += identified(run.reader.poll(final=True), identifier)
    assert compare(raised, expected).differences, "a crash costs this replica alerts"

    set_of_two = Deduplicator(hold_ms=500)
    set_of_two.set_members(["a", "b"])
    healthy = [{**record, "ftnids": {**record["ftnids"], "replicas": ["a"]}} for record in expected]
    out = set_of_two.add("b", raised, 0) + set_of_two.add("a", healthy, 0)
    for member in "ab":
        set_of_two.progress(member, ring.agreed, ended=True)
    out += set_of_two.tick(0)
    assert compare(out, expected) == Comparison()
    assert set_of_two.alerts_diverging > 0

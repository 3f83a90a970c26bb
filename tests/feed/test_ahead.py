"""Snort that reads ahead, on the real trace: whatever was guessed wrong leaves no trace in its alerts."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from ftnids.alerts.compare import Comparison, compare
from ftnids.alerts.identity import Identifier
from ftnids.alerts.readers import Record
from ftnids.core import Ring
from ftnids.core.reader import SUFFIX
from ftnids.core.segment import path_of
from ftnids.feed import DaqIds, Feed
from snort_adapter.launchers import IdsLauncher, launcher

from .test_real_ids import identified, reference
from .traced import traced

STEP = 1_500


def snorts() -> list[psutil.Process]:
    """The Snorts below this process, whatever their threads are called; other children of all tests are Pythons."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [] if one.name().startswith("python") else [one]
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


@pytest.fixture
def snort(needs_snort: Path) -> IdsLauncher:
    found = launcher("snort", str(needs_snort))
    if reason := found.ring_fault():
        pytest.skip(reason)
    return found


@pytest.fixture
def ring(needs_shared_trace: Path) -> Iterator[Ring]:
    """A ring with the whole trace in it, and nothing agreed."""
    with traced(needs_shared_trace, "ahead") as ring:
        yield ring


class Guesser:
    """Publishes the trace as a replica would: first a guess, then what was decided, then that it is stable."""

    def __init__(self, ring: Ring, supervisor: DaqIds) -> None:
        self.ring, self.supervisor = ring, supervisor
        self.records: list[Record] = []

    def agree(self, first: int, last: int) -> None:
        refs = np.arange(first, last, dtype=np.int64)
        self.ring.publish_agreed(first, refs, self.ring.times(first, last) // 1000, np.zeros(last - first, np.uint8))

    def ahead(self, refs: list[int] | range, *, late_us: int = 0) -> None:
        positions = np.array(refs, np.int64)
        times = self.ring.times(int(positions.min()), int(positions.max()) + 1)[positions - positions.min()]
        assert self.ring.publish_ahead(positions, times // 1000 + late_us) == len(positions)

    def taken(self, seq: int) -> None:
        """The IDS has taken all below `seq`."""
        reader = self.supervisor._reader
        assert reader is not None
        until(lambda: reader.report().taken >= seq)

    def read(self) -> None:
        """What the log certainly says."""
        run = self.supervisor.runs[-1]
        self.supervisor.bound(run)
        self.records += run.reader.poll()
        self.supervisor.note()


@pytest.fixture
def guesser(ring: Ring, snort: IdsLauncher, tmp_path: Path) -> Iterator[Guesser]:
    supervisor = DaqIds(ring, snort, tmp_path, ahead=True)
    feed = Feed(ring)
    feed.add(supervisor)
    feed.start()
    yield Guesser(ring, supervisor)
    feed.stop()


def finish(guesser: Guesser) -> list[Record]:
    """The alerts of the run, once it has ended."""
    guesser.ring.set_end()
    assert guesser.supervisor.join(60)
    run = guesser.supervisor.runs[-1]
    while run.process.poll() is None:
        time.sleep(0.001)
    guesser.supervisor.bound(run)
    while more := run.reader.poll(final=True):
        guesser.records += more
    run.reader.close()
    assert snorts() == []
    return identified(guesser.records, Identifier("a"))


def test_wrong_guesses_leave_no_trace(
    guesser: Guesser, snort: IdsLauncher, needs_shared_trace: Path, tmp_path: Path
) -> None:
    """Every guess is wrong, each in another way: a packet too few, one too many, two in the wrong order."""
    expected = reference(snort, needs_shared_trace, tmp_path / "reference")
    ring, count = guesser.ring, guesser.ring.head
    rounds = 0
    for first in range(0, count, STEP):
        last = min(first + STEP, count)
        guess = list(range(first, last))
        middle = len(guess) // 2
        match rounds % 3:
            case 0:
                del guess[middle]
            case 1:
                guess.insert(middle, guess[0])
            case 2:
                guess[middle : middle + 2] = guess[middle : middle + 2][::-1]
        guesser.ahead(guess)
        guesser.taken(first + len(guess))
        guesser.read()
        guesser.agree(first, last)
        ring.set_stable(last)
        rounds += 1
    until(lambda: guesser.supervisor.position == count)
    raised = finish(guesser)
    assert compare(raised, expected) == Comparison()
    assert guesser.supervisor.rollbacks == rounds
    counters = guesser.supervisor.counters()
    assert (counters["deaths"], counters["left_out"]) == (0, 0)
    assert counters["retracted"] > 0
    assert guesser.supervisor.checkpoints >= rounds


def test_right_guesses_cost_no_rollback(
    guesser: Guesser, snort: IdsLauncher, needs_shared_trace: Path, tmp_path: Path
) -> None:
    """Another time is no other packet."""
    expected = reference(snort, needs_shared_trace, tmp_path / "reference")
    ring, count = guesser.ring, guesser.ring.head
    for first in range(0, count, STEP):
        last = min(first + STEP, count)
        guesser.ahead(range(first, last), late_us=7)
        guesser.taken(last)
        guesser.read()
        assert all(record["pcap_cnt"] <= first for record in guesser.records if "pcap_cnt" in record)
        guesser.agree(first, last)
        ring.set_stable(last)
    raised = finish(guesser)
    assert compare(raised, expected) == Comparison()
    supervisor = guesser.supervisor
    assert (supervisor.rollbacks, supervisor.deaths, supervisor.counters()["retracted"]) == (0, 0, 0)
    assert supervisor.checkpoints > 0


def test_what_is_read_ahead_is_not_free(guesser: Guesser) -> None:
    ring = guesser.ring
    guesser.ahead(range(100))
    guesser.taken(100)
    assert ring.fed == guesser.supervisor.position == 0
    guesser.agree(0, 60)
    ring.set_stable(60)
    until(lambda: guesser.supervisor.position == 0)
    guesser.agree(60, 100)
    ring.set_stable(100)
    until(lambda: ring.fed == 100)
    finish(guesser)


def test_snort_that_is_killed_while_it_reads_ahead_starts_anew(guesser: Guesser) -> None:
    """Its log is cut to what is certain, and its checkpoint ends with it; the next run reads what is stable."""
    ring, supervisor = guesser.ring, guesser.supervisor
    guesser.agree(0, 1000)
    ring.set_stable(1000)
    until(lambda: supervisor.position == 1000)
    guesser.read()
    guesser.ahead(range(1000, 3000))
    guesser.taken(3000)
    first = supervisor.runs[0]
    certain = first.reader.lines.path.stat().st_size
    first.process.send_signal(signal.SIGKILL)
    until(lambda: len(supervisor.runs) == 2)
    assert first.reader.lines.path.stat().st_size <= certain
    assert supervisor.runs[1].base_seq == 1000
    guesser.agree(1000, 4000)
    ring.set_stable(4000)
    until(lambda: supervisor.position == 4000)
    assert (supervisor.deaths, supervisor.rollbacks) == (1, 0)
    finish(guesser)


def test_a_stop_leaves_no_checkpoint_behind(guesser: Guesser) -> None:
    guesser.agree(0, 10)
    guesser.ring.set_stable(10)
    guesser.ahead(range(10, 200))
    guesser.taken(200)
    assert len(snorts()) == 2
    guesser.supervisor.stop()
    assert guesser.supervisor.join(60)
    assert snorts() == []


REPLICA = """
import os, sys, time
from pathlib import Path
import numpy as np
from ftnids.core import Capture, Ring
from ftnids.feed import DaqIds
from snort_adapter.launchers import launcher
trace, snort, folder = sys.argv[1:]
capture = Capture.file(trace, snaplen=65535, bpf="")
sizes = {"slots": 8192, "arena_bytes": 16 << 20, "recovered_slots": 1024, "recovered_bytes": 1 << 20}
ring = Ring.create(f"killed-{os.getpid()}", **sizes, agreed_slots=8192, linktype=1, snaplen=65535, seed=7)
capture.run(ring, 4096, 100)
supervisor = DaqIds(ring, launcher("snort", snort), Path(folder), ahead=True)
supervisor.start()
reader, first = supervisor._reader, 0
for first in (0, 500):  # thrown back once, then it reads ahead again
    guess = np.delete(np.arange(first, first + 500, dtype=np.int64), 250)
    ring.publish_ahead(guess, ring.times(first, first + 500)[guess - first] // 1000)
    while reader.report().taken < first + 499:
        time.sleep(0.001)
    if first == 0:
        refs = np.arange(500, dtype=np.int64)
        ring.publish_agreed(0, refs, ring.times(0, 500) // 1000, np.zeros(500, np.uint8))
        ring.set_stable(500)
report = reader.report()
print(ring.name, report.pid, report.checkpoint_pid, supervisor.rollbacks, flush=True)
time.sleep(3600)
"""


def test_a_killed_replica_leaves_no_snort_and_no_checkpoint(
    snort: IdsLauncher, needs_shared_trace: Path, tmp_path: Path
) -> None:
    """Neither the one that was a fork, nor the fork that sleeps."""
    command = [sys.executable, "-c", REPLICA, str(needs_shared_trace), str(snort.binary), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as replica:
        assert replica.stdout is not None
        name = f"killed-{replica.pid}"
        try:
            said = next(line.split() for line in replica.stdout if line.startswith(name))  # among what it logs
            *pids, thrown_back = map(int, said[1:])
            assert thrown_back == 1
            assert all(map(psutil.pid_exists, pids))
            replica.kill()
            replica.wait()
            orphans = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
            psutil.wait_procs(orphans, timeout=30)
            left = [one for one in orphans if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
            assert left == []
        finally:
            replica.kill()
            for suffix in ("", SUFFIX):
                path_of(name, suffix).unlink(missing_ok=True)

"""The supervisor: readiness, end of stream, deaths and restarts, nothing left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import structlog
from structlog.testing import capture_logs

from ftnids.alerts.identity import Identifier
from ftnids.errors import FeedError
from ftnids.feed import Ids, PcapFile, fifo, ids, logdisk, sinks, tether

from .conftest import Bench
from .fake_ring import read_pcap


def seqs(supervisor: Ids) -> list[list[int]]:
    """The seqs that each run's alerts name."""
    return [
        [run.base_seq + record["pcap_cnt"] - 1 for record in run.reader.poll(final=True)] for run in supervisor.runs
    ]


def test_ids_reads_everything_and_ends_by_itself(bench: Bench) -> None:
    supervisor = bench.ids()
    bench.feed.start()
    (run,) = supervisor.runs
    assert run.process.poll() is None, "the IDS is up before the first packet"
    assert os.getsid(run.process.pid) == run.process.pid
    bench.finish()
    assert seqs(supervisor) == [list(range(bench.ring.agreed))]
    assert run.base_us == bench.ring.packets[0].time_us
    assert (run.process.returncode, run.ended, supervisor.deaths) == (0, True, 0)
    assert list((bench.folder / "run").iterdir()) == []


def test_void_seqs_are_not_fed_and_remembered(bench: Bench) -> None:
    """Also those of a batch of which the pipe takes a part: each once."""
    voids = [3, 4, 1_500, 2_499]
    bench.ring.void(*voids)
    supervisor = bench.ids()
    bench.feed.start()
    bench.finish()
    (run,) = supervisor.runs
    assert list(run.voids) == voids
    assert len(seqs(supervisor)[0]) == bench.ring.agreed - len(voids)


def test_death_is_reported_and_the_stream_goes_on(bench: Bench) -> None:
    supervisor = bench.ids(die_at=400)
    bench.add(PcapFile(bench.ring, bench.folder / "agreed.pcap"))
    bench.feed.start()
    bench.finish()
    first, second = seqs(supervisor)
    assert first == list(range(399))
    assert second == list(range(supervisor.runs[1].base_seq, bench.ring.agreed))
    assert second[0] > 399, "the packet that killed it is not fed again"
    assert supervisor.runs[1].base_us == bench.ring.packets[second[0]].time_us
    assert (supervisor.deaths, supervisor.error) == (1, None)
    assert read_pcap(bench.folder / "agreed.pcap") == bench.ring.packets


def test_death_on_a_quiet_link_is_noticed(bench: Bench) -> None:
    supervisor = bench.ids()
    bench.feed.start()
    bench.ring.stabilise(10)
    supervisor.runs[0].process.kill()
    deadline = time.monotonic() + 60
    while len(supervisor.runs) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    bench.finish()
    assert supervisor.deaths == 1
    assert seqs(supervisor)[1] == list(range(supervisor.runs[1].base_seq, bench.ring.agreed))


def test_ids_that_keeps_dying_is_started_with_pauses_until_it_lives(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "IDS_BACKOFF_S", 0.01)
    supervisor = bench.ids(die_at=100, runs=3)
    bench.feed.start()
    bench.finish()
    assert supervisor.deaths == 3
    assert seqs(supervisor)[3][-1] == bench.ring.agreed - 1


def test_ids_that_exits_at_once_is_one_line_with_its_last_words(bench: Bench) -> None:
    supervisor = bench.ids(exit=3)
    with pytest.raises(FeedError, match=r"^fake: ended with status 3 before .*fake ids starts \| E: fake: bad rule; "):
        bench.feed.start()
    assert supervisor.ended


def test_ids_that_never_opens_its_input_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fifo, "IDS_START_S", 0.3)
    supervisor = bench.ids(deaf=1)
    with pytest.raises(FeedError, match=r"killed by SIGKILL .*its input was not open after"):
        bench.feed.start()
    assert supervisor.runs[0].process.returncode == -signal.SIGKILL


def test_ids_that_ignores_the_end_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "IDS_END_S", 0.2)
    monkeypatch.setattr(ids, "IDS_TERM_S", 0.2)
    supervisor = bench.ids(stubborn=1)
    bench.feed.start()
    bench.finish()
    assert supervisor.runs[0].process.returncode == -signal.SIGKILL
    assert seqs(supervisor) == [list(range(bench.ring.agreed))]


def test_ids_that_was_fed_nothing_is_killed(bench: Bench) -> None:
    """Some wait for a first packet for ever; that is no death to report."""
    supervisor = bench.ids(awaits=1)
    bench.feed.start()
    bench.ring.packets.clear()
    bench.finish()
    assert supervisor.runs[0].process.returncode == -signal.SIGKILL
    assert (supervisor.deaths, supervisor.error) == (0, None)


def test_stop_while_the_ids_hangs_ends_soon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "IDS_TERM_S", 0.2)
    supervisor = bench.ids(stubborn=1, slow=3600)
    bench.feed.start()
    bench.ring.stabilise(bench.ring.agreed, end=True)
    bench.feed.stop()
    assert supervisor.runs[0].ended
    assert (supervisor.deaths, supervisor.error) == (0, None)


def test_slow_ids_holds_back_only_its_own_sink(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "FEED_BATCH", 64)
    supervisor = bench.ids(slow=3600)
    pcap = PcapFile(bench.ring, bench.folder / "agreed.pcap")
    bench.add(pcap)
    bench.feed.start()
    bench.ring.stabilise(bench.ring.agreed, end=True)
    assert pcap.join(60)
    assert pcap.position == bench.ring.agreed
    assert supervisor.position < bench.ring.agreed
    assert bench.ring.fed <= supervisor.position


def test_runs_of_an_earlier_process_are_left_alone(bench: Bench) -> None:
    old = bench.folder / "log" / "ids" / "run-4"
    old.mkdir(parents=True)
    supervisor = bench.ids()
    bench.feed.start()
    bench.finish()
    assert [run.number for run in supervisor.runs] == [5]


def test_logs_of_the_newest_runs_stay(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "IDS_RUNS", 3)
    folder = bench.folder / "log" / "ids"
    others = {"run-x", "run-07", "else"}
    for name in (*others, *(f"run-{number}" for number in (0, 1, 8, 9, 10))):
        (folder / name / "files").mkdir(parents=True)
        (folder / name / "files" / "1").touch()
    (folder / "run-3").touch()  # is no folder, and cannot be removed as one
    supervisor = bench.ids(die_at=400, runs=12)
    with structlog.testing.capture_logs() as logs:
        bench.feed.start()
        assert {path.name for path in folder.iterdir()} == others | {"run-3", "run-9", "run-10", "run-11"}
        bench.finish()
    assert supervisor.deaths == 1
    assert {path.name for path in folder.iterdir()} == others | {"run-3", "run-10", "run-11", "run-12"}
    gone = [line["run"] for line in logs if line["event"] == "old IDS log removed"]
    kept = [line["run"] for line in logs if line["event"] == "IDS log not removed"]
    assert (gone, kept, supervisor.removed) == ([0, 1, 8, 9], [3, 3], 4)
    assert [len(one) for one in seqs(supervisor)] == [399, bench.ring.agreed - supervisor.runs[1].base_seq]


PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()), "/bin/sleep", "3600"])
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_no_orphan_survives_the_kill_of_its_supervisor() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tether.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    child = psutil.Process(int(parent.stdout.readline()))
    deadline = time.monotonic() + 60
    while child.name() != "sleep" and time.monotonic() < deadline:
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    gone, _ = psutil.wait_procs([child], timeout=60)
    assert gone or child.status() == psutil.STATUS_ZOMBIE


def test_tether_names_a_program_that_cannot_run(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"cannot run {tmp_path / 'none'}: No such file or directory\n"


def test_what_was_wrong_with_the_logs_is_counted_on(bench: Bench) -> None:
    supervisor = bench.ids()
    bench.feed.start()
    bench.finish()
    (run,) = supervisor.runs
    run.reader.invalid, run.reader.trimmed, run.reader.lines.overlong = 3, 2, 1
    found = {"deaths": 0, "log_failures": 0, "invalid": 3, "trimmed": 2, "overlong": 1}
    assert supervisor.counters() == found
    supervisor.forget(run)
    assert supervisor.runs == []
    assert supervisor.counters() == found


def test_of_many_void_seqs_the_older_ones_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "IDS_VOIDS", 8)
    all_of_them, voids = list(range(1000, 1100, 5)), ids.Voids()
    for seq in all_of_them:
        voids.append(seq)
    assert len(voids) == 20
    assert voids[-6:] == all_of_them[-6:]
    exact, folded = Identifier("a", 990, voids=all_of_them), Identifier("a", 990, voids=voids)
    assert [folded._seq(n) for n in range(85, 200)] == [exact._seq(n) for n in range(85, 200)]
    with pytest.raises(IndexError):
        voids[20]
    older, newest = voids.newest(3, 1096)
    assert (older, newest) == (17, (1085, 1090, 1095))
    given = Identifier("a", 990 + older, voids=newest)  # as another replica goes on with it
    assert [given._seq(n) for n in range(90, 200)] == [exact._seq(n) for n in range(90, 200)]


def test_a_log_that_cannot_be_written_is_said_and_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    supervisor = bench.ids()
    bench.feed.start()
    assert not supervisor.log_fails()
    with capture_logs() as lines:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            assert [supervisor.log_fails() for _ in range(3)] == [True] * 3
        (warning,) = bench.feed.warnings
        assert not supervisor.log_fails()
    error, again = lines
    assert (error["log_level"], error["reason"], error["file"]) == (
        "error",
        os.strerror(errno.ENOSPC),
        str(supervisor.runs[0].reader.lines.path),
    )
    assert error["file"] in warning
    assert "replica.log_dir" in error["hint"]
    assert (again["log_failures"], supervisor.counters()["log_failures"], bench.feed.warnings) == (3, 3, [])
    bench.finish()
    assert [path.name for path in (bench.folder / "log/ids").iterdir()] == ["run-0"]


def test_a_block_that_does_not_fit_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert logdisk.fault(tmp_path) == ""
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 100)
    assert logdisk.fault(tmp_path) == os.strerror(errno.ENOSPC)
    assert logdisk.fault(tmp_path / "missing") == os.strerror(errno.ENOENT)
    assert list(tmp_path.iterdir()) == []

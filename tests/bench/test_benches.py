"""The benches' arithmetic and judgement; not what they measure."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench import __main__ as benches
from bench import _reader, _results, adversarial, delay
from bench._host import Host
from bench._results import Results, Row
from bench._traces import CRAFTED, RECORD, START_US, write_bursts, write_crafted
from ftnids.core import pcap_header
from ftnids.lab import verify


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_results, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (Row("of a baseline", 3.0, "s", 10.0, "<= 0.3"), True),
        (Row("of a baseline", 3.1, "s", 10.0, "<= 0.3"), False),
        (Row("by itself", 0.3, "s", goal=">= 0.3"), True),
        (Row("a count", 1, "runs", goal="== 0"), False),
        (Row("no baseline after all", 1, "packets", 0.0, "<= 0.5"), False),
        (Row("no goal", 1, "s"), None),
    ],
    ids=lambda value: str(getattr(value, "what", value)),
)
def test_a_goal_is_for_the_ratio_where_there_is_a_baseline(row: Row, met: bool | None) -> None:
    assert row.met is met


def test_the_table_of_goals_has_what_is_missed_first(results: Path) -> None:
    for name, rows in {
        "a": [Row("good", 1, "s", goal="<= 2"), Row("no goal", 1, "s")],
        "b": [Row("bad", 3, "s", 2.0, "<= 1")],
    }.items():
        Results(name, [], "none", rows).finish()
    lines = _results.goals(["a", "b"])
    assert lines[0] == "1 of 2 goals are met."
    assert lines[-2:] == ["| b | bad | 1.5 of the baseline | <= 1 | **NOT met** |", "| a | good | 1 s | <= 2 | met |"]


def test_a_bench_of_which_all_runs_failed_tells_so(results: Path) -> None:
    assert Results("a", [], "none", [Row("runs that failed", 2, "runs", goal="== 0")]).finish() == 1
    assert [path.name for path in results.iterdir()] == ["a.json"]


def test_a_bench_that_fails_leaves_the_others_to_run(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benches, "FOLDER", results)
    monkeypatch.setattr(benches, "NAMES", ["no-such-bench", "also-none"])
    assert benches.main(["--quick"]) != 0
    out = capsys.readouterr().out
    assert "0 of 0 goals" in out
    assert "skipped or failed: no-such-bench, also-none" in out


def test_crafted_packets_do_not_repeat(tmp_path: Path) -> None:
    path = tmp_path / "crafted.pcap"
    write_crafted(path, 5_000)
    assert path.stat().st_size == 24 + 5_000 * (RECORD + CRAFTED)
    assert len(np.unique(verify.read_pcap(path, 2_048, 0).hash)) == 5_000


def test_bursts_come_at_their_times(tmp_path: Path) -> None:
    path = tmp_path / "bursts.pcap"
    write_bursts(path, [10, 20], rate=1_000.0, every_s=2.0)
    times = verify.read_pcap(path, 2_048, 0).time_us - START_US
    assert times.tolist() == [*range(0, 10_000, 1_000), *range(2_000_000, 2_020_000, 1_000)]


def test_the_slow_reader_reads_no_faster(tmp_path: Path) -> None:
    path = tmp_path / "crafted.pcap"
    write_crafted(path, 200)
    assert path.read_bytes()[:4] == pcap_header(1, 65_535)[:4]
    began = time.monotonic()
    _reader.read(path, 1_000.0)
    assert time.monotonic() - began > 0.19


def test_the_slow_reader_says_that_it_is_suricata() -> None:
    command = [sys.executable, "-I", "-S", _reader.__file__, "1000", "-V"]
    assert "This is Suricata version 7" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_sleeper_is_never_early() -> None:
    with Host() as host:
        time.sleep(0.05)
    assert 0 <= host.late_p99_ms <= host.late_max_ms
    assert 0 <= host.steal <= 1


def test_delays_are_the_slowest_replica_s() -> None:
    status = [{"delay_p50_ms": 1.0, "delay_p99_ms": 9.0, "delay_max_ms": 9.5}]
    status.append({"delay_p50_ms": 2.0, "delay_p99_ms": 3.0, "delay_max_ms": 30.0})
    found = delay.Delays.of(status, Host())
    assert (found.p50, found.p99, found.most) == (2.0, 9.0, 30.0)


def test_a_ratio_is_the_median_of_turns() -> None:
    hostile = iter([4.0, 9.0, 2.0])
    assert adversarial.ratio(lambda: next(hostile), lambda: 2.0, 3) == 2.0

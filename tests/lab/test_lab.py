"""The whole system, as `ftnids lab` runs it: real replicas, real traffic, a real IDS."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ftnids import cli, counters
from ftnids.alerts.compare import compare
from ftnids.lab import generate, leftovers, reference
from ftnids.lab.options import prepare
from ftnids.lab.processes import wait_until
from snort_adapter.launchers import launcher
from tests.thinned import some

ATTACK_SIDS = {8400001, 8400002, 8400003, 8400004, 8400005}


def lab(out: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """(exit status, summary from standard output, standard error) of one run."""
    command = [sys.executable, "-m", "ftnids", "lab", "-o", str(out), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def check_streams(out: Path, summary: dict[str, Any]) -> None:
    """All replicas' files are there and equal, and the summary says what they hold."""
    rows = summary["replicas"]
    streams = {(out / row["name"] / "hashes.txt").read_bytes() for row in rows}
    pcaps = {(out / row["name"] / "agreed.pcap").read_bytes() for row in rows}
    assert len(streams) == len(pcaps) == 1
    assert {row["agreed"] for row in rows} == {streams.pop().count(b"\n")}
    assert len({row["stream_sha256"] for row in rows}) == 1
    assert all(row["captured"] + row["recovered"] == row["agreed"] for row in rows)
    assert json.loads((out / "summary.json").read_text()) == summary


LOSSES = ("0.0005", "0.005", "0.05", "0.2", "0.5")


@pytest.mark.parametrize(
    ("loss", "replicas"), some((loss, n) for i, loss in enumerate(LOSSES) for n in ((2, 3), (3, 2))[i % 2])
)
def test_streams_are_equal_at_any_loss(tmp_path: Path, loss: str, replicas: int) -> None:
    """Section 5.1 of the paper; and nothing that any replica captured is missing, twice, or out of place."""
    asked = ("--no-netns", "--topspeed", "--ids", "none", "--loss", loss, "-n", str(replicas), "--reference")
    status, summary, told = lab(tmp_path / "out", *asked)
    assert status == 0, told
    check_streams(tmp_path / "out", summary)
    truth = summary["reference"]
    assert (truth["missing"], truth["extra"], truth["displaced"]) == (0, 0, 0)
    assert all(row["injected_drops"] > 0 for row in summary["replicas"])
    assert set(counters.SET) <= set(summary)
    assert summary["alert_differences"] == []


def test_alerts_are_those_of_one_lossless_ids(tmp_path: Path, needs_suricata: Path) -> None:
    asked = ("--no-netns", "--topspeed", "--loss", "0.05", "--reference", "--seed", "3")
    status, summary, told = lab(tmp_path / "out", *asked)
    assert status == 0, told
    check_streams(tmp_path / "out", summary)
    check_alerts(tmp_path / "out", summary)
    assert summary["alert_differences"] == []
    # And would it have noticed?
    alerts = [json.loads(line) for line in (tmp_path / "out" / "alerts.jsonl").read_text().splitlines()]
    raised = reference.read(launcher("suricata"), tmp_path / "out" / "reference")
    assert len(raised) == summary["reference"]["alerts"] > 50
    assert (compare(alerts[1:], raised).missing, compare(alerts[:-1], raised).spurious) == (1, 0)
    assert compare(alerts, raised[1:]).spurious == 1


def check_alerts(out: Path, summary: dict[str, Any]) -> None:
    alerts = [json.loads(line) for line in (out / "alerts.jsonl").read_text().splitlines()]
    assert {alert["alert"]["signature_id"] for alert in alerts} >= ATTACK_SIDS
    assert len({alert["ftnids"]["id"] for alert in alerts}) == len(alerts) == summary["alerts_out"]
    assert summary["alerts_missing"] + summary["alerts_spurious"] == len(summary["alert_differences"])
    assert all(json.loads(line)["event_type"] != "alert" for line in (out / "eve.jsonl").read_text().splitlines())


def test_clocks_apart(tmp_path: Path) -> None:
    asked = (
        "--no-netns",
        "--topspeed",
        "--ids",
        "none",
        "--loss",
        "0.05",
        "--clock-offset-us",
        "300",
        "--jitter-us",
        "20",
    )
    status, summary, told = lab(tmp_path / "out", *asked, "--reference")
    assert status == 0, told
    check_streams(tmp_path / "out", summary)
    assert summary["reference"]["missing"] == summary["reference"]["extra"] == 0


@pytest.mark.needs_root
def test_behind_a_hub(tmp_path: Path, needs_suricata: Path) -> None:
    status, summary, told = lab(tmp_path / "out", "--netns", "--loss", "0.05", "--reference")
    assert status == 0, told
    check_streams(tmp_path / "out", summary)
    check_alerts(tmp_path / "out", summary)
    assert summary["reference"]["basis"] == "the replicas' drop decisions"
    assert not list(leftovers.namespaces())


@pytest.mark.needs_root
def test_a_replayed_file_into_a_former_directory(tmp_path: Path) -> None:
    generate.write(tmp_path / "x.pcap", seed=9, connections=100, lookups=100, seconds=2)
    asked = f"--netns --pcap {tmp_path}/x.pcap --pps 2000 --ids none --loss 0.01 --clock-offset-us 300".split()
    prepare(tmp_path / "out")
    (tmp_path / "out" / "r7").mkdir()
    status, summary, told = lab(tmp_path / "out", *asked, "-n", "3")
    assert status == 0, told
    check_streams(tmp_path / "out", summary)
    assert {path.name for path in (tmp_path / "out").glob("r*")} == {"r0", "r1", "r2"}


def test_all_is_lost(tmp_path: Path) -> None:
    status, summary, told = lab(tmp_path / "out", "--no-netns", "--topspeed", "--ids", "none", "--loss", "1")
    assert status == 0, told
    assert [row["agreed"] for row in summary["replicas"]] == [0, 0]


def start(out: Path, *options: str) -> subprocess.Popen[bytes]:
    """A lab that takes long: file pace, and slow."""
    command = [sys.executable, "-m", "ftnids", "lab", "-o", str(out), "--no-netns", "--ids", "none", "--pps", "500"]
    return subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def running(out: Path, name: str) -> int:
    """The pid of a replica once it agrees on packets."""
    status: dict[str, Any] = {}

    def agrees() -> bool:
        nonlocal status
        path = out / name / "status.json"
        status = json.loads(path.read_text()) if path.exists() else {}
        return bool(status) and status["counters"]["agreed"] > 0

    wait_until(agrees, 30, "the first agreed packet")
    return int(status["pid"])


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_an_interrupted_lab_cleans_up(tmp_path: Path, number: int, expected: int) -> None:
    with start(tmp_path / "out") as process:
        running(tmp_path / "out", "r1")
        process.send_signal(number)
        assert process.wait(30) == expected
    assert not list(Path(leftovers.SHARED_MEMORY).glob(f"{leftovers.PREFIX}-{process.pid}-*"))


def test_a_killed_replica_fails_the_run(tmp_path: Path) -> None:
    with start(tmp_path / "out") as process:
        os.kill(running(tmp_path / "out", "r1"), signal.SIGKILL)
        assert process.wait(60) == 1
        assert process.stderr is not None
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert any("replica r1 failed" in reason for reason in summary["reasons"])


@pytest.mark.parametrize("data", [b"", b"this is no capture file, whatever its name says" * 3])
def test_a_file_that_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.pcap").write_bytes(data)
    status, _, told = lab(tmp_path / "out", "--no-netns", "--ids", "none", "--pcap", str(tmp_path / "x.pcap"))
    assert status == 2
    assert told.startswith(f"ftnids: --pcap {tmp_path}/x.pcap: ")
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [("-n", "1"), ("--loss", "2"), ("--loss", "x"), ("--mode", "optimistic"), ("--ids", "zeek"), ("-o",)]
)
def test_usage(tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["lab", "-o", str(tmp_path / "out"), *options])
    assert ended.value.code == 2
    assert options[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_directory_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["lab"])
    assert ended.value.code == 2
    assert "-o" in capsys.readouterr().err


def test_people_get_a_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ftnids", "lab", "-o", str(tmp_path), "--no-netns", "--ids", "none", "--topspeed"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "PASS" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_a_truncated_file_is_used_and_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    generate.write(path, seed=1, connections=20, lookups=20, seconds=0.1)
    path.write_bytes(path.read_bytes()[:-5])
    status, summary, told = lab(tmp_path / "out", "--no-netns", "--ids", "none", "--pcap", str(path))
    assert status == 0
    assert "truncated" in told
    assert summary["damaged_input"].startswith(f"{path}: truncated")
    assert f"PASS  the replicas' streams are equal (of what could be read of the input: {path}: truncated" in told
    assert summary["replicas"][0]["agreed"] > 100


def test_an_ids_that_cannot_be_set_back_is_not_fed_ahead(tmp_path: Path) -> None:
    told = CliRunner().invoke(cli.cli, ["lab", "--no-netns", "--mode", "optimistic", "-o", str(tmp_path / "out")])
    assert told.exit_code != 0
    assert "checkpoint" in str(told.exception) + told.output


def test_two_labs_at_once(tmp_path: Path) -> None:
    with (
        start(tmp_path / "a", "--topspeed", "--pps", "0") as one,
        start(tmp_path / "b", "--topspeed", "--pps", "0") as two,
    ):
        assert one.wait(60) == two.wait(60) == 0


def test_the_replicas_by_hand(tmp_path: Path) -> None:
    """`replicas/lab`, as its page says."""
    shutil.copytree(Path(__file__).parents[2] / "replicas" / "lab", tmp_path / "lab")
    generate.write(tmp_path / "lab" / "traffic.pcap", seed=1, connections=50, lookups=50, seconds=1)
    command = [sys.executable, "-m", "ftnids", "run", "-c"]
    with (
        subprocess.Popen([*command, "r0.toml"], cwd=tmp_path / "lab", stderr=subprocess.DEVNULL) as one,
        subprocess.Popen([*command, "r1.toml"], cwd=tmp_path / "lab", stderr=subprocess.DEVNULL) as two,
    ):
        assert one.wait(30) == two.wait(30) == 0
    hashes = [(tmp_path / "lab" / name / "hashes.txt").read_bytes() for name in ("r0", "r1")]
    assert hashes[0] == hashes[1] != b""

"""`ftnids alerts`: all there are, and those that come, through rotation and truncation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ftnids.alerts import history
from ftnids.alerts.follow import LineFollower
from ftnids.alerts.outputs import JsonLines, as_line
from ftnids.commands.alerts import command
from ftnids.errors import FtnidsError, UsageError
from ftnids.status import client
from ftnids.status.roster import Member, SetView
from tests.alerts.test_history import record
from tests.status.sets import snapshot
from tests.two import two


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)), standalone_mode=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "alerts.jsonl"
    made.write_bytes(b"".join(as_line(record(number)) for number in range(1, 21)))
    return made


def test_a_line_an_alert(path: Path) -> None:
    told = run(path)
    assert told.return_value == 0
    first = told.output.splitlines()[0]
    assert first.startswith(
        "2023-11-14 22:13:20.001000  confirmed    [1:1:1] x  {TCP} 192.0.2.1:1024 -> 198.51.100.2:80"
    )
    assert first.endswith("  seq 1  a  000000000000000000000001")
    assert len(told.output.splitlines()) == 20
    assert len(run(path, "-n", "3").output.splitlines()) == 3
    assert run(path, "-n", "0").output == ""


def test_records_as_they_are(path: Path) -> None:
    told = [json.loads(line) for line in run(path, "--json", "-n", "2").output.splitlines()]
    assert told == [record(19), record(20)]


def test_what_an_attacker_writes_does_not_reach_the_terminal(path: Path) -> None:
    evil = record(1)
    evil["alert"]["signature"] = "\x1b]0;owned\x07\nfaked line"
    path.write_bytes(as_line(evil))
    told = run(path).output
    assert "?]0;owned??faked line" in told
    assert told.count("\n") == 1
    assert "\x1b" not in run(path, "--json").output


def test_a_configuration_names_the_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(two(f'log_dir = "{tmp_path}"'))
    assert len(run("-c", tmp_path / "a.toml").output.splitlines()) == 20
    path.unlink()
    missing = run("-c", tmp_path / "a.toml")
    assert isinstance(missing.exception, FtnidsError)
    assert "there is no such file" in str(missing.exception)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/a.status").touch()
    told = run("-c", tmp_path / "run")
    assert isinstance(told.exception, UsageError)
    assert isinstance(run(tmp_path).exception, FtnidsError)  # a directory


def test_where_another_replica_leads_it_is_said(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.toml").write_text(two(f'log_dir = "{tmp_path}"'))
    for leader, said in (("b", True), ("a", False)):
        view = SetView("x", "a", 1e9, (Member("a", 0.1, snapshot("a", coordinator=leader)),))
        monkeypatch.setattr(client, "once", lambda sockets, timeout_s, view=view: (view, ""))
        assert ("b leads" in run("-c", tmp_path / "a.toml").stderr) == said


class Follower:
    """`ftnids alerts -f` in a process of its own."""

    def __init__(self, *arguments: str | Path) -> None:
        words = [sys.executable, "-m", "ftnids", "alerts", "-f", "--json", *map(str, arguments)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"})

    def seqs(self, count: int) -> list[int]:
        """Those of the next `count` alerts."""
        assert self.process.stdout is not None
        return [json.loads(self.process.stdout.readline())["ftnids"]["seq"] for _ in range(count)]

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture
def follower(path: Path) -> Iterator[Follower]:
    made = Follower(path)
    yield made
    made.process.kill()
    made.process.wait()


def test_following_a_large_file_begins_near_its_end(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    with path.open("wb") as file:
        for number in range(60_000, 0, -1):
            file.write(as_line(record(number)))
    follower = LineFollower(path, last=10_000)
    numbers = [found["ftnids"]["seq"] for found in map(history.parse, follower.poll()) if found is not None]
    follower.close()
    assert numbers == list(range(len(numbers), 0, -1))
    assert 20 < len(numbers) < 40
    assert LineFollower(tmp_path / "away", last=10).poll() == []


def test_following_through_rotation_truncation_and_a_new_file(follower: Follower, path: Path) -> None:
    def append(*numbers: int, **changes: Any) -> None:
        with path.open("ab") as file:
            file.write(b"".join(as_line(record(number, **changes)) for number in numbers))

    assert follower.seqs(10) == list(range(11, 21))
    append(21, 22)
    assert follower.seqs(2) == [21, 22]
    path.rename(path.with_name("alerts.jsonl.1"))  # logrotate
    append(23, 20)  # a new file; 20 was there
    append(24)
    assert follower.seqs(2) == [23, 24]
    path.write_bytes(b"")  # copytruncate
    append(25)
    assert follower.seqs(1) == [25]
    replacement = path.with_name("new")
    replacement.write_bytes(as_line(record(26)))
    replacement.replace(path)
    assert follower.seqs(1) == [26]
    output = JsonLines(path)
    output.write([record(27, "provisional")])
    output.write([record(27, "retracted")])
    output.close()
    assert follower.seqs(2) == [27, 27]
    late = record(28, "provisional")
    late["ftnids"]["until"] = "2023-11-14T22:13:20.000000+0000"  # of a replica that died, and stays away
    output = JsonLines(path)
    output.write([late])
    output.close()
    assert follower.seqs(2) == [28, 28]
    assert follower.end() == 130

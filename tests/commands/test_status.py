"""`ftnids status`: what it says of a set, live and dead, and with which exit status."""

from __future__ import annotations

import json
import os
import tempfile
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ftnids import attach
from ftnids.commands.status import command
from ftnids.commands.top import command as top
from ftnids.errors import UsageError
from ftnids.lab.processes import wait_until
from ftnids.status.roster import Roster
from ftnids.status.server import Server, socket_path
from ftnids.status.snapshot import Snapshot
from tests.status.live import TwoReplicas
from tests.status.sets import snapshot


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)), standalone_mode=False)


def test_a_live_set_and_its_end(tmp_path: Path) -> None:
    with TwoReplicas(tmp_path) as both:
        both.start()
        wait_until(lambda: run("-c", both.toml("a")).return_value == 0, 30, "a healthy set")
        told = run("-c", both.toml("b"), "--json")
        assert told.return_value == 0
        tree = json.loads(told.output)
        assert (tree["status"], tree["word"], tree["problems"], tree["from"]) == (0, "healthy", [], "b")
        assert [one["state"] for one in tree["members"]] == ["running", "running"]
        assert all(one["snapshot"]["counters"]["captured_bytes"] > 0 for one in tree["members"])
        assert all(Snapshot.of(one["snapshot"]).ids["name"] == "" for one in tree["members"])
        both.kill("b")
        wait_until(lambda: run("-c", both.toml("a")).return_value == 1, 30, "that it is noticed")
        shown = run("-c", tmp_path).output  # the folder of both
        assert "degraded: b: dead, last heard" in shown
        rows = [line.split() for line in shown.splitlines()[1:3]]
        assert [(row[0], row[2]) for row in rows] == [("a", "running"), ("b", "dead")]
        from_b = run("-c", both.toml("b"))
        assert from_b.return_value == 2
        assert "no replica answers there" in from_b.output
        both.kill("a")
        down = run("-c", tmp_path, "--json")
        assert (down.return_value, json.loads(down.output)["word"]) == (2, "down")


@pytest.mark.needs_root
def test_replicas_of_another_user_with_metrics() -> None:
    """What is loaded late must be there though that user could not read it, and the socket is that user's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with TwoReplicas(Path(folder), user="nobody") as both:
            (Path(folder) / "traffic.pcap").chmod(0o644)
            both.start()
            socket = Path(folder) / "a/run/a.status"
            assert socket.owner() == "nobody"
            assert run("-c", both.toml("a")).return_value == 0
            for name in "ab":
                with urllib.request.urlopen(f"http://localhost:{both.metrics[name]}/metrics", timeout=30) as page:
                    assert f'replica="{name}",state="running"}} 1.0' in page.read().decode()


def test_a_run_directory_serves_as_well(tmp_path: Path) -> None:
    roster = Roster("office", ["r0", "r1"], me=0)
    roster.own(snapshot("r0", warnings=["it is raining"]))
    roster.heard(1, snapshot("r1").json())
    made = Server(roster, socket_path(tmp_path, "r0"))
    try:
        told = run("-c", tmp_path)
        assert told.return_value == 1
        assert told.output.splitlines()[-1] == "degraded: r0: it is raining"
        assert told.output.startswith("NAME  ROLE         STATE    HOST")
    finally:
        made.close()


def test_without_a_name_it_is_the_lab_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "DEFAULT", tmp_path / "away")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    told = run()
    assert isinstance(told.exception, UsageError)
    assert f"no replica runs or is configured in {tmp_path}/away" in str(told.exception)
    folder = tmp_path / "ftnids-lab-1-2/r0"
    folder.mkdir(parents=True)
    roster = Roster("office", ["r0"], me=0)
    roster.own(snapshot("r0"))
    made = Server(roster, socket_path(folder, "r0"))
    try:
        assert run().return_value == 0
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        assert isinstance(run().exception, UsageError)  # somebody else's
    finally:
        made.close()


def test_what_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    for wrong, words in (
        (tmp_path / "away.toml", "there is no such file or directory"),
        (tmp_path, "no replica runs or is configured in"),
    ):
        told = run("-c", wrong)
        assert isinstance(told.exception, UsageError)
        assert words in str(told.exception)
    (tmp_path / "a.toml").write_text("[replica]\nnme = 1\n")
    told = run("-c", tmp_path / "a.toml")
    assert isinstance(told.exception, UsageError)  # exit status 2: nobody knows how the set is
    assert "a.toml:2: replica.nme: unknown key" in str(told.exception)


def test_top_without_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "r0.status").touch()
    told = CliRunner().invoke(top, ["-c", str(tmp_path)], standalone_mode=False)
    assert isinstance(told.exception, UsageError)
    assert "top needs a terminal" in str(told.exception)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": "a", "state": 7}'])
def test_a_status_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    both = TwoReplicas(tmp_path)
    (tmp_path / "a/log").mkdir()
    (tmp_path / "a/log/status.json").write_bytes(content)
    told = run("-c", both.toml("a"))
    assert told.return_value == 2
    assert "a: never heard" in told.output

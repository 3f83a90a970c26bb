"""What a service manager is told, and the units that listen to it."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from ftnids import service
from ftnids.cli import cli
from ftnids.config import Config
from ftnids.replica import Replica
from ftnids.service import Service
from tests.test_replica import config as config  # the fixture

UNITS: Final = Path(__file__).resolve().parents[1] / "replicas/systemd"


class Manager:
    """A socket as systemd has it, and what it was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def environment(self, **more: str) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.path), "PATH": "/bin", **more}

    def told(self) -> list[str]:
        found: list[str] = []
        while True:
            try:
                found += self._socket.recv(4_096).decode().splitlines()
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path / "notify")
    yield one
    one.close()


def test_a_replica_says_when_it_is_ready_and_when_it_ends(manager: Manager, config: Config) -> None:
    environment = manager.environment(WATCHDOG_USEC="30000000", WATCHDOG_PID=str(os.getpid()))
    replica = Replica(config, service=Service(environment))
    assert environment == {"PATH": "/bin"}  # or its IDS would speak for it
    first = manager.told()
    assert first == ["WATCHDOG_USEC=180000000", "WATCHDOG=1", "STATUS=starting"]
    assert replica.run() == 0
    said = manager.told()
    ready = said.index("READY=1")
    assert said[:ready] == ["WATCHDOG_USEC=30000000"]
    assert said[-4:] == [
        "WATCHDOG_USEC=180000000",
        "WATCHDOG=1",
        "STATUS=ending: told to, or the stream is over",
        "STOPPING=1",
    ]
    assert said[ready + 1 : -4] == ["STATUS=running", "WATCHDOG=1"]


def test_reading_again_is_told(manager: Manager, config: Config) -> None:
    """And done: a file of alerts that logrotate took away is there again."""
    path = config.replica.log_dir / config.alerts.output
    replica = Replica(config, service=Service(manager.environment()))
    try:
        path.rename(path.with_suffix(".old"))
        replica._on_hangup(1, None)
        assert not path.exists()
        replica._turn()
        assert path.exists()
        said = manager.told()
    finally:
        replica._close()
    said += manager.told()
    begin = said.index("RELOADING=1")
    assert re.fullmatch(r"MONOTONIC_USEC=\d+", said[begin + 1])
    assert said[begin + 2] == "READY=1"
    assert said[-1] == "STOPPING=1"


def test_the_watchdog_hears_no_more_than_it_needs(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("ftnids.service.time.monotonic", lambda: now[0])
    one = Service(manager.environment(WATCHDOG_USEC="4000000"))
    one.ready()
    manager.told()
    for _ in range(50):
        one.alive()
        now[0] += 0.1
    assert manager.told() == ["WATCHDOG=1"] * 5
    one.stopping()


def test_a_watchdog_for_another_process_is_none(manager: Manager) -> None:
    one = Service(manager.environment(WATCHDOG_USEC="1000", WATCHDOG_PID="1"))
    one.alive()
    assert manager.told() == []
    one.stopping()


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "none")}, {"NOTIFY_SOCKET": "@ftnids-none"}):
        one = Service(dict(environment))
        one.ready()
        one.reloading()
        one.stopping()


# -- the units ----------------------------------------------------------------------------------------


def unit(path: Path) -> dict[str, list[str]]:
    """The settings of a unit by name, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_of_a_replica_gives_little_and_listens() -> None:
    found = unit(UNITS / "ftnids@.service")
    assert (found["Type"], found["NotifyAccess"]) == (["notify"], ["main"])
    assert found["AmbientCapabilities"] == found["CapabilityBoundingSet"] == ["CAP_NET_RAW"]
    assert found["NoNewPrivileges"] == found["ProtectHome"] == ["yes"]
    assert found["ProtectSystem"] == ["strict"]
    assert found["User"] == ["ftnids"]
    assert int(found["WatchdogSec"][0]) < service.SLOW_S < int(found["TimeoutStartSec"][0])


def test_commands_in_units_are_commands_of_ftnids() -> None:
    shown = [
        value.split()
        for path in UNITS.glob("*.service")
        for name in ("ExecStart", "ExecStartPre")
        for value in unit(path).get(name, [])
        if "ftnids run" in value
    ]
    assert len(shown) == 2
    for words in shown:
        assert words[:3] == ["/usr/bin/env", "ftnids", "run"]
        command = cli.get_command(click.Context(cli), "run")
        assert command is not None
        command.make_context("run", words[3:])


def test_units_are_files_that_systemd_reads(tmp_path: Path) -> None:
    for path in UNITS.glob("*.service"):
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.read(path)
        assert {"Unit", "Service", "Install"} == set(parser.sections())
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze; the files were read without it")
    names = [str(shutil.copy(path, tmp_path / path.name.replace("@.", "@lo."))) for path in UNITS.glob("*.service")]
    done = subprocess.run([analyze, "verify", "--man=no", *names], capture_output=True, text=True, check=False)
    assert "Unknown" not in done.stderr

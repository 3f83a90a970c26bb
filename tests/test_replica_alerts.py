"""The replica between its IDS's log and the coordinator: what is left to read, and what nobody takes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftnids.alerts import exchange
from ftnids.alerts.outputs import as_line
from ftnids.alerts.provisional import JOURNAL, Provisional
from ftnids.config import Config
from ftnids.ids_logs import IdsLogs
from ftnids.outlets import say_what_waits
from ftnids.replica import Replica
from tests.alerts.records import alert, identified
from tests.test_replica import config as config  # the fixture


class _Log:
    """A reader that has some looks' worth of records, and a last line without its end."""

    def __init__(self, looks: int) -> None:
        self.looks = [[alert(packet=n + 1)] for n in range(looks)]
        self.closed = False

    def poll(self, *, final: bool = False) -> list[dict[str, Any]]:
        assert not (final and self.looks), "the rest was asked for at once"
        return [alert(2, packet=1)] if final else self.looks.pop(0) if self.looks else []

    def close(self) -> None:
        self.closed = True


@dataclass
class _Run:
    """One life of an IDS that is over, with its log still to be read."""

    reader: _Log
    number: int = 0
    base_seq: int = 0
    base_us: int = 1
    voids: list[int] = field(default_factory=list)
    ended: bool = True


class _Ids:
    """An IDS that has ended."""

    launcher = SimpleNamespace(version="", digest="")

    position = 100
    ended = True
    ahead = False
    checkpoints = rollbacks = 0

    def counters(self) -> dict[str, int]:
        return {"deaths": 0}

    def __init__(self, run: _Run) -> None:
        self.runs = [run]

    def bound(self, run: _Run) -> None:
        pass

    def note(self) -> None:
        pass

    def forget(self, run: _Run) -> None:
        self.runs.remove(run)


def _give(replica: Replica, ids: _Ids) -> _Ids:
    """`replica` reads the logs of these."""
    replica.ids = ids  # type: ignore[assignment]
    replica._logs = IdsLogs("a", ids)  # type: ignore[arg-type]
    return ids


@pytest.fixture
def replica(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replica]:
    """A member of a set whose coordinator is another one, and says nothing."""
    one = Replica(config)
    one.desk.start(1, (0, 1), 0)
    one.ids = None
    yield one
    one.ids = None
    one._close()


def test_an_ended_ids_is_read_to_its_end_before_that_is_told(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _Run(_Log(3))
    ids = _give(replica, _Ids(run))
    told: list[bool] = []
    monkeypatch.setattr(replica.desk, "progress", lambda fed, *, final: told.append(final))
    replica.ring.set_end()
    for _ in range(4):
        replica._alerts()
    assert told == [False, False, False, True]
    assert replica.desk.alerts == 4
    assert run.reader.closed
    assert ids.runs == []
    assert replica._logs is not None
    assert not replica._logs._identifiers


def test_alerts_that_nobody_takes_wait_in_the_log(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exchange, "ALERT_WAITING_BYTES", 500)
    run = _Run(_Log(30))
    _give(replica, _Ids(run))
    for _ in range(20):
        replica._alerts()
    assert replica.desk.full
    left = len(run.reader.looks)
    assert 20 < left < 30
    assert capsys.readouterr().err.count("alerts_wait") == 1
    replica.desk.start(0, (0, 1), 0)  # the coordinator dies, and this replica takes its place
    replica._alerts()
    assert len(run.reader.looks) == left - 1


def test_a_replica_that_ends_reads_what_is_left(config: Config, tmp_path: Path) -> None:
    one = Replica(config)
    run = _Run(_Log(30))
    ids = _give(one, _Ids(run))
    one.desk.start(0, (0,), 0)
    one._close()
    assert ids.runs == []
    assert (config.replica.log_dir / "alerts.jsonl").read_text().count("\n") == 31


def test_a_log_that_cannot_be_written_is_told_to_the_set(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = _give(replica, _Ids(_Run(_Log(0))))
    monkeypatch.setattr(ids, "log_fails", lambda: True, raising=False)
    replica._look_after(time.monotonic())
    assert [message.mute for _, message in replica.desk.tick(time.monotonic_ns() + 10**9)] == [True]


def test_rules_that_have_changed_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids: Any = _Ids(_Run(_Log(0)))
    ids.launcher = SimpleNamespace(changed=list)
    say_what_waits(ids)
    say_what_waits(None)
    assert capsys.readouterr().err == ""
    ids.launcher = SimpleNamespace(changed=lambda: [tmp_path / "x.rules"])
    say_what_waits(ids)
    said = capsys.readouterr().err
    assert "rules_wait_for_a_restart" in said
    assert "x.rules" in said


def test_a_receiver_that_is_down_is_in_the_status(config: Config, tmp_path: Path) -> None:
    """The replica starts, and says so, though nothing answers there."""
    redis = config.alerts.redis.model_copy(update={"url": f"unix://{tmp_path}/none"})
    alerts = config.alerts.model_copy(update={"redis": redis})
    replica = Replica(config.model_copy(update={"alerts": alerts}))
    try:
        replica.desk.raised([], time.monotonic_ns())
        found = replica._snapshot("").outputs
        assert list(found) == ["alerts.redis", "alerts.output", "alerts.eve_output"]
        assert found["alerts.redis"]["waiting_bytes"] == 0
        replica._on_hangup(1, None)
        assert (replica.config.replica.log_dir / "spool/redis/delivered").exists()
    finally:
        replica._close()


@pytest.mark.parametrize("on", [True, False])
def test_what_a_killed_replica_left_provisional_is_retracted_when_it_is_back(config: Config, on: bool) -> None:
    """Also where provisional alerts are no longer asked for; what another replica confirmed in its file is not."""
    config.replica.log_dir.mkdir(parents=True, exist_ok=True)
    before = Provisional(config.replica.log_dir / JOURNAL)
    with (config.replica.log_dir / "alerts.jsonl").open("wb") as file:
        for record in before.publish([identified("1"), identified("2")], 0):
            file.write(as_line(record))
        file.write(as_line(identified("2")))
    before.close()
    alerts = config.alerts.model_copy(update={"provisional": on})
    replica = Replica(config.model_copy(update={"alerts": alerts}))
    try:
        lines = (config.replica.log_dir / "alerts.jsonl").read_text().splitlines()
        told = [json.loads(line)["ftnids"] for line in lines]
        assert [(one["id"], one["status"]) for one in told[3:]] == [("1", "retracted")]
        assert (replica.desk._provisional is not None) == on
        assert (config.replica.log_dir / JOURNAL).exists() == on
    finally:
        replica._close()

"""The status file: always whole, the last one always there, and nobody waits for it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from ftnids.status import snapshot
from ftnids.status.snapshot import Snapshot, Writer


def test_the_newest_is_written_and_the_last_one_in_any_case(tmp_path: Path) -> None:
    path, failures = tmp_path / "status.json", list[OSError]()
    writer = Writer(path, failures.append)
    for number in range(100):
        writer.put(Snapshot("r0", "running", pid=number))
    writer.close(Snapshot("r0", "ended"))
    assert json.loads(path.read_bytes())["state"] == "ended"
    assert failures == []
    assert list(tmp_path.iterdir()) == [path]


def test_one_that_is_never_used_but_to_end(tmp_path: Path) -> None:
    Writer(tmp_path / "status.json", pytest.fail).close(Snapshot("r0", "failed"))  # type: ignore[arg-type]
    assert json.loads((tmp_path / "status.json").read_bytes())["state"] == "failed"


def test_who_puts_does_not_wait_and_what_is_old_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, written = threading.Event(), threading.Event(), list[int]()

    def write(path: Path, one: Snapshot) -> None:
        written.append(one.pid)
        begun.set()
        assert go_on.wait(30)

    monkeypatch.setattr(snapshot, "write", write)
    writer = Writer(tmp_path / "status.json", pytest.fail)  # type: ignore[arg-type]
    writer.put(Snapshot("r0", "running", pid=0))
    assert begun.wait(30)
    for number in range(1, 50):
        writer.put(Snapshot("r0", "running", pid=number))
    go_on.set()
    writer.close(Snapshot("r0", "ended", pid=50))
    assert written == [0, 50]


def test_a_disk_that_is_full_is_told_of_and_tried_again(tmp_path: Path) -> None:
    path, failures = tmp_path / "away" / "status.json", list[OSError]()
    writer = Writer(path, failures.append)
    writer.put(Snapshot("r0", "running"))
    while not failures:
        threading.Event().wait(0.001)
    path.parent.mkdir()
    writer.close(Snapshot("r0", "ended"))
    assert json.loads(path.read_bytes())["state"] == "ended"


def test_outputs_and_clocks_are_tables_of_numbers() -> None:
    told = Snapshot("a", "running", outputs={"alerts.redis": {"delivered": 3, "up": 1}})
    assert Snapshot.parse(told.json()).outputs == told.outputs
    clocks = {"b": {"offset_us": -30, "tolerance_us": 200}}
    assert Snapshot.parse(Snapshot("a", "running", clocks=clocks).json()).clocks == clocks
    with pytest.raises(ValueError, match="clocks: not what a status has there"):
        Snapshot.of({"name": "a", "state": "running", "clocks": {"b": 3}})
    with pytest.raises(ValueError, match="outputs: not what a status has there"):
        Snapshot.parse(told.json().replace(b'"up":1', b'"up":"x"'))

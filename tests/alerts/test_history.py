"""The set's alerts, read back: rotated files, last statuses, and lines that are none."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from ftnids import limits
from ftnids.alerts import history
from ftnids.alerts.outputs import as_line
from ftnids.alerts.readers import eve_time
from ftnids.alerts.recent import Recent, short
from tests.alerts.records import START_US, identified


def record(number: int, status: str = "confirmed") -> dict[str, Any]:
    made = identified(f"{number:024x}", seq=number)
    made["timestamp"] = eve_time(START_US + number * 1000)
    made["ftnids"]["status"] = status
    return made


def lines(*records: dict[str, Any]) -> bytes:
    return b"".join(map(as_line, records))


def seqs(*paths: Path) -> list[int]:
    return [one["ftnids"]["seq"] for one in history.alerts(paths)]


def test_rotated_files_come_first(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(lines(record(5)))
    (tmp_path / "alerts.jsonl.1").write_bytes(lines(record(4)))
    (tmp_path / "alerts.jsonl.2.gz").write_bytes(gzip.compress(lines(record(2), record(3))))
    (tmp_path / "alerts.jsonl.10.gz").write_bytes(gzip.compress(lines(record(1))))
    (tmp_path / "alerts.jsonl.old").write_bytes(lines(record(9)))
    assert [one.name for one in history.files_of(path)] == [
        "alerts.jsonl.10.gz",
        "alerts.jsonl.2.gz",
        "alerts.jsonl.1",
        "alerts.jsonl",
    ]
    assert seqs(path) == [1, 2, 3, 4, 5]
    path.unlink()
    assert seqs(path) == [1, 2, 3, 4]
    assert history.files_of(tmp_path / "away" / "alerts.jsonl") == []


def test_an_alert_comes_once_with_its_last_word(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(
        lines(record(1, "provisional"), record(2, "provisional"), record(3, "provisional"), record(1), record(4))
        + lines(record(2, "retracted"), record(4), record(1, "provisional"))
    )
    told = [(one["ftnids"]["seq"], one["ftnids"]["status"]) for one in history.alerts([path])]
    assert sorted(told) == [(1, "confirmed"), (2, "retracted"), (3, "provisional"), (4, "confirmed")]


def test_an_alert_that_is_confirmed_while_it_is_read_comes_once(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(lines(record(1, "provisional"), record(2)))
    told = history.alerts([path])
    first = next(told)
    with path.open("ab") as file:
        file.write(lines(record(1)))
    assert [one["ftnids"]["seq"] for one in (first, *told)] == [1, 2]


def test_several_outputs_are_put_in_order_and_alerts_in_both_come_once(tmp_path: Path) -> None:
    one, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    one.write_bytes(lines(record(1), record(3), record(4)))
    other.write_bytes(lines(record(2), record(3), record(5)))
    assert seqs(one, other) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "wrong", [b"{", b"[]", b"7", b'{"ftnids": 1}', b'{"ftnids": {}}', b"\xff\0", b"[" * 10_000, b'{"alert": {}}']
)
def test_lines_that_are_none_are_left_out(tmp_path: Path, wrong: bytes) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(lines(record(1)) + wrong + b"\n" + lines(record(2)) + as_line(record(3))[:40])
    assert seqs(path) == [1, 2]


def test_a_line_beyond_the_limit_and_a_damaged_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_LOG_LINE", 1000)
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(lines(record(1)) + b"x" * 5000 + b"\n" + lines(record(2)))
    (tmp_path / "alerts.jsonl.1.gz").write_bytes(gzip.compress(lines(*map(record, range(10, 300))))[:-200])
    (tmp_path / "alerts.jsonl.2.gz").write_bytes(b"no archive")
    assert sorted(seqs(path))[:2] == [1, 2]


def test_recent_alerts_are_short_bounded_and_never_strange() -> None:
    recent = Recent()
    recent.write([record(number) for number in range(200)])
    assert [one["seq"] for one in recent.alerts()] == list(range(200 - limits.STATUS_ALERTS, 200))
    recent.write([record(199, "retracted")])
    assert [one["status"] for one in recent.alerts()][-2:] == ["confirmed", "retracted"]
    assert len(recent.alerts()) == limits.STATUS_ALERTS
    recent.close()
    strange = short({"alert": {"severity": "x", "signature": "y" * 9999}, "ftnids": {}, "src_ip": 7, "dest_port": []})
    assert (strange["severity"], strange["from"], strange["to"], strange["id"]) == (None, "7", "", "")
    assert len(str(strange["signature"])) == limits.STATUS_TEXT
    six = short({**record(1), "src_ip": "2001:0db8:0000:0000:0000:0000:0000:0001", "src_port": 53})
    assert six["from"] == "[2001:db8::1]:53"

"""Outputs: whole batches, nothing twice, nothing lost in silence."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ftnids.alerts import outputs
from ftnids.alerts.outputs import JsonLines, split
from ftnids.errors import ConfigError

from .records import alert, identified, ids_in


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes: a full disk, as a process sees it (the log stays in memory)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with capture_logs():
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_json_lines_are_appended_to_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    for name in ("1", "2"):
        out = JsonLines(path)
        out.write([identified(name)])
        out.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [json.loads(line)["ftnids"]["id"] for line in path.read_bytes().splitlines()] == ["1", "2"]
    assert ids_in(path) == ["1", "2"]


def test_full_disk_holds_alerts_back_and_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    out = JsonLines(path)
    out.write([identified("1")])
    size = path.stat().st_size
    with file_size_limit(size + 10):
        out.write([identified("2")])
        out.write([identified("3")])
        assert path.stat().st_size == size
        assert (out.written, out.held_back, out.failures, out.lost) == (1, 2, 2, 0)
    out.write([identified("4")])
    out.close()
    assert ids_in(path) == ["1", "2", "3", "4"]
    assert (out.written, out.lost) == (4, 0)


def test_backlog_has_a_limit_and_losses_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "ALERT_BACKLOG", 2)
    path = tmp_path / "alerts.jsonl"
    out = JsonLines(path)
    with file_size_limit(10):
        out.write([identified(str(n)) for n in range(5)])
    assert (out.lost, out.held_back) == (3, 2)
    out.close()
    assert ids_in(path) == ["3", "4"]


def test_backlog_has_a_limit_in_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(outputs.as_line(identified("1")))
    monkeypatch.setattr(outputs, "ALERT_BACKLOG_BYTES", 3 * size)
    out = JsonLines(tmp_path / "alerts.jsonl")
    with file_size_limit(10):
        out.write([identified(str(n)) for n in range(5)])
    assert (out.lost, out.held_back) == (2, 3)
    out.close()
    assert ids_in(tmp_path / "alerts.jsonl") == ["2", "3", "4"]


def test_ids_that_others_put_out_are_known(tmp_path: Path) -> None:
    """Two replicas write to one file: each learns what the other wrote, once, and not what it wrote itself."""
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(outputs.as_line(identified("1")) + b'{"cut')
    one = JsonLines(path)
    assert one.ids_of_others() == ["1"]
    other = JsonLines(path)
    assert other.ids_of_others() == ["1"]
    other.write([identified("2")])
    one.write([identified("3"), identified("4")])
    other.write([identified("5")])
    assert one.ids_of_others() == ["2", "5"]
    assert one.ids_of_others() == []
    assert other.ids_of_others() == ["3", "4"]
    os.truncate(path, 0)
    one.write([identified("6")])
    assert one.ids_of_others() == []
    assert other.ids_of_others() == []  # the file is shorter than it knew; it looks on from here
    one.write([identified("7")])
    assert other.ids_of_others() == ["7"]
    one.close()
    other.close()


def test_only_the_newest_ids_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "alerts.jsonl"
    lines = [outputs.as_line(identified(str(n))) for n in range(9)]
    path.write_bytes(b"".join(lines))
    monkeypatch.setattr(outputs, "ALERT_TABLE", 4)
    monkeypatch.setattr(outputs, "ALERT_STRETCHES", 2)
    one, other = JsonLines(path), JsonLines(path)
    assert one.ids_of_others() == ["5", "6", "7", "8"]
    monkeypatch.setattr(outputs, "ALERT_TABLE", 100)
    for n in range(4):
        one.write([identified(f"a{n}")])
        other.write([identified(f"b{n}")])
    assert {"b0", "b1", "b2", "b3"} <= set(one.ids_of_others())  # some of its own are among them, which does no harm
    monkeypatch.setattr(outputs, "ALERT_LOOKUP_BYTES", 3 * len(lines[0]) - 1)
    assert JsonLines(path).ids_of_others() == ["b2", "a3", "b3"]  # of a line that is cut the id is read, too


def test_a_text_that_looks_like_an_id_is_none(tmp_path: Path) -> None:
    record = identified("1")
    record["alert"]["signature"] = 'x"ftnids":{"id":"77"'
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(outputs.as_line(record))
    assert JsonLines(path).ids_of_others() == ["1"]


def test_line_cut_by_a_kill_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(outputs.as_line(identified("1")) + b'{"cut')
    out = JsonLines(path)
    out.write([identified("2")])
    out.close()
    assert ids_in(path) == ["1", "2"]


def test_no_file_knows_no_ids(tmp_path: Path) -> None:
    assert ids_in(tmp_path / "none") == []


def test_output_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"alerts.output: cannot write .*No such file"):
        JsonLines(tmp_path / "no" / "alerts.jsonl")


def test_split_keeps_order() -> None:
    dns = {"event_type": "dns"}
    one, two = alert(1), alert(2)
    assert split([one, dns, two]) == ([one, two], [dns])


def test_a_full_disk_is_one_line_not_one_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = JsonLines(tmp_path / "alerts.jsonl")
    monkeypatch.setattr("ftnids.alerts.outputs.ALERT_BACKLOG", 5)
    with capture_logs() as lines, monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for n in range(20):
            out.write([identified(str(n))])
    assert [line["event"] for line in lines] == ["alerts held back", "alerts lost: the output cannot be written"]
    assert (out.failures, out.lost, out.held_back) == (20, 15, 5)
    out.close()


def lines_of(directory: Path) -> dict[str, list[str]]:
    return {path.name: ids_in(path) for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("remove", [False, True], ids=["renamed", "removed"])
def test_a_file_that_was_taken_away_is_made_anew(tmp_path: Path, remove: bool) -> None:
    """logrotate needs no signal, but may send one."""
    path, aside = tmp_path / "alerts.jsonl", tmp_path / "old"
    out = JsonLines(path)
    out.write([identified("1")])
    path.rename(aside)
    if remove:
        aside.unlink()
    out.write([identified("2")])
    assert ids_in(path) == ["2"]
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    out.reopen()
    assert ids_in(path) == []
    assert path.exists()
    out.close()


def test_a_full_file_is_renamed_and_few_of_them_stay(tmp_path: Path) -> None:
    size = len(outputs.as_line(identified("1")))
    out = JsonLines(tmp_path / "a", rotate_bytes=2 * size, rotate_keep=2)
    for n in range(7):
        out.write([identified(str(n))])
    assert lines_of(tmp_path) == {"a": ["6"], "a.1": ["4", "5"], "a.2": ["2", "3"]}
    out.close()
    assert JsonLines(tmp_path / "a").ids_of_others() == ["4", "5", "6"]  # a restart repeats none of them


def test_a_file_that_two_write_is_renamed_once(tmp_path: Path) -> None:
    size = len(outputs.as_line(identified("1")))
    one, other = (JsonLines(tmp_path / "a", rotate_bytes=2 * size, rotate_keep=9) for _ in range(2))
    one.write([identified("1")])
    other.write([identified("2")])
    assert one.ids_of_others() == ["2"]
    one.write([identified("3")])
    other.write([identified("4")])
    assert other.ids_of_others() == ["1", "3"]
    assert one.ids_of_others() == ["4"]
    assert lines_of(tmp_path) == {"a": [], "a.1": ["3", "4"], "a.2": ["1", "2"]}
    one.close()
    other.close()


def test_a_device_is_never_renamed() -> None:
    out = JsonLines(Path("/dev/null"), rotate_bytes=1)
    out.write([identified("1")])
    out.reopen()
    out.close()
    assert not Path("/dev/null").is_file()


def test_a_directory_that_takes_no_new_name_stops_no_alert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    out = JsonLines(tmp_path / "a", rotate_bytes=1)
    monkeypatch.setattr(Path, "rename", refuse)
    with capture_logs() as lines:
        for n in range(3):
            out.write([identified(str(n))])
    assert [line["event"] for line in lines] == ["alert_file_not_rotated"]
    assert ids_in(tmp_path / "a") == ["0", "1", "2"]
    out.close()

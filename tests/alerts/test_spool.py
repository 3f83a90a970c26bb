"""The spool: what goes in comes out in order, after a kill too, and what is lost is counted."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids.alerts import spool as module
from ftnids.alerts.spool import DELIVERED, Spool
from ftnids.errors import ConfigError


def make(directory: Path, limit: int = 1 << 20, keep: int = 0) -> Spool:
    return Spool(directory, "alerts.x", limit_bytes=limit, keep_bytes=keep)


def line(n: int) -> bytes:
    return b"%05d\n" % n


def taken(spool: Spool, most: int | None = None) -> list[int]:
    """Take out what is there, `most` records of it."""
    found: list[int] = []
    while (batch := spool.read()).lines and (most is None or len(found) < most):
        count = len(batch.lines) if most is None else min(most - len(found), len(batch.lines))
        found += [int(one) for one in batch.lines[:count]]
        spool.done(batch.ends[count - 1])
    return found


def test_first_in_first_out_through_many_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPOOL_SEGMENT_BYTES", 60)
    spool = make(tmp_path)
    for n in range(0, 100, 5):
        spool.append([line(n + i) for i in range(5)])
    assert len(list(tmp_path.iterdir())) == 11  # ten full segments and the mark
    assert spool.waiting_bytes == 600
    assert taken(spool) == list(range(100))
    assert len(list(tmp_path.iterdir())) == 2
    assert spool.waiting_bytes == 0
    spool.close()


def test_it_is_private(tmp_path: Path) -> None:
    spool = make(tmp_path / "x/y")
    spool.append([line(1)])
    assert (tmp_path / "x/y").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "x/y").iterdir()} == {0o600}
    spool.close()


@given(st.data())
def test_nothing_is_lost_or_repeated_over_restarts(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A kill is a spool that is not closed: only its lock goes."""
    directory = tmp_path_factory.mktemp("spool")
    spool, put, out = make(directory, limit=4_000), 0, list[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SPOOL_SEGMENT_BYTES", data.draw(st.sampled_from([1, 30, 200])))
        for step in data.draw(st.lists(st.sampled_from(["put", "take", "restart"]), max_size=20)):
            if step == "put":
                count = data.draw(st.integers(1, 20))
                spool.append([line(put + n) for n in range(count)])
                put += count
            elif step == "take":
                out += taken(spool, data.draw(st.integers(1, 30)))
            else:
                os.close(spool._mark)
                spool = make(directory, limit=4_000)
    out += taken(spool)
    assert out == list(range(put))
    assert spool.lost == 0
    spool.close()


def test_over_the_limit_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    spool = make(tmp_path, limit=600)  # segments of 150
    for n in range(200):
        spool.append([line(n)])
    out = taken(spool)
    assert out == list(range(200 - len(out), 200))
    assert spool.lost == 200 - len(out)
    assert 75 <= len(out) <= 100
    spool.close()


def test_what_is_delivered_and_kept_makes_room_first(tmp_path: Path) -> None:
    spool = make(tmp_path, limit=600, keep=500)
    for n in range(200):
        spool.append([line(n)])
        assert taken(spool) == [n]
    assert spool.lost == 0
    assert spool.rewind() > 0
    again = taken(spool)
    assert again == list(range(again[0], 200))
    assert 60 <= len(again) <= 100
    spool.close()


def test_a_line_that_a_kill_cut_is_no_record(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.append([line(1)])
    spool.close()
    (segment,) = (path for path in tmp_path.iterdir() if path.name != DELIVERED)
    with segment.open("ab") as file:
        file.write(b"000")
    spool = make(tmp_path)
    spool.append([line(2)])
    assert taken(spool) == [1, 2]
    spool.close()


def test_without_its_mark_everything_comes_again(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.append([line(1), line(2)])
    assert taken(spool, 1) == [1]
    spool.close()
    (tmp_path / DELIVERED).write_bytes(b"\0" * 21)
    spool = make(tmp_path)
    assert taken(spool) == [1, 2]
    spool.close()


def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spool = make(tmp_path)
    spool.append([line(0)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        patch.setattr(module, "ALERT_BACKLOG", 3)
        for n in range(1, 6):
            spool.append([line(n)])
        assert spool.reason == "No space left on device"
        assert (spool.lost, taken(spool)) == (2, [0])
    assert taken(spool) == [3, 4, 5]
    assert spool.reason == ""
    spool.close()


def test_a_segment_that_somebody_removed_is_passed_over(tmp_path: Path) -> None:
    spool = make(tmp_path, limit=600)
    for n in range(30):
        spool.append([line(n)])
    assert taken(spool, 1) == [0]
    sorted(tmp_path.glob("*.jsonl"))[0].unlink()
    assert taken(spool) == [25, 26, 27, 28, 29]
    for path in tmp_path.glob("*.jsonl"):
        path.unlink()
    spool.append([line(30)])
    spool.append([line(31)])
    assert taken(spool) in ([30, 31], [31], [])
    spool.append([line(32)])
    assert taken(spool)[-1:] == [32]
    spool.close()


def test_two_do_not_share_one(tmp_path: Path) -> None:
    spool = make(tmp_path)
    with pytest.raises(ConfigError, match=r"alerts.x: .* is in use by another replica; set another log_dir"):
        make(tmp_path)
    spool.close()
    make(tmp_path).close()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"alerts.x: cannot write .*: Not a directory"):
        make(tmp_path / "file/x")


def test_what_is_closed_gives_nothing(tmp_path: Path) -> None:
    """Its thread may still be waiting for a receiver."""
    spool = make(tmp_path)
    spool.append([line(1)])
    batch = spool.read()
    spool.close()
    spool.done(batch.ends[0])
    assert spool.read().lines == []
    spool = make(tmp_path)
    assert taken(spool) == [1]
    spool.close()

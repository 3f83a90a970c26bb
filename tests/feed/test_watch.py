"""A log that grows is told of, with no look in between."""

from __future__ import annotations

import ctypes
import select
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftnids.feed.cuts import Cuts
from ftnids.feed.watch import LogWatch
from ftnids.ids_logs import IdsLogs


def test_a_line_is_news_once(tmp_path: Path) -> None:
    watch = LogWatch()
    try:
        for folder in (tmp_path / "run-0", tmp_path / "run-1"):
            folder.mkdir()
            watch.follow(folder)
            watch.follow(folder)
            watch.news()
            with (folder / "log").open("ab", buffering=0) as log:
                log.write(b"a line\n")
                assert select.select([watch.fd], [], [], 30)[0]
                assert [watch.news(), watch.news()] == [True, False]
    finally:
        watch.close()
        watch.close()


def test_two_runs_of_an_ids_are_not_news_for_ever(tmp_path: Path) -> None:
    """The log of one that has died is still read while that of the next one is followed."""
    runs = [SimpleNamespace(number=number, log_dir=tmp_path / f"run-{number}") for number in range(2)]
    for run in runs:
        run.log_dir.mkdir()
    logs = IdsLogs("a", SimpleNamespace(ahead=True, runs=runs), ahead=True)  # type: ignore[arg-type]
    try:
        for _ in range(3):
            logs.news()
            logs.look_ahead()
        assert not logs.news()
    finally:
        logs.close()


class _Refusing:
    """A C library whose inotify is used up."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: (ctypes.set_errno(24) and -1) or -1


def test_where_there_is_no_inotify_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *arguments, **options: _Refusing())
    watch = LogWatch()
    watch.follow(tmp_path)
    assert not watch.news()
    watch.close()
    assert "Too many open files" in capsys.readouterr().err


def test_of_several_cuts_the_lowest_counts() -> None:
    cuts = Cuts()
    assert cuts.take() is None
    with cuts.cut(100, 7):
        assert cuts.count == 1
    with cuts.cut(50, 9):
        pass
    assert (cuts.count, cuts.take(), cuts.take()) == (4, (50, 7), None)

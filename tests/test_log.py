"""Logging: one line an event, on stderr, and no flood of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from ftnids import limits, log


@pytest.fixture(autouse=True)
def _configured() -> Iterator[None]:
    """Leave logging as the next test expects it."""
    yield
    structlog.reset_defaults()


def test_without_configuration_it_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.reset_defaults()
    log.get("peers").info("peer_connected", peer="b")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert all(part in shown.err for part in ("peer_connected", "peer=b", "room=peers", "info"))


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    logger = log.get("feed", replica="a")
    logger.debug("not_shown")
    logger.warning("ids_ended", status=1, hint="two\nlines")
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "ids_ended",
        "level": "warning",
        "room": "feed",
        "replica": "a",
        "status": 1,
        "hint": "two\nlines",
    }


@pytest.mark.parametrize("form", log.FORMATS)
def test_level_holds_back_what_is_below(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("error", form)
    log.get("peers").warning("no")
    log.get("peers").error("yes")
    shown = capsys.readouterr().err
    assert "yes" in shown
    assert "no" not in shown.replace("unknown", "")


def test_repeats_are_held_back_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    now = 0.0
    limiter = log.Limiter(10.0, clock=lambda: now)
    for _ in range(5):
        limiter.log(log.get("peers"), "warning", "one", "dropped", key="a fact may be called key")
    limiter.log(log.get("peers"), "warning", "another", "dropped")
    now = 10.0
    limiter.log(log.get("peers"), "warning", "one", "dropped")
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [record.get("suppressed") for record in records] == [None, None, 4]


def test_the_limiter_forgets_the_oldest_keys() -> None:
    limiter = log.Limiter(10.0, clock=lambda: 0.0)
    for key in range(limits.LOG_KEYS + 1):
        assert limiter.admit(str(key)) == 0
    assert limiter.admit(str(limits.LOG_KEYS)) is None
    assert limiter.admit("0") == 0

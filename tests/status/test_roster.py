"""What a replica knows of the set: ages, the dead, and what peers send that is no status."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids import limits
from ftnids.status.roster import ABSENT, DEAD, Member, Roster, SetView
from ftnids.status.snapshot import Snapshot
from tests.status.sets import alert, snapshot, view


def test_a_snapshot_survives_the_way_to_a_peer() -> None:
    one = snapshot("r1", alerts=[alert(1)], delay={"le_ms": [1.0], "counts": [3, 4], "sum_ms": [9.5]}, warnings=["x"])
    assert Snapshot.parse(one.json()) == one


def test_a_snapshot_of_another_version_is_understood() -> None:
    tree = json.loads(snapshot().json())
    del tree["alerts"], tree["delay"]
    assert Snapshot.parse(json.dumps({**tree, "mood": "fine"}).encode()).alerts == []
    assert Snapshot.parse(b'{"name": "a", "state": "running"}').counters["lost"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"{}",
        b'{"name": "a"}',
        b"\xff",
        b'{"name": 1, "state": "running"}',
        b'{"name": "a", "state": "running", "counters": {"lost": "many"}}',
        b'{"name": "a", "state": "running", "counters": {"lost": NaN}}',
        b'{"name": "a", "state": "running", "counters": {"lost": 1e999}}',
        b'{"name": "a", "state": "running", "alerts": [{"id": []}]}',
        b'{"name": "a", "state": "running", "members": "ab"}',
        b"[" * 100_000,
        b" " * (limits.MAX_STATUS_BYTES + 1),
    ],
)
def test_what_is_no_snapshot_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Snapshot.parse(wrong)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    for parse in (Snapshot.parse, SetView.parse):
        with pytest.raises(ValueError, match=r".*"):
            parse(data)


def test_the_roster_tells_of_all_members(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    roster = Roster("office", ["r0", "r1", "r2"], me=0)
    assert [member.state for member in roster.view().members] == [ABSENT] * 3
    roster.own(snapshot("r0"))
    roster.heard(1, snapshot("r1").json())
    now += 1
    told = SetView.parse(roster.view().json())
    assert [(one.name, one.age_s, one.state) for one in told.members] == [
        ("r0", 1.0, "running"),
        ("r1", 1.0, "running"),
        ("r2", None, ABSENT),
    ]
    now += limits.STATUS_DEAD_S
    roster.own(snapshot("r0"))
    assert [one.state for one in roster.view().members] == ["running", DEAD, ABSENT]
    assert roster.view().members[1].snapshot == snapshot("r1")  # what is known of a dead one stays


def test_what_a_peer_sends_that_is_no_status_does_not_hide_the_last_one() -> None:
    roster = Roster("office", ["r0", "r1"], me=0)
    roster.heard(1, snapshot("r1").json())
    assert roster.view().members[1].state == "running"
    for wrong in (b"{", snapshot("r0").json()):  # the second is another one's
        roster.heard(1, wrong)
        assert roster.view().members[1].snapshot == snapshot("r1")
    assert roster.malformed == 2


def test_one_that_has_ended_is_not_dead() -> None:
    member = Member("r1", 1000.0, snapshot("r1", state="ended"))
    assert (member.state, member.alive) == ("ended", False)


def test_who_is_gone_is_dead_at_once() -> None:
    later = view().later(0.5, gone="r0")
    assert [one.state for one in later.members] == [DEAD, "running"]
    assert [one.state for one in view().later(limits.STATUS_DEAD_S).members] == [DEAD, DEAD]


def test_a_line_of_another_format_is_told_of() -> None:
    tree = json.loads(view().json())
    with pytest.raises(ValueError, match="format 99"):
        SetView.parse(json.dumps({**tree, "format": 99}).encode())
    assert not math.isnan(SetView.parse(view().json()).time)

"""What `ftnids status` prints of releases and protocol versions."""

from __future__ import annotations

from ftnids.status import health
from ftnids.status.roster import Member, SetView
from ftnids.status.table import report
from ftnids.status.text import protocol
from tests.status.sets import snapshot, view

OLD = {"oldest": 1, "newest": 1, "view": 1}
HELD = {"oldest": 1, "newest": 2, "view": 1}
NEW = {"oldest": 1, "newest": 2, "view": 2}


def told(*speaks: dict[str, int]) -> SetView:
    names = [f"r{number}" for number in range(len(speaks))]
    return view(*(Member(name, 0.0, snapshot(name, protocol=one)) for name, one in zip(names, speaks, strict=True)))


def test_what_a_replica_speaks_and_what_its_view_does() -> None:
    assert [protocol(one) for one in ({}, OLD, HELD, NEW)] == ["", "1 of 1", "1 of 1-2", "2 of 1-2"]
    assert protocol({"oldest": 1, "newest": 2, "view": 0}) == "- of 1-2"
    lines = report(told(NEW, HELD), "")
    assert lines[0].endswith("VERSION  PROTOCOL")
    assert lines[1].endswith("0.1.0    2 of 1-2")
    assert lines[2].endswith("0.1.0    1 of 1-2")


def test_a_set_in_the_middle_of_an_upgrade_is_healthy_and_says_who_is_left() -> None:
    half = told(OLD, HELD, {})
    assert health.level(half) == health.HEALTHY
    assert report(half, "")[-1] == "upgrade: the set speaks protocol 1 until r0, r2, too, can speak 2"
    assert not any(line.startswith("upgrade") for line in report(told(NEW, NEW), ""))
    assert not any(line.startswith("upgrade") for line in report(told(OLD, {}), ""))

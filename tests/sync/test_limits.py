"""Each limit of the protocol does what limits.py says, is counted, and is said once with the setting to change."""

from __future__ import annotations

import pytest

from ftnids import limits
from ftnids.sync.engine import LIMITS
from ftnids.sync.messages import Ack, Decision, Report
from ftnids.sync.watch import RING
from tests.sync.cluster import Cluster


def total(cluster: Cluster, counter: str) -> int:
    return sum(host.engine.counters()[counter] for host in cluster.hosts)


def whole(cluster: Cluster) -> None:
    """Nothing is lost, in spite of it all."""
    cluster.run(1_000)
    assert cluster.together(0, 1, 2), cluster.describe()
    cluster.agree(0, 1, 2)
    assert [cluster.lost(r) for r in range(3)] == [[], [], []]


@pytest.mark.parametrize(
    ("limit", "value", "counter"),
    [
        ("MAX_EARLY", 3, "early_dropped"),
        ("MAX_AHEAD", 2, "ahead_dropped"),
        ("MAX_EARLY_REPORTS", 1, "reports_dropped"),
        ("MAX_REPORTED", 10, "reporting_waits"),
        ("MAX_PENDING", 12, "reports_refused"),
    ],
)
def test_what_finds_no_room_comes_again(limit: str, value: int, counter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(3, loss=0.3).ready()
    monkeypatch.setattr(limits, limit, value)
    cluster.filter = lambda a, b, message: cluster.rng.random() >= 0.2 or not isinstance(message, Report | Decision)
    cluster.until(lambda: total(cluster, counter) > 0, 2_000)
    cluster.run(200)
    monkeypatch.undo()
    cluster.filter = lambda a, b, message: True
    whole(cluster)
    said = [facts for _, _, facts in cluster.events("limit_reached") if facts["counter"] == counter]
    assert said
    assert {facts["setting"] for facts in said} == {LIMITS[counter][1]}
    assert len(said) <= 3, "once by each"


@pytest.mark.parametrize(("limit", "value"), [("MAX_UNSTABLE", 60), ("MAX_LOG_DECISIONS", 30)])
@pytest.mark.parametrize("victim", [0, 2])
def test_one_that_is_too_many_decisions_behind_leaves(
    limit: str, value: int, victim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deciding waits for it meanwhile; victim 0 is the coordinator, which knows how far it is, and the members vote."""
    cluster = Cluster(3).ready()
    rest = tuple(r for r in range(3) if r != victim)
    monkeypatch.setattr(limits, limit, value)
    cluster.filter = lambda a, b, message: not (a == victim and isinstance(message, Ack))
    cluster.until(lambda: cluster.together(*rest), 1_000)
    assert {facts["reason"] for _, _, facts in cluster.events("member_leaves")} == {RING}
    assert victim == 0 or total(cluster, "deciding_waits") > 0
    cluster.kill(victim)  # it would come back, and fall behind again
    cluster.run(300)
    cluster.agree(*rest)
    assert [cluster.lost(r) for r in rest] == [[], []]


@pytest.mark.parametrize("behind", [1, 2])
def test_a_long_log_goes_in_parts(behind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator dies while one of the others, perhaps the candidate, has missed many decisions."""
    monkeypatch.setattr(limits, "MAX_LOG_SENT", 3)
    monkeypatch.setattr(limits, "MAX_LOG_PACKETS", 10)
    cluster = Cluster(3).ready()
    cluster.filter = lambda a, b, message: not (b == behind and isinstance(message, Decision))
    cluster.run(280)
    members = [cluster.hosts[r].engine.member for r in (1, 2)]
    numbers = sorted(member.number for member in members if member is not None)
    assert numbers[1] - numbers[0] > 20
    cluster.kill(0)
    cluster.filter = lambda a, b, message: True
    assert cluster.until(lambda: cluster.together(1, 2), 1_000) < 700
    cluster.run(300)
    cluster.agree(1, 2)
    assert [cluster.lost(r) for r in (1, 2)] == [[], []]


def test_decisions_are_forgotten_though_the_feed_lags() -> None:
    """What a feed has not taken keeps its slots, and a bounded table of what to free; not the decisions."""
    cluster = Cluster(2, rate=2_000).ready()
    cluster.hung.add(1)
    cluster.run(1_500)
    member = cluster.hosts[1].engine.member
    assert member is not None
    assert member.number > 200
    assert len(member.log) < 20
    assert cluster.hosts[1].capture.tail < 200
    cluster.hung.clear()
    cluster.run(100)
    assert cluster.hosts[1].capture.head - cluster.hosts[1].capture.tail < 100


def test_many_marks_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_MARKS", 8)
    cluster = Cluster(2, agreed_slots=1 << 12).ready()
    cluster.hung.add(1)
    cluster.run(1_000)
    member = cluster.hosts[1].engine.member
    assert member is not None
    assert len(member._marks) < 16
    cluster.hung.clear()
    cluster.run(100)
    assert cluster.hosts[1].capture.head - cluster.hosts[1].capture.tail < 50


def test_counters_have_their_settings() -> None:
    counters = Cluster(2).ready().hosts[0].engine.counters()
    assert counters.keys() == {"stale", *LIMITS}

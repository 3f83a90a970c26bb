"""One alert out of a set: whoever raises it, in whatever order, however late, and never twice."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ftnids.alerts.dedup import MS, Deduplicator
from ftnids.alerts.readers import Record
from ftnids.limits import DIVERGENCE_MS

from .records import identified

HOLD = 500


def table(*live: str, known: Sequence[str] = (), size: int = 1000) -> Deduplicator:
    dedup = Deduplicator(hold_ms=HOLD, known=known, table=size)
    dedup.set_members(live)
    return dedup


def names(records: list[Record]) -> list[str]:
    return [record["ftnids"]["id"] for record in records]


def test_goes_out_when_all_have_raised_it() -> None:
    dedup = table("a", "b")
    assert dedup.add("a", [identified("1")], 0) == []
    (out,) = dedup.add("b", [identified("1")], MS)
    assert out["ftnids"]["replicas"] == ["a", "b"]
    assert "silent" not in out["ftnids"]
    assert (dedup.alerts_out, dedup.alerts_suppressed, dedup.alerts_diverging) == (1, 1, 0)


def test_goes_out_after_the_hold_and_late_copies_are_suppressed() -> None:
    dedup = table("a", "b")
    dedup.add("a", [identified("1")], 0)
    assert dedup.tick((HOLD - 1) * MS) == []
    (out,) = dedup.tick(HOLD * MS)
    assert out["ftnids"]["replicas"] == ["a"]
    assert dedup.add("b", [identified("1")], (HOLD + 1) * MS) == []
    assert (dedup.alerts_out, dedup.alerts_suppressed, dedup.alerts_diverging) == (1, 1, 0)


def test_one_replica_that_raises_an_alert_twice_is_one_alert() -> None:
    dedup = table("a", "b")
    dedup.add("a", [identified("1"), identified("1")], 0)
    assert names(dedup.tick(HOLD * MS)) == ["1"]
    assert dedup.alerts_suppressed == 1


def test_dead_member_is_not_waited_for() -> None:
    dedup = table("a", "b")
    dedup.add("a", [identified("1")], 0)
    dedup.set_members(["a"])
    assert names(dedup.tick(MS)) == ["1"]
    assert dedup.alerts_diverging == 0


def test_silent_member_that_is_past_the_packet_is_a_divergence() -> None:
    dedup = table("a", "b")
    dedup.add("a", [identified("1", seq=9)], 0)
    dedup.progress("b", 9)
    assert names(dedup.tick(HOLD * MS)) == ["1"]
    dedup.tick(10 * DIVERGENCE_MS * MS)
    assert dedup.alerts_diverging == 0, "b has not been fed packet 9 yet"
    dedup.progress("b", 10)
    dedup.tick(11 * DIVERGENCE_MS * MS)
    dedup.tick(12 * DIVERGENCE_MS * MS)
    assert dedup.alerts_diverging == 1


def test_divergence_known_in_time_shows_in_the_record() -> None:
    dedup = table("a", "b")
    dedup.progress("b", 100, ended=True)
    dedup.add("a", [identified("1", seq=9)], 0)
    (out,) = dedup.tick(0)
    assert out["ftnids"]["silent"] == ["b"]
    assert dedup.alerts_diverging == 1


def test_alert_without_seq_waits_for_those_less_far_than_who_raised_it() -> None:
    dedup = table("a", "b")
    dedup.progress("a", 50)
    dedup.progress("b", 49)
    dedup.add("a", [identified("1", seq=None)], 0)
    dedup.tick(HOLD * MS)
    dedup.tick(3 * DIVERGENCE_MS * MS)
    assert dedup.alerts_diverging == 0
    dedup.progress("b", 50)
    dedup.tick(4 * DIVERGENCE_MS * MS)
    dedup.tick(5 * DIVERGENCE_MS * MS)
    assert dedup.alerts_diverging == 1


def test_alert_that_only_a_restarted_ids_raised_needs_a_witness() -> None:
    dedup = table("a", "b")
    dedup.add("a", [identified("1", seq=9, cold=True), identified("2", seq=9, cold=True)], 0)
    assert dedup.tick(2 * HOLD * MS) == []
    assert names(dedup.add("b", [identified("2", seq=9)], 2 * HOLD * MS)) == ["2"]
    dedup.progress("b", 100, ended=True)
    assert dedup.tick(3 * HOLD * MS) == []
    assert (dedup.alerts_unconfirmed, dedup.alerts_diverging, dedup.alerts_out) == (1, 0, 1)


def test_restarted_ids_is_believed_when_no_other_lives() -> None:
    dedup = table("a", "b")
    dedup.add("a", [identified("1", seq=9, cold=True)], 0)
    dedup.set_members(["a"])
    assert names(dedup.tick(MS)) == ["1"]


def test_two_restarted_idss_do_not_overrule_each_other() -> None:
    dedup = table("a", "b")
    dedup.add("b", [identified("0", seq=8, cold=True)], 0)
    dedup.add("a", [identified("1", seq=9, cold=True)], 0)
    dedup.progress("b", 100, ended=True)
    assert "1" in names(dedup.tick(MS))


def test_ids_that_are_out_already_stay_out() -> None:
    dedup = table("a", known=["1"])
    assert dedup.add("a", [identified("1"), identified("2")], 0) != []
    assert (dedup.alerts_out, dedup.alerts_suppressed) == (1, 1)


def test_other_coordinator_put_it_out() -> None:
    dedup = table("a", "b")
    dedup.add("a", [identified("1")], 0)
    dedup.mark_out(["1"])
    assert dedup.tick(HOLD * MS) == []
    assert dedup.finish() == []


def test_full_table_lets_the_oldest_go_early() -> None:
    dedup = table("a", "b", size=3)
    out = dedup.add("a", [identified(str(n)) for n in range(5)], 0)
    assert names(out) == ["0", "1"]
    assert names(dedup.finish()) == ["2", "3", "4"]
    assert dedup.alerts_out == 5


@given(
    raised=st.lists(st.sets(st.integers(0, 2), min_size=1), min_size=1, max_size=20),
    random=st.randoms(use_true_random=False),
    delay_ms=st.integers(0, 3 * HOLD),
)
def test_each_alert_goes_out_once(raised: list[set[int]], random: random.Random, delay_ms: int) -> None:
    """Whatever the order and the delays of the copies, and whoever is missing."""
    dedup = table("0", "1", "2")
    copies = [(str(member), identified(str(n))) for n, members in enumerate(raised) for member in members]
    random.shuffle(copies)
    out, now = [], 0
    for member, record in copies:
        now += random.randint(0, delay_ms) * MS
        out += dedup.add(member, [record], now)
        out += dedup.tick(now)
    for member in "012":
        dedup.progress(member, 10, ended=True)
    out += dedup.tick(now)
    out += dedup.finish()
    assert sorted(names(out)) == sorted(str(n) for n in range(len(raised)))
    assert dedup.alerts_out == len(raised)
    assert dedup.alerts_suppressed == len(copies) - len(raised)
    assert dedup.alerts_diverging == sum(len(members) < 3 for members in raised)


@pytest.mark.parametrize("live", [("a",), ("a", "b", "c")])
def test_finish_leaves_nothing_behind(live: tuple[str, ...]) -> None:
    dedup = table(*live)
    out = dedup.add("a", [identified(str(n)) for n in range(7)], 0)
    assert len(out) + len(dedup.finish()) == 7
    assert dedup.finish() == []


def test_a_full_table_puts_out_the_oldest_and_says_so() -> None:
    dedup = table("a", "b", size=2)
    with capture_logs() as lines:
        assert dedup.add("a", [identified("1"), identified("2")], 0) == []
        assert names(dedup.add("a", [identified("3")], 0)) == ["1"]
        dedup.tick(0)
        dedup.tick(0)
    assert dedup.alerts_hurried == 1
    (line,) = lines
    assert (line["count"], line["table"], line["setting"]) == (1, 2, "alerts.hold_ms")


def test_ids_known_from_the_output_are_no_more_than_the_table() -> None:
    dedup = table("a", known=[str(n) for n in range(10)], size=3)
    assert names(dedup.add("a", [identified("7"), identified("9"), identified("6")], 0)) == ["6"]


def test_an_ids_that_cannot_write_its_log_contradicts_nobody() -> None:
    """What it was fed while it was mute may have been raised and lost, also when its log is written again."""
    dedup = table("a", "b")
    dedup.progress("b", 5)
    dedup.muted("b", True)
    dedup.add("a", [identified("1", seq=9, cold=True)], 0)
    dedup.progress("b", 20)
    assert dedup.tick(0) == []
    assert names(dedup.tick(DIVERGENCE_MS * MS)) == ["1"]
    dedup.muted("b", False)
    dedup.add("a", [identified("2", seq=19, cold=True), identified("3", seq=20, cold=True)], 0)
    dedup.progress("b", 30, ended=True)
    assert names(dedup.tick(0)) == ["2"]
    assert (dedup.alerts_out, dedup.alerts_unconfirmed) == (2, 1)


def test_unconfirmed_alerts_are_a_warning_with_their_number_not_a_flood() -> None:
    dedup = table("a", "b")
    dedup.progress("b", 100, ended=True)
    with capture_logs() as lines:
        for n in range(5):
            dedup.add("a", [identified(f"{n}", seq=9, cold=True), identified(f"{n}+", seq=9, cold=True)], 0)
            dedup.tick(0)
        dedup.finish()
    assert [(line["log_level"], line["count"], line["alerts_unconfirmed"]) for line in lines] == [
        ("warning", 2, 2),
        ("warning", 8, 10),
    ]

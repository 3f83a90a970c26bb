"""Two desks on one link, or three: what all IDSs raise leaves the set once."""

from collections.abc import Sequence

import pytest

from ftnids.alerts.dedup import MS, Deduplicator
from ftnids.alerts.desk import Desk
from ftnids.alerts.outputs import Output
from ftnids.alerts.readers import Record
from ftnids.sync.messages import View

NAMES = ["a", "b", "c"]


class Kept(Output):
    """An output that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.closed = False

    def write(self, records: Sequence[Record]) -> None:
        self.records += records

    def close(self) -> None:
        self.closed = True


class Pair:
    """Member 0 coordinates; all desks write to outputs of their own."""

    def __init__(self, size: int = 2) -> None:
        self.now = 0
        self.alerts = [Kept() for _ in range(size)]
        self.eve = [Kept() for _ in range(size)]
        self.desks = []
        self.dead: set[int] = set()
        everyone = tuple(range(size))
        for me in everyone:

            def header(me: int = me) -> tuple[int, int, View]:
                return me, 1, View(1, 1, 0, 1)

            desk = Desk(me, NAMES[:size], header, Deduplicator(hold_ms=500), [self.alerts[me]], [self.eve[me]])
            desk.start(0, everyone, 0)
            self.desks.append(desk)

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 20)):
            self.now += 50 * MS
            for desk in (desk for me, desk in enumerate(self.desks) if me not in self.dead):
                for member, message in desk.tick(self.now):
                    for back, answer in self.desks[member].arrived(message, self.now):
                        self.desks[back].arrived(answer, self.now)


def alert(number: int) -> Record:
    identity = {"id": f"{number:024x}", "seq": number, "view": 1, "replicas": ["?"], "status": "confirmed"}
    return {"event_type": "alert", "alert": {"gid": 1, "signature_id": 7, "rev": 1}, "ftnids": identity}


def test_what_both_raise_comes_out_once_with_both_names() -> None:
    pair = Pair()
    for desk in pair.desks:
        desk.raised([alert(3), {"event_type": "dns", "dns": {}}, alert(4)], pair.now)
        desk.progress(10)
    pair.run(1)
    assert [r["ftnids"]["seq"] for r in pair.alerts[0].records] == [3, 4]
    assert all(r["ftnids"]["replicas"] == ["a", "b"] for r in pair.alerts[0].records)
    assert pair.alerts[1].records == []
    assert [len(kept.records) for kept in pair.eve] == [1, 0]
    assert pair.desks[0].counters()["alerts_out"] == 2
    assert pair.desks[0].counters()["alerts_suppressed"] == 2


def test_an_alert_of_one_member_alone_comes_out_and_is_a_divergence() -> None:
    pair = Pair()
    pair.desks[1].raised([alert(5)], pair.now)
    for desk in pair.desks:
        desk.progress(10, final=True)
    pair.run(2)
    pair.desks[0].close()
    assert [r["ftnids"]["replicas"] for r in pair.alerts[0].records] == [["b"]]
    assert pair.desks[0].counters()["alerts_diverging"] == 1


def test_the_end_is_reached_when_the_last_alert_has_left() -> None:
    pair = Pair()
    pair.desks[0].progress(9, final=True)
    pair.run(0.5)
    assert not pair.desks[0].done
    pair.desks[1].raised([alert(8)], pair.now)
    pair.desks[1].progress(9, final=True)
    assert not pair.desks[1].done
    pair.run(1)
    assert [desk.done for desk in pair.desks] == [True, True]
    pair.desks[0].close()
    assert pair.alerts[0].closed
    assert [r["ftnids"]["seq"] for r in pair.alerts[0].records] == [8]


def test_alerts_that_the_coordinator_died_with_come_out_of_the_next_one() -> None:
    pair = Pair()
    pair.desks[1].raised([alert(3)], pair.now)
    for _ in range(3):
        for _, message in pair.desks[1].tick(pair.now):
            for _, answer in pair.desks[0].arrived(message, pair.now):
                pair.desks[1].arrived(answer, pair.now)
        pair.now += 50 * MS
    assert pair.alerts[0].records == []  # held for the other one, and then the coordinator dies
    pair.desks[1].start(1, (1,), pair.now)
    pair.desks[1].progress(10)
    for _ in range(20):
        pair.now += 50 * MS
        pair.desks[1].tick(pair.now)
    assert [r["ftnids"]["seq"] for r in pair.alerts[1].records] == [3]


def test_a_coordinator_that_left_in_order_has_put_out_what_it_took() -> None:
    pair = Pair()
    for desk in pair.desks:
        desk.raised([alert(3)], pair.now)
    pair.run(1)
    pair.desks[1].start(1, (1,), pair.now, left=(0,))
    pair.desks[1].raised([alert(4)], pair.now)
    pair.desks[1].progress(10)
    pair.desks[1].departed()
    pair.run(1)
    assert [r["ftnids"]["seq"] for r in pair.alerts[0].records] == [3]
    assert [r["ftnids"]["seq"] for r in pair.alerts[1].records] == [4]


@pytest.mark.parametrize("goes", [True, False])
def test_what_a_leaving_coordinator_still_puts_out_does_not_come_twice(goes: bool) -> None:
    """Its IDS raised an alert before it left, the other's IDS raises the same one after that; it goes, or hangs."""
    pair = Pair()
    put_out = pair.alerts[0].records
    pair.desks[1]._known = lambda: [record["ftnids"]["id"] for record in put_out]
    pair.desks[0].raised([alert(3)], pair.now)
    pair.desks[1].start(1, (1,), pair.now, left=(0,))
    pair.dead = {0}
    pair.desks[1].raised([alert(3), alert(4)], pair.now)
    pair.desks[1].progress(10)
    pair.run(1)
    assert [desk.leaver for desk in pair.desks] == [None, 0]
    assert pair.alerts[1].records == []
    pair.desks[0].close()
    if goes:
        pair.desks[1].departed()
    pair.run(0.1 if goes else 5)
    assert pair.desks[1].leaver is None
    assert [r["ftnids"]["seq"] for r in put_out] == [3]
    assert [r["ftnids"]["seq"] for r in pair.alerts[1].records] == [4]
    assert pair.desks[1].counters()["alerts_out"] == 1
    pair.desks[1].raised([alert(5)], pair.now)
    pair.desks[1].progress(10)
    pair.run(1)
    assert [r["ftnids"]["seq"] for r in pair.alerts[1].records] == [4, 5]


@pytest.mark.parametrize("left", [(), (0,)])
def test_other_records_leave_the_set_once_through_a_change_of_coordinator(left: tuple[int, ...]) -> None:
    """They are the coordinator's copy; which packets they stand for is not known, so none is sent again."""
    trio = Pair(3)

    def flows(first: int, last: int, *raising: int) -> None:
        for number in range(first, last):
            for me in raising:
                trio.desks[me].raised([{"event_type": "flow", "flow_id": number}, alert(number)], trio.now)
                trio.desks[me].progress(number + 1)
            trio.run(0.1)

    flows(0, 10, 0, 1, 2)
    trio.run(1)
    trio.dead = {0}
    for me in (1, 2):
        trio.desks[me].start(1, (1, 2), trio.now, left=left)
    flows(10, 20, 1, 2)
    trio.dead = set()  # it comes back, and does not lead
    for desk in trio.desks:
        desk.start(1, (0, 1, 2), trio.now)
    flows(20, 30, 0, 1, 2)
    trio.run(1)
    written = [record["flow_id"] for kept in trio.eve for record in kept.records]
    assert sorted(written) == list(range(30))
    assert [len(kept.records) for kept in trio.eve] == [10, 20, 0]


@pytest.mark.parametrize("left", [(), (0,)])
def test_the_next_coordinator_hears_of_the_others_alerts(left: tuple[int, ...]) -> None:
    """Three replicas; the first, which had taken alerts of both others, dies or leaves."""
    trio = Pair(3)
    for desk in trio.desks:
        desk.raised([alert(3)], trio.now)
        desk.progress(4)
    trio.run(1)
    trio.dead.add(0)
    for desk in trio.desks[1:]:
        desk.start(1, (1, 2), trio.now, left)
    trio.desks[2].raised([alert(4)], trio.now)
    for desk in trio.desks[1:]:
        desk.raised([alert(5)], trio.now)
        desk.progress(10, final=True)
    trio.run(1)
    assert [desk.done for desk in trio.desks[1:]] == [True, True]
    trio.desks[1].close()
    assert [r["ftnids"]["seq"] for r in trio.alerts[0].records] == [3]
    told = {r["ftnids"]["seq"]: r["ftnids"]["replicas"] for r in trio.alerts[1].records if r["ftnids"]["seq"] > 3}
    assert told == {4: ["c"], 5: ["b", "c"]}


def test_a_coordinator_that_wakes_up_looks_before_it_puts_out() -> None:
    """It was stopped while it held alerts; the next coordinator has put one of them out, and not the other."""
    pair, known = Pair(), ["0" * 24]
    desk, kept = pair.desks[0], pair.alerts[0]
    desk._known = lambda: known
    desk.raised([alert(3), alert(4)], pair.now)
    known.append(alert(3)["ftnids"]["id"])
    pair.now += 3_000 * MS
    desk.raised([alert(5)], pair.now)
    desk.tick(pair.now)
    assert kept.records == []
    for _ in range(25):
        pair.now += 50 * MS
        desk.tick(pair.now)
    assert [r["ftnids"]["seq"] for r in kept.records] == [4, 5]
    assert desk.counters()["alerts_out"] == 2


def test_a_coordinator_that_ends_in_doubt_looks_too() -> None:
    pair = Pair()
    desk, kept = pair.desks[0], pair.alerts[0]
    desk._known = lambda: [alert(3)["ftnids"]["id"]]
    desk.raised([alert(3), alert(4)], pair.now)
    pair.now += 3_000 * MS
    desk.tick(pair.now)
    desk.close()
    assert [r["ftnids"]["seq"] for r in kept.records] == [4]


@pytest.mark.parametrize("mute", [0, 1], ids=["the coordinator", "a member"])
def test_a_restarted_ids_is_heard_while_the_other_cannot_write_its_log(mute: int) -> None:
    pair = Pair()
    cold = alert(5)
    cold["ftnids"]["cold"] = True
    pair.desks[mute].muted(True)
    pair.desks[1 - mute].raised([cold], pair.now)
    for desk in pair.desks:
        desk.progress(10)
    pair.run(6)
    assert [r["ftnids"]["seq"] for r in pair.alerts[0].records] == [5]
    assert pair.desks[0].counters()["alerts_unconfirmed"] == 0


def test_that_a_log_is_written_again_is_told_without_any_progress() -> None:
    pair = Pair()
    pair.desks[1].muted(True)
    pair.run(1)
    pair.desks[1].muted(False)
    pair.run(1)
    cold = alert(5)
    cold["ftnids"]["cold"] = True
    pair.desks[0].raised([cold], pair.now)
    pair.desks[1].progress(10)
    pair.run(6)
    assert pair.alerts[0].records == []
    assert pair.desks[0].counters()["alerts_unconfirmed"] == 1

"""What `ftnids top` draws: it fits, it is readable without colours, and no replica and no attacker breaks it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnids import limits
from ftnids.status import health
from ftnids.status.columns import BAD, SORTS, STYLES
from ftnids.status.delay import Histogram, between
from ftnids.status.model import ALERTS, HELP, OVERVIEW, REPLICA, AlertLog, Choice, Model, pressed
from ftnids.status.rates import Histories, History
from ftnids.status.roster import Member, SetView
from ftnids.status.screen import draw, text_of
from ftnids.status.text import bar, cell, count, plain, spark
from tests.status.sets import IDS, RING, alert, snapshot, view


def running(seconds: int = 5, members: int = 2, **changes: Any) -> Model:
    """A model that has seen a set for some seconds: 1,000 packets/s and 50 drops/s each."""
    model = Model()
    for second in range(seconds):
        counted = {"captured": 1000 * second, "captured_bytes": 800_000 * second, "injected_drops": 50 * second}
        delays = Histogram()
        delays.add(np.full(1000 * second, 12.7))
        told: dict[str, Any] = {"alerts": [alert(1), alert(2)], "delay": delays.record()}
        snapshots = [
            snapshot(f"r{number}", 100.0 + second, counters={**counted, **changes}, **told) for number in range(members)
        ]
        model.take(SetView("office", "r0", 100.0 + second, tuple(Member(one.name, 0.1, one) for one in snapshots)))
    return model


def shown(model: Model, choice: Choice = Choice(), width: int = 80, height: int = 24) -> list[str]:  # noqa: B008
    return [text_of(line) for line in draw(model, choice, width, height)]


def test_two_replicas_fit_into_80_columns_with_all_that_matters() -> None:
    lines = shown(running())
    assert len(lines) == 24
    text = "\n".join(lines)
    assert lines[0].startswith(" ftnids top  office  2 of 2 running  from r0")
    assert lines[1] == " healthy"
    assert "r0        running   coord    1,000    6.4" in text
    assert "r1        running   member   1,000    6.4" in text
    assert " 13.3  14.5 ██░░░  42% suricata  pess      3    0     0     0     0.0" in text
    assert "rate" in text
    assert "4.76%" in text
    assert text.count("conf FTNIDS canary") == 2  # both replicas told of them
    assert all(len(line) <= 80 for line in lines)
    headings = " ".join(line for line in lines if line.startswith("REPLICA"))
    assert {"PKT/S", "MBIT/S", "KERNEL", "RING", "RECOV", "LOST", "AMBIG", "DS", "P50ms", "P99ms"} <= set(
        headings.split()
    )
    assert {"IDS", "MODE", "LAG", "DIED", "CKPT", "BACK", "ALERT/S"} <= set(headings.split())


def test_one_table_holds_all_where_there_is_room() -> None:
    lines = shown(running(), width=200, height=60)
    assert len(lines) == 60
    heading = next(line for line in lines if line.startswith("REPLICA"))
    assert heading.split()[-2:] == ["RATE", "LOSS"]
    assert sum(line.startswith(("r0", "r1")) for line in lines) == 2
    assert all(len(line) <= 200 for line in lines)


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=70)
NUMBERS = st.one_of(st.integers(-(1 << 70), 1 << 70), st.floats(allow_nan=False, allow_infinity=False))
SNAPSHOTS = st.builds(
    lambda name, state, at, number, told, reason: snapshot(
        name,
        at,
        state,
        counters=dict.fromkeys(("captured", "lost", "delay_p99_ms", "recovered", "alerts", "desync_level"), number),
        ids={**IDS, "name": told, "lag": told, "deaths": number},
        ring={**RING, "slots_used": number, "slots": 0},
        reason=reason,
        warnings=[reason],
        host=told,
        coordinator=name,
        alerts=[alert(1, told, told), {"id": None}],
        view={"number": number},
    ),
    NAMES,
    st.sampled_from(["starting", "waiting", "running", "ended", "failed", "strange"]),
    st.floats(0, 1e12),
    NUMBERS,
    NAMES,
    NAMES,
)
VIEWS = st.lists(st.tuples(st.none() | st.floats(0, 1e9), SNAPSHOTS), max_size=limits.MAX_MEMBERS).map(
    lambda pairs: SetView("x", "r0", 1e9, tuple(Member(one.name, age, one) for age, one in pairs))
)
CHOICES = st.builds(
    Choice,
    page=st.sampled_from([OVERVIEW, REPLICA, ALERTS, HELP]),
    sort=st.sampled_from(list(SORTS)),
    replica=st.sampled_from(["r0", "r1", "r9"]),
    scroll=st.integers(0, 1 << 40),
    paused=st.booleans(),
)


@settings(max_examples=150)
@given(st.lists(VIEWS, max_size=3), CHOICES, st.integers(1, 250), st.integers(1, 70), st.booleans())
def test_every_screen_fits_and_nothing_moves_the_cursor(
    views: list[SetView], choice: Choice, width: int, height: int, ascii_only: bool
) -> None:
    model = Model(trouble="no\x1b[2Janswer")
    for one in views:
        model.take(one)
    named = replace(choice, replica=views[-1].members[0].name) if views and views[-1].members else choice
    for chosen in (choice, named):
        lines = draw(model, chosen, width, height, ascii_only)
        assert len(lines) == min(height, max(height, 3))
        for line in lines:
            assert len(text_of(line)) <= width
            assert text_of(line).isprintable()
            assert {style for _, style in line} <= set(STYLES)
        if ascii_only and views and all(one.name.isascii() for one in views[-1].members):
            assert not set("".join(map(text_of, lines))) & set("▁▂▃▄▅▆▇█░")


def test_sixteen_replicas_on_a_small_screen_leave_room_for_alerts() -> None:
    lines = shown(running(members=16))
    assert sum(line.startswith("r") for line in lines) == 16
    assert sum("FTNIDS canary" in line for line in lines) == 2


def test_the_dead_and_the_absent_are_told_in_words() -> None:
    model = running()
    assert model.view is not None
    r0, r1 = model.view.members
    model.view = replace(model.view, members=(r0, replace(r1, age_s=75.0), Member("r2")))
    lines = shown(model)
    assert lines[1].startswith(" degraded: r1: dead, last heard 75 s ago  (and 1 more: r)")
    assert any(line.startswith("r1        dead 75s") for line in lines)
    assert any(line.startswith("r2        absent") for line in lines)
    assert "1 of 3 running" in lines[0]


def test_what_grows_and_should_not_is_marked_without_colours() -> None:
    model = running()
    for second in range(5, 8):
        model.take(view(Member("r0", 0.0, snapshot("r0", 100.0 + second, counters={"kernel_drops": second * 1000}))))
    row = next(line for line in shown(model) if line.startswith("r0"))
    assert "7,000!" in row
    styles = {text.strip(): style for line in draw(model, Choice(), 80, 24) for text, style in line}
    assert styles["7,000!"] != "text"


def test_before_anything_is_known() -> None:
    assert shown(Model())[1] == " waiting for a replica to answer"
    assert "nobody there" in shown(Model(trouble="nobody there"))[1]
    for page in (OVERVIEW, REPLICA, ALERTS, HELP):
        assert len(shown(Model(), Choice(page=page))) == 24


def test_the_help_fits_and_the_pages_say_what_they_should() -> None:
    lines = shown(running(), Choice(page=HELP))
    assert "docs/operations.md" in "\n".join(lines)
    assert all(len(line) <= 80 for line in lines[1:])
    detail = "\n".join(shown(running(lost=3), Choice(page=REPLICA, replica="r1"), height=60))
    assert "captures from eth1  snaplen 65535" in detail
    assert "lost                         3" in detail
    assert "IDS suricata 7.0.10 reads pessimistic" in detail
    gone = "\n".join(shown(running(), Choice(page=REPLICA, replica="r7")))
    assert "r7 is no member any more" in gone


def test_keys() -> None:
    def after(*keys: str) -> Choice:
        choice = Choice()
        for key in keys:
            choice = pressed(choice, key, ["r0", "r1"])
        return choice

    assert after("q").done
    assert after("p").paused
    assert not after("p", "p").paused
    assert after("s").sort == list(SORTS)[1]
    assert after(*"s" * len(SORTS)).sort == Choice().sort
    assert (after("r").page, after("r").replica) == (REPLICA, "r0")
    assert after("r", "r").replica == "r1"
    assert after("r", "r", "r").page == OVERVIEW
    assert after("a").page == ALERTS
    assert after("a", "a").page == after("h", "?").page == after("h", "ESC").page == OVERVIEW
    assert after("DOWN", "j", "NPAGE", "k").scroll == 11
    assert after("UP").scroll == after("DOWN", "HOME").scroll == 0
    assert after("x", "", "\x00") == Choice()
    assert pressed(Choice(), "r", []).page == OVERVIEW


def test_a_sort_by_loss_brings_the_worst_to_the_top() -> None:
    model = Model()
    for second in range(4):
        members = [
            Member(
                f"r{n}",
                0.0,
                snapshot(f"r{n}", 100.0 + second, counters={"captured": 100 * second, "ring_drops": n * second}),
            )
            for n in range(3)
        ]
        model.take(SetView("x", "r0", 100.0 + second, tuple(members)))
    assert [one.name for one in model.members("loss")] == ["r2", "r1", "r0"]
    assert [one.name for one in model.members("as configured")] == ["r0", "r1", "r2"]


def test_alerts_have_their_last_status_and_are_bounded() -> None:
    log = AlertLog()
    log.add([alert(1, "provisional"), alert(2, "provisional"), alert(3)])
    log.add([alert(1, "retracted"), alert(2), alert(2, "provisional")])
    assert [one["status"] for one in log.newest()] == ["confirmed", "confirmed", "retracted"]
    log.add([alert(2, "retracted")])  # by a replica that came back after another one had confirmed it
    log.add([{**alert(4, "provisional"), "until": "2027-01-15T08:00:30.000000+0000"}])
    assert log.newest(1_800_000_029.0)[0]["status"] == "provisional"
    told = [one["status"] for one in log.newest(1_800_000_031.0)]
    assert told == ["retracted", "confirmed", "confirmed", "retracted"]
    log.add(alert(number) for number in range(limits.TOP_ALERTS + 10))
    assert len(log.newest()) == limits.TOP_ALERTS
    model = running()
    model.alerts.add([alert(9, "provisional"), alert(8, "retracted")])
    text = "\n".join(shown(model))
    assert "prov FTNIDS" in text
    assert "RETR FTNIDS" in text


def test_rates_begin_anew_with_a_new_life() -> None:
    histories = Histories()
    for second in range(4):
        histories.add(view(Member("r0", 0.0, snapshot("r0", 100.0 + second, counters={"captured": 500 * second}))))
    history = histories["r0"]
    assert history.rate("captured") == 500
    assert history.series("captured", 2) == [500, 500]
    assert history.losses(9) == [0, 0, 0]
    history.add(snapshot("r0", 105.0, pid=12))
    assert history.rate("captured") == 0
    history.add(snapshot("r0", 106.0, pid=12, counters={"captured": 90, "kernel_drops": 10}))
    assert (history.rate("captured"), history.loss()) == (90, 0.1)
    history.add(snapshot("r0", 106.0, pid=12))
    assert history.series("captured", 9) == [90]
    assert History().rate("captured") == 0.0


def test_the_delay_is_that_of_the_last_seconds() -> None:
    source, delays, history = np.random.default_rng(1), Histogram(), History()
    for second in range(40):
        came = source.exponential(5.0 if second < 20 else 80.0, 2000)
        delays.add(came)
        history.add(snapshot("r0", 100.0 + second, delay=delays.record()))
        if second == 19:
            assert history.delay(0.5) == pytest.approx(5.0 * np.log(2), rel=0.1)
    assert history.delay(0.5) == pytest.approx(80.0 * np.log(2), rel=0.1)
    assert history.delay(0.99) == pytest.approx(80.0 * np.log(100), rel=0.1)
    history.add(snapshot("r0", 200.0, delay=delays.record()))
    assert history.delay(0.5) is None  # nothing came
    assert between([], [], [], 0.5) is between([1.0], [0, 0], [1], 0.5) is None
    assert between([1.0], [0, 0], [0, 9], 0.5) == 1.0  # beyond the last bound


@pytest.mark.parametrize(
    ("value", "width", "text"),
    [
        (0, 7, "0"),
        (1234567, 9, "1,234,567"),
        (1234567, 7, "1.23M"),
        (99999, 5, "100k"),
        (999_999, 6, "1.00M"),
        (123456789012, 6, "123G"),
        (1e30, 5, "1000000000000E"[:5]),
    ],
)
def test_numbers_fit(value: float, width: int, text: str) -> None:
    assert count(value, width) == text


def test_bars_and_sparks() -> None:
    assert bar(0.5, 4) == "██░░"
    assert bar(0.001, 4, ascii_only=True) == "----"
    assert bar(0.02, 4, ascii_only=True) == "#---"
    assert bar(7, 4) == "████"
    assert spark([0, 1, 2, 4], 6) == "  ▁▃▅█"
    assert spark([0, 0], 2) == "▁▁"
    assert spark([5], 0) == ""
    assert spark([0, 1, 4], 3, ascii_only=True) == "_-#"
    assert spark([0.5], 1, top=1.0, ascii_only=True) == "+"
    assert cell("abcdef", 4) == "abc~"
    assert plain("a\x1b[31m\u0301\u4e00é\n") == "a?[31m??é?"


def test_health() -> None:
    assert health.level(view()) == health.HEALTHY
    assert health.level(None) == health.level(SetView("x", "r0", 0.0)) == health.DOWN
    r0 = Member("r0", 0.0, snapshot("r0", ids={**IDS, "rules": "aa"}))
    assert health.level(view(r0, Member("r1", 0.0, snapshot("r1", ids={**IDS, "rules": "aa"})))) == health.HEALTHY
    cases: list[tuple[Member, str]] = [
        (Member("r1"), "r1: never heard"),
        (Member("r1", 9.0, snapshot("r1")), "r1: dead, last heard 9 s ago"),
        (Member("r1", 600.0, snapshot("r1", state="failed", reason="no room")), "r1: failed 10 min ago: no room"),
        (Member("r1", 0.0, snapshot("r1", state="waiting")), "r1: waiting"),
        (Member("r1", 0.0, snapshot("r1", view={"lineage": 5, "number": 3})), "the members are in 2 views: r0 | r1"),
        (
            Member("r1", 0.0, snapshot("r1", outputs={"alerts.redis": {"waiting_bytes": 5000, "up": 0}})),
            "r1: alerts.redis takes no alerts: 5,000 bytes wait",
        ),
        (Member("r1", 0.0, snapshot("r1", ids={**IDS, "state": "down", "deaths": 4})), "it has died 4 times"),
        (
            Member("r1", 0.0, snapshot("r1", ids={**IDS, "rules": "bb"})),
            "the IDSs differ in version, configuration or rules: r0 | r1",
        ),
        (Member("r1", 0.0, snapshot("r1", warnings=["cap0: truncated"])), "r1: cap0: truncated"),
        (Member("r1", 0.0, snapshot("r1", ring={**RING, "arena_used": 9_500})), "its ring is 95% full: see ring.slots"),
    ]
    for member, words in cases:
        assert health.level(view(r0, member)) == health.DEGRADED
        assert words in "; ".join(health.problems(view(r0, member)))
    left = view(
        Member("r0", 0.0, snapshot("r0", members=["r0"], view={"number": 3})), Member("r1", 2.0, snapshot("r1"))
    )
    assert health.problems(left) == ["r1: silent for 2 s, and out of the view"]
    alone = Member("r1", 7200.0, snapshot("r1"))
    assert health.level(view(alone)) == health.DOWN
    assert health.problems(view(alone)) == ["r1: dead, last heard 2 h ago"]
    assert BAD in STYLES

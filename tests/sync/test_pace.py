"""How long reports may wait: the promise, the messages' time and the load together say so."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ftnids.sync.pace import interval_ns, slow_trip_ns
from ftnids.sync.settings import MS, Timers

TIMERS = Timers()
TIMES = st.integers(2, 10_000).flatmap(
    lambda delay: st.builds(
        Timers, delay=st.just(delay * MS), report=st.integers(1, max(delay // 2, 1)).map(MS.__mul__)
    )
)
TRIPS = st.integers(0, 1_000 * MS)
LOADS = st.integers(0, 1_000)


@given(TIMES, TRIPS, LOADS)
def test_reports_wait_neither_too_short_nor_too_long(timers: Timers, trip: int, load: int) -> None:
    assert timers.report <= interval_ns(timers, trip, load) <= max(timers.report, timers.delay // 2)


@given(TRIPS, TRIPS, LOADS)
def test_slow_messages_make_reports_come_sooner(one: int, other: int, load: int) -> None:
    assert interval_ns(TIMERS, max(one, other), load) <= interval_ns(TIMERS, min(one, other), load)


@given(TRIPS, LOADS, LOADS)
def test_a_busy_replica_is_left_alone(trip: int, one: int, other: int) -> None:
    assert interval_ns(TIMERS, trip, max(one, other)) >= interval_ns(TIMERS, trip, min(one, other))


def test_an_idle_set_on_a_slow_network_reports_as_often_as_it_may() -> None:
    assert interval_ns(TIMERS, 50 * MS, 0) == TIMERS.report
    assert interval_ns(TIMERS, 0, 0) == interval_ns(TIMERS, 50 * MS, 1_000) == 2 * TIMERS.delay // 5


@given(st.lists(TRIPS, min_size=1, max_size=100))
def test_the_estimate_lies_among_the_trips(trips: list[int]) -> None:
    estimate = trips[0]
    for trip in trips:
        estimate = slow_trip_ns(estimate, trip)
    assert min(trips) - 1 <= estimate <= max(trips)


def test_the_estimate_follows_slow_trips_fast_and_fast_ones_slowly() -> None:
    up, down = 0, 8 * MS
    for _ in range(8):
        up, down = slow_trip_ns(up, 8 * MS), slow_trip_ns(down, 0)
    assert up > 7 * MS
    assert down > 4 * MS

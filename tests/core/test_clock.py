"""Capture time does not step: the rules of `clock.h`, on its Python twin (torture.c has the C ones)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ftnids.core.pure.source import CLOCK_NOISE_NS, Clock

REAL = 1_700_000_000_000_000_000
SECOND = 10**9
LOOKS = st.lists(st.tuples(st.integers(0, SECOND), st.integers(0, 50_000), st.floats(0, 1)), min_size=1, max_size=30)


def look(clock: Clock, now: int, width: int, share: float, offset: int) -> bool:
    """One look at both clocks that takes `width` ns; real time is read somewhere in it."""
    return clock.observe(now, now + int(width * share) + offset, now + width)


@given(looks=LOOKS, width=st.integers(0, 50_000), share=st.floats(0, 1))
def test_no_step_is_seen_where_there_is_none(looks: list[tuple[int, int, float]], width: int, share: float) -> None:
    clock = Clock(0, REAL + int(width * share), width)
    base, now = clock.base, 0
    for gap, slow, where in looks:
        now += gap
        assert not look(clock, now, slow, where, REAL)
    assert clock.convert(REAL + now, 0, REAL + now) == REAL + now + base - clock.offset
    assert abs(clock.convert(REAL + now, 0, REAL + now) - (REAL + now)) <= width
    assert clock.low <= REAL <= clock.high


@given(
    step=st.integers(200_000, 10**15) | st.integers(-(10**15), -200_000),
    width=st.integers(0, 50_000),
    ago=st.integers(0, SECOND),
)
def test_every_step_is_compensated(step: int, width: int, ago: int) -> None:
    clock = Clock(0, REAL, 0)
    now = 10 * SECOND
    assert look(clock, now, width, 0.5, REAL + step)
    assert clock.steps == 1
    low, high = REAL + now - SECOND, REAL + now
    stamped = REAL + now - ago
    after = clock.convert(stamped + step, low, high)
    before = clock.convert(stamped, low, high)
    # A stamp from before the step and one from after it come out as the same time, or, where the step
    # is so small that both readings fit in the interval, at most that step apart.
    assert abs(after - stamped) <= max(width, CLOCK_NOISE_NS)
    assert abs(before - stamped) <= (abs(step) if abs(step) <= SECOND + 2 * width + CLOCK_NOISE_NS else 0) + width
    clock.straddling = False
    assert abs(clock.convert(stamped + step, low, high) - stamped) <= max(width, CLOCK_NOISE_NS)

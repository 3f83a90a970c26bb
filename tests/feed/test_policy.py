"""Speculating stops where it costs more than it gains, and is tried again."""

from __future__ import annotations

import pytest

from ftnids.feed.policy import Policy
from ftnids.limits import SPECULATION_PAUSE_S, SPECULATION_TRIALS


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("always", "pauses"), [(False, 1), (True, 0)])
def test_what_does_not_pay_is_tried_again_after_a_pause(always: bool, pauses: int) -> None:
    clock = Clock()
    policy = Policy(always=always, clock=clock)
    for _ in range(SPECULATION_TRIALS):
        assert policy.speculates
        policy.waited(0.1, 1000)  # 50 packet-seconds
        policy.gained(0.02, 1000)  # 20
        policy.closed()
    assert (policy.speculates, policy.pauses) == (always, pauses)
    clock.now += SPECULATION_PAUSE_S
    assert policy.speculates


def test_what_pays_goes_on() -> None:
    policy = Policy()
    for _ in range(3 * SPECULATION_TRIALS):
        policy.waited(0.001, 100)  # 0.05 packet-seconds
        policy.gained(0.02, 100)  # 2
        policy.closed()
    assert (policy.speculates, policy.pauses) == (True, 0)
    for _ in range(SPECULATION_TRIALS):  # earlier gains are no excuse
        policy.waited(0.1, 100)
        policy.closed()
    assert not policy.speculates


def test_what_failed_is_tried_again_after_a_pause() -> None:
    clock = Clock()
    policy = Policy(always=True, clock=clock)
    policy.failed()
    assert not policy.speculates
    clock.now += SPECULATION_PAUSE_S
    assert policy.speculates


@pytest.mark.parametrize(("lead", "lag", "pauses"), [(20, 1, 0), (1, 20, 1), (0, 0, 0)])
def test_of_an_ids_that_takes_its_checkpoints_itself_the_lead_is_what_it_gains(
    lead: int, lag: int, pauses: int
) -> None:
    clock = Clock()
    policy = Policy(clock=clock)
    for number in range(300):  # 5 ms each: it lags while it takes the checkpoint, and leads with it
        policy.watched(-lag, None)
        clock.now += 0.005
        policy.watched(-lag, number)
        clock.now += 0.005
        policy.watched(lead, number)
        if not policy.speculates:
            assert number > 2 * SPECULATION_TRIALS, "judged too early"
            break
    assert (policy.pauses, policy.speculates) == (pauses, not pauses)
    clock.now += SPECULATION_PAUSE_S
    assert policy.speculates


def test_what_was_early_and_is_gone_back_to_is_no_gain() -> None:
    clock = Clock()
    policy = Policy(clock=clock)
    for number in range(300):
        policy.watched(50, number)
        clock.now += 0.005
        policy.watched(50, number)
        policy.set_back()
        policy.watched(-1, None)
        clock.now += 0.001
        policy.watched(-1, None)
        if not policy.speculates:
            break
    assert policy.pauses == 1

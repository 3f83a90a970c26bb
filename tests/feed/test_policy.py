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

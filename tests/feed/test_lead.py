"""Snort reads ahead when its policy says so, and reads what is stable when it does not; its early alerts are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftnids.alerts.identity import Identifier
from ftnids.alerts.scout import Scout
from ftnids.core import Ring
from ftnids.feed import DaqIds
from ftnids.feed.policy import Policy
from ftnids.limits import SPECULATION_PAUSE_S

from .test_ahead import Guesser, until
from .test_ahead import ring as ring  # a fixture, as `snort`
from .test_ahead import snort as snort

STEP = 1_500


class Clock:
    now = 1.0

    def __call__(self) -> float:
        return self.now


def test_a_pause_is_heeded_and_ends(ring: Ring, snort: object, tmp_path: Path) -> None:
    clock = Clock()
    policy = Policy(clock=clock)
    supervisor = DaqIds(ring, snort, tmp_path, ahead=True, policy=policy)  # type: ignore[arg-type]
    supervisor.start()
    try:
        guesser = Guesser(ring, supervisor)
        guesser.ahead(range(50))
        guesser.taken(50)
        policy.failed()  # for whatever reason
        until(lambda: supervisor._reader is not None and not supervisor._reader.leads)
        guesser.agree(0, 100)
        ring.set_stable(100)
        until(lambda: supervisor.position == 100)
        guesser.ahead(range(100, 150))
        guesser.agree(100, 120)
        ring.set_stable(120)
        until(lambda: supervisor.position == 120)
        assert supervisor._look().taken == 120, "it went ahead in the pause"
        clock.now += SPECULATION_PAUSE_S
        guesser.taken(150)
    finally:
        supervisor.stop()
        supervisor.join()


@pytest.mark.parametrize("right", [True, False])
def test_what_snort_raises_early_has_the_id_that_it_will_have(
    ring: Ring, snort: object, tmp_path: Path, right: bool
) -> None:
    """Or is withdrawn, where another packet came first."""
    supervisor = DaqIds(ring, snort, tmp_path, ahead=True)  # type: ignore[arg-type]
    supervisor.start()
    try:
        guesser = Guesser(ring, supervisor)
        guesser.agree(0, 10)
        ring.set_stable(10)
        until(lambda: supervisor.position == 10)
        run, identifier = supervisor.runs[0], Identifier("a")
        scout = Scout(run.reader, run.cuts)
        guess = range(10, STEP) if right else range(11, STEP + 1)
        guesser.ahead(guess)
        guesser.taken(STEP)
        early, withdrawn = scout.look(identifier)
        assert (bool(early), withdrawn) == (True, [])
        guesser.agree(10, STEP)
        ring.set_stable(STEP)
        until(lambda: supervisor.position == STEP)
        guesser.read()
        certain = [identifier.identify(record)["ftnids"]["id"] for record in guesser.records]
        ids = [record["ftnids"]["id"] for record in early]
        again, withdrawn = scout.look(identifier)
        if right:
            assert set(ids) <= set(certain)
            assert withdrawn == []
        else:
            assert supervisor.rollbacks == 1
            assert withdrawn == ids
        assert again == []
    finally:
        supervisor.stop()
        supervisor.join()

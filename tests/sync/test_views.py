"""What an operator fears: a replica dies, hangs, comes back; the others go on and lose nothing that they captured."""

from dataclasses import replace

import numpy as np
import pytest

from ftnids.sync.simulation import Fault, Simulation
from tests.sync.test_simulate import CALM

MS = 1_000_000
SECOND = 1_000 * MS


def run(replicas: int, *faults: Fault, **changes: object) -> Simulation:
    n = replicas
    weather = replace(CALM, replicas=n, loss=(0.1,) * n, offset=(0,) * n, drift=(0.0,) * n, faults=faults)
    simulation = Simulation(replace(weather, **changes))  # type: ignore[arg-type]
    simulation.run()
    return simulation


def delays(simulation: Simulation) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Of the whole agreed stream, ms."""
    return simulation.judge.delays_ms(simulation.replicas[0].view)


def gone(simulation: Simulation) -> int:
    """Processes that ended before the run did."""
    return sum(life.dead for life in simulation.lives)


def numbers(simulation: Simulation) -> list[int]:
    return [x.engine.view.number for x in simulation.replicas]


@pytest.mark.parametrize("replicas", [2, 3, 5])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_replica_is_killed_and_comes_back(replicas: int, victim: int) -> None:
    """Victim 0 is the coordinator."""
    simulation = run(replicas, Fault("crash", 200 * MS, 1_000 * MS, 1 << victim))
    assert len(set(numbers(simulation))) == 1
    assert numbers(simulation)[0] >= 3  # one view without it, one with it again
    assert simulation.replicas[victim].engine.members == tuple(range(replicas))
    assert simulation.replicas[victim].first_seq > 0


@pytest.mark.parametrize("victim", [0, 1])
def test_the_others_go_on_within_a_second(victim: int) -> None:
    simulation = run(3, Fault("crash", 200 * MS, 10 * SECOND, 1 << victim), packets=1_000)
    assert delays(simulation).max() < 1_000


def test_a_replica_that_restarts_at_once_is_noticed_by_its_incarnation() -> None:
    simulation = run(3, Fault("crash", 200 * MS, 20 * MS, 0b010))
    assert numbers(simulation)[0] >= 3
    assert delays(simulation).max() < 1_000


def test_a_replica_that_restarts_while_another_hangs_begins_anew() -> None:
    """One view change takes the old process out and the new one in; nothing of the old one's stream may stay behind."""
    crash, stop = Fault("crash", 200 * MS, 120 * MS, 0b1000), Fault("stop", 310 * MS, 140 * MS, 0b0010)
    simulation = run(4, crash, stop, packets=900)
    assert simulation.replicas[3].first_seq > 0


@pytest.mark.parametrize("victim", [0, 2])
def test_a_replica_is_stopped_for_three_seconds_and_rejoins(victim: int) -> None:
    simulation = run(3, Fault("stop", 200 * MS, 3 * SECOND, 1 << victim))
    assert simulation.replicas[victim].engine.members == (0, 1, 2)
    assert any("rejoins" in line for line in simulation.log)
    assert gone(simulation) == 1


def test_a_short_stop_changes_nothing() -> None:
    simulation = run(3, Fault("stop", 200 * MS, 150 * MS, 0b010))
    assert numbers(simulation) == [1, 1, 1]


def test_one_after_the_other_goes_and_the_last_one_goes_on() -> None:
    simulation = run(
        3,
        Fault("crash", 100 * MS, 8 * SECOND, 0b001),
        Fault("crash", 900 * MS, 6 * SECOND, 0b010),
        packets=1_600,
    )
    last = simulation.replicas[2]
    assert last.first_seq == 0
    assert last.published_end == len(delays(simulation))


def test_a_coordinator_dies_while_messages_are_lost() -> None:
    simulation = run(
        4, Fault("crash", 250 * MS, 700 * MS, 0b0001), message_loss=0.1, message_repeat=0.1, delay_spread=3 * MS
    )
    assert simulation.replicas[0].engine.members == (0, 1, 2, 3)

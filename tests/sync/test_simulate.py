"""The protocol as a whole: N engines under seeded weather, every promise checked."""

from dataclasses import replace

import numpy as np
import pytest

from ftnids.sync.engine import Engine
from ftnids.sync.simulation import BrokenPromiseError, Simulation, Weather, draw
from ftnids.sync.simulation.life import SimulatedStream

CALM = Weather(seed=1, replicas=2, packets=600, rate=1_000.0, loss=(0.0, 0.0), offset=(0, 0), drift=(0.0, 0.0))


@pytest.mark.parametrize("loss", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("rate", [10.0, 1_000.0])
@pytest.mark.parametrize("replicas", [2, 3])
def test_a_packet_is_stable_within_20_ms_at_any_rate_and_loss(replicas: int, rate: float, loss: float) -> None:
    weather = replace(
        CALM,
        replicas=replicas,
        rate=rate,
        packets=60 if rate < 100 else 600,
        loss=(loss,) * replicas,
        offset=(0,) * replicas,
        drift=(0.0,) * replicas,
    )
    result = Simulation(weather).run()
    assert result.delay_max_ms <= 20.0
    assert result.agreed == result.union


def test_every_message_may_be_lost_or_come_twice() -> None:
    weather = replace(CALM, message_loss=0.3, message_repeat=0.3, delay_spread=5_000_000, loss=(0.2, 0.2))
    result = Simulation(weather).run()
    assert result.agreed == result.union


def test_fast_and_clean_goes_in_summaries() -> None:
    weather = replace(CALM, packets=6_000, rate=50_000.0)
    simulation = Simulation(weather)
    simulation.run()
    reporter = simulation.replicas[1].engine.reporter
    assert reporter is not None
    assert reporter.summarising


def test_summaries_that_differ_are_resolved() -> None:
    weather = replace(CALM, packets=6_000, rate=50_000.0, loss=(0.0005, 0.0005), jitter=5_000, repeats=0.01)
    result = Simulation(weather).run()
    assert result.agreed == result.union


def test_the_simulation_sees_a_lost_packet() -> None:
    """A check that cannot fail is none: an engine that forgets a packet is found."""

    def mix_up(engine: Engine) -> None:
        stream = engine._stream
        if engine.settings.me == 1 and isinstance(stream, SimulatedStream):
            stream.ids = stream.ids + (np.arange(len(stream.ids)) >= 300)  # what it reports is not what it has

    simulation = Simulation(CALM, mix_up)
    with pytest.raises(BrokenPromiseError, match=r"seed 1: agreement: r\d has packet 300"):
        simulation.run()


def test_the_weather_is_the_seed_s_alone() -> None:
    assert draw(77) == draw(77)
    assert draw(77) != draw(78)
    assert draw(77, 5).replicas == 5
    assert draw(78, draw(78).replicas) == draw(78), "the replay command names the number of replicas"

"""The search for the highest rate, and what the hub measures with."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from bench import live, overhead
from bench._hub import MAIN, Hub, Sample, Step, tcpdump, threads
from bench._traces import write_imix


def sample(rate: float, cpu: dict[str, float] | None = None) -> Sample:
    """What passed in a second at that rate."""
    return Sample(1.0, cpu or {}, {"r0": 50}, {"r0": int(rate), "tap": int(rate) + 3})


class Sensor:
    """One that loses nothing up to a rate, on a link that reaches a rate; some tries fail for no reason."""

    def __init__(self, most: float, link: float = 1e9, unlucky: tuple[int, ...] = ()) -> None:
        self.most, self.link, self.unlucky = most, link, unlucky
        self.tried: list[int] = []

    def __call__(self, rate: int) -> live.Trial:
        self.tried.append(rate)
        clean = rate <= self.most and len(self.tried) not in self.unlucky
        return live.Trial(rate, clean, sample(min(rate, self.link)))


@pytest.mark.parametrize("start", [2_000, 10_000, 90_000])
@pytest.mark.parametrize("coarse", [False, True])
def test_the_highest_clean_rate_is_found_from_either_side(start: int, coarse: bool) -> None:
    sensor = Sensor(30_000)
    found = live.highest(sensor, start, coarse=coarse)
    assert found is not None
    assert found.clean
    assert 30_000 / live.RISE <= found.asked <= 30_000
    assert coarse or found.asked == max(rate for rate in sensor.tried if rate <= 30_000)


def test_the_search_ends_where_the_generator_does() -> None:
    sensor = Sensor(1e9, link=50_000)
    found = live.highest(sensor, 10_000)
    assert found is not None
    assert found.used.rate == 50_000
    assert max(sensor.tried) < 50_000 * live.RISE / live.REACHED


def test_an_unlucky_try_costs_nothing() -> None:
    lucky, unlucky = (live.highest(Sensor(30_000, unlucky=tries), 10_000) for tries in ((), (1, 4)))
    assert lucky is not None
    assert unlucky is not None
    assert lucky.asked == unlucky.asked


def test_nothing_is_found_where_no_rate_is_clean() -> None:
    assert live.highest(Sensor(0), 5_000) is None


def test_cost_is_by_the_packets_that_all_have() -> None:
    before, after = sample(100, {"r0": 1.0}), sample(300, {"r0": 1.5, "generator": 2.0})
    used = Sample(3.0, after.cpu, {"r0": 80}, after.frames) - before
    assert used.ns("r0") == pytest.approx(0.5 / 200 * 1e9)
    assert used.share("generator") == pytest.approx(1.0)
    assert used.wakes_s("r0") == pytest.approx(15.0)
    assert Step(200, [used, used], {}, 0, 0, True, 0.0).rate == pytest.approx(100.0)


def test_the_typical_cost_is_the_median_of_means() -> None:
    turns = [sample(1000, {"r0": one, "r1": one + 2e-6}) for one in (1e-6, 9e-6, 3e-6)]
    assert overhead.typical(turns, Sample.ns, ["r0", "r1"]) == pytest.approx(4.0)


def test_all_threads_of_a_process_count() -> None:
    def work() -> None:
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        ended.wait()

    ended = threading.Event()
    worker = threading.Thread(target=work)
    worker.start()
    time.sleep(0.2)
    try:
        found = list(threads(os.getpid()))
    finally:
        ended.set()
        worker.join()
    assert [role for role, _, _ in found].count(MAIN) == 1
    assert any(role != MAIN and seconds >= 0.04 and count > 0 for role, seconds, count in found)


@pytest.mark.needs_root
def test_a_step_on_the_hub_is_judged_by_what_the_replicas_captured(tmp_path: Path) -> None:
    trace = tmp_path / "imix.pcap"
    write_imix(trace, 10_000)
    with Hub(tmp_path / "out", trace) as hub:
        hub.up(loss=0.2)
        with hub.listening(tcpdump(hub)) as listener:
            steps = [hub.play(2_000, 0.5) for _ in range(2)]  # the drop generators go on in the second
        assert hub.whole()
        hub.down()
        assert not hub.live
    for step in steps:
        assert (step.missing, step.extra, step.dropped) == (0, 0, {"r0": 0, "r1": 0})
        assert {"r0", "r0 main loop", "r0 capture", "generator", listener.program.name} <= set(step.used[0].cpu)
    assert listener.drops == 0

"""The soak on few packets: nothing grows, and what is made to grow is found."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest

from ftnids import limits
from soak import growth, replicas, stub_ids, traffic
from soak.__main__ import table
from soak.census import census, memory_bytes
from soak.growth import Sample

PACKETS = 200_000


@pytest.mark.slow
@pytest.mark.parametrize("plant", [False, True], ids=["sound", "leaking"])
def test_real_replicas_hold_no_more_as_packets_go_by(plant: bool) -> None:
    runs = replicas.run(PACKETS, plant=plant)
    assert len({one.agreed for one in runs}) == 1
    assert PACKETS * 0.99 < runs[0].agreed <= PACKETS
    assert sum(one.alerts_out for one in runs) == -(-runs[0].agreed // stub_ids.ALERT_EVERY)
    found = [line for one in runs for line in growth.faults(one.samples)]
    if plant:
        (line,) = found
        assert line.startswith("_leak grows: ")
    else:
        assert not found
    assert "engine.member.log" in runs[0].samples[-1].sizes
    assert "transport" in " ".join(runs[0].samples[-1].sizes)
    assert "memory, MB" in table(runs[0])


def samples(sizes: dict[str, Any], count: int = 100, memory: Any = lambda n: 1 << 26) -> list[Sample]:
    """`count` samples; the sizes and the memory are functions of the sample's number."""
    return [
        Sample(n * 1000, memory(n), {name: int(size(n)) for name, size in sizes.items()}) for n in range(1, count + 1)
    ]


def test_growth_is_told_from_noise_and_filling(seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 10_000, 200)
    flat = {
        "queue": lambda n: noise[n],
        "full": lambda n: 8_192,
        "warm": lambda n: min(n, 9) * 1000,
        "slow": lambda n: 100 + n // 20,
        "desk._dedup._done": lambda n: n * 100,
    }
    assert growth.faults(samples(flat)) == []
    (line,) = growth.faults(samples({**flat, "leak": lambda n: 5 * n}))
    assert line.startswith("leak grows: ")
    (line,) = growth.faults(samples({"desk._dedup._done": lambda n: n * limits.ALERT_TABLE // 50}))
    assert "over its limit" in line
    (line,) = growth.faults(samples({}, memory=lambda n: (64 << 20) + n * 100_000))
    assert line.startswith("memory grows: ")
    with pytest.raises(ValueError, match="too few"):
        growth.faults(samples({}, 5))


class _Slotted:
    """A class of the kind that the package has."""

    __slots__ = ("table",)

    def __init__(self) -> None:
        self.table = {n: bytes(10) for n in range(100)}


class _Holder:
    """All kinds of containers, some of them shared."""

    def __init__(self) -> None:
        self.inner = _Slotted()
        self.queue = deque([np.zeros(50), np.zeros(7)])
        self.again = self.queue
        self.itself = self
        self.text = "no table"


def test_the_census_finds_every_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soak.census.OURS", (__name__,))
    sizes = census(_Holder())
    assert sizes == {"inner.table": 100, "inner.table[]": 240, "queue": 2, "queue[]": 57}
    assert memory_bytes() > 1 << 20


def test_traffic_is_the_same_for_everyone() -> None:
    whole = traffic.block(0, 100)
    assert whole == traffic.block(0, 37) + traffic.block(37, 63)
    assert len(whole) == 100 * (16 + traffic.FRAME)

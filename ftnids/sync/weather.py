"""The weather of one simulated run: what the link, the clocks and the sync network do, drawn from a seed.

Each seed draws its own mix of faults (swarm testing): most runs have only some kinds of them, so
that one fault does not hide another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftnids.sync.messages import I64, U64
from ftnids.sync.settings import MS

US = 1_000


@dataclass(slots=True)
class Link:
    """The true traffic: one element a packet, in true order."""

    time_ns: I64
    hash: U64

    def __len__(self) -> int:
        return len(self.hash)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to replicas at one moment."""

    kind: str  # crash (and restart after `length`), stop (SIGSTOP for `length`), cut (partition for `length`)
    at: int  # ns after the first packet
    length: int
    replicas: int  # bit mask: who crashes or stops; one side of the cut


@dataclass(slots=True)
class Weather:
    """One run's faults.  Times in ns, shares from 0 to 1."""

    seed: int
    replicas: int
    packets: int
    rate: float  # packets/s
    repeats: float  # share of packets that repeat an earlier one
    flood: int  # packets of one flood of equal packets, 0 for none
    loss: tuple[float, ...]  # by replica
    burst: float  # mean run length of losses
    offset: tuple[int, ...]
    drift: tuple[float, ...]  # ppm
    jitter: int
    delay: int  # of messages, at least
    delay_spread: int
    message_loss: float
    message_repeat: float
    stall: int  # longest pause of a replica's engine
    faults: tuple[Fault, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether promise 5 (bounded delay) is in force: messages within T/6, none lost, nobody stalls."""
        disturbed = self.faults or self.message_loss or self.stall
        return not disturbed and self.delay + self.delay_spread <= 20 * MS // 6


def draw(seed: int, replicas: int | None = None) -> Weather:
    """Draw the weather of `seed`; `replicas` forces their number."""
    rng = np.random.default_rng([0xF7, seed])
    drawn = int(rng.choice([2, 2, 3, 3, 4, 5, 7]))  # drawn in any case: a seed replayed with its own number is the same
    n = replicas or drawn
    rate = float(10 ** rng.uniform(1, 4.7))

    def sometimes(share: float, value: float) -> float:
        return value if rng.random() < share else 0.0

    faults: list[Fault] = []
    for kind, share in (("crash", 0.35), ("stop", 0.2)):
        if rng.random() < share:
            at = int(rng.uniform(0, 0.6e9))
            faults.append(Fault(kind, at, int(rng.uniform(0.02e9, 1.5e9)), 1 << int(rng.integers(0, n))))
    losses = [float(rng.choice([0, 0, 0.0005, 0.01, 0.05, 0.2, 0.5])) for _ in range(n)]
    if rng.random() < 0.5:
        losses = [losses[0]] * n
    return Weather(
        seed=seed,
        replicas=n,
        packets=int(min(6_000, max(60, rate * 0.6))),
        rate=rate,
        repeats=sometimes(0.4, float(rng.uniform(0, 0.3))),
        flood=int(sometimes(0.2, float(rng.integers(2, 400)))),
        loss=tuple(losses),
        burst=float(rng.choice([1, 1, 1, 5, 50])),
        offset=tuple(int(x) for x in rng.integers(-2_000_000, 2_000_000, n) * int(rng.random() < 0.7)),
        drift=tuple(float(x) for x in rng.uniform(-50, 50, n) * int(rng.random() < 0.5)),
        jitter=int(rng.choice([0, 0, 1, 5, 20])) * US,
        delay=int(rng.integers(20, 400)) * US,
        delay_spread=int(sometimes(0.5, float(rng.integers(0, 2_500)))) * US,
        message_loss=sometimes(0.3, float(rng.uniform(0, 0.1))),
        message_repeat=sometimes(0.3, float(rng.uniform(0, 0.1))),
        stall=int(sometimes(0.2, float(rng.integers(1, 120)))) * MS,
        faults=tuple(faults),
    )


def traffic(weather: Weather, rng: np.random.Generator, start_ns: int) -> Link:
    """The packets of the run: exponential gaps, repeats of earlier packets, one flood."""
    n = weather.packets
    gaps = rng.exponential(1e9 / weather.rate, n)
    gaps = np.maximum(gaps, 200)
    hashes = rng.integers(1, 1 << 63, n, dtype=np.uint64)
    if weather.repeats:
        again = np.flatnonzero(rng.random(n) < weather.repeats)
        again = again[again > 0]
        back = np.minimum(rng.geometric(0.05, len(again)), again)
        for i, b in zip(again.tolist(), back.tolist(), strict=True):
            hashes[i] = hashes[i - b]
    if weather.flood and n > weather.flood:
        first = int(rng.integers(0, n - weather.flood))
        hashes[first : first + weather.flood] = hashes[first]
        gaps[first : first + weather.flood] = rng.integers(200, 3_000, weather.flood)
    return Link(start_ns + np.cumsum(gaps).astype(np.int64), hashes)


def kept(weather: Weather, replica: int, count: int, rng: np.random.Generator) -> I64:
    """Indices of the packets that `replica` captures, int64."""
    loss = weather.loss[replica]
    if not loss:
        return np.arange(count)
    if weather.burst <= 1:
        return np.flatnonzero(rng.random(count) >= loss)
    keep = np.ones(count, bool)
    at = 0
    while at < count:
        at += int(rng.geometric(min(1.0, loss / (weather.burst * (1 - loss)))))
        run = int(rng.geometric(1 / weather.burst))
        keep[at : at + run] = False
        at += run
    return np.flatnonzero(keep)

"""The weather of one simulated run: what the link, the clocks, the machines and the sync network do, drawn from a seed.

Each seed draws its own mix (swarm testing): most runs have only some kinds of trouble, so that one
kind does not hide another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftnids.sync.settings import MS

US = 1_000

# What can befall replicas at one moment, and how often a drawn fault is of that kind.
KINDS = {
    "crash": 5,  # the process dies, and starts again after `length`
    "stop": 3,  # the process stands still for `length` (SIGSTOP); messages wait, the network card goes on
    "cut": 5,  # no message passes between `replicas` and the others for `length`
    "deaf": 4,  # `replicas` hear nothing of `of`, who hear them, for `length`
    "stuck": 3,  # the capture delivers nothing for `length`, then all at once; the heartbeat lives
    "hang": 2,  # the IDS takes nothing for `length`
    "step": 1,  # the capture clock jumps ahead by `length`
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to replicas at one moment."""

    kind: str  # one of KINDS
    at: int  # ns after the first packet
    length: int  # ns
    replicas: int  # bit mask: whom it befalls; of a cut, one side
    of: int = -1  # bit mask: whom the deaf do not hear; -1 is all others


@dataclass(slots=True)
class Weather:
    """One run's conditions, calm where nothing else is said.  Times in ns, shares from 0 to 1."""

    seed: int
    replicas: int
    packets: int
    rate: float  # packets/s while packets come
    loss: tuple[float, ...]  # by replica
    offset: tuple[int, ...]
    drift: tuple[float, ...]  # ppm
    repeats: float = 0.0  # share of packets that repeat an earlier one
    flood: int = 0  # packets of one flood of equal packets, 0 for none
    burst: float = 1.0  # mean run length of losses
    jitter: int = 0
    delay: int = 100_000  # of messages, at least
    delay_spread: int = 0
    message_loss: float = 0.0
    message_repeat: float = 0.0
    stall: int = 0  # longest pause of a replica's engine
    faults: tuple[Fault, ...] = ()
    trains: int = 1  # packets come in so many trains ...
    span: int = 0  # ... that begin within this time
    together: float = 0.0  # share of packets that each replica loses with probability 1/2, in bursts of all at once
    collisions: float = 0.0  # share of packets whose hash is that of any other packet of the run
    reorder: float = 0.0  # share of packets that reach a replica later than their time ...
    reorder_by: int = 0  # ... by at most this
    stale: float = 0.0  # share of messages that arrive very late ...
    stale_by: int = 0  # ... by at most this
    slots: int = 1 << 20  # captured packets that a replica's ring holds
    agreed_slots: int = 1 << 20
    born: tuple[int, ...] = ()  # by replica: when it starts, ns after the first one could
    wait_for_all: bool = True
    lead: int = 400 * MS  # from the first start to the first packet

    @property
    def healthy(self) -> bool:
        """Whether promise 5 (bounded delay) is in force: messages within T/6, none lost, nobody stalls."""
        disturbed = self.faults or self.message_loss or self.stall or self.stale or any(self.born)
        slow = self.delay + self.delay_spread > 20 * MS // 6
        return not (disturbed or slow or self.slots < 1 << 20 or self.agreed_slots < 1 << 20)

    @property
    def orderly(self) -> bool:
        """Whether no two replicas can contradict each other about the order of two packets."""
        return not (self.repeats or self.flood or self.collisions or self.reorder or self._kinds & {"step", "stuck"})

    @property
    def _kinds(self) -> set[str]:
        return {fault.kind for fault in self.faults}


def draw(seed: int, replicas: int | None = None) -> Weather:
    """Draw the weather of `seed`; `replicas` forces their number."""
    rng = np.random.default_rng([0xF8, seed])
    drawn = int(rng.choice([2, 2, 2, 3, 3, 3, 4, 5, 7]))  # in any case: a seed replayed with its own number is the same
    n = replicas or drawn

    def sometimes(share: float, low: float, high: float) -> float:
        return float(rng.uniform(low, high)) if rng.random() < share else 0.0

    rate = float(10 ** rng.uniform(1, 4.7))
    span = int(rng.uniform(0.3e9, 2.5e9))
    troubled = rng.random() < 0.65
    losses = [float(rng.choice([0, 0, 0.0005, 0.01, 0.05, 0.2, 0.5])) for _ in range(n)]
    if rng.random() < 0.5:
        losses = [losses[0]] * n
    return Weather(
        seed=seed,
        replicas=n,
        packets=int(min(1_200 if n > 3 else 2_400, max(40, rate * span / 1e9))),
        rate=rate,
        trains=int(rng.integers(2, 12)),
        span=span,
        repeats=sometimes(0.3, 0, 0.3),
        flood=int(sometimes(0.2, 2, 400)),
        loss=tuple(losses),
        burst=float(rng.choice([1, 1, 1, 5, 50])),
        offset=tuple(int(x) for x in rng.integers(-2_000_000, 2_000_000, n) * int(rng.random() < 0.7)),
        drift=tuple(float(x) for x in rng.uniform(-50, 50, n) * int(rng.random() < 0.5)),
        jitter=int(rng.choice([0, 0, 1, 5, 20])) * US,
        delay=int(rng.integers(20, 400)) * US,
        delay_spread=int(sometimes(0.5, 0, 2_500)) * US,
        message_loss=sometimes(0.3, 0, 0.1),
        message_repeat=sometimes(0.3, 0, 0.1),
        stall=int(sometimes(0.15, 1, 120)) * MS,
        faults=_faults(rng, n, span) if troubled else (),
        together=sometimes(0.15, 0, 0.3),
        collisions=sometimes(0.15, 0, 0.05),
        reorder=sometimes(0.15, 0, 0.02),
        reorder_by=int(rng.integers(20, 400)) * US,
        stale=sometimes(0.15, 0, 0.01),
        stale_by=int(rng.integers(20, 2_000)) * MS,
        slots=int(sometimes(0.2, 200, 4_000)) or 1 << 20,
        agreed_slots=int(sometimes(0.2, 200, 4_000)) or 1 << 20,
        born=_births(rng, n) if rng.random() < 0.2 else (),
        wait_for_all=bool(rng.random() < 0.7),
        lead=int(rng.choice([0, 100, 400, 400])) * MS,
    )


def _faults(rng: np.random.Generator, n: int, span: int) -> tuple[Fault, ...]:
    """One to six faults, most often one; they may overlap."""
    kinds, weights = list(KINDS), np.array(list(KINDS.values()), float)
    faults = []
    network = rng.random() < 0.25  # trouble of the sync network alone
    for _ in range(int(rng.choice([1, 1, 2, 3, 4, 6]))):
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        if network:
            kind = str(rng.choice(["cut", "deaf", "deaf"]))
        length = float(rng.choice([rng.uniform(0.02e9, 0.3e9), rng.uniform(0.25e9, 0.5e9), rng.uniform(0.3e9, 1.5e9)]))
        if kind == "step":
            length = 10 ** rng.uniform(4, 7.3)
        who = 1 << int(rng.integers(0, n))
        if kind == "cut" and n > 3 and rng.random() < 0.5:
            who |= 1 << int(rng.integers(0, n))
        of = -1
        if kind == "deaf" and rng.random() < 0.6:
            of = 1 << int(rng.integers(0, n))
        faults.append(Fault(kind, int(rng.uniform(0, 0.9 * span)), int(length), who, of))
    return tuple(faults)


def _births(rng: np.random.Generator, n: int) -> tuple[int, ...]:
    """When each replica starts: most at once, some later."""
    late = rng.random(n) < 0.4
    return tuple(int(x) for x in late * rng.uniform(0, 2.0e9, n))

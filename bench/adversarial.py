"""Whether hostile traffic makes the aligner slow: time per packet against that on random input.

Captures of one link are merged by the default aligner; input and random input of as many packets take turns, and the
median of the ratios is printed.  The last row is the whole Merger with a member that lags 300 ms, against no lag.

options: --rounds N (5) turns of each input, --members N,N (2,3,7,16), --quick one turn, without 16
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from bench._progress import progress
from bench._results import Results, Row
from ftnids.sync import align
from ftnids.sync.merge import Merger, Settings
from ftnids.sync.messages import I64, U64

PACKETS: Final = 65_536  # of a capture
GOAL: Final = "<= 4"
UNIT: Final = "times random input"
JUDGED: Final = 7  # captures; what more make is shown only
US: Final = 1_000
MS: Final = 1_000_000
TOLERANCE: Final = 46 * US
MULTIPLIER: Final = 0x9E3779B97F4A7C15  # of the table in ftnids/core/merge.c
RATE, LAG, SECONDS = 50_000, 300 * MS, 0.6
EPOCH: Final = 1_700_000_000 * 10**9

Input = tuple[list[U64], list[I64]]


def collisions() -> U64:
    """Hashes that all begin at one slot of the kernel's table: their products have equal high bits."""
    inverse = pow(MULTIPLIER, -1, 1 << 64)
    return np.array([(i + 1) * inverse % (1 << 64) for i in range(PACKETS)], np.uint64)


def inputs(n: int) -> Iterator[tuple[str, Input]]:
    """Random input, then each hostile one, for n captures."""
    rng = np.random.default_rng(1)
    place = np.arange(PACKETS)
    at = np.cumsum(rng.integers(1, 40 * US, PACKETS)).astype(np.int64)
    hashes = rng.integers(1, 1 << 59, PACKETS, dtype=np.uint64)
    few = hashes[rng.integers(0, 100, PACKETS)]
    same, flood, still = np.full(PACKETS, 7, np.uint64), place * 200, np.zeros(PACKETS, np.int64)
    kept = [np.flatnonzero(rng.random(PACKETS) > 0.1) for _ in range(n)]
    turned = [hashes[:: -1 if r % 2 else 1] for r in range(n)]
    yield "random", ([hashes] * n, [at] * n)
    yield "each value 1 % of the window", ([few] * n, [at] * n)
    yield "each value 1 % of the window, 10 % lost", ([few[k] for k in kept], [at[k] for k in kept])
    yield "all equal", ([same] * n, [at] * n)
    yield "all equal, 200 ns apart", ([same] * n, [flood] * n)
    yield "all equal, 200 ns apart, 10 % lost", ([same[k] for k in kept], [flood[k] for k in kept])
    yield "all equal, one stamp", ([same] * n, [still] * n)
    yield "nothing in common", ([hashes + np.uint64(r << 59) for r in range(n)], [at] * n)
    yield "alternating pairs", ([((place + r) % 2 + 1).astype(np.uint64) for r in range(n)], [at] * n)
    yield "reversed", (turned, [at] * n)
    yield "reversed, one stamp", (turned, [still] * n)
    yield "three values", ([rng.integers(1, 4, PACKETS).astype(np.uint64)] * n, [at] * n)
    yield "all different, one stamp", ([hashes] * n, [still] * n)
    yield "sawtooth times", ([hashes[place % 1000]] * n, [at - at % MS] * n)
    band = (place * (TOLERANCE // 14)).astype(np.int64)
    yield "every packet ambiguous", ([same] * n, [band + r for r in range(n)])
    half = [np.flatnonzero(rng.random(PACKETS) > 0.5) for _ in range(n)]
    late = [np.maximum.accumulate(band // 2 + rng.integers(0, 20 * US, PACKETS)) for _ in range(n)]
    yield "every packet ambiguous, half lost", ([same[k] for k in half], [late[r][k] for r, k in enumerate(half)])
    whole, some = place * 3, np.sort(rng.choice(PACKETS, 40, replace=False))
    yield "a flood of which the others have 40", ([same] + [same[some]] * (n - 1), [whole] + [whole[some]] * (n - 1))
    spread = [np.sort(place // 4 * 4 * TOLERANCE + rng.integers(0, 120 * US, PACKETS)) for _ in range(n)]
    yield "fours, stamps out of tolerance", ([hashes[place // 4]] * n, spread)
    yield "hashes with equal low bits", ([hashes << np.uint64(5)] * n, [at] * n)
    yield "hashes chosen to collide", ([collisions()] * n, [at] * n)


def cost(given: Input) -> float:
    """Seconds for each packet of one merge."""
    hashes, times = given
    started = time.perf_counter()
    align.merge(hashes, times, [0] + [TOLERANCE] * (len(hashes) - 1), 500 * US, 64)
    return (time.perf_counter() - started) / sum(map(len, hashes))


def lagging(lag: int) -> float:
    """Processor seconds of a Merger of two members at 50,000 packets/s, 1 % lost, the second `lag` ns behind."""
    rng = np.random.default_rng(1)
    count = int(RATE * SECONDS)
    at = EPOCH + np.cumsum(rng.exponential(1e9 / RATE, count)).astype(np.int64)
    hashes = rng.integers(1, 1 << 62, count, dtype=np.uint64)
    ids = [np.flatnonzero(rng.random(count) >= 0.01) for _ in range(2)]
    times = [np.maximum.accumulate(at[i] + rng.integers(0, 20 * US, len(i))) for i in ids]
    merger = Merger(range(2), 0, Settings())
    merger.set_offset(1, 0, 50 * US)
    sent = [0, 0]
    started = time.process_time()
    for now in range(EPOCH + 2 * MS, EPOCH + int(SECONDS * 1e9) + 1, 2 * MS):
        for r, known in enumerate((now, now - lag)):
            end = int(np.searchsorted(times[r], known, side="right"))
            if end > sent[r]:
                merger.add(r, sent[r], hashes[ids[r][sent[r] : end]], times[r][sent[r] : end])
                sent[r] = end
            merger.watermark(r, known)
        while merger.decide() is not None:
            pass
    return (time.process_time() - started) / sum(sent)


def ratio(hostile: Callable[[], float], plain: Callable[[], float], rounds: int) -> float:
    """The median of the ratios of hostile and plain cost; the two take turns."""
    return statistics.median(hostile() / plain() for _ in range(rounds))


def add(results: Results, n: int, rounds: int) -> None:
    """The rows of all inputs for n captures."""
    (_, plain), *hostile = inputs(n)
    cost(plain)
    worst = 0.0
    for name, given in hostile:
        times = ratio(lambda given=given: cost(given), lambda: cost(plain), rounds)  # type: ignore[misc]
        results.add(Row(f"{n} captures, {name}", times, UNIT))
        worst = max(worst, times)
    results.add(Row(f"{n} captures: the worst of all", worst, UNIT, goal=GOAL if n <= JUDGED else None))


def main(arguments: list[str]) -> int:
    """Print the table and write adversarial.json; 0 when the limit is kept."""
    parser = argparse.ArgumentParser(prog="python -m bench adversarial", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--members", default="2,3,7,16")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    rounds, members = (1, "2,3,7") if options.quick else (options.rounds, options.members)
    results = Results("adversarial", arguments, f"generated, {PACKETS:,} packets a capture")
    results.heading()
    for n in progress([int(n) for n in members.split(",")]):
        add(results, n, rounds)
    times = ratio(lambda: lagging(LAG), lambda: lagging(0), rounds)
    results.add(Row("Merger of 2, one member lags 300 ms", times, "times no lag", goal=GOAL))
    return results.finish()

"""What happens on the simulated link, and what each replica's capture makes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ftnids.sync.messages import I64, U64
from ftnids.sync.simulation.weather import Weather

CLOSEST = 200  # ns between two packets


@dataclass(slots=True)
class Link:
    """The true traffic: one element a packet, in true order."""

    time_ns: I64
    hash: U64

    def __len__(self) -> int:
        return len(self.hash)


def traffic(weather: Weather, rng: np.random.Generator, start_ns: int) -> Link:
    """The packets of the run: trains of packets with exponential gaps, repeats of earlier ones, one flood."""
    n = weather.packets
    gaps = np.maximum(rng.exponential(1e9 / weather.rate, n), CLOSEST)
    hashes = rng.integers(1, 1 << 63, n, dtype=np.uint64)
    if weather.repeats:
        again = np.flatnonzero(rng.random(n) < weather.repeats)
        again = again[again > 0]
        back = np.minimum(rng.geometric(0.05, len(again)), again)
        for i, b in zip(again.tolist(), back.tolist(), strict=True):
            hashes[i] = hashes[i - b]
    if weather.collisions:
        same = np.flatnonzero(rng.random(n) < weather.collisions)
        hashes[same] = hashes[rng.integers(0, n, len(same))]
    if weather.flood and n > weather.flood:
        first = int(rng.integers(0, n - weather.flood))
        hashes[first : first + weather.flood] = hashes[first]
        gaps[first : first + weather.flood] = rng.integers(CLOSEST, 3_000, weather.flood)
    _part(weather, rng, gaps)
    return Link(start_ns + np.cumsum(gaps).astype(np.int64), hashes)


def _part(weather: Weather, rng: np.random.Generator, gaps: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    """Put the silence that the span leaves between trains, in place."""
    silence = weather.span - float(gaps.sum())
    if weather.trains > 1 and silence > 0:
        heads = rng.integers(1, len(gaps), weather.trains - 1)
        shares = rng.exponential(1.0, len(heads))
        np.add.at(gaps, heads, silence * shares / shares.sum())


def kept(weather: Weather, link: Link, rng: np.random.Generator) -> list[I64]:
    """By replica: indices of the packets that it captures, int64, in true order."""
    count = len(link)
    common = np.zeros(count, bool)
    if weather.together:
        common = _bursts(rng, count, weather.together, 20.0)
    captured = []
    for loss in weather.loss:
        lost = _bursts(rng, count, loss, weather.burst) | (common & (rng.random(count) < 0.5))
        captured.append(np.flatnonzero(~lost))
    return captured


def _bursts(
    rng: np.random.Generator, count: int, share: float, run: float
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Mark a share of `count` packets, in runs of `run` on average."""
    if not share:
        return np.zeros(count, bool)
    if run <= 1:
        return rng.random(count) < share
    marked = np.zeros(count, bool)
    at = 0
    while at < count:
        at += int(rng.geometric(min(1.0, share / (run * (1 - share)))))
        length = int(rng.geometric(1 / run))
        marked[at : at + length] = True
        at += length
    return marked


def lateness(weather: Weather, captured: I64, rng: np.random.Generator) -> I64:
    """How long after their time, ns, the packets that one replica captures reach it: later ones overtake some."""
    if not weather.reorder:
        return np.zeros(len(captured), np.int64)
    held = rng.random(len(captured)) < weather.reorder
    return np.asarray(held * rng.integers(0, weather.reorder_by, len(captured)), np.int64)

"""Lossy captures of one made-up link, with the truth beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from ftnids.sync.messages import I64, U64

US = 1_000
START = 1_700_000_000_000_000_000  # ns


@dataclass(frozen=True)
class Link:
    """What went over the link and what each of N replicas caught: hashes, raw times, and indices into the truth."""

    hash: U64
    time_ns: I64
    hashes: list[U64]
    times: list[I64]
    ids: list[I64]
    jitter_ns: int
    offsets: tuple[int, ...]

    @property
    def corrected(self) -> list[I64]:
        """Times on the clock of replica 0."""
        return [times - offset for times, offset in zip(self.times, self.offsets, strict=True)]

    @property
    def union(self) -> set[int]:
        """Packets that somebody caught."""
        return set(np.concatenate(self.ids).tolist())

    def most(self, bursts: I64) -> I64:
        """For each burst the most packets that one replica caught of it."""
        most: I64 = np.maximum.reduce([np.bincount(bursts[ids], minlength=int(bursts.max()) + 1) for ids in self.ids])
        return most

    def bursts(self, apart_ns: int) -> I64:
        """Packets of one hash closer than `apart_ns` to each other, as numbers from 0."""
        order = np.lexsort((self.time_ns, self.hash))
        fresh = np.ones(len(order), bool)
        fresh[1:] = (np.diff(self.hash[order]) != 0) | (np.diff(self.time_ns[order]) > apart_ns)
        numbers = np.empty(len(order), np.int64)
        numbers[order] = np.cumsum(fresh) - 1
        return numbers


def make_link(
    seed: int,
    *,
    packets: int,
    replicas: int = 2,
    loss: float = 0.1,
    repeats: int = 0,
    gap_ns: int = 50 * US,
    jitter_ns: int = 20 * US,
    offsets: Sequence[int] | None = None,
) -> Link:
    """Draw a link; `repeats` is the number of different packets, 0 for all different."""
    rng = np.random.default_rng(seed)
    time = START + np.cumsum(rng.integers(0, 2 * gap_ns, packets)).astype(np.int64)
    kind = rng.integers(0, repeats, packets) if repeats else rng.permutation(packets)
    hash_ = kind.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    shifts = tuple(offsets) if offsets else (0,) * replicas
    ids = [np.flatnonzero(rng.random(packets) >= loss) for _ in range(replicas)]
    times = []
    for own, offset in zip(ids, shifts, strict=True):
        stamped = time[own] + rng.integers(0, jitter_ns + 1, len(own)) + offset
        times.append(np.maximum.accumulate(stamped) if len(own) else stamped)
    return Link(hash_, time, [hash_[own] for own in ids], times, ids, jitter_ns, shifts)


links = st.builds(
    make_link,
    st.integers(0, 2**32),
    packets=st.integers(1, 120),
    replicas=st.integers(2, 4),
    loss=st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5]),
    repeats=st.sampled_from([0, 0, 1, 2, 5, 30]),
    gap_ns=st.sampled_from([2 * US, 30 * US, 300 * US]),
    jitter_ns=st.sampled_from([0, 20 * US]),
)

"""Clocks: what to add to a member's capture times to get the reference member's.

Theory of operation

Packets that two captures share measure the difference of their clocks, jitter included.  Only
packets whose hash is unique in both windows train a clock: a packet that one member alone has, or a
flood of equal packets, says nothing about it.

The fit is a trimmed straight line, for the drift, plus a running median of what the line leaves, for
the rest: the samples are cut into blocks, the median of each block is a knot, and the correction is
the line through the knots.  Samples crowded into one burst share its queueing delay and count as
few, so they are thinned.  Beyond the last knot the drift carries on for a while.
A false pair (a repeat of which each member caught another copy) is an outlier and is trimmed.
The tolerance, how far the corrected times of one packet may lie apart, is twice the largest
residual that is left plus a floor; it is wider while samples are few and grows with the time since
the last one.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ftnids import limits
from ftnids.core import aligner as kernels
from ftnids.sync.messages import I64, U64

BLOCK = 255  # samples of one knot
PAUSE_NS = 50_000_000  # samples before and behind such a pause share no knot
MIX = np.uint64(0x9E3779B97F4A7C15)
FEW = 16  # fewer samples than that make no good fit
THIN_NS = 1_000_000  # one sample in so long a time ...
THIN_LEAVES = 256  # ... when that leaves so many; one in twice as long, and so on, while it leaves four times as many
TRIM = 3  # a residual so many times that of nine samples in ten is no sample of this clock
GATE = 4  # a sample so many tolerances away is not believed at once
STEP = 63  # so many samples in a row that are not: the clock has stepped
REFIT_NS = 20_000_000  # new samples that reach so far make a new fit worth while ...
REFIT_STEADY_NS = 100_000_000  # ... or so far, when the drift is known
WANDER_PPM = 100  # by which two unobserved clocks may part ...
STEADY_PPM = 10  # ... and one whose drift is known
DRIFT_SPAN_NS = 1_000_000_000  # samples must span this for their drift to count
STEEPEST = 500e-6  # drift
HALF_LIFE_NS = 10e9  # the largest residual is forgotten so slowly: jitter shrinks in bursts and comes back


Samples = tuple[NDArray[np.float64], NDArray[np.float64]]
_NONE: Samples = np.empty(0), np.empty(0)


class Clock:
    """One member's clock against the reference's.  All times are int64 ns."""

    def __init__(
        self, offset_ns: int = 0, tolerance_ns: int = limits.MAX_TOLERANCE_NS, *, seeded: bool = False
    ) -> None:
        self._seed = offset_ns
        self._seed_tolerance = tolerance_ns
        self._seeded_ns: int | None = None  # when the seed was measured
        self._seeded = seeded
        self._origin = 0  # times are kept relative to it, so that floats hold them exactly
        self._t: NDArray[np.float64] = np.empty(0)
        self._d: NDArray[np.float64] = np.empty(0)
        self._knot_t: NDArray[np.float64] = np.empty(0)
        self._knot_d: NDArray[np.float64] = np.empty(0)
        self._bend: tuple[list[float], list[float]] = [], []  # the knots again, for one time
        self._base = self._drift = 0.0  # the straight line ...
        self._reach = 0.0, 0.0  # ... and how far it is believed: as far beyond the samples as they span
        self._residual = 0.0
        self._oldest = 0.0  # time of the first sample that was fitted
        self._newest = 0.0  # time of the last sample, fitted or not
        self._fresh = _NONE  # samples not fitted yet
        self._strays = _NONE  # samples not believed
        self.refused = 0  # fits wider than MAX_TOLERANCE_NS

    def set_offset(self, offset_ns: int, tolerance_ns: int, at_ns: int | None = None) -> None:
        """Start afresh from what others measured at the member's `at_ns`: messages' round trips, or a join."""
        self.__init__(offset_ns, min(tolerance_ns, limits.MAX_TOLERANCE_NS), seeded=True)  # type: ignore[misc]
        self._seeded_ns = at_ns

    @property
    def known(self) -> bool:
        """Whether the offset has been seeded or learnt."""
        return self._seeded or len(self._knot_t) > 0

    def offset_ns(self, time_ns: int | None = None) -> int:
        """What to add to the member's `time_ns` (default: at the last sample)."""
        if len(self._knot_t) == 0:
            return self._seed
        at = self._newest if time_ns is None else float(time_ns - self._origin)
        line = self._base + self._drift * min(max(at, self._reach[0]), self._reach[1])
        return round(line + _between(at, *self._bend)) + self._seed

    def known_before(self, times: I64) -> int:
        """How many of `times` of the member, which never decrease, are not behind the last sample."""
        return int(np.searchsorted(times, self._origin + int(self._newest), side="right")) if len(self._t) else 0

    def correct(self, times: I64) -> I64:
        """`times` of the member on the reference's clock, never decreasing."""
        if len(self._knot_t) == 0 or len(times) == 0:
            return times + self._seed
        if native := kernels.chosen():
            line, knots = (self._base, self._drift), (self._knot_t, self._knot_d)
            return native.correct(times, self._origin, self._seed, line, self._reach, knots)
        offset = np.rint(self._offset((times - self._origin).astype(np.float64))).astype(np.int64)
        return np.maximum.accumulate(times + offset + self._seed)

    def raw(self, time_ns: int) -> int:
        """The member's time for the reference's `time_ns`."""
        return time_ns - self.offset_ns(time_ns - self._seed)

    def tolerance_ns(self, time_ns: int | None = None) -> int:
        """How far the member's corrected time may err at its own `time_ns` (default: at the last sample)."""
        if len(self._t) == 0:
            return self._seed_width(time_ns)
        tolerance = 2 * self._residual + limits.TOLERANCE_FLOOR_NS
        if len(self._t) < FEW:
            start = self._seed_width(time_ns) if self._seeded else min(self._seed_tolerance, limits.START_TOLERANCE_NS)
            tolerance = max(tolerance, start)
        if time_ns is not None:
            wander = STEADY_PPM if self._drift else WANDER_PPM
            at = float(time_ns - self._origin)
            tolerance += max(0.0, at - self._newest, self._oldest - at) * wander * 1e-6
        return min(round(tolerance), limits.MAX_TOLERANCE_NS)

    def _seed_width(self, time_ns: int | None) -> int:
        """How far the seed may err at the member's `time_ns`."""
        if self._seeded_ns is None or time_ns is None:
            return self._seed_tolerance
        wander = max(0, time_ns - self._seeded_ns) * WANDER_PPM // 1_000_000
        return min(self._seed_tolerance + wander, limits.MAX_TOLERANCE_NS)

    def learn(self, member_ns: I64, reference_ns: I64) -> None:
        """Take in the times of packets that both captured, in capture order; those known before are ignored."""
        if len(self._t):
            new = member_ns > self._origin + int(self._newest)
            member_ns, reference_ns = member_ns[new], reference_ns[new]
        if len(member_ns) == 0:
            return
        if len(self._t) == 0:
            self._origin = int(member_ns[0])
            if not self._seeded:  # all is kept relative to a first guess: a float64 holds 2**53 ns exactly
                self._seed = _densest(reference_ns - member_ns)
        t = (member_ns - self._origin).astype(np.float64)
        d = (reference_ns - member_ns - self._seed).astype(np.float64)
        away = np.abs(d - self._offset(t))
        if self._seeded and len(self._t) < FEW:  # one false pair must not lead a fresh clock away
            near = np.abs(d) <= self._seed_width(int(member_ns[-1]))
        else:
            near = away <= GATE * self.tolerance_ns(int(member_ns[-1]))
        self._newest = float(t[-1])
        if near.any():
            self._strays = _NONE
            self._fresh = _joined(self._fresh, (t[near], d[near]))
        else:
            self._strays = _joined(self._strays, (t, d))
            if len(self._strays[0]) < STEP:
                return
            self._fresh, self._strays = self._strays, _NONE
            self._t = self._d = np.empty(0)
        margin = self._residual + limits.TOLERANCE_FLOOR_NS / 2  # half the tolerance
        worse = float(away[near].max(initial=0.0)) > margin or len(self._t) < FEW
        span = self._fresh[0][-1] - self._t[-1] if len(self._t) else 0.0
        if worse or span > (REFIT_STEADY_NS if self._drift else REFIT_NS):
            self._fit(*_joined((self._t, self._d), self._fresh))
            self._fresh = _NONE

    def _offset(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        if len(self._knot_t) == 0:
            return np.zeros(len(t))
        line = self._base + self._drift * np.clip(t, *self._reach)
        return line + np.interp(t, self._knot_t, self._knot_d)

    def _fit(self, t: NDArray[np.float64], d: NDArray[np.float64]) -> None:
        """Fit the samples, unless that needs a tolerance beyond all reason."""
        previous = self._base, self._drift, self._reach, self._knot_t, self._knot_d
        held = self._residual * 0.5 ** ((t[-1] - self._t[-1]) / HALF_LIFE_NS) if len(self._t) else 0.0
        t, d = _thinned(t, d)
        lone = self._shape(t, d)
        residual = np.abs(d - self._offset(t))
        limit = max(TRIM * np.quantile(residual, 0.9) + limits.TOLERANCE_FLOOR_NS, held)
        good = residual <= limit
        for part in lone:  # what a clock did in a pause is no outlier
            good[part] |= np.abs(d[part] - np.median(d[part])) <= limit
        if not good.all():
            t, d = t[good], d[good]
            self._shape(t, d)
            residual = np.abs(d - self._offset(t))
        largest = max(float(residual.max()), held)
        if 2 * largest + limits.TOLERANCE_FLOOR_NS > limits.MAX_TOLERANCE_NS:
            self._base, self._drift, self._reach, self._knot_t, self._knot_d = previous
            self.refused += 1
            return
        self._bend = self._knot_t.tolist(), self._knot_d.tolist()
        self._residual, self._oldest = largest, float(t[0])
        self._t, self._d = t[-limits.CLOCK_SAMPLES :], d[-limits.CLOCK_SAMPLES :]

    def _shape(self, t: NDArray[np.float64], d: NDArray[np.float64]) -> list[slice]:
        """The line, and the knots on it; returns the samples at the ends that are too few for a knot of their own."""
        self._base, self._drift = _line(t, d)
        self._reach = 2 * t[0] - t[-1], 2 * t[-1] - t[0]
        rest = d - (self._base + self._drift * t)
        bounds = _trains(t) if self._drift == 0 else [0, len(t)]  # a line goes through pauses, too
        knots = [_knots(t[a:b], rest[a:b]) for a, b in pairwise(bounds)]
        self._knot_t, self._knot_d = np.concatenate(knots, axis=1)
        return [part for part in (slice(bounds[0]), slice(bounds[-1], len(t))) if part.start != part.stop != 0]


def _trains(t: NDArray[np.float64]) -> list[int]:
    """Bounds of stretches of at least FEW samples, cut at long pauses; the few before and behind are in none.

    Few between two pauses go with those that they are nearer to: half old and half new, a stretch hides what is new.
    """
    pauses = [*(np.flatnonzero(np.diff(t) > PAUSE_NS) + 1).tolist(), len(t)]
    first = pauses[0] if pauses[0] < FEW <= len(t) - pauses[0] else 0
    bounds = [first]
    for pause in pauses:
        begun = bounds[-1]
        if pause - begun >= FEW:
            bounds.append(pause)
        elif first < begun and pause < len(t) and t[begun] - t[begun - 1] < t[pause] - t[pause - 1]:
            bounds[-1] = pause
    return bounds if len(bounds) > 1 else [0, len(t)]


def _knots(t: NDArray[np.float64], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times and medians of blocks; an odd rest of samples leads, so that the newest block is whole."""
    odd = len(t) % BLOCK
    knots = np.median(np.stack([t[odd:], rest[odd:]]).reshape(2, -1, BLOCK), axis=2)
    if odd >= FEW or len(t) < BLOCK:
        knots = np.column_stack([np.median([t[:odd], rest[:odd]], axis=1), knots])
    return knots


def _between(at: float, times: list[float], values: list[float]) -> float:
    """The value at one time on the line through the knots; `np.interp` takes longer to begin."""
    i = bisect_right(times, at)
    if i in (0, len(times)):
        return values[min(i, len(times) - 1)]
    steep = (values[i] - values[i - 1]) / (times[i] - times[i - 1])
    return values[i - 1] + steep * (at - times[i - 1])


def _joined(a: Samples, b: Samples) -> Samples:
    return np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])


def _densest(differences: I64) -> int:
    """The middle of the MAX_TOLERANCE_NS that hold the most differences: false pairs lie anywhere."""
    ordered = np.sort(differences)
    inside = np.searchsorted(ordered, ordered + limits.MAX_TOLERANCE_NS, side="right") - np.arange(len(ordered))
    first = int(inside.argmax())
    return int(ordered[first + int(inside[first]) // 2])


def _thinned(t: NDArray[np.float64], d: NDArray[np.float64]) -> Samples:
    """The first sample of each THIN_NS, or of a longer time, when that leaves enough of them."""
    step = THIN_NS
    while len(t) > THIN_LEAVES:
        first = np.ones(len(t), bool)
        first[1:] = np.diff(t // step) > 0
        if np.count_nonzero(first) < THIN_LEAVES:
            break
        t, d = t[first], d[first]
        if len(t) < 4 * THIN_LEAVES:
            break
        step *= 2
    return t, d


def _line(t: NDArray[np.float64], d: NDArray[np.float64]) -> tuple[float, float]:
    """Base and drift of the trimmed straight line; without drift when the samples are few or close together."""
    if len(t) < FEW or t[-1] - t[0] < DRIFT_SPAN_NS:
        return 0.0, 0.0
    good = np.ones(len(t), bool)
    drift = base = 0.0
    for _ in range(3):
        if np.ptp(t[good]) < DRIFT_SPAN_NS:
            return 0.0, 0.0  # the others contradict them
        mean_t, mean_d = t[good].mean(), d[good].mean()
        away = t[good] - mean_t
        drift = float(np.clip((away * (d[good] - mean_d)).sum() / (away * away).sum(), -STEEPEST, STEEPEST))
        base = float(mean_d - drift * mean_t)
        residual = np.abs(d - (base + drift * t))
        good = residual <= TRIM * np.quantile(residual, 0.75)
    return base, drift


def common(hash_a: U64, hash_b: U64) -> tuple[I64, I64]:
    """Indices into both of hashes that are unique in each and in both, ordered by the first.

    Of large windows a sample: all packets of every so many hashes, so that unique stays unique.
    """
    share = max(len(hash_a), len(hash_b)) // limits.CLOCK_SAMPLED
    a, at_a = once(hash_a, share)
    b, at_b = once(hash_b, share)
    if len(a) == 0 or len(b) == 0:
        return at_a[:0], at_b[:0]
    there = np.minimum(np.searchsorted(b, a), len(b) - 1)
    both = np.flatnonzero(b[there] == a)
    left, right = at_a[both], at_b[there[both]]
    order = np.argsort(left)
    return left[order], right[order]


def once(hashes: U64, share: int = 1) -> tuple[U64, I64]:
    """The hashes that occur once, sorted, and where; one hash in `share`."""
    at = np.arange(len(hashes))
    if share > 1:
        at = np.flatnonzero((hashes * MIX) >> np.uint64(32) < np.uint64(2**32 // share))
        hashes = hashes[at]
    order = np.argsort(hashes)
    values = hashes[order]
    differ = values[1:] != values[:-1]
    alone = np.ones(len(values), bool)
    alone[1:] &= differ
    alone[:-1] &= differ
    return values[alone], at[order[alone]]

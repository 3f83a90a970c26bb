"""Clocks: what to add to a member's capture times to get the reference member's.

Theory of operation

Packets that two captures share measure the difference of their clocks, jitter included.  Only
packets whose hash is unique in both windows train a clock: a packet that one member alone has, or a
flood of equal packets, says nothing about it.

The fit is a running median: samples (member's time, difference) in capture order are cut into
blocks, the median of each block is a knot, and the offset is the line through the knots.  Blocks
follow drift and temperature without a model; beyond the last knot the slope of the knots carries on.
A false pair (a repeat of which each member caught another copy) is an outlier and is trimmed.
The tolerance, how far the corrected times of one packet may lie apart, is twice the largest
residual that is left plus a floor; it is wider while samples are few and grows with the time since
the last one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ftnids import limits
from ftnids.sync.messages import I64, U64

BLOCK = 63  # samples of one knot
KEPT = 1_024  # samples kept between fits
FEW = 16  # fewer samples than that make no good fit
TRIM = 6  # a residual of so many median residuals is no sample of this clock
GATE = 4  # a sample so many tolerances away is not believed at once
WANDER_PPM = 50  # by which an unobserved clock may wander
SLOPE_RUN_NS = 1_000_000_000  # the halves of the knots must lie so far apart for their slope to count
MAX_SLOPE = 500e-6


class Clock:
    """One member's clock against the reference's.  All times are int64 ns."""

    def __init__(self, offset_ns: int = 0, tolerance_ns: int = limits.MAX_TOLERANCE_NS, *, seeded: bool = False) -> None:
        self._seed = offset_ns
        self._seed_tolerance = tolerance_ns
        self._seeded = seeded
        self._origin = 0  # times are kept relative to it, so that floats hold them exactly
        self._t: NDArray[np.float64] = np.empty(0)
        self._d: NDArray[np.float64] = np.empty(0)
        self._knot_t: NDArray[np.float64] = np.empty(0)
        self._knot_d: NDArray[np.float64] = np.empty(0)
        self._slope = 0.0  # beyond the knots, as far as they themselves reach
        self._reach = 0.0
        self._residual = 0.0
        self.refused = 0  # fits wider than MAX_TOLERANCE_NS

    def set_offset(self, offset_ns: int, tolerance_ns: int) -> None:
        """Start afresh from what others measured: messages' round trips, or a join."""
        self.__init__(offset_ns, min(tolerance_ns, limits.MAX_TOLERANCE_NS), seeded=True)  # type: ignore[misc]

    @property
    def known(self) -> bool:
        """Whether the offset has been seeded or learnt."""
        return self._seeded or len(self._knot_t) > 0

    def offset_ns(self, time_ns: int | None = None) -> int:
        """What to add to the member's `time_ns` (default: at the last sample)."""
        if len(self._knot_t) == 0:
            return self._seed
        at = self._t[-1] if time_ns is None else float(time_ns - self._origin)
        return round(float(self._offset(np.array([at]))[0])) + self._seed

    def correct(self, times: I64) -> I64:
        """`times` of the member on the reference's clock, never decreasing."""
        if len(self._knot_t) == 0 or len(times) == 0:
            return times + self._seed
        offset = np.rint(self._offset((times - self._origin).astype(np.float64))).astype(np.int64)
        return np.maximum.accumulate(times + offset + self._seed)

    def raw(self, time_ns: int) -> int:
        """The member's time for the reference's `time_ns`."""
        return time_ns - self.offset_ns(time_ns - self._seed)

    def tolerance_ns(self, time_ns: int | None = None) -> int:
        """How far the member's corrected time may err at its own `time_ns` (default: at the last sample)."""
        if len(self._t) == 0:
            return self._seed_tolerance
        tolerance = 2 * self._residual + limits.TOLERANCE_FLOOR_NS
        if len(self._t) < FEW:
            tolerance = max(tolerance, min(self._seed_tolerance, limits.START_TOLERANCE_NS))
        if time_ns is not None:
            tolerance += max(0.0, time_ns - self._origin - self._t[-1]) * WANDER_PPM * 1e-6
        return min(round(tolerance), limits.MAX_TOLERANCE_NS)

    def learn(self, member_ns: I64, reference_ns: I64) -> None:
        """Take in the times of packets that both captured, in capture order; those known before are ignored."""
        if len(self._t):
            new = member_ns > self._origin + int(self._t[-1])
            member_ns, reference_ns = member_ns[new], reference_ns[new]
        if len(member_ns) == 0:
            return
        if len(self._t) == 0 and not self._seeded:
            # all is kept relative to the first guess: a float64 holds 2**53 ns exactly
            self._seed = int(np.median(reference_ns - member_ns))
        if len(self._t) == 0:
            self._origin = int(member_ns[0])
        t = (member_ns - self._origin).astype(np.float64)
        d = (reference_ns - member_ns - self._seed).astype(np.float64)
        if self.known:
            near = np.abs(d - self._offset(t)) <= GATE * self.tolerance_ns(int(member_ns[-1]))
            if near.any() or len(d) < BLOCK:
                t, d = t[near], d[near]
            else:  # a whole block elsewhere: the clock has stepped
                self._t = self._d = np.empty(0)
        if len(t):
            self._fit(np.concatenate([self._t, t]), np.concatenate([self._d, d]))

    def _offset(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        if len(self._knot_t) == 0:
            return np.zeros(len(t))
        first, last = self._knot_t[0], self._knot_t[-1]
        beyond = np.clip(t - last, 0.0, self._reach) + np.clip(t - first, -self._reach, 0.0)
        return np.interp(t, self._knot_t, self._knot_d) + self._slope * beyond

    def _fit(self, t: NDArray[np.float64], d: NDArray[np.float64]) -> None:
        previous = self._knot_t, self._knot_d, self._slope, self._reach
        self._knots(t, d)
        residual = np.abs(d - self._offset(t))
        good = residual <= TRIM * np.median(residual) + limits.TOLERANCE_FLOOR_NS
        if not good.all():
            t, d = t[good], d[good]
            self._knots(t, d)
            residual = np.abs(d - self._offset(t))
        largest = float(residual.max())
        if 2 * largest + limits.TOLERANCE_FLOOR_NS > limits.MAX_TOLERANCE_NS:
            self._knot_t, self._knot_d, self._slope, self._reach = previous
            self.refused += 1
            return
        self._residual = largest
        self._t, self._d = t[-KEPT:], d[-KEPT:]

    def _knots(self, t: NDArray[np.float64], d: NDArray[np.float64]) -> None:
        """Medians of blocks; the odd rest leads, so that the newest block is whole."""
        first = len(t) % BLOCK if len(t) >= BLOCK else len(t)
        knot_t = [] if first < FEW and len(t) >= BLOCK else [np.array([np.median(t[:first])])]
        knot_d = [] if not knot_t else [np.array([np.median(d[:first])])]
        blocks = (len(t) - first) // BLOCK
        knot_t.append(np.median(t[first:].reshape(blocks, BLOCK), axis=1) if blocks else np.empty(0))
        knot_d.append(np.median(d[first:].reshape(blocks, BLOCK), axis=1) if blocks else np.empty(0))
        self._knot_t, self._knot_d = np.concatenate(knot_t), np.concatenate(knot_d)
        half = len(self._knot_t) // 2
        run = np.median(self._knot_t[half:]) - np.median(self._knot_t[:half]) if half else 0.0
        self._slope, self._reach = 0.0, 0.0
        if run >= SLOPE_RUN_NS:
            rise = np.median(self._knot_d[half:]) - np.median(self._knot_d[:half])
            self._slope, self._reach = float(np.clip(rise / run, -MAX_SLOPE, MAX_SLOPE)), float(run)


def common(hash_a: U64, hash_b: U64) -> tuple[I64, I64]:
    """Indices into both of the hashes that are unique in each and in both, ordered by the first."""
    a, at_a, count_a = np.unique(hash_a, return_index=True, return_counts=True)
    b, at_b, count_b = np.unique(hash_b, return_index=True, return_counts=True)
    a, at_a = a[count_a == 1], at_a[count_a == 1]
    b, at_b = b[count_b == 1], at_b[count_b == 1]
    _, in_a, in_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    left, right = at_a[in_a].astype(np.int64), at_b[in_b].astype(np.int64)
    order = np.argsort(left)
    return left[order], right[order]

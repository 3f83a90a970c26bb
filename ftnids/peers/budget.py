"""A budget that fills up again with time: what may happen so often, and somewhat more often for a moment."""

from __future__ import annotations


class Budget:
    """A token bucket: `burst` at once, `rate` a second in the long run."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = float(burst), 0.0

    def take(self, now_s: float) -> bool:
        """Use one up at the time `now_s` (seconds, never decreasing); False when there is none."""
        self._left = min(self._burst, self._left + (now_s - self._at) * self._rate)
        self._at = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True

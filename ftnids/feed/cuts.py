"""Where the log of an IDS was cut, for who reads ahead in it: one thread cuts, another one reads."""

from __future__ import annotations

import threading


class Cuts:
    """The cuts of one log.  `add` comes before the cut: what is read between two equal `count`s is of one piece."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._lowest: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        """Cuts so far."""
        return self._count

    def add(self, size: int, wrong: int) -> None:
        """The log is about to be cut to `size` bytes, because seq `wrong` was another packet, if not an earlier one."""
        with self._lock:
            self._count += 1
            before = self._lowest or (size, wrong)
            self._lowest = min(before[0], size), min(before[1], wrong)

    def take(self) -> tuple[int, int] | None:
        """Of the cuts since the last call: the lowest size, and the lowest seq; None without any."""
        with self._lock:
            lowest, self._lowest = self._lowest, None
        return lowest

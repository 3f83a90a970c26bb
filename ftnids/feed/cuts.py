"""Where the log of an IDS was cut, for who reads ahead in it: one thread cuts, another one reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Cuts:
    """The cuts of one log.  What is read between two equal `count`s is of one piece, unless they are odd."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._lowest: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        """Twice the cuts so far, and one more while there is one."""
        return self._count

    @contextmanager
    def cut(self, size: int, wrong: int) -> Iterator[None]:
        """In this block the log is cut to `size` bytes, because seq `wrong`, or an earlier one, was another packet."""
        with self._lock:
            self._count += 1
            before = self._lowest or (size, wrong)
            self._lowest = min(before[0], size), min(before[1], wrong)
        try:
            yield
        finally:
            self._count += 1

    def take(self) -> tuple[int, int] | None:
        """Of the cuts since the last call: the lowest size, and the lowest seq; None without any."""
        with self._lock:
            lowest, self._lowest = self._lowest, None
        return lowest

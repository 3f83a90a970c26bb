"""Sliding windows over the agreed stream and over a capture stream, as numpy arrays.

Both windows grow at the end and are cut at the front; memory is bounded by what the caller lets
in (flow control is the caller's).  No Python per packet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ftnids.sync.messages import I64, U8, U32, U64

ABSENT = -1  # slot reference: the bytes are not here yet
VOID = -2  # slot reference: nobody has the bytes any more


class _Column:
    """One growable array that starts at a moving base."""

    def __init__(self, dtype: type) -> None:
        self._data: NDArray[np.generic] = np.empty(1024, dtype)
        self._from = 0
        self._to = 0

    def __len__(self) -> int:
        return self._to - self._from

    @property
    def view(self) -> NDArray[np.generic]:
        """The live elements; writing to them writes to the column."""
        return self._data[self._from : self._to]

    def extend(self, values: NDArray[np.generic]) -> None:
        """Append `values`, moving or growing the storage when the end is reached."""
        count = len(self) + len(values)
        if self._to + len(values) > len(self._data):
            size = len(self._data)
            while size < 2 * count:
                size *= 2
            data = np.empty(size, self._data.dtype)
            data[: len(self)] = self.view
            self._data, self._from, self._to = data, 0, len(self)
        self._data[self._to : self._to + len(values)] = values
        self._to += len(values)

    def cut(self, count: int) -> None:
        """Drop the first `count` elements."""
        self._from += min(count, len(self))


class SeqWindow:
    """The decided packets [base, end) of the agreed stream, a column for each of their facts."""

    def __init__(self, base: int) -> None:
        self.base = base
        self._refs = _Column(np.int64)
        self._time = _Column(np.int64)
        self._flags = _Column(np.uint8)
        self._holders = _Column(np.uint32)
        self._hash = _Column(np.uint64)

    @property
    def end(self) -> int:
        """One more than the last decided seq."""
        return self.base + len(self._refs)

    def append(self, refs: I64, time_us: I64, flags: U8, holders: U32, hashes: U64) -> None:
        """Append decided packets; `refs` is ABSENT where the bytes are not here yet."""
        for column, values in (
            (self._refs, refs),
            (self._time, time_us),
            (self._flags, flags),
            (self._holders, holders),
            (self._hash, hashes),
        ):
            column.extend(values)

    def cut(self, seq: int) -> None:
        """Forget everything below `seq`."""
        count = min(seq, self.end) - self.base
        if count > 0:
            for column in (self._refs, self._time, self._flags, self._holders, self._hash):
                column.cut(count)
            self.base += count

    def refs(self, first: int, last: int) -> I64:
        """Slot references of seqs [first, last), int64; writable."""
        return self._refs.view[first - self.base : last - self.base]  # type: ignore[return-value]

    def times(self, first: int, last: int) -> I64:
        """Agreed times in us."""
        return self._time.view[first - self.base : last - self.base]  # type: ignore[return-value]

    def flags(self, first: int, last: int) -> U8:
        """Flag bits."""
        return self._flags.view[first - self.base : last - self.base]  # type: ignore[return-value]

    def holders(self, first: int, last: int) -> U32:
        """Bit masks of the members that captured the packet."""
        return self._holders.view[first - self.base : last - self.base]  # type: ignore[return-value]

    def hashes(self, first: int, last: int) -> U64:
        """Packet hashes; only meaningful where not all members hold the packet."""
        return self._hash.view[first - self.base : last - self.base]  # type: ignore[return-value]

    def first_absent(self, first: int) -> int:
        """The lowest seq >= `first` whose bytes are not here, or `end`."""
        step = 4096
        at = first
        while at < self.end:
            absent = self.refs(at, min(at + step, self.end)) == ABSENT
            if absent.any():
                return at + int(absent.argmax())
            at += len(absent)
            step *= 4
        return self.end

    def absent(self, first: int, limit: int) -> I64:
        """At most `limit` seqs >= `first` whose bytes are not here."""
        return np.flatnonzero(self.refs(first, self.end) == ABSENT)[:limit] + first


class ConsumedWindow:
    """Which positions of one capture stream decisions have consumed; packets may be consumed out of order."""

    def __init__(self, base: int) -> None:
        self.base = base  # all below are consumed
        self._done = np.zeros(1024, bool)

    def mark(self, positions: I64) -> None:
        """Mark `positions` (any order) and move `base` over the consumed prefix."""
        fresh = positions[positions >= self.base]
        if len(fresh) == 0:
            return
        last = int(fresh.max()) + 1
        if last - self.base == len(fresh) and not self._done.any():
            self.base = last  # the normal case: the next packets, without a hole
            return
        self._grow(last - self.base)
        self._done[fresh - self.base] = True
        run = len(self._done) if self._done.all() else int(self._done.argmin())
        if run:
            self._done = np.concatenate([self._done[run:], np.zeros(min(run, 1024), bool)])
            self.base += run

    def holes(self) -> I64:
        """Positions above `base` that are consumed, too."""
        return np.flatnonzero(self._done) + self.base

    def _grow(self, size: int) -> None:
        if size > len(self._done):
            self._done = np.concatenate([self._done, np.zeros(max(size - len(self._done), len(self._done)), bool)])

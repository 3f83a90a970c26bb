"""A capture stream in memory, for the tests of the protocol."""

import numpy as np

from ftnids.sync.messages import I64, U64


class MemoryStream:
    """A `Stream` whose packets a test appends."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.uint64)
        self._times = np.empty(0, np.int64)
        self.tail = 0
        self.watermark_ns = 0

    def put(self, hashes: list[int] | U64, times: list[int] | I64) -> None:
        self._hashes = np.concatenate([self._hashes, np.asarray(hashes, np.uint64)])
        self._times = np.concatenate([self._times, np.asarray(times, np.int64)])
        self.watermark_ns = max(self.watermark_ns, int(self._times[-1]))

    @property
    def head(self) -> int:
        return len(self._hashes)

    def hashes(self, first: int, last: int) -> U64:
        return self._hashes[first:last]

    def times(self, first: int, last: int) -> I64:
        return self._times[first:last]

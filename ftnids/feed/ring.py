"""What a feed needs of the ring (`ftnids.core.Ring` is one)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ftnids.core import RECOVERED, PacketBatch


class AgreedRing(Protocol):
    """The reading side of the agreed index; see docs/architecture.md."""

    fed: int

    @property
    def linktype(self) -> int: ...
    @property
    def snaplen(self) -> int: ...
    @property
    def agreed(self) -> int: ...
    @property
    def stable(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    def wait_stable(self, seq: int, timeout_s: float) -> int: ...
    def export_pcap(self, fd: int, first_seq: int, last_seq: int) -> int: ...
    def hashes(self, first: int, last: int) -> NDArray[np.uint64]: ...
    def gather(self, refs: NDArray[np.int64]) -> PacketBatch: ...
    def agreed_entries(
        self, first_seq: int, last_seq: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]: ...


def agreed_hashes(ring: AgreedRing, refs: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The packet hashes, uint64[n], behind the slot references int64[n] of stable packets; 0 where void."""
    hashes = np.zeros(len(refs), np.uint64)
    recovered = refs >= RECOVERED
    captured = (refs >= 0) & ~recovered
    if captured.any():
        positions = refs[captured]
        first, last = int(positions.min()), int(positions.max()) + 1
        hashes[captured] = ring.hashes(first, last)[positions - first]
    if recovered.any():
        hashes[recovered] = ring.gather(refs[recovered]).hash
    return hashes

"""Packets by value, slot references, and the header of a capture file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

RECOVERED: Final = 1 << 62  # in a slot reference: a recovered packet's number, not a position
VOID: Final = 8  # flag of an agreed packet that nobody has; `ftnids.sync.messages.Flag.VOID`
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class PacketBatch:
    """n packets by value, for BYTES messages."""

    hash: NDArray[np.uint64]  # [n]
    caplen: NDArray[np.uint32]  # [n] bytes of each frame in `data`
    wirelen: NDArray[np.uint32]  # [n] bytes of each frame on the link
    data: bytes  # the frames, back to back

    def select(self, wanted: NDArray[np.bool_]) -> PacketBatch:
        """The packets that `wanted` ([n]) marks."""
        if wanted.all():
            return self
        frames = np.frombuffer(self.data, np.uint8)[np.repeat(wanted, self.caplen)]
        return PacketBatch(self.hash[wanted], self.caplen[wanted], self.wirelen[wanted], frames.tobytes())

    def parts(self, most_bytes: int) -> Iterator[tuple[slice, PacketBatch]]:
        """The batch in order as smaller ones of at most `most_bytes` of frames (or one packet), and which these are."""
        ends = np.cumsum(self.caplen.astype(np.int64))
        first = 0
        while first < len(ends):
            base = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, base + most_bytes, side="right")), first + 1)
            part, data = slice(first, last), self.data[base : int(ends[last - 1])]
            yield part, PacketBatch(self.hash[part], self.caplen[part], self.wirelen[part], data)
            first = last


def splitmix64(value: int) -> int:
    """The finaliser of splitmix64 applied to `value` + the golden gamma, modulo 2**64."""
    z = (value + 0x9E3779B97F4A7C15) & _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return z ^ z >> 31


def pcap_header(linktype: int, snaplen: int) -> bytes:
    """The file header of a classic microsecond capture file, in this machine's byte order (24 bytes)."""
    return struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snaplen, linktype)

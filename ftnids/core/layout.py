"""The shared segment's layout, as `ring.h` lays it down: made and checked here for both implementations.

`ring.h` is where it is explained.  A ring is formatted by this module; the C core and the DAQ module check it with
`ftn_ring_check`, the pure-Python core with `Description.check`.  A test attaches each to what the other wrote.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import astuple, dataclass, replace
from typing import Final

from ftnids import limits

MAGIC: Final = int.from_bytes(b"FTNIRING", "little")
READER_MAGIC: Final = int.from_bytes(b"FTNIREAD", "little")  # of what `reader.h` lays out
VERSION: Final = 1
HEADER_BYTES: Final = 4096
PAGE: Final = 4096
ALIGN: Final = 8
FORMAT: Final = struct.Struct("<QIIQQII20QQ")  # of the description

# Byte offsets of the counters in the header; 64 bits each, but `ENDED` and `WAKE` have 32.
CAPTURED: Final = 512
RECOVERED: Final = 640
HEAD, NEXT, DROPPED, REJECTED, TAIL = 0, 8, 16, 24, 64  # within a store's counters
WATERMARK: Final = 768
AGREED, STABLE, ENDED, WAKE, SPECULATIVE, EPOCH = 832, 840, 848, 852, 856, 864
FED: Final = 896

MISSING: Final = errno.EBADMSG  # from `export_pcap`: an agreed entry names no packet


@dataclass(frozen=True)
class StorePlace:
    """Where one store lies: entries (a power of two), arena bytes, then offsets from the segment's start."""

    slots: int
    arena: int
    hash: int = 0
    time: int = 0
    at: int = 0
    caplen: int = 0
    wirelen: int = 0
    frames: int = 0


@dataclass(frozen=True)
class Description:
    """What a segment is.  Offsets and sizes in bytes; `place` computes them from the sizes."""

    linktype: int
    snaplen: int
    seed: int
    captured: StorePlace
    recovered: StorePlace
    agreed_slots: int
    agreed_ref: int = 0
    agreed_time: int = 0
    agreed_flags: int = 0
    total_bytes: int = 0
    magic: int = MAGIC
    version: int = VERSION
    header_bytes: int = HEADER_BYTES
    checksum: int = 0

    def place(self) -> Description:
        """The same sizes with every offset, the total and the checksum computed."""
        end = HEADER_BYTES

        def take(count: int, size: int) -> int:
            nonlocal end
            start, end = end, round_up(end + count * size, PAGE)
            return start

        def place_store(store: StorePlace) -> StorePlace:
            columns = [take(store.slots, size) for size in (8, 8, 8, 4, 4)]
            return StorePlace(*(store.slots, store.arena, *columns, take(store.arena, 1)))

        captured, recovered = place_store(self.captured), place_store(self.recovered)
        index = [take(self.agreed_slots, size) for size in (8, 8, 1)]
        placed = replace(
            self,
            captured=captured,
            recovered=recovered,
            agreed_ref=index[0],
            agreed_time=index[1],
            agreed_flags=index[2],
            total_bytes=end,
        )
        return replace(placed, checksum=fnv1a(placed.pack()[:-8]))

    def pack(self) -> bytes:
        """The description as it stands in the header."""
        index = (self.agreed_slots, self.agreed_ref, self.agreed_time, self.agreed_flags)
        places = (*astuple(self.captured), *astuple(self.recovered), *index)
        what = (self.magic, self.version, self.header_bytes, self.total_bytes, self.seed, self.linktype, self.snaplen)
        return FORMAT.pack(*what, *places, self.checksum)

    @classmethod
    def unpack(cls, header: bytes) -> Description:
        """The description at the start of a header, unchecked."""
        magic, version, header_bytes, total, seed, linktype, snaplen, *places, checksum = FORMAT.unpack_from(header)
        stores = StorePlace(*places[:8]), StorePlace(*places[8:16])
        return cls(*(linktype, snaplen, seed, *stores, *places[16:], total, magic, version, header_bytes, checksum))

    def check(self, mapped: int) -> str:
        """What is wrong with it, given the mapped length; empty if nothing.  The same words as `ftn_ring_check`."""
        slots = (self.captured.slots, self.recovered.slots, self.agreed_slots)
        arenas = (self.captured.arena, self.recovered.arena)
        faults = (
            (self.magic != MAGIC, "not an ftnids ring (magic number)"),
            (self.version != VERSION, "made by another version of ftnids"),
            (self.header_bytes != HEADER_BYTES, "wrong header size"),
            (self.checksum != fnv1a(self.pack()[:-8]), "damaged header (checksum)"),
            (not 0 < self.snaplen <= limits.MAX_SNAPLEN, "snaplen out of range"),
            (not all(map(_is_count, slots)), "number of slots out of range"),
            (not all(_is_arena(arena, self.snaplen) for arena in arenas), "arena size out of range"),
        )
        for found, fault in faults:
            if found:
                return fault
        if self.place() != self:
            return "offsets do not follow from the sizes"
        return "truncated" if self.total_bytes > mapped else ""


def _is_count(slots: int) -> bool:
    return 0 < slots <= limits.MAX_RING_SLOTS and slots & (slots - 1) == 0


def _is_arena(size: int, snaplen: int) -> bool:
    return size <= limits.MAX_ARENA_BYTES and size % PAGE == 0 and size >= 2 * snaplen + ALIGN


def round_up(value: int, multiple: int) -> int:
    """The least multiple that is not below `value`."""
    return -(-value // multiple) * multiple


def power_of_two(value: int) -> int:
    """The least power of two that is not below `value`."""
    return 1 << max(value - 1, 0).bit_length()


def fnv1a(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value

"""One mapped ring in pure Python: `ring.h`, `segment.c` and `export.c` over memoryviews of the same segment."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import select
import struct
import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ftnids.core import layout
from ftnids.core.packets import RECOVERED, VOID, PacketBatch
from ftnids.core.pure.hashing import hash_frame
from ftnids.errors import RingError

MISMATCH, NO_ROOM = -1, -2
RECORD: Final = struct.Struct("=IIII")
RECORDS: Final = 512  # packets in one write
POLL_S: Final = 0.0005  # between two looks at `stable`
FUTEX_WAKE: Final = 1
SYS_FUTEX: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98}


class Store:
    """Captured or recovered packets: an index of arrays over an arena."""

    def __init__(self, memory: memoryview, place: layout.StorePlace, counters: int) -> None:
        self.slots, self.arena = place.slots, place.arena
        self.count = memory[counters : counters + 128].cast("Q")
        self.hash = memory[place.hash : place.hash + 8 * place.slots].cast("Q")
        self.time = memory[place.time : place.time + 8 * place.slots].cast("q")
        self.at = memory[place.at : place.at + 8 * place.slots].cast("Q")
        self.caplen = memory[place.caplen : place.caplen + 4 * place.slots].cast("I")
        self.wirelen = memory[place.wirelen : place.wirelen + 4 * place.slots].cast("I")
        self.frames = memory[place.frames : place.frames + place.arena]

    @property
    def head(self) -> int:
        return self.count[layout.HEAD // 8]

    @property
    def tail(self) -> int:
        return self.count[layout.TAIL // 8]

    def add(self, counter: int) -> None:
        """One more of what a counter counts."""
        self.count[counter // 8] += 1

    def frame(self, number: int) -> tuple[bytes, int] | None:
        """(bytes, wire length) of a packet, None if it is not there or its entry points outside the arena."""
        if not self.tail <= number < self.head:
            return None
        slot = number % self.slots
        at, caplen = self.at[slot], self.caplen[slot]
        return (bytes(self.frames[at : at + caplen]), self.wirelen[slot]) if at + caplen <= self.arena else None

    def reserve(self, size: int) -> int | None:
        """Where `size` bytes go in the arena, None if there is no room now."""
        head, tail, next_ = self.head, self.tail, self.count[layout.NEXT // 8]
        before_end = next_ + size <= self.arena
        if head == tail:
            return next_ if before_end else 0
        if head - tail >= self.slots:
            return None
        oldest = self.at[tail % self.slots]
        if next_ > oldest and before_end:
            return next_
        start = 0 if next_ > oldest else next_
        return start if start + size <= oldest else None

    def fuller_than(self, parts: int) -> bool:
        """Whether more than one part in `parts` of the slots or of the arena is taken."""
        head, tail, next_ = self.head, self.tail, self.count[layout.NEXT // 8]
        if head == tail or head - tail > self.slots // parts:
            return head != tail
        oldest = self.at[tail % self.slots]
        return (next_ - oldest if next_ > oldest else self.arena - oldest + next_) > self.arena // parts

    def put(self, frame: bytes, wirelen: int, hash_: int, time_ns: int) -> int | None:
        """Store and publish one packet; its number, None if there is no room."""
        size = layout.round_up(max(len(frame), 1), layout.ALIGN)
        at = self.reserve(size)
        if at is None:
            return None
        head = self.head
        slot = head % self.slots
        self.frames[at : at + len(frame)] = frame
        self.hash[slot], self.time[slot], self.at[slot] = hash_, time_ns, at
        self.caplen[slot], self.wirelen[slot] = len(frame), wirelen
        self.count[layout.NEXT // 8] = at + size
        self.count[layout.HEAD // 8] = head + 1
        return head


def _counter(offset: int, *, settable: bool = False) -> property:
    def get(self: Handle) -> int:
        return self.header[offset // 8]

    def put(self: Handle, value: int) -> None:
        self.check_writable()
        self.header[offset // 8] = value

    return property(get, put if settable else None)


class Handle:
    """One mapped ring.  RingError with the reason when `memory` is no sound ring."""

    def __init__(self, memory: mmap.mmap, writable: bool) -> None:
        self.description = layout.Description.unpack(memory[: layout.HEADER_BYTES])
        if fault := self.description.check(len(memory)):
            raise RingError(fault)
        self.writable = writable
        whole = memoryview(memory)
        is_ = self.description
        self.header = whole[: layout.HEADER_BYTES].cast("Q")
        self.words = whole[: layout.HEADER_BYTES].cast("I")
        self.signed = whole[: layout.HEADER_BYTES].cast("q")
        self.captured = Store(whole, is_.captured, layout.CAPTURED)
        self.recovered = Store(whole, is_.recovered, layout.RECOVERED)
        self.agreed_ref = whole[is_.agreed_ref : is_.agreed_ref + 8 * is_.agreed_slots].cast("q")
        self.agreed_time = whole[is_.agreed_time : is_.agreed_time + 8 * is_.agreed_slots].cast("Q")
        self.agreed_flags = whole[is_.agreed_flags : is_.agreed_flags + is_.agreed_slots]
        self._futex = ctypes.c_uint32.from_buffer(memory, layout.WAKE) if writable else None

    head = _counter(layout.CAPTURED + layout.HEAD)
    tail = _counter(layout.CAPTURED + layout.TAIL, settable=True)
    ring_drops = _counter(layout.CAPTURED + layout.DROPPED)
    recovered_head = _counter(layout.RECOVERED + layout.HEAD)
    recovered_tail = _counter(layout.RECOVERED + layout.TAIL, settable=True)
    recovered_rejected = _counter(layout.RECOVERED + layout.REJECTED)
    recovered_no_room = _counter(layout.RECOVERED + layout.DROPPED)
    agreed = _counter(layout.AGREED, settable=True)
    fed = _counter(layout.FED, settable=True)

    def check_writable(self) -> None:
        """RingError unless this mapping may be written to."""
        if not self.writable:
            raise RingError("attached read-only")

    @property
    def watermark_ns(self) -> int:
        return self.signed[layout.WATERMARK // 8]

    def raise_watermark(self, ns: int) -> None:
        """Everything up to `ns` is published."""
        if ns > self.watermark_ns:
            self.signed[layout.WATERMARK // 8] = ns

    @property
    def stable(self) -> int:
        return self.header[layout.STABLE // 8]

    @stable.setter
    def stable(self, seq: int) -> None:
        self.check_writable()
        self.header[layout.STABLE // 8] = seq
        self.wake()

    @property
    def ended(self) -> bool:
        return self.words[layout.ENDED // 4] != 0

    def set_end(self) -> None:
        """The stream ends at `agreed`; wakes the readers."""
        self.check_writable()
        self.words[layout.ENDED // 4] = 1
        self.wake()

    @property
    def speculative(self) -> int:
        return self.header[layout.SPECULATIVE // 8]

    @speculative.setter
    def speculative(self, seq: int) -> None:
        self.check_writable()
        self.header[layout.SPECULATIVE // 8] = seq
        self.wake()

    @property
    def epoch(self) -> int:
        return self.header[layout.EPOCH // 8]

    def retract(self, seq: int) -> None:
        """Entries from `seq` on were wrong: a new epoch, before any of them is written over."""
        self.check_writable()
        self.header[layout.EPOCH // 8] += 1
        self.speculative = seq  # wakes, which is a barrier

    def wake(self) -> None:
        """Wake the readers."""
        self.words[layout.WAKE // 4] = (self.words[layout.WAKE // 4] + 1) & 0xFFFFFFFF
        if self._futex is not None and (number := SYS_FUTEX.get(platform.machine())):
            ctypes.CDLL(None).syscall(number, ctypes.byref(self._futex), FUTEX_WAKE, 0x7FFFFFFF, None, None, 0)

    def wait_stable(self, seq: int, timeout_ns: int) -> int:
        """Wait until `seq` is stable, the stream has ended, or the time is over; returns `stable`."""
        self.wait_news(seq, 1 << 63, timeout_ns)
        return self.stable

    def wait_news(self, seq: int, ahead: int, timeout_ns: int) -> None:
        """The same, or until `ahead` may be read ahead."""
        deadline = time.monotonic_ns() + timeout_ns
        while self.stable <= seq and self.speculative <= ahead and not (self.ended and self.stable == self.agreed):
            left = deadline - time.monotonic_ns()
            if left <= 0:
                break
            time.sleep(min(left / 1e9, POLL_S))

    def store_of(self, ref: int) -> tuple[Store, int]:
        """The store that a slot reference points into, and the packet's number there."""
        return (self.recovered, ref & ~RECOVERED) if ref & RECOVERED else (self.captured, ref)

    def frame(self, ref: int) -> tuple[bytes, int] | None:
        """(bytes, wire length) of the packet that a slot reference names, None if there is none."""
        if ref < 0:
            return None
        store, number = self.store_of(ref)
        return store.frame(number)

    def gather(self, refs: NDArray[np.int64]) -> PacketBatch:
        """Copies of packets.  IndexError with the index of the first reference, of int64[n], that names none."""
        hashes, frames, wirelens = [], [], []
        for index, ref in enumerate(refs.tolist()):
            found = self.frame(ref)
            if found is None:
                raise IndexError(index)
            store, number = self.store_of(ref)
            hashes.append(store.hash[number % store.slots])
            frames.append(found[0])
            wirelens.append(found[1])
        caplens = np.fromiter(map(len, frames), np.uint32, len(frames))
        return PacketBatch(np.array(hashes, np.uint64), caplens, np.array(wirelens, np.uint32), b"".join(frames))

    def store_recovered(
        self, hash: NDArray[np.uint64], caplen: NDArray[np.uint32], wirelen: NDArray[np.uint32], data: bytes
    ) -> NDArray[np.int64]:
        """Store a batch after hashing it again; int64[n] of slot references, MISMATCH, NO_ROOM."""
        self.check_writable()
        refs = np.full(len(hash), MISMATCH, np.int64)
        sound = int(caplen.sum(dtype=np.uint64)) == len(data)
        start = 0
        for index, (claimed, size, length) in enumerate(
            zip(hash.tolist(), caplen.tolist(), wirelen.tolist(), strict=True)
        ):
            frame = data[start : start + size]
            start += size
            fits = sound and size <= self.description.snaplen and size <= length
            if fits and hash_frame(frame, self.description.seed, length) == claimed:
                number = self.recovered.put(frame, length, claimed, 0)
                refs[index] = NO_ROOM if number is None else RECOVERED | number
                if number is None:
                    self.recovered.add(layout.DROPPED)
            else:
                self.recovered.add(layout.REJECTED)
        return refs

    def export_pcap(self, fd: int, first: int, last: int) -> tuple[int, int]:
        """Write agreed packets [first, last) as pcap records; (seq after the last one written, errno or 0)."""
        damaged = last - first > self.description.agreed_slots  # the index never held them all
        seq, error = first, layout.MISSING if damaged else 0
        while seq < last and not error:
            records, seq_after, missing = self._records(seq, last)
            written, error = _write_records(fd, [record for _, record in records])
            if written < len(records):
                return records[written][0], error
            seq, error = seq_after, error or missing
        return seq, error

    def _records(self, first: int, last: int) -> tuple[list[tuple[int, bytes]], int, int]:
        """(seq, pcap record) of the next packets that are not void, the seq after them, MISSING if one is not there."""
        records: list[tuple[int, bytes]] = []
        for seq in range(first, last):
            slot = seq % self.description.agreed_slots
            if self.agreed_flags[slot] & VOID:
                continue
            found = self.frame(self.agreed_ref[slot])
            if found is None:
                return records, seq, layout.MISSING
            seconds, microseconds = divmod(self.agreed_time[slot], 1_000_000)
            head = RECORD.pack(seconds & 0xFFFFFFFF, microseconds, len(found[0]), found[1])
            records.append((seq, head + found[0]))
            if len(records) == RECORDS:
                return records, seq + 1, 0
        return records, last, 0


def _write_records(fd: int, records: list[bytes]) -> tuple[int, int]:
    """Write records whole; (how many were, errno).  A full non-blocking descriptor ends it between two records."""
    ends = np.cumsum([len(record) for record in records]).tolist()
    data, written = memoryview(b"".join(records)), 0
    while written < len(data):
        try:
            written += os.write(fd, data[written:])
        except BlockingIOError:
            if written == 0 or written in ends:
                return int(np.searchsorted(ends, written, side="right")), 0
            with contextlib.suppress(InterruptedError):
                select.select([], [fd], [], 0.1)
        except OSError as error:
            return int(np.searchsorted(ends, written, side="right")), error.errno or 0
    return len(records), 0

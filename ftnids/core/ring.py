"""The ring as the rooms see it: arguments checked, arrays handed out, errors in words.

`ring.h` holds the theory.  Everything that is done packet by packet is behind `Handle`, in C or in pure Python;
here is what both share.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar, Final, NoReturn, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ftnids import limits
from ftnids.core import layout, segment
from ftnids.core.native import Handle, Implementation
from ftnids.core.packets import PacketBatch
from ftnids.errors import RingError

T = TypeVar("T", bound=np.generic)
WAIT_SLICE_S: Final = 0.1  # a wait comes back to Python this often, so that signals are handled


class _Closed:
    """Stands where the handle of a closed ring was."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "name", name)

    def __getattr__(self, what: str) -> NoReturn:
        raise RingError(f"ring {object.__getattribute__(self, 'name')}: is closed")

    def __setattr__(self, what: str, value: object) -> NoReturn:
        self.__getattr__(what)


class Ring:
    """One replica's packets: captured, recovered, and the agreed index over both.

    Made with `create` by the replica, the only writer, or with `attach` by a reader.  One thread captures, one other
    does everything else that writes; any number read.
    """

    native: ClassVar[Implementation]

    def __init__(self, name: str, mapped: segment.Segment, writable: bool) -> None:
        """Use `create` or `attach`."""
        try:
            self._handle: Handle = self.native.Handle(mapped.memory, writable)
        except RingError as error:
            mapped.close(unlink=False)
            raise RingError(f"ring {name}: {mapped.path}: {error}") from None
        self.name = name
        self._segment = mapped
        self._furthest = 0
        self.changed: Callable[[int, int], None] = lambda epoch, seq: None  # called by `retract`
        self._is = is_ = layout.Description.unpack(mapped.memory[: layout.HEADER_BYTES])
        self.linktype, self.snaplen, self.seed = is_.linktype, is_.snaplen, is_.seed
        self.slots, self.recovered_slots, self.agreed_slots = is_.captured.slots, is_.recovered.slots, is_.agreed_slots

        memory = mapped.memory
        self._hash = np.frombuffer(memory, np.uint64, self.slots, is_.captured.hash)
        self._time = np.frombuffer(memory, np.int64, self.slots, is_.captured.time)
        self._at = np.frombuffer(memory, np.uint64, self.slots, is_.captured.at)
        self._next = np.frombuffer(memory, np.uint64, 1, layout.CAPTURED + layout.NEXT)
        self._hash.flags.writeable = self._time.flags.writeable = False
        self._ref = np.frombuffer(memory, np.int64, self.agreed_slots, is_.agreed_ref)
        self._time_us = np.frombuffer(memory, np.int64, self.agreed_slots, is_.agreed_time)
        self._flags = np.frombuffer(memory, np.uint8, self.agreed_slots, is_.agreed_flags)

    @classmethod
    def create(
        cls,
        name: str,
        *,
        slots: int,
        arena_bytes: int,
        recovered_slots: int,
        recovered_bytes: int,
        agreed_slots: int,
        linktype: int,
        snaplen: int,
        seed: int,
        mode: int = 0o640,
        group: str | None = None,
    ) -> Self:
        """A new, empty ring in /dev/shm.  Slots are rounded up to a power of two, bytes to whole pages.

        RingError when a size is out of its limits, the name is in use by a running process, or memory is short.
        What a killed process left under that name is replaced.
        """
        counts = {"slots": slots, "recovered_slots": recovered_slots, "agreed_slots": agreed_slots}
        for key, count in counts.items():
            _check(name, key, count, limits.MIN_RING_SLOTS, limits.MAX_RING_SLOTS)
        for key, size in {"arena_bytes": arena_bytes, "recovered_bytes": recovered_bytes}.items():
            _check(name, key, size, limits.MIN_ARENA_BYTES, limits.MAX_ARENA_BYTES)
        _check(name, "snaplen", snaplen, 1, limits.MAX_SNAPLEN)
        is_ = layout.Description(
            linktype=linktype,
            snaplen=snaplen,
            seed=seed,
            captured=layout.StorePlace(layout.power_of_two(slots), layout.round_up(arena_bytes, layout.PAGE)),
            recovered=layout.StorePlace(
                layout.power_of_two(recovered_slots), layout.round_up(recovered_bytes, layout.PAGE)
            ),
            agreed_slots=layout.power_of_two(agreed_slots),
        ).place()
        mapped = segment.create(name, is_.total_bytes, mode, group)
        packed = is_.pack()
        mapped.memory[layout.WATERMARK : layout.WATERMARK + 8] = (-(1 << 63)).to_bytes(8, "little", signed=True)
        mapped.memory[8 : len(packed)] = packed[8:]
        mapped.memory[:8] = packed[:8]  # the magic number last: nobody attaches to half a header
        return cls(name, mapped, True)

    @classmethod
    def attach(cls, name: str, *, readonly: bool = True) -> Self:
        """The ring that another process made.  RingError if it is foreign, corrupt, of another version, truncated."""
        return cls(name, segment.attach(name, readonly), not readonly)

    def close(self, *, unlink: bool = False) -> None:
        """Let go of the ring; arrays that it handed out stay good.  `unlink` removes the segment.  Twice is once."""
        if isinstance(self._handle, _Closed):
            return
        self._segment.close(unlink)
        self._handle = _Closed(self.name)  # type: ignore[assignment]
        del self._segment, self._hash, self._time, self._at, self._next, self._ref, self._time_us, self._flags

    @property
    def identity(self) -> tuple[int, int]:
        """(checksum of the description, inode of the segment): another ring has others."""
        return self._is.checksum, os.fstat(self._segment.fd).st_ino

    # -- captured -------------------------------------------------------------------------------
    @property
    def head(self) -> int:
        """Positions published."""
        return self._handle.head

    @property
    def tail(self) -> int:
        """The lowest position that is not freed."""
        return self._handle.tail

    @property
    def watermark_ns(self) -> int:
        """All captured up to this time is published.  Read it before `head`."""
        return self._handle.watermark_ns

    @property
    def fill(self) -> float:
        """How full the store of captured packets is, in slots or in bytes, whichever is fuller: 0 to 1."""
        used = (self.head - self.tail) / self.slots
        return min(1.0, max(used, self._arena_used() / self._is.captured.arena))

    def _arena_used(self) -> int:
        """Bytes of the arena of captured frames that are taken."""
        tail, arena = self.tail, self._is.captured.arena
        if self.head <= tail:
            return 0
        behind = (int(self._next[0]) - int(self._at[tail % self.slots])) % arena
        return behind or arena

    def hashes(self, first: int, last: int) -> NDArray[np.uint64]:
        """Packet hashes of positions [first, last): a read-only view, or a copy where the ring wraps."""
        self._check_captured(first, last)
        return _stretch(self._hash, first, last)

    def times(self, first: int, last: int) -> NDArray[np.int64]:
        """Capture times, ns, of positions [first, last): a read-only view, or a copy where the ring wraps."""
        self._check_captured(first, last)
        return _stretch(self._time, first, last)

    def free_captured(self, position: int) -> None:
        """Everything below `position` is free.  Going back changes nothing."""
        if position > self.head:
            raise RingError(f"ring {self.name}: cannot free up to {position}: only {self.head} packets were captured")
        if position > self.tail:
            self._handle.tail = position

    # -- recovered ------------------------------------------------------------------------------
    @property
    def recovered_head(self) -> int:
        """Recovered packets stored so far."""
        return self._handle.recovered_head

    @property
    def recovered_tail(self) -> int:
        """The lowest recovered number that is not freed."""
        return self._handle.recovered_tail

    def gather(self, refs: NDArray[np.int64]) -> PacketBatch:
        """Copies of the packets that `refs`, int64[n], name.  RingError naming the first that is not in the ring."""
        try:
            return self._handle.gather(np.ascontiguousarray(refs, np.int64))
        except IndexError as error:
            raise RingError(f"ring {self.name}: no packet at slot reference {int(refs[error.args[0]])}") from None

    def store_recovered(self, batch: PacketBatch) -> NDArray[np.int64]:
        """Store packets that a peer sent, after hashing them again.

        int64[n]: a slot reference, -1 for a packet that is not what its hash says (or longer than snaplen, or in a
        batch whose lengths do not add up), -2 for one that finds no room.
        """
        if not len(batch.hash) == len(batch.caplen) == len(batch.wirelen):
            raise RingError(f"ring {self.name}: a batch's arrays differ in length")
        return self._handle.store_recovered(
            np.ascontiguousarray(batch.hash, np.uint64),
            np.ascontiguousarray(batch.caplen, np.uint32),
            np.ascontiguousarray(batch.wirelen, np.uint32),
            bytes(batch.data),
        )

    def free_recovered(self, n: int) -> None:
        """Everything below recovered number `n` is free.  Going back changes nothing."""
        if n > self.recovered_head:
            raise RingError(f"ring {self.name}: cannot free up to {n}: only {self.recovered_head} packets recovered")
        if n > self.recovered_tail:
            self._handle.recovered_tail = n

    # -- agreed ---------------------------------------------------------------------------------
    @property
    def agreed(self) -> int:
        """Agreed entries published: the next seq."""
        return self._handle.agreed

    @property
    def stable(self) -> int:
        """Entries below may be fed."""
        return self._handle.stable

    @property
    def speculative(self) -> int:
        """Entries below may be read ahead of their being stable, and can still change; 0 where nobody reads ahead."""
        return self._handle.speculative

    @property
    def furthest(self) -> int:
        """No reader can have gone further, also one that read ahead what was retracted since."""
        return max(self.stable, self.speculative, self._furthest)

    @property
    def epoch(self) -> int:
        """Moves when entries that could be read ahead turned out to be wrong."""
        return self._handle.epoch

    @property
    def ended(self) -> bool:
        """The stream ends at `agreed`."""
        return self._handle.ended

    @property
    def fed(self) -> int:
        """What the reader has consumed; entries below are free."""
        return self._handle.fed

    @fed.setter
    def fed(self, seq: int) -> None:
        if seq > self.stable:
            raise RingError(f"ring {self.name}: seq {seq} cannot have been fed: only {self.stable} are stable")
        self._handle.fed = seq

    def publish_agreed(
        self, first_seq: int, refs: NDArray[np.int64], time_us: NDArray[np.int64], flags: NDArray[np.uint8]
    ) -> None:
        """Publish entries for seqs [first_seq, first_seq + n): int64[n], int64[n] us, uint8[n].

        Entries that are not stable may be published again.  The first entries of all may start at any seq, where a
        replica joins a running lineage; `stable` and `fed` then start there too.  RingError for a gap, or when the
        index is full: `agreed_slots` entries wait to be fed.
        """
        handle, end = self._handle, first_seq + len(refs)
        if first_seq != handle.agreed and handle.agreed == handle.fed == 0:
            handle.fed = handle.agreed = first_seq
            handle.stable = first_seq
        if not handle.stable <= first_seq <= handle.agreed:
            raise RingError(
                f"ring {self.name}: seq {first_seq} does not follow (stable {handle.stable}, agreed {handle.agreed})"
            )
        if end - handle.fed > self.agreed_slots:
            raise RingError(
                f"ring {self.name}: agreed index full: {self.agreed_slots} packets wait for the IDS; raise ring.slots"
            )
        if ahead := handle.speculative:
            self.compare_ahead(first_seq, refs, time_us)
        _fill(self._ref, first_seq, refs)
        _fill(self._time_us, first_seq, time_us)
        _fill(self._flags, first_seq, flags)
        handle.agreed = end
        if ahead and handle.speculative < end:
            handle.speculative = end

    def publish_ahead(self, refs: NDArray[np.int64], time_us: NDArray[np.int64]) -> int:
        """Let readers that can go back have packets before they are agreed, int64[n] each, behind what they may have.

        Returns how many find room in the agreed index.
        """
        handle = self._handle
        first = max(handle.agreed, handle.speculative)
        count = max(0, min(len(refs), self.agreed_slots - (first - handle.fed)))
        _fill(self._ref, first, refs[:count])
        _fill(self._time_us, first, time_us[:count])
        _fill(self._flags, first, np.zeros(count, np.uint8))
        handle.speculative = first + count
        self._furthest = max(self._furthest, first + count)
        return count

    def retract(self, seq: int) -> None:
        """What could be read ahead from `seq` on was wrong: a new epoch; `changed` is told."""
        if seq < self._handle.speculative:
            self._handle.retract(seq)
            self.changed(self.epoch, seq)

    def wake(self) -> None:
        """Let readers that wait look again."""
        self._handle.wake()

    def compare_ahead(self, first: int, refs: NDArray[np.int64], time_us: NDArray[np.int64]) -> None:
        """Seqs from `first` on are to be int64[n] refs (negative: not here) at int64[n] us: retract what differs."""
        count = min(len(refs), self.speculative - first)
        if count <= 0:
            return
        apart = np.abs(_stretch(self._time_us, first, first + count) - time_us[:count]) > limits.AHEAD_TOLERANCE_US
        wrong = np.flatnonzero((_stretch(self._ref, first, first + count) != refs[:count]) | apart)
        if len(wrong):
            self.retract(first + int(wrong[0]))

    def set_stable(self, seq: int) -> None:
        """Everything below `seq` is stable; wakes the readers.  Going back changes nothing."""
        if seq > self.agreed:
            raise RingError(f"ring {self.name}: seq {seq} cannot be stable: only {self.agreed} are agreed")
        if seq > self.stable:
            self._handle.stable = seq

    def set_end(self) -> None:
        """The stream ends at `agreed`; wakes the readers."""
        self._handle.set_end()

    def agreed_entries(self, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """Copies of (refs int64[n], time_us int64[n], flags uint8[n]) of seqs [first, last).

        Entries below `fed` are still there until others take their place; only the publishing thread can rely on it.
        """
        agreed = self.agreed
        if not (0 <= first <= last <= agreed and agreed - first <= self.agreed_slots) and first != last:
            raise RingError(f"ring {self.name}: seqs {first} to {last} are not in the agreed index (up to {agreed})")
        return (
            _stretch(self._ref, first, last).copy(),
            _stretch(self._time_us, first, last).copy(),
            _stretch(self._flags, first, last).copy(),
        )

    def wait_stable(self, seq: int, timeout_s: float) -> int:
        """Block until `seq` is stable, the stream has ended, or the time is over; returns `stable`."""
        handle, left = self._handle, timeout_s
        while True:
            stable = handle.wait_stable(seq, int(min(left, WAIT_SLICE_S) * 1e9))
            left -= WAIT_SLICE_S
            if stable > seq or left <= 0 or (handle.ended and stable == handle.agreed):
                return stable

    def wait_news(self, stable: int, ahead: int, timeout_s: float) -> int:
        """Block until `stable` is stable or `ahead` may be read ahead, or as `wait_stable`; returns the seq after the
        last one that may be read."""
        handle, left = self._handle, timeout_s
        while True:
            handle.wait_news(stable, ahead, int(min(left, WAIT_SLICE_S) * 1e9))
            left -= WAIT_SLICE_S
            readable = max(handle.stable, handle.speculative)
            if handle.stable > stable or readable > ahead or left <= 0 or handle.ended:
                return readable

    def ahead_entries(self, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """As `agreed_entries`, of what may be read ahead, too: it can change while it is read, or at any time after."""
        if not 0 <= last - first <= self.agreed_slots or first < self.fed:
            raise RingError(f"ring {self.name}: seqs {first} to {last} cannot be read ahead (fed {self.fed})")
        columns = _stretch(self._ref, first, last), _stretch(self._time_us, first, last)
        return columns[0].copy(), columns[1].copy(), _stretch(self._flags, first, last).copy()

    def export_ahead(self, fd: int, first_seq: int, last_seq: int) -> int:
        """As `export_pcap`, of what may be read ahead, too; RingError in the midst where it changes meanwhile."""
        if not self.fed <= first_seq <= last_seq <= self.fed + self.agreed_slots:
            raise RingError(f"ring {self.name}: seqs {first_seq} to {last_seq} cannot be read ahead (fed {self.fed})")
        return self._export(fd, first_seq, last_seq)

    def export_pcap(self, fd: int, first_seq: int, last_seq: int) -> int:
        """Append stable packets [first_seq, last_seq) to `fd` as classic pcap records (us), leaving void ones out.

        Returns the seq after the last one written: `last_seq`, or less where a non-blocking `fd` takes no more.
        OSError when writing fails (BrokenPipeError when the reader is gone).
        """
        if not self.fed <= first_seq <= last_seq <= self.stable:
            held = f"fed {self.fed}, stable {self.stable}"
            raise RingError(f"ring {self.name}: seqs {first_seq} to {last_seq} cannot be exported ({held})")
        return self._export(fd, first_seq, last_seq)

    def _export(self, fd: int, first_seq: int, last_seq: int) -> int:
        seq, error = self._handle.export_pcap(fd, first_seq, last_seq)
        if error == layout.MISSING:
            raise RingError(f"ring {self.name}: seq {seq} names a packet that is not in the ring")
        if error:
            raise OSError(error, os.strerror(error))
        return seq

    def stats(self) -> dict[str, int]:
        """Fill levels (packets, bytes of the arena of captured frames) with their limits, and what did not get in."""
        handle = self._handle
        return {
            "slots": self.slots,
            "slots_used": handle.head - handle.tail,
            "arena_bytes": self._is.captured.arena,
            "arena_used": self._arena_used(),
            "recovered_slots": self.recovered_slots,
            "recovered_used": handle.recovered_head - handle.recovered_tail,
            "recovered_rejected": handle.recovered_rejected,
            "recovered_no_room": handle.recovered_no_room,
            "agreed_slots": self.agreed_slots,
            "agreed_used": handle.agreed - handle.fed,
            "ring_drops": handle.ring_drops,
        }

    def _check_captured(self, first: int, last: int) -> None:
        if not self.tail <= first <= last <= self.head:
            held = f"{self.tail} to {self.head}"
            raise RingError(f"ring {self.name}: positions {first} to {last} are not in the ring ({held})")


def _check(name: str, key: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise RingError(f"ring {name}: {key} {value} is out of range: {least} to {most} [ring]")


def _stretch(column: NDArray[T], first: int, last: int) -> NDArray[T]:
    slots = len(column)
    start, end = first % slots, first % slots + last - first
    return column[start:end] if end <= slots else np.concatenate((column[start:], column[: end - slots]))


def _fill(column: NDArray[T], first: int, values: NDArray[T]) -> None:
    start = first % len(column)
    before_end = min(len(values), len(column) - start)
    column[start : start + before_end] = values[:before_end]
    column[: len(values) - before_end] = values[before_end:]

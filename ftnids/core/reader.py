"""The segment through which an IDS that reads the ring by itself reports: `reader.h` in Python, the replica's side.

`reader.h` is where it is explained.  The replica makes one for each run of its IDS; a DAQ module attaches to it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

from ftnids.core import layout, segment
from ftnids.core.ring import Ring
from ftnids.errors import RingError

VERSION: Final = 2
BYTES: Final = 4096
SUFFIX: Final = "+ids"
NO_SEQ: Final = (1 << 64) - 1
FORMAT: Final = struct.Struct("<QIIQQQQIIQ")
MODE: Final = 0o660

# Byte offsets.
ORDER, MAY_LEAD, GOOD_EPOCH = 256, 260, 264
PID, STATE, TAKEN, FED, CHECKPOINT, CHECKPOINT_PID, CHECKPOINTS, LOG_BYTES = 320, 324, 328, 336, 344, 352, 356, 360

FUTEX_WAKE: Final = 1
SYS_FUTEX: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98}


class Mode(IntEnum):
    """What a reader may do: read what is stable, or go beyond, after a fork."""

    STABLE_ONLY = 0
    FORK = 1


class State(IntEnum):
    """How far a reader has come."""

    NEW = 0
    ATTACHED = 1
    READS = 2
    ENDED = 3
    FAILED = 4


@dataclass(frozen=True, slots=True)
class Report:
    """What a reader says: it goes on at seq `taken`, all below `fed` is done; where its checkpoint stands, if any.

    `log_bytes`: the size of its log at the newest checkpoint.
    """

    pid: int
    state: State
    taken: int
    fed: int
    checkpoint: int | None
    checkpoint_pid: int
    checkpoints: int
    log_bytes: int


class Reader:
    """The replica's end of the segment of one run.  RingError when a report is not what a reader can say."""

    def __init__(self, ring: Ring, mapped: segment.Segment, start: int) -> None:
        """Use `create`."""
        self._ring, self._segment = ring, mapped
        whole = memoryview(mapped.memory)
        self._words, self._longs = whole.cast("I"), whole.cast("Q")
        self._futex = ctypes.c_uint32.from_buffer(mapped.memory, ORDER)
        self._fed = start
        self._looking = threading.Lock()  # a report that is older than another's would seem to go back

    @classmethod
    def create(
        cls, ring: Ring, *, start: int, mode: Mode = Mode.STABLE_ONLY, span: int = 0, group: str | None = None
    ) -> Self:
        """A new segment for one reader of `ring`, from packet `start` on; what an earlier run left is replaced.

        `span`: how many packets may be handed out beyond a checkpoint.  `group`: who may read the ring, too.
        """
        remove(ring.name)
        mapped = segment.create(ring.name, BYTES, MODE, group, SUFFIX)
        checksum, inode = ring.identity
        what = (layout.READER_MAGIC, VERSION, BYTES, checksum, inode, start, span, mode, os.getpid())
        body = FORMAT.pack(*what, 0)[:-8]
        packed = body + layout.fnv1a(body).to_bytes(8, "little")
        one = cls(ring, mapped, start)
        one._longs[TAKEN // 8] = one._longs[FED // 8] = start
        one._longs[CHECKPOINT // 8] = NO_SEQ
        one._longs[GOOD_EPOCH // 8] = ring.epoch
        one._words[MAY_LEAD // 4] = 1
        mapped.memory[8 : len(packed)] = packed[8:]
        mapped.memory[:8] = packed[:8]  # the magic number last
        return one

    @property
    def path(self) -> Path:
        """Where the segment is."""
        return self._segment.path

    def report(self) -> Report:
        """What the reader says now, checked.  Any thread."""
        with self._looking:
            return self._look()

    def _look(self) -> Report:
        """`fed` is read first, so that the rest is at least as new."""
        fed = self._longs[FED // 8]
        words, longs = self._words, self._longs
        state, taken, checkpoint = words[STATE // 4], longs[TAKEN // 8], longs[CHECKPOINT // 8]
        end = self._ring.furthest  # last: nobody is past it
        if not self._fed <= fed <= taken <= end or state > State.FAILED:
            said = f"fed {fed}, taken {taken}, state {state}"
            raise RingError(f"ring {self._ring.name}: its reader reports nonsense ({said}; fed {self._fed}, end {end})")
        self._fed = fed
        return Report(
            pid=words[PID // 4],
            state=State(state),
            taken=taken,
            fed=fed,
            checkpoint=None if checkpoint == NO_SEQ else checkpoint,
            checkpoint_pid=words[CHECKPOINT_PID // 4],
            checkpoints=words[CHECKPOINTS // 4],
            log_bytes=longs[LOG_BYTES // 8],
        )

    def go_on(self) -> None:
        """The checkpoint that sleeps goes on."""
        self._words[ORDER // 4] = (self._words[ORDER // 4] + 1) & 0xFFFFFFFF
        if number := SYS_FUTEX.get(platform.machine()):
            ctypes.CDLL(None).syscall(number, ctypes.byref(self._futex), FUTEX_WAKE, 0x7FFFFFFF, None, None, 0)

    @property
    def leads(self) -> bool:
        """Whether a reader that may go beyond what is stable is to do so now."""
        return bool(self._words[MAY_LEAD // 4])

    def lead(self, may: bool) -> None:
        """Set whether it is to."""
        if self.leads != may:
            self._words[MAY_LEAD // 4] = may
            self._ring.wake()

    def good(self, epoch: int) -> None:
        """As of `epoch`, the reader has taken nothing that changed."""
        self._longs[GOOD_EPOCH // 8] = epoch
        self._ring.wake()

    def close(self) -> None:
        """Remove the segment.  Twice is once."""
        if self._segment is not None:
            self._segment.close(unlink=True)
            self._segment = None  # type: ignore[assignment]


def remove(name: str) -> None:
    """Remove what a run of the IDS at ring `name` left behind, if anything; the ring's owner is the only one to ask."""
    segment.path_of(name, SUFFIX).unlink(missing_ok=True)

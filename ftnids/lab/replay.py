"""Replays a capture file into the hub: `python -m ftnids.lab.replay INTERFACE FILE --pace file|topspeed [--pps R]`.

Frames go out through a packet socket, `sendmmsg` with many at a time; the work for each frame is numpy's
and the kernel's.  At file pace and at a given rate each frame leaves at its own time after the first, and
one that is overdue leaves at once; at a given rate those of a tenth of a millisecond may leave together.
Ends with one line of JSON: frames sent, frames too long, seconds.  SIGTERM ends it early, with the same line.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ftnids import limits
from ftnids.lab import scan

# struct iovec, struct msghdr and struct mmsghdr of <sys/socket.h>, as this machine's C compiler lays them out
IOVEC: Final = np.dtype([("base", np.uintp), ("length", np.uintp)], align=True)
MSGHDR: Final = np.dtype(
    [
        ("name", np.uintp),
        ("name_length", np.uint32),
        ("iov", np.uintp),
        ("iov_length", np.uintp),
        ("control", np.uintp),
        ("control_length", np.uintp),
        ("flags", np.intc),
    ],
    align=True,
)
MMSGHDR: Final = np.dtype([("header", MSGHDR), ("length", np.uint32)], align=True)
GRAIN_NS: Final = 100_000  # at a given rate, the shortest sleep: one for each frame would cost more than to send it
BUSY: Final = (errno.ENOBUFS, errno.EAGAIN, errno.EINTR)


@dataclass
class Frames:
    """Frames ready for `sendmmsg`; holds the memory that the structures point into."""

    data: bytes
    iovecs: NDArray[np.void]
    messages: NDArray[np.void]

    @classmethod
    def of(cls, data: bytes, lengths: NDArray[np.uint32]) -> Frames:
        """Frames that lie back to back in `data`."""
        ends = np.cumsum(lengths, dtype=np.uintp)
        iovecs = np.zeros(len(lengths), IOVEC)
        iovecs["base"] = np.frombuffer(data, np.uint8).ctypes.data + ends - lengths
        iovecs["length"] = lengths
        messages = np.zeros(len(lengths), MMSGHDR)
        messages["header"]["iov"] = iovecs.ctypes.data + np.arange(len(lengths), dtype=np.uintp) * IOVEC.itemsize
        messages["header"]["iov_length"] = 1
        return cls(data, iovecs, messages)


class Replay:
    """One file going out on one interface."""

    def __init__(self, interface: str, pace: str, pps: float) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: it receives nothing
        self.socket.bind((interface, 0))
        self.pace, self.pps = pace, pps
        self.sent = self.skipped = 0
        self.stopping = False
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._begin_ns = self._first_ns = 0

    def due(self, times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """When each of the next frames leaves, in ns after the first."""
        if self.pps > 0:
            number = self.sent + self.skipped + np.arange(len(times_ns))
            return (number * (1e9 / self.pps)).astype(np.int64)
        if self.pace == "topspeed":
            return np.zeros(len(times_ns), np.int64)
        return times_ns - self._first_ns

    def stop(self, *_: object) -> None:
        """Have `play` return soon."""
        self.stopping = True

    def play(self, path: Path) -> None:
        """Send the whole file, or what comes before `stop`."""
        for batch in scan.batches(path, limits.MAX_SNAPLEN, 0):
            if self.stopping:
                return
            times = np.array(batch.ring.times(batch.first, batch.last))
            if not self._begin_ns:
                self._begin_ns, self._first_ns = time.monotonic_ns(), int(times[0])
            packets = batch.ring.gather(np.arange(batch.first, batch.last, dtype=np.int64))
            self._send(Frames.of(packets.data, packets.caplen), self.due(times))

    def _send(self, frames: Frames, due: NDArray[np.int64]) -> None:
        at = 0
        while at < len(due) and not self.stopping:
            now = time.monotonic_ns() - self._begin_ns
            ready = int(np.searchsorted(due, now, side="right"))
            if ready <= at:
                time.sleep(max(int(due[at]) - now, GRAIN_NS if self.pps > 0 else 0) / 1e9)
                continue
            at += self._send_now(frames, at, min(ready - at, limits.LAB_SEND_BATCH))

    def _send_now(self, frames: Frames, at: int, count: int) -> int:
        """Hand up to `count` frames to the kernel; how many are done with."""
        first = ctypes.c_void_p(frames.messages.ctypes.data + at * MMSGHDR.itemsize)
        done = self._libc.sendmmsg(self.socket.fileno(), first, count, 0)
        if done > 0:
            self.sent += done
            return int(done)
        error = ctypes.get_errno()
        if error == errno.EMSGSIZE:  # longer than the interface takes
            self.skipped += 1
            return 1
        if error not in BUSY:
            raise OSError(error, os.strerror(error))
        time.sleep(0.0001)
        return 0


def main() -> None:
    """The command line of this module's process."""
    parser = argparse.ArgumentParser(prog="ftnids.lab.replay")
    parser.add_argument("interface")
    parser.add_argument("file", type=Path)
    parser.add_argument("--pace", choices=("file", "topspeed"), default="file")
    parser.add_argument("--pps", type=float, default=0.0)
    asked = parser.parse_args()
    replay = Replay(asked.interface, asked.pace, asked.pps)
    signal.signal(signal.SIGTERM, replay.stop)
    begin = time.monotonic()
    replay.play(asked.file)
    print(json.dumps({"sent": replay.sent, "skipped": replay.skipped, "seconds": time.monotonic() - begin}))


if __name__ == "__main__":
    main()

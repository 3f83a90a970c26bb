"""Endless traffic for the soak: capture-file records made in blocks, the same for every replica, into a pipe each."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Final

import numpy as np

from ftnids.core import pcap_header

FRAME: Final = 60
BLOCK: Final = 8_192  # packets
GAP_US: Final = 20  # between two packets, as their stamps say
REPEATS: Final = 16  # one packet in so many repeats an earlier one, byte for byte
START_S: Final = 1_700_000_000
RECORD: Final = np.dtype([("seconds", "<u4"), ("us", "<u4"), ("caplen", "<u4"), ("len", "<u4"), ("frame", "u1", FRAME)])


def block(first: int, count: int) -> bytes:
    """Packets [first, first + count) as classic records."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    us = numbers * np.uint64(GAP_US)
    records = np.zeros(count, RECORD)
    records["seconds"], records["us"] = START_S + us // 1_000_000, us % 1_000_000
    records["caplen"] = records["len"] = FRAME
    records["frame"][:, :18] = np.frombuffer(bytes(12) + b"\x08\x00\x45\x00\x00\x2e", np.uint8)
    content = np.where(numbers % REPEATS == 0, numbers // np.uint64(64 * REPEATS), numbers)
    records["frame"][:, 24:32] = content.astype("<u8").view(np.uint8).reshape(-1, 8)
    return records.tobytes()


class Feeder(threading.Thread):
    """Writes `packets` packets into the pipe at `path`; ends early where the reader is gone."""

    def __init__(self, path: Path, packets: int) -> None:
        super().__init__(name=f"feeder-{path.name}", daemon=True)
        self._path, self._packets = path, packets

    def run(self) -> None:
        with contextlib.suppress(BrokenPipeError), self._path.open("wb", 0) as pipe:
            pipe.write(pcap_header(1, 65_535))
            for first in range(0, self._packets, BLOCK):
                data = memoryview(block(first, min(BLOCK, self._packets - first)))
                while data:
                    data = data[pipe.write(data) :]

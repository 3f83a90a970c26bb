"""A ring that lives in this process: what a feed sees of the real one, with packets made up by a seed."""

from __future__ import annotations

import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ftnids.core import RECOVERED, PacketBatch


@dataclass(frozen=True)
class Packet:
    time_us: int
    data: bytes


class FakeRing:
    """Packets become stable by `stabilise`; hash of packet n is n * 0x9E3779B97F4A7C15, every third is recovered."""

    linktype = 1
    snaplen = 65535

    def __init__(self, packets: list[Packet]) -> None:
        self.packets = packets
        self.stable = 0
        self.ended = False
        self.fed = 0
        self._news = threading.Condition()
        numbers = np.arange(len(packets), dtype=np.uint64)
        self.all_hashes = numbers * np.uint64(0x9E3779B97F4A7C15)
        recovered = numbers % 3 == 2
        self.refs = np.where(recovered, RECOVERED | np.cumsum(recovered) - 1, np.cumsum(~recovered) - 1).astype(
            np.int64
        )
        self._captured: NDArray[np.uint64] = self.all_hashes[~recovered]
        self._recovered = self.all_hashes[recovered]

    @property
    def agreed(self) -> int:
        return len(self.packets)

    def void(self, *seqs: int) -> None:
        """No survivor has the bytes of these."""
        self.refs[list(seqs)] = -1

    def stabilise(self, seq: int, *, end: bool = False) -> None:
        with self._news:
            self.stable, self.ended = seq, end
            self._news.notify_all()

    def wait_stable(self, seq: int, timeout_s: float) -> int:
        with self._news:
            self._news.wait_for(lambda: self.stable > seq or self.ended, timeout_s)
            return self.stable

    def export_pcap(self, fd: int, first_seq: int, last_seq: int) -> int:
        for seq in range(first_seq, last_seq):
            if self.refs[seq] < 0:
                continue
            packet = self.packets[seq]
            size = len(packet.data)
            record = struct.pack("<IIII", *divmod(packet.time_us, 1_000_000), size, size) + packet.data
            try:
                written = os.write(fd, record)
            except BlockingIOError:
                return seq
            while written < len(record):
                try:
                    written += os.write(fd, record[written:])
                except BlockingIOError:
                    continue
        return last_seq

    def agreed_entries(
        self, first_seq: int, last_seq: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        times = np.array([packet.time_us for packet in self.packets[first_seq:last_seq]], np.int64)
        return self.refs[first_seq:last_seq], times, np.zeros(last_seq - first_seq, np.uint8)

    def hashes(self, first: int, last: int) -> NDArray[np.uint64]:
        return self._captured[first:last]

    def gather(self, refs: NDArray[np.int64]) -> PacketBatch:
        sizes = np.zeros(len(refs), np.uint32)
        return PacketBatch(self._recovered[refs & ~RECOVERED], sizes, sizes, b"")


def read_pcap(path: Path) -> list[Packet]:
    """The packets of a little-endian microsecond pcap file."""
    content = path.read_bytes()
    packets, at = [], 24
    while at + 16 <= len(content):
        seconds, micros, size, _ = struct.unpack_from("<IIII", content, at)
        packets.append(Packet(seconds * 1_000_000 + micros, content[at + 16 : at + 16 + size]))
        at += 16 + size
    return packets


def record_offsets(content: bytes) -> list[int]:
    """Where each record of a little-endian pcap file begins, and where the last one ends."""
    offsets, at = [], 24
    while at + 16 <= len(content):
        offsets.append(at)
        at += 16 + int.from_bytes(content[at + 8 : at + 12], "little")
    return [*offsets, at]

"""Rings and capture files for the tests of the core."""

from __future__ import annotations

import itertools
import os
import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xxhash

from ftnids.core import PacketBatch, capture, native, ring, splitmix64

SEED: Final = 0x1234_5678_9ABC_DEF0
SLOTS: Final = 1024
ARENA: Final = 1 << 20
ETHERNET: Final = 1
IMPLEMENTATIONS: Final = ("c", "python")
_numbers: Final = itertools.count()


@dataclass(frozen=True)
class Packet:
    """One packet of a capture file; `time_ns` is its stamp."""

    time_ns: int
    data: bytes
    wirelen: int = -1  # -1: all of it is here

    @property
    def length(self) -> int:
        return len(self.data) if self.wirelen < 0 else self.wirelen


class Core:
    """One implementation, with the classes that the rooms use."""

    def __init__(self, name: str) -> None:
        self.native = implementation = native.select(name)
        self.hash_frame = implementation.hash_frame

        class Ring(ring.Ring):
            native = implementation

        class Capture(capture.Capture):
            native = implementation

        self.Ring, self.Capture = Ring, Capture

    def ring(self, name: str = "", **changes: Any) -> ring.Ring:
        """A small ring; `changes` go to `Ring.create`."""
        settings: dict[str, Any] = {
            "slots": SLOTS,
            "arena_bytes": ARENA,
            "recovered_slots": SLOTS,
            "recovered_bytes": ARENA,
            "agreed_slots": SLOTS,
            "linktype": ETHERNET,
            "snaplen": 65535,
            "seed": SEED,
            "mode": 0o600,
        }
        return self.Ring.create(name or f"test-{os.getpid()}-{next(_numbers)}", **settings | changes)

    def file(self, path: Path, **changes: Any) -> capture.Capture:
        """A capture file as a source, flat out."""
        settings: dict[str, Any] = {"snaplen": 65535, "bpf": "", "pace": "topspeed"}
        return self.Capture.file(str(path), **settings | changes)

    def read(self, path: Path, **changes: Any) -> list[tuple[int, bytes, int]]:
        """(time ns, bytes, wire length) of all packets that a source made of `path` hands out."""
        source = self.file(path, **changes)
        one = self.ring(linktype=source.linktype, snaplen=source.snaplen)
        try:
            packets: list[tuple[int, bytes, int]] = []
            while source.run(one, SLOTS // 2, 0) >= 0:
                packets += contents(one, one.tail, one.head)
                one.free_captured(one.head)
            return packets
        finally:
            source.close()
            one.close(unlink=True)


def reference_hash(data: bytes, wirelen: int, seed: int = SEED) -> int:
    """The packet hash by its definition."""
    value = xxhash.xxh3_64_intdigest(data, seed)
    return value if wirelen == len(data) else value ^ splitmix64(wirelen)


def frames_of(batch: PacketBatch) -> list[bytes]:
    """The frames of a batch, one by one."""
    ends = np.cumsum(batch.caplen).tolist()
    return [batch.data[end - size : end] for end, size in zip(ends, batch.caplen.tolist(), strict=True)]


def contents(one: ring.Ring, first: int, last: int) -> list[tuple[int, bytes, int]]:
    """(time ns, bytes, wire length) of positions [first, last), after checking their hashes."""
    batch = one.gather(np.arange(first, last, dtype=np.int64))
    frames = frames_of(batch)
    wirelens = batch.wirelen.tolist()
    hashes = [reference_hash(frame, length, one.seed) for frame, length in zip(frames, wirelens, strict=True)]
    assert batch.hash.tolist() == one.hashes(first, last).tolist() == hashes
    return list(zip(one.times(first, last).tolist(), frames, wirelens, strict=True))


def batch_of(packets: Sequence[tuple[bytes, int]], seed: int = SEED) -> PacketBatch:
    """A batch of (bytes, wire length), with the right hashes."""
    hashes = [reference_hash(data, wirelen, seed) for data, wirelen in packets]
    return PacketBatch(
        np.array(hashes, np.uint64),
        np.array([len(data) for data, _ in packets], np.uint32),
        np.array([wirelen for _, wirelen in packets], np.uint32),
        b"".join(data for data, _ in packets),
    )


def some_packets(count: int, seed: int, longest: int = 1514, start_ns: int = 1_600_000_000_123_456_789) -> list[Packet]:
    """Packets of random bytes and lengths, 0 to 100 us apart."""
    source = random.Random(seed)
    packets, now = [], start_ns
    for _ in range(count):
        now += source.randrange(100_000)
        packets.append(Packet(now, source.randbytes(source.randint(14, longest))))
    return packets


# -- capture files -----------------------------------------------------------------------------------
def write_pcap(
    path: Path,
    packets: Iterable[Packet],
    *,
    nano: bool = False,
    order: str = "<",
    linktype: int = ETHERNET,
    snaplen: int = 262_144,
) -> Path:
    """A classic capture file."""
    tick = 1 if nano else 1000
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    with path.open("wb") as file:
        file.write(struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, linktype))
        for packet in packets:
            seconds, fraction = divmod(packet.time_ns, 10**9)
            file.write(struct.pack(order + "IIII", seconds, fraction // tick, len(packet.data), packet.length))
            file.write(packet.data)
    return path


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    """A pcapng section header."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(order: str = "<", linktype: int = ETHERNET, options: bytes = b"") -> bytes:
    """A pcapng interface description."""
    return block(1, struct.pack(order + "HHI", linktype, 0, 262_144) + options, order)


def option(code: int, data: bytes, order: str = "<") -> bytes:
    """One pcapng option."""
    return struct.pack(order + "HH", code, len(data)) + data + bytes(-len(data) % 4)


def enhanced(packet: Packet, ticks: int, which: int = 0, order: str = "<") -> bytes:
    """A pcapng packet with its stamp in the interface's units."""
    head = struct.pack(order + "IIIII", which, ticks >> 32, ticks & 0xFFFFFFFF, len(packet.data), packet.length)
    return block(6, head + packet.data, order)

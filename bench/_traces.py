"""Traces that the benches make themselves."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMIX = ((64, 7), (594, 4), (1514, 1))  # frame lengths, shares
HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
START_US = 1_700_000_000_000_000


def write_small(path: Path, packets: int, *, rate: float = 100_000.0, seed: int = 1) -> None:
    """Write `packets` UDP frames of 64 bytes to `path`, no two alike, at about `rate` packets/s."""
    _write(path, np.full(packets, 64), np.random.default_rng(seed), rate)


def write_imix(path: Path, packets: int, *, rate: float = 100_000.0, seed: int = 1) -> None:
    """Write `packets` UDP frames of the IMIX lengths to `path`, no two alike, at about `rate` packets/s."""
    rng = np.random.default_rng(seed)
    _write(path, rng.permutation(np.resize(np.repeat([s for s, _ in IMIX], [n for _, n in IMIX]), packets)), rng, rate)


def _write(path: Path, sizes: NDArray[np.int64], rng: np.random.Generator, rate: float) -> None:
    packets = len(sizes)
    times = START_US + np.cumsum(rng.exponential(1e6 / rate, packets)).astype(np.int64)
    ethernet = bytes.fromhex("0200000000020200000000010800")
    with path.open("wb") as out:
        out.write(HEADER)
        for number, (size, at) in enumerate(zip(sizes.tolist(), times.tolist(), strict=True)):
            payload = struct.pack(">Q", number) + bytes(size - 14 - 20 - 8 - 8)
            ip = struct.pack(
                ">BBHHHBBH4s4s", 0x45, 0, size - 14, number & 0xFFFF, 0, 64, 17, 0, b"\xc0\0\x02\1", b"\xc6\x33\x64\2"
            )
            udp = struct.pack(">HHHH", 1024, 9, size - 34, 0)
            out.write(struct.pack("<IIII", at // 1_000_000, at % 1_000_000, size, size) + ethernet + ip + udp + payload)

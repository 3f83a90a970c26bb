"""Traces that the benches make themselves."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CRAFTED = 125  # bytes of the paper's packets: 50,000 of them take a second at 50 Mbit/s
SMALL = 64
DATAGRAM, CANARY = b"FTNIDS-CANARY", 8400006  # what raises an alert, and its sid
IMIX = ((64, 7), (594, 4), (1514, 1))  # frame lengths, shares
HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
START_US = 1_700_000_000_000_000
RECORD = 16  # bytes before each frame
CHUNK = 100_000  # frames that are made at once
HEADERS = np.frombuffer(
    bytes.fromhex("020000000002 020000000001 0800")
    + struct.pack(">BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 17, 0, b"\xc0\0\x02\1", b"\xc6\x33\x64\2")
    + struct.pack(">HHHH", 1024, 9, 0, 0),
    np.uint8,
)
IP_LENGTH, IP_ID, UDP_LENGTH = 16, 18, 38  # where they are in a frame


def imix_bytes(packets: int) -> int:
    """The bytes of so many IMIX frames, or a little more."""
    return packets * sum(size * share for size, share in IMIX) // sum(share for _, share in IMIX) + IMIX[-1][0]


def write_small(path: Path, packets: int, *, rate: float = 100_000.0, seed: int = 1) -> None:
    """Write `packets` UDP frames of 64 bytes to `path`, no two alike, at about `rate` packets/s."""
    _write(path, np.full(packets, SMALL), np.random.default_rng(seed), rate)


def write_canaries(path: Path, packets: int, *, every: int, rate: float, seed: int = 1) -> None:
    """As `write_small`; the last of `every` so many packets raises the alert with sid CANARY."""
    write_small(path, packets, rate=rate, seed=seed)
    data = np.fromfile(path, np.uint8)
    frames = data[len(HEADER) :].reshape(packets, RECORD + SMALL)
    frames[every - 1 :: every, -len(DATAGRAM) :] = np.frombuffer(DATAGRAM, np.uint8)
    data.tofile(path)


def write_crafted(path: Path, packets: int, *, rate: float = 50_000.0, seed: int = 1) -> None:
    """Write the paper's crafted UDP packets (section 5), of one size and with a counter, so that none repeats."""
    _write(path, np.full(packets, CRAFTED), np.random.default_rng(seed), rate)


def write_imix(path: Path, packets: int, *, rate: float = 100_000.0, seed: int = 1) -> None:
    """Write `packets` UDP frames of the IMIX lengths to `path`, no two alike, at about `rate` packets/s."""
    rng = np.random.default_rng(seed)
    _write(path, rng.permutation(np.resize(np.repeat([s for s, _ in IMIX], [n for _, n in IMIX]), packets)), rng, rate)


def write_bursts(path: Path, bursts: Sequence[int], *, rate: float, every_s: float) -> None:
    """Write crafted packets in bursts of so many, at `rate` packets/s within a burst, one every so many seconds."""
    times = [number * every_s * 1e6 + np.arange(packets) * 1e6 / rate for number, packets in enumerate(bursts)]
    _write_at(path, np.full(sum(bursts), CRAFTED), START_US + np.concatenate(times).astype(np.int64))


def _write(path: Path, sizes: NDArray[np.int64], rng: np.random.Generator, rate: float) -> None:
    _write_at(path, sizes, START_US + np.cumsum(rng.exponential(1e6 / rate, len(sizes))).astype(np.int64))


def _write_at(path: Path, sizes: NDArray[np.int64], times: NDArray[np.int64]) -> None:
    with path.open("wb") as out:
        out.write(HEADER)
        for first in range(0, len(sizes), CHUNK):
            part = slice(first, first + CHUNK)
            out.write(_records(first, sizes[part], times[part]))


def _records(first: int, sizes: NDArray[np.int64], times: NDArray[np.int64]) -> bytes:
    """Records of frames that are numbered from `first` on; all that is not set is 0."""
    begin = np.cumsum(sizes + RECORD) - sizes - RECORD
    data = np.zeros(int(begin[-1] + sizes[-1]) + RECORD, np.uint8)

    def put(at: int, values: NDArray[np.int64], form: str) -> None:
        field = np.ascontiguousarray(values.astype(form)).view(np.uint8).reshape(len(sizes), -1)
        data[(begin + at)[:, None] + np.arange(field.shape[1])] = field

    for at, values in ((0, times // 1_000_000), (4, times % 1_000_000), (8, sizes), (12, sizes)):
        put(at, values, "<u4")
    data[(begin + RECORD)[:, None] + np.arange(len(HEADERS))] = HEADERS
    number = first + np.arange(len(sizes))
    put(RECORD + IP_LENGTH, sizes - 14, ">u2")
    put(RECORD + IP_ID, number & 0xFFFF, ">u2")
    put(RECORD + UDP_LENGTH, sizes - 34, ">u2")
    put(RECORD + len(HEADERS), number, ">u8")
    return data.tobytes()

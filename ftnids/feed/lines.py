"""Text lines from arrays, without a Python step per packet."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

_HEX: Final = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)
_POWERS: Final = 10 ** np.arange(1, 19, dtype=np.int64)


def hash_lines(first_seq: int, hashes: NDArray[np.uint64], time_us: NDArray[np.int64]) -> bytes:
    """Lines "seq hash time_us\\n" for uint64[n] hashes (16 hex digits) and int64[n] times, both >= 0.

    Lines whose numbers have the same digit counts are one matrix of characters each.
    """
    seq = np.arange(first_seq, first_seq + len(hashes), dtype=np.int64)
    seq_digits = _digits(seq)
    time_digits = _digits(time_us)
    changes = np.flatnonzero(np.diff(seq_digits) | np.diff(time_digits)) + 1
    edges = [0, *changes.tolist(), len(seq)] if len(seq) else []
    blocks = []
    for start, stop in pairwise(edges):
        part = slice(start, stop)
        blocks.append(
            np.hstack(
                [
                    _decimal(seq[part], int(seq_digits[start])),
                    _column(b" ", stop - start),
                    _HEX[hashes[part].astype(">u8").view(np.uint8)].reshape(stop - start, 16),
                    _column(b" ", stop - start),
                    _decimal(time_us[part], int(time_digits[start])),
                    _column(b"\n", stop - start),
                ]
            ).tobytes()
        )
    return b"".join(blocks)


def _digits(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(_POWERS, numbers, side="right") + 1


def _decimal(numbers: NDArray[np.int64], digits: int) -> U8:
    """Characters [n, digits] of numbers that have exactly so many digits."""
    text = np.empty((len(numbers), digits), np.uint8)
    rest = numbers
    for place in range(digits - 1, -1, -1):
        rest, digit = np.divmod(rest, 10)
        text[:, place] = digit + ord("0")
    return text


def _column(character: bytes, rows: int) -> U8:
    return np.full((rows, 1), ord(character), np.uint8)

"""Numbers and arrays as bytes, and back, with every length checked first.

Nothing is allocated before it is known to be allowed: a count is compared with its limit, then with the
number of values that one message may unfold to (packed arrays unfold, so the length of the message is no
bound by itself), then with the bytes that are left.

All numbers are little endian.  The building blocks are

* *varint*: unsigned LEB128 of at most 10 bytes, shortest form only; *zigzag*: a signed number as the varint
  `n >= 0 ? 2n : -2n - 1`;
* *packed*: n unsigned 64-bit values, n known beforehand.  One descriptor byte (bits 0-3: width w, 0 to 8; bit 4:
  exceptions follow; bit 5: all values, and a series' first one, are in units of 1000), then n values of w bytes.
  Values that are wider leave their low w bytes there; the rest follows as exceptions: varint count, one byte
  (bits 0-3: width of a gap, bits 4-7: width of a rest), the gaps (places skipped since the last exception), the
  rests (value >> 8w, never 0).  The writer takes the w that gives the fewest bytes, so that an array of
  zeros costs one byte, and a rare large value costs itself and not a wider array.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ftnids.errors import WireError
from ftnids.limits import MAX_MESSAGE_VALUES
from ftnids.sync.messages import I64, U64

U64LE: Final = np.dtype("<u8")
_STEPS: Final = np.array([1 << 8 * w for w in range(8)], np.uint64)  # the least values that need 1, 2, ... 8 bytes
_VARINT_BYTES: Final = 10
_EXCEPTIONS: Final = 0x10
_THOUSANDS: Final = 0x20


class Writer:
    """Collects the bytes of one message."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def raw(self, data: bytes) -> None:
        """Append `data` as it is."""
        self._pieces.append(data)

    def varint(self, value: int, limit: int = 1 << 64) -> None:
        """Append `value`, 0 <= value < limit; WireError otherwise."""
        if not 0 <= value < limit:
            raise WireError(f"{value} is not in 0 to {limit - 1}")
        if value < 0x80:
            self._pieces.append(value.to_bytes())
            return
        out = bytearray()
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
        self._pieces.append(bytes(out))

    def zigzag(self, value: int) -> None:
        """Append a signed 64-bit `value`."""
        self.varint(2 * value if value >= 0 else -2 * value - 1)

    def take(self) -> bytes:
        """The whole message."""
        return b"".join(self._pieces)


class Reader:
    """Hands out the bytes of one message; WireError where there are too few, or where they claim too much."""

    def __init__(self, data: bytes | memoryview, newest: int = 1) -> None:
        """`newest` is what the message's prefix says of its sender: the newest protocol version that it speaks."""
        self.newest = newest
        self._data = memoryview(data)
        self._at = 0
        self._budget = MAX_MESSAGE_VALUES

    def raw(self, length: int) -> memoryview:
        """The next `length` bytes."""
        if length > len(self._data) - self._at:
            raise WireError("truncated")
        self._at += length
        return self._data[self._at - length : self._at]

    def varint(self, limit: int = 1 << 64) -> int:
        """The next number, 0 <= number < limit."""
        piece = self._data[self._at : self._at + _VARINT_BYTES]
        value = 0
        for place, byte in enumerate(piece):
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                if byte == 0 and place:
                    raise WireError("number not in its shortest form")
                if value >= limit:
                    raise WireError(f"{value} is not in 0 to {limit - 1}")
                self._at += place + 1
                return value
        raise WireError("truncated" if len(piece) < _VARINT_BYTES else "number longer than 64 bits")

    def zigzag(self) -> int:
        """The next signed 64-bit number."""
        value = self.varint()
        return value >> 1 if value & 1 == 0 else -(value >> 1) - 1

    def spend(self, values: int) -> int:
        """Take `values` off what this message may unfold to; returns `values`."""
        self._budget -= values
        if self._budget < 0:
            raise WireError(f"unfolds to more than {MAX_MESSAGE_VALUES} values")
        return values

    def finish(self) -> None:
        """WireError if bytes are left."""
        if self._at != len(self._data):
            raise WireError(f"{len(self._data) - self._at} bytes too many")


# -- packed arrays --------------------------------------------------------------------------------


def _narrow(values: U64, width: int) -> bytes:
    """The low `width` bytes of each value."""
    return values.astype(U64LE, copy=False).view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def _widen(source: Reader, count: int, width: int) -> U64:
    """`count` values of `width` bytes each."""
    if width == 0:
        return np.zeros(count, np.uint64)
    data = source.raw(count * width)
    wide = np.zeros((count, 8), np.uint8)
    wide[:, :width] = np.frombuffer(data, np.uint8).reshape(count, width)
    return wide.view(U64LE).reshape(count).astype(np.uint64, copy=False)


def _width(largest: int) -> int:
    return (largest.bit_length() + 7) // 8


def _best_width(values: U64, widest: int) -> int:
    """The width at which body and exceptions together are smallest."""
    sizes = np.bincount(np.searchsorted(_STEPS, values, side="right"), minlength=9)
    wider = len(values) - np.cumsum(sizes)[:widest]  # how many values need more than 0, 1, ... widest - 1 bytes
    gap = 1 if len(values) <= 256 else np.where(wider * 64 > len(values), 1, 2)  # bytes of a gap, as a rule
    widths = np.arange(widest)
    costs = len(values) * widths + wider * (gap + widest - widths) + 2
    best = int(np.argmin(costs))
    return best if costs[best] < len(values) * widest else widest


def write_packed(out: Writer, values: U64, *, thousands: bool = False) -> None:
    """Append `values` (uint64[n]); the reader must know n."""
    mark = _THOUSANDS if thousands else 0
    widest = _width(int(values.max())) if len(values) else 0
    width = _best_width(values, widest) if widest else 0
    if width == widest:
        out.raw((width | mark).to_bytes())
        out.raw(_narrow(values, width))
        return
    rests = values >> np.uint64(8 * width)
    places = np.flatnonzero(rests)
    rests = rests[places]
    gaps = np.diff(places, prepend=-1).astype(np.uint64) - np.uint64(1)
    gap_width, rest_width = _width(int(gaps.max())), widest - width
    out.raw((width | mark | _EXCEPTIONS).to_bytes())
    out.raw(_narrow(values, width))
    out.varint(len(places))
    out.raw((gap_width | rest_width << 4).to_bytes())
    out.raw(_narrow(gaps, gap_width))
    out.raw(_narrow(rests, rest_width))


def read_packed(source: Reader, count: int) -> tuple[U64, bool]:
    """The next `count` values, and whether they are in units of 1000."""
    descriptor = source.raw(1)[0]
    width = descriptor & 0x0F
    if width > 8 or descriptor > 0x3F:
        raise WireError(f"bad array descriptor {descriptor:#x}")
    values = _widen(source, source.spend(count), width)
    if descriptor & _EXCEPTIONS:
        _read_exceptions(source, values, width)
    return values, bool(descriptor & _THOUSANDS)


def _read_exceptions(source: Reader, values: U64, width: int) -> None:
    """Add the exceptions to `values`, whose low `width` bytes are there."""
    count = source.varint(len(values) + 1)
    widths = source.raw(1)[0]
    gap_width, rest_width = widths & 0x0F, widths >> 4
    if count == 0 or gap_width > 8 or not 0 < rest_width <= 8 - width:
        raise WireError("bad array exceptions")
    gaps = _widen(source, source.spend(count), gap_width)
    if int(gaps.max()) >= len(values):
        raise WireError("array exception out of range")
    places = np.cumsum(gaps + np.uint64(1)) - np.uint64(1)  # no overflow: at most len(values) gaps below len(values)
    if int(places[-1]) >= len(values):
        raise WireError("array exception out of range")
    rests = _widen(source, source.spend(count), rest_width)
    if not rests.all():
        raise WireError("empty array exception")
    values[places] |= rests << np.uint64(8 * width)


def write_series(out: Writer, values: I64, *, rising: bool, step: int = 0, thousands: bool = False) -> None:
    """Append `values` (int64[n], n known to the reader) as the first one and the differences, less `step`.

    `rising`: the differences are never negative (WireError if they are) and travel as they are, else as zigzag.
    `thousands`: where all values are multiples of 1000, they travel in that unit.
    """
    if not len(values):
        return
    values = np.asarray(values, np.int64)
    if rising and bool((values[1:] < values[:-1]).any()):
        raise WireError("times decrease")
    thousands = thousands and not bool((values % 1000).any())
    if thousands:
        values = values // 1000
    out.zigzag(int(values[0]))
    steps = values[1:] - values[:-1] - np.int64(step)
    packed = steps.view(np.uint64) if rising else ((steps << 1) ^ (steps >> 63)).view(np.uint64)
    write_packed(out, packed, thousands=thousands)


def read_series(source: Reader, count: int, *, rising: bool, step: int = 0, thousands: bool = False) -> I64:
    """The next `count` values, as `write_series` wrote them."""
    if count == 0:
        return np.empty(0, np.int64)
    first = source.zigzag()
    packed, in_thousands = read_packed(source, count - 1)
    if not rising:
        packed = (packed >> np.uint64(1)) ^ (np.uint64(0) - (packed & np.uint64(1)))
    values = np.empty(source.spend(count), np.int64)
    values[0] = first
    values[1:] = packed.view(np.int64) + np.int64(step)
    np.cumsum(values, out=values)  # wraps round where a sender lies; the checks below and of the caller see it
    if rising and bool((values[1:] < values[:-1]).any()):
        raise WireError("times decrease")
    if in_thousands:
        bound = (1 << 63) // 1000
        if not thousands or bool(((values > bound) | (values < -bound)).any()):
            raise WireError("unit of 1000 out of place")
        values *= 1000
    return values

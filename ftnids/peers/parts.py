"""The parts of a message: which fields, and how they travel.

A message is a row of parts.  A part knows the names of the fields it carries, writes them into a `Writer` and
reads them from a `Reader` into a dictionary of values; what it needs to know of earlier fields (a count, say) it
finds there.  `ftnids.peers.wire` lays the parts out in tables, one for each kind of message, and those tables
are all there is: no message has parsing code of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ftnids.errors import WireError
from ftnids.limits import MAX_MEMBERS
from ftnids.peers.packed import U64LE, Reader, Writer, read_packed, read_series, write_packed, write_series
from ftnids.sync.messages import I64, U64, View

Values = dict[str, Any]  # the fields of one message, by name
Count = str | int | Callable[[Values], int]  # the field that is as long; the limit of a count that travels; a rule

NUMBER_LIMIT: Final = 1 << 62  # of positions and seqs (the bit above marks recovered slots)
MASK_LIMIT: Final = 1 << MAX_MEMBERS


class Part:
    """Some fields of a message, and how they travel.

    `names` are the fields; `layout` says in a few words, for docs/wire.md, what goes over the wire.
    """

    names: tuple[str, ...]
    layout: str

    def write(self, out: Writer, values: Values) -> None:
        """Append this part's fields; WireError where a value cannot travel."""
        raise NotImplementedError

    def read(self, source: Reader, values: Values) -> None:
        """Add this part's fields to `values`; WireError where they are malformed."""
        raise NotImplementedError


class Unsigned(Part):
    """A number, 0 <= number < limit."""

    def __init__(self, name: str, limit: int = NUMBER_LIMIT) -> None:
        self.names, self._limit = (name,), limit
        self.layout = f"varint, below {_power(limit)}"

    def write(self, out: Writer, values: Values) -> None:
        out.varint(index(values[self.names[0]]), self._limit)

    def read(self, source: Reader, values: Values) -> None:
        values[self.names[0]] = source.varint(self._limit)


class Signed(Part):
    """A signed 64-bit number, not below `low`."""

    def __init__(self, name: str, low: int = -(1 << 63)) -> None:
        self.names, self._low = (name,), low
        self.layout = "zigzag" if low < -1 else f"zigzag, not below {low}"

    def write(self, out: Writer, values: Values) -> None:
        out.zigzag(self._check(index(values[self.names[0]])))

    def read(self, source: Reader, values: Values) -> None:
        values[self.names[0]] = self._check(source.zigzag())

    def _check(self, value: int) -> int:
        if value < self._low:
            raise WireError(f"{self.names[0]} {value} is below {self._low}")
        return value


class Fixed(Part):
    """A number of `size` bytes, below `limit`."""

    def __init__(self, name: str, size: int, limit: int = 0) -> None:
        self.names, self._size, self._limit = (name,), size, limit
        self.layout = f"{size} byte{'s' * (size > 1)}" + (f", below {limit}" if limit else "")

    def write(self, out: Writer, values: Values) -> None:
        out.raw(fixed(index(values[self.names[0]]), self._size, self._limit))

    def read(self, source: Reader, values: Values) -> None:
        values[self.names[0]] = unfixed(source.raw(self._size), self._limit)


class Rule(Part):
    """A condition on the fields before it; carries nothing."""

    names = ()

    def __init__(self, said: str, holds: Callable[[Values], bool]) -> None:
        self.layout, self._holds = said, holds

    def write(self, out: Writer, values: Values) -> None:
        self.read(Reader(b""), values)

    def read(self, source: Reader, values: Values) -> None:
        if not self._holds(values):
            raise WireError(f"against the rule: {self.layout}")


class Newest(Part):
    """The newest protocol version that the sender speaks; the prefix has it, so that it is in every version."""

    layout = "byte 5 of the prefix; if that is above the receiver's newest, the receiver's newest"

    def __init__(self, name: str) -> None:
        self.names = (name,)

    def write(self, out: Writer, values: Values) -> None:
        pass

    def read(self, source: Reader, values: Values) -> None:
        values[self.names[0]] = source.newest


class Switches(Part):
    """Booleans, one bit each."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.layout = "1 byte; " + ", ".join(f"bit {bit}: `{name}`" for bit, name in enumerate(names))

    def write(self, out: Writer, values: Values) -> None:
        out.raw(sum(bool(values[name]) << bit for bit, name in enumerate(self.names)).to_bytes())

    def read(self, source: Reader, values: Values) -> None:
        byte = source.raw(1)[0]
        if byte >> len(self.names):
            raise WireError(f"unknown switch in {byte:#x}")
        values.update((name, bool(byte >> bit & 1)) for bit, name in enumerate(self.names))


class Blob(Part):
    """Bytes, at most `limit`; where `count` is given, as many as it says."""

    def __init__(self, name: str, limit: int, count: Callable[[Values], int] | None = None, said: str = "") -> None:
        self.names, self._limit, self._count = (name,), limit, count
        self.layout = f"{said} bytes" if count else f"varint length, at most {limit:,}; bytes"

    def write(self, out: Writer, values: Values) -> None:
        data = self._bytes(values[self.names[0]])
        if self._count is None:
            out.varint(len(data), self._limit + 1)
        elif len(data) != self._count(values):
            raise WireError(f"{self.names[0]} has {len(data)} bytes, not {self._count(values)}")
        out.raw(data)

    def read(self, source: Reader, values: Values) -> None:
        length = source.varint(self._limit + 1) if self._count is None else self._count(values)
        values[self.names[0]] = self._value(bytes(source.raw(length)))

    def _bytes(self, value: Any) -> bytes:
        return bytes(value)

    def _value(self, data: bytes) -> Any:
        return data


class Text(Blob):
    """UTF-8 of at most `limit` bytes."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, limit)
        self.layout += " (UTF-8)"

    def _bytes(self, value: Any) -> bytes:
        try:
            return str(value).encode()
        except UnicodeEncodeError:
            raise WireError(f"{self.names[0]} is no UTF-8") from None

    def _value(self, data: bytes) -> Any:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise WireError(f"{self.names[0]} is no UTF-8") from None


class ViewName(Part):
    """A view: lineage, number, coordinator, incarnation."""

    layout = "u64 lineage, varint number, 1 byte coordinator, u64 incarnation"

    def __init__(self, name: str) -> None:
        self.names = (name,)

    def write(self, out: Writer, values: Values) -> None:
        view: View = values[self.names[0]]
        out.raw(fixed(view.lineage, 8))
        out.varint(view.number, 1 << 32)
        out.raw(fixed(view.coordinator, 1, MAX_MEMBERS))
        out.raw(fixed(view.incarnation, 8))

    def read(self, source: Reader, values: Values) -> None:
        lineage = unfixed(source.raw(8))
        number = source.varint(1 << 32)
        coordinator = unfixed(source.raw(1), MAX_MEMBERS)
        values[self.names[0]] = View(lineage, number, coordinator, unfixed(source.raw(8)))


class PerMember(Part):
    """A number for some of the members: `{member: number}`."""

    def __init__(self, name: str, *, signed: bool = False) -> None:
        self.names, self._signed = (name,), signed
        self.layout = f"varint mask of members; a {'zigzag' if signed else 'varint'} for each, lowest first"

    def write(self, out: Writer, values: Values) -> None:
        table: dict[int, int] = values[self.names[0]]
        out.varint(mask_of(table), MASK_LIMIT)
        for member in sorted(table):
            value = index(table[member])
            if self._signed:
                out.zigzag(value)
            else:
                out.varint(value, NUMBER_LIMIT)

    def read(self, source: Reader, values: Values) -> None:
        members = members_of(source.varint(MASK_LIMIT))
        values[self.names[0]] = {m: source.zigzag() if self._signed else source.varint(NUMBER_LIMIT) for m in members}


class ArrayPart(Part):
    """A part of one array whose length is known, or travels before it, or is that of an earlier one."""

    def __init__(self, name: str, count: Count, encoding: str, said: str = "") -> None:
        self.names, self._count = (name,), count
        if isinstance(count, int):
            said = f"varint count n, at most {count:,}"
        elif isinstance(count, str):
            said = f"n as of `{count}`"
        self.layout = f"{said}; {encoding}"

    def write(self, out: Writer, values: Values) -> None:
        array = values[self.names[0]]
        if isinstance(self._count, int):
            out.varint(len(array), self._count + 1)
        elif len(array) != self._known(values):
            raise WireError(f"{self.names[0]} has {len(array)} elements, not {self._known(values)}")
        self._write(out, array, values)

    def read(self, source: Reader, values: Values) -> None:
        count = source.varint(self._count + 1) if isinstance(self._count, int) else self._known(values)
        values[self.names[0]] = self._read(source, count, values)

    def _known(self, values: Values) -> int:
        if isinstance(self._count, str):
            return len(values[self._count])
        assert not isinstance(self._count, int)
        return self._count(values)

    def _write(self, out: Writer, array: NDArray[Any], values: Values) -> None:
        raise NotImplementedError

    def _read(self, source: Reader, count: int, values: Values) -> NDArray[Any]:
        raise NotImplementedError


class Hashes(ArrayPart):
    """Packet or cluster hashes: uint64[n] as they are (they do not shrink)."""

    def __init__(self, name: str, count: Count, said: str = "") -> None:
        super().__init__(name, count, "n u64", said)

    def _write(self, out: Writer, array: NDArray[Any], values: Values) -> None:
        out.raw(array.astype(U64LE, copy=False).tobytes())

    def _read(self, source: Reader, count: int, values: Values) -> U64:
        return np.frombuffer(source.raw(8 * source.spend(count)), U64LE).astype(np.uint64)


class Times(ArrayPart):
    """Times, int64[n]: the first, then the differences; `rising` times never decrease."""

    def __init__(
        self, name: str, count: Count, *, rising: bool = True, thousands: bool = False, said: str = ""
    ) -> None:
        unit = " in units of 1000 where all are multiples" if thousands else ""
        kind = "differences (never negative)" if rising else "differences as zigzag"
        super().__init__(name, count, f"if n > 0: zigzag first, packed n - 1 {kind}{unit}", said)
        self._rising, self._thousands = rising, thousands

    def _write(self, out: Writer, array: NDArray[Any], values: Values) -> None:
        write_series(out, array, rising=self._rising, thousands=self._thousands)

    def _read(self, source: Reader, count: int, values: Values) -> I64:
        return read_series(source, count, rising=self._rising, thousands=self._thousands)


class Spans(Part):
    """Two arrays of times, first and last of consecutive stretches, which never overlap."""

    def __init__(self, first: str, last: str, like: str) -> None:
        self.names, self._like = (first, last), like
        self._both = Times("times", self._twice, thousands=True, said=f"n = twice that of `{like}`, alternating")
        self.layout = self._both.layout

    def write(self, out: Writer, values: Values) -> None:
        first, last = (values[name] for name in self.names)
        if len(first) != len(last):
            raise WireError(f"{len(first)} {self.names[0]} and {len(last)} {self.names[1]}")
        self._both.write(out, {self._like: values[self._like], "times": np.stack((first, last), axis=1).ravel()})

    def read(self, source: Reader, values: Values) -> None:
        both: Values = {self._like: values[self._like]}
        self._both.read(source, both)
        for place, name in enumerate(self.names):
            values[name] = both["times"][place::2].copy()

    def _twice(self, values: Values) -> int:
        return 2 * len(values[self._like])


class Numbers(ArrayPart):
    """Positions or seqs, int64[n], 0 <= number < NUMBER_LIMIT, mostly consecutive."""

    encoding = "if n > 0: zigzag first, packed n - 1 (differences less 1) as zigzag"

    def __init__(self, name: str, count: Count, said: str = "") -> None:
        super().__init__(name, count, self.encoding, said)

    def _write(self, out: Writer, array: NDArray[Any], values: Values) -> None:
        write_numbers(out, self.names[0], array)

    def _read(self, source: Reader, count: int, values: Values) -> I64:
        return read_numbers(source, self.names[0], count)


class Small(ArrayPart):
    """Small unsigned numbers, each xored with `usual(values)` so that the usual one travels as 0."""

    def __init__(
        self, name: str, count: Count, dtype: type[np.unsignedinteger[Any]], limit: int, usual: Count | None = None
    ) -> None:
        what = f" (each xor `{usual}`)" if isinstance(usual, str) else ""
        super().__init__(name, count, f"packed n values{what}, below {_power(limit)}")
        self._dtype, self._limit, self._usual = dtype, limit, usual

    def _write(self, out: Writer, array: NDArray[Any], values: Values) -> None:
        wide = array.astype(np.uint64)
        self._check(wide)
        write_packed(out, wide ^ self._mask(values))

    def _read(self, source: Reader, count: int, values: Values) -> NDArray[Any]:
        packed, in_thousands = read_packed(source, count)
        wide: U64 = packed ^ self._mask(values)
        self._check(wide)
        if in_thousands:
            raise WireError("unit of 1000 out of place")
        return wide.astype(self._dtype)

    def _mask(self, values: Values) -> Any:
        usual = values[self._usual] if isinstance(self._usual, str) else 0
        return np.asarray(usual).astype(np.uint64)

    def _check(self, wide: U64) -> None:
        if len(wide) and int(wide.max()) >= self._limit:
            raise WireError(f"{self.names[0]} {int(wide.max())} is not below {self._limit}")


class NumbersPerMember(Part):
    """Positions for some of the members: `{member: int64[n]}`; `count` gives a member's n, or limits it."""

    def __init__(self, name: str, count: int | Callable[[Values, int], int], said: str = "") -> None:
        self.names, self._count = (name,), count
        each = f"varint count n, at most {count:,}" if isinstance(count, int) else said
        self.layout = f"varint mask of members; for each, lowest first: {each}; {Numbers.encoding}"

    def write(self, out: Writer, values: Values) -> None:
        table: dict[int, I64] = values[self.names[0]]
        out.varint(mask_of(table), MASK_LIMIT)
        for member in sorted(table):
            numbers = table[member]
            if isinstance(self._count, int):
                out.varint(len(numbers), self._count + 1)
            elif len(numbers) != self._count(values, member):
                raise WireError(
                    f"{self.names[0]} of member {member}: {len(numbers)}, not {self._count(values, member)}"
                )
            write_numbers(out, self.names[0], numbers)

    def read(self, source: Reader, values: Values) -> None:
        table: dict[int, I64] = {}
        for member in members_of(source.varint(MASK_LIMIT)):
            rule = self._count
            count = source.varint(rule + 1) if isinstance(rule, int) else rule(values, member)
            table[member] = read_numbers(source, self.names[0], count)
        values[self.names[0]] = table


# -- helpers --------------------------------------------------------------------------------------


def write_numbers(out: Writer, name: str, numbers: I64) -> None:
    """Append positions or seqs; WireError if one is out of range."""
    _check_numbers(name, numbers)
    write_series(out, numbers, rising=False, step=1)


def read_numbers(source: Reader, name: str, count: int) -> I64:
    """The next `count` positions or seqs; WireError if one is out of range."""
    numbers = read_series(source, count, rising=False, step=1)
    _check_numbers(name, numbers)
    return numbers


def _check_numbers(name: str, numbers: I64) -> None:
    if len(numbers) and (int(numbers.min()) < 0 or int(numbers.max()) >= NUMBER_LIMIT):
        raise WireError(f"{name} out of range")


def fixed(value: int, size: int, limit: int = 0) -> bytes:
    """`value` in `size` bytes; WireError unless 0 <= value < limit (0: all that fits)."""
    limit = limit or 1 << 8 * size
    if not 0 <= value < limit:
        raise WireError(f"{value} is not in 0 to {limit - 1}")
    return value.to_bytes(size, "little")


def unfixed(data: memoryview, limit: int = 0) -> int:
    """The number in `data`; WireError unless it is below `limit` (0: all that fits)."""
    value = int.from_bytes(data, "little")
    if limit and value >= limit:
        raise WireError(f"{value} is not in 0 to {limit - 1}")
    return value


def mask_of(members: dict[int, Any]) -> int:
    """The bit mask of a table's members; WireError if one is out of range."""
    if not all(0 <= member < MAX_MEMBERS for member in members):
        raise WireError(f"members {sorted(members)} are not all in 0 to {MAX_MEMBERS - 1}")
    return sum(1 << member for member in members)


def members_of(mask: int) -> list[int]:
    """The members in a bit mask, lowest first."""
    return [member for member in range(MAX_MEMBERS) if mask >> member & 1]


def _power(limit: int) -> str:
    return f"2^{limit.bit_length() - 1}" if limit > 256 and limit & limit - 1 == 0 else f"{limit:,}"

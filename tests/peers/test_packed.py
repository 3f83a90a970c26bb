"""Numbers and arrays as bytes: each way to lie is refused with its own reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids.errors import WireError
from ftnids.peers.packed import Reader, Writer, read_packed, read_series, write_packed, write_series
from ftnids.peers.parts import Small, Switches, Values

LARGE = (1 << 64) - 1
values = st.one_of(st.integers(0, 3), st.integers(0, 70_000), st.integers(0, LARGE))
signed = st.one_of(st.integers(-5, 5), st.integers(-(1 << 63), (1 << 63) - 1))


def written(numbers: list[int]) -> bytes:
    out = Writer()
    write_packed(out, np.array(numbers, np.uint64))
    return out.take()


@given(st.lists(values, max_size=60))
def test_packed_round_trip(numbers: list[int]) -> None:
    source = Reader(written(numbers))
    read, in_thousands = read_packed(source, len(numbers))
    source.finish()
    assert read.tolist() == numbers
    assert not in_thousands


@given(st.lists(signed, max_size=60), st.booleans(), st.sampled_from([0, 1]), st.sampled_from([1, 1000]))
def test_series_round_trip(numbers: list[int], rising: bool, step: int, unit: int) -> None:
    series = np.array(sorted(numbers) if rising else numbers, np.int64) // unit * unit
    series = series[series >= -(1 << 63) // 1000 * 1000 + 1000]
    out = Writer()
    write_series(out, series, rising=rising, step=0 if rising else step, thousands=True)
    source = Reader(out.take())
    read = read_series(source, len(series), rising=rising, step=0 if rising else step, thousands=True)
    source.finish()
    assert read.tolist() == series.tolist()


@given(st.integers(0, LARGE), st.integers(-(1 << 63), (1 << 63) - 1))
def test_numbers_round_trip(unsigned: int, number: int) -> None:
    out = Writer()
    out.varint(unsigned)
    out.zigzag(number)
    source = Reader(out.take())
    assert (source.varint(), source.zigzag()) == (unsigned, number)
    source.finish()


@pytest.mark.parametrize(
    ("numbers", "size"),
    [
        ([], 1),
        ([0] * 1000, 1),  # nothing to say
        ([200] * 1000, 1 + 1000),
        ([0] * 999 + [5], 1 + 2 + 2 + 1),  # one exception: descriptor, count and widths, gap, rest
        ([200] * 999 + [70_000], 1 + 1000 + 2 + 2 + 2),
        ([70_000] * 1000, 1 + 3000),
    ],
)
def test_packed_sizes(numbers: list[int], size: int) -> None:
    assert len(written(numbers)) == size


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "truncated"),
        ("01 00", "truncated"),
        ("09", "bad array descriptor 0x9"),
        ("40", "bad array descriptor 0x40"),
        ("10 01", "truncated"),
        ("10 00 10", "bad array exceptions"),  # none of them
        ("10 01 00 ", "bad array exceptions"),  # no rest
        ("10 01 90 0000", "bad array exceptions"),  # a rest of 9 bytes
        ("11 000000 01 80 0000000000000001", "bad array exceptions"),  # 1 byte here and 8 there
        ("10 01 19 00", "bad array exceptions"),  # a gap of 9 bytes
        ("10 04 10 01010101", "not in 0 to 3"),  # four exceptions in three values
        ("10 01 11 03 01", "array exception out of range"),
        ("10 02 11 01 01 01 01", "array exception out of range"),  # the second one is the fourth value
        ("10 01 18 ffffffffffffffff 01", "array exception out of range"),
        ("10 01 10 00", "empty array exception"),
    ],
)
def test_malformed_arrays(data: str, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        read_packed(Reader(bytes.fromhex(data)), 3)


def test_exceptions_are_added_to_the_low_bytes() -> None:
    read, _ = read_packed(Reader(bytes.fromhex("11 050607 02 10 0102")), 3)
    assert read.tolist() == [0x105, 0x206, 7]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("80 00", "not in its shortest form"),
        ("80", "truncated"),
        ("", "truncated"),
        ("ff" * 9 + "02", "is not in 0 to"),
        ("ff" * 10 + "01", "longer than 64 bits"),
    ],
)
def test_malformed_numbers(data: str, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        Reader(bytes.fromhex(data)).varint()


def series(data: str, *, rising: bool = True, thousands: bool = True) -> list[int]:
    return list(map(int, read_series(Reader(bytes.fromhex(data)), 2, rising=rising, thousands=thousands)))


def test_series_that_lie() -> None:
    assert series("04 01 05") == [2, 7]
    assert series("04 21 05") == [2000, 7000]
    with pytest.raises(WireError, match="times decrease"):
        series("04 08 ffffffffffffffff")  # a difference that wraps round
    with pytest.raises(WireError, match="unit of 1000"):
        series("04 21 05", thousands=False)
    with pytest.raises(WireError, match="unit of 1000"):
        series("04 28 00000000000000 40")  # 1000 times that is over 64 bits


def test_parts_that_lie() -> None:
    values: Values = {}
    with pytest.raises(WireError, match="unknown switch"):
        Switches("end").read(Reader(b"\x02"), values)
    few = Small("flags", 10, np.uint8, 16)
    few.read(Reader(bytes.fromhex("02 01 0f01")), values)
    assert values["flags"].tolist() == [15, 1]
    with pytest.raises(WireError, match="flags 16 is not below 16"):
        few.read(Reader(bytes.fromhex("02 01 1001")), values)
    with pytest.raises(WireError, match="unit of 1000"):
        few.read(Reader(bytes.fromhex("02 21 0101")), values)

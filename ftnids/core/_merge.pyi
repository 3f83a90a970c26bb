"""The aligner in C, and what it needs before and after."""

from collections.abc import Sequence

from ftnids.core.aligner import F64, I64, U8, U32, U64

def merge(
    hashes: Sequence[U64],
    times: Sequence[I64],
    tolerance_ns: Sequence[int],
    reorder_ns: int,
    reorder_places: int,
) -> tuple[I64, I64, U8]: ...
def survey(
    place: I64,
    time_ns: I64,
    hashes: Sequence[U64],
    times: Sequence[I64],
    positions: Sequence[I64],
    tolerance_ns: Sequence[int],
    reorder_ns: int,
    length: int,
) -> tuple[U64, U32, list[I64], int, int, int, int, int, int, int]: ...
def correct(
    times: I64,
    origin: int,
    seed: int,
    line: tuple[float, float],
    reach: tuple[float, float],
    knots: tuple[F64, F64],
) -> I64: ...

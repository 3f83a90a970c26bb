"""The aligner in C."""

from collections.abc import Sequence

from ftnids.sync.messages import I64, U8, U64

def merge(
    hashes: Sequence[U64], times: Sequence[I64], tolerance_ns: Sequence[int], reorder_ns: int, reorder_places: int
) -> tuple[I64, I64, U8]: ...

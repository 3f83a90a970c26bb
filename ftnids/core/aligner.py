"""The C kernels around the aligner, where they are built and FTNIDS_IMPL does not forbid them.

Their twins are `ftnids.sync.bursts.merge`, `ftnids.sync.survey.survey` and `ftnids.sync.clocks.Clock.correct`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ftnids.errors import ConfigError

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


class Kernels(Protocol):
    """What `_merge.pyx` offers."""

    def merge(
        self,
        hashes: Sequence[U64],
        times: Sequence[I64],
        tolerance_ns: Sequence[int],
        reorder_ns: int,
        reorder_places: int,
    ) -> tuple[I64, I64, U8]: ...

    def survey(
        self,
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
        self,
        times: I64,
        origin: int,
        seed: int,
        line: tuple[float, float],
        reach: tuple[float, float],
        knots: tuple[F64, F64],
    ) -> I64: ...


def built() -> Kernels | None:
    """The kernels, or None where they are not built."""
    try:
        return cast(Kernels, importlib.import_module("ftnids.core._merge"))
    except ImportError:
        return None


def chosen() -> Kernels | None:
    """The kernels to use, None for the pure-Python twins.  ConfigError when FTNIDS_IMPL asks for what is not there."""
    wanted = os.environ.get("FTNIDS_IMPL", "")
    if wanted not in ("", "c", "python"):
        raise ConfigError(f"FTNIDS_IMPL={wanted}: wants c or python")
    kernels = None if wanted == "python" else built()
    if wanted == "c" and kernels is None:
        raise ConfigError("FTNIDS_IMPL=c: the aligner is not built; run `make build`")
    return kernels

"""The aligner in C."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ftnids.core.aligner import Arrays

def merge(
    hashes: Sequence[NDArray[np.uint64]],
    times: Sequence[NDArray[np.int64]],
    tolerance_ns: Sequence[int],
    reorder_ns: int,
    reorder_places: int,
) -> Arrays: ...

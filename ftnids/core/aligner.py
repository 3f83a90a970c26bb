"""The aligner's C kernel, where it is built and FTNIDS_IMPL does not forbid it; its twin is `ftnids.sync.bursts`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ftnids.errors import ConfigError

Arrays = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]
Kernel = Callable[[Sequence[NDArray[np.uint64]], Sequence[NDArray[np.int64]], Sequence[int], int, int], Arrays]


def built() -> Kernel | None:
    """The kernel, or None where it is not built."""
    try:
        merge: Kernel = importlib.import_module("ftnids.core._merge").merge
    except ImportError:
        return None
    return merge


def chosen() -> Kernel | None:
    """The kernel to use, None for the pure-Python one.  ConfigError when FTNIDS_IMPL asks for what is not there."""
    wanted = os.environ.get("FTNIDS_IMPL", "")
    if wanted not in ("", "c", "python"):
        raise ConfigError(f"FTNIDS_IMPL={wanted}: wants c or python")
    kernel = None if wanted == "python" else built()
    if wanted == "c" and kernel is None:
        raise ConfigError("FTNIDS_IMPL=c: the aligner is not built; run `make build`")
    return kernel

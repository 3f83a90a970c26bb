"""Which file it was: what the kernel says of a full disk names none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ftnids.errors import FtnidsError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """While `path` is written: FtnidsError, naming it, when it cannot be."""
    try:
        yield
    except OSError as error:
        raise FtnidsError(f"{path}: cannot be written: {error.strerror}; make room, or name another -o DIR") from None


def private(path: Path) -> IO[bytes]:
    """Open a file for writing from its start; it is for its owner alone, as what holds packets or keys is."""
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))

"""Whether a folder's disk still takes what is written: an IDS that cannot write its log says so to nobody."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

_PROBE: Final = b"ftnids\n\0" * 512  # a block: a smaller write may find room where no line of a log does


def fault(folder: Path) -> str:
    """Why a file in `folder` cannot be written, or "".  Writes one block and removes it; nothing is synced."""
    path = folder / ".probe"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            path.unlink()
            if os.pwrite(fd, _PROBE, 0) < len(_PROBE):
                return os.strerror(errno.ENOSPC)
        finally:
            os.close(fd)
    except OSError as error:
        return error.strerror or str(error)
    return ""

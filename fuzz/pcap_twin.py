"""The pure-Python reader of capture files: any bytes are packets, a cut, or a CaptureError."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import gettempdir

from ftnids import limits
from ftnids.core.pure import files
from ftnids.errors import CaptureError


def check(data: bytes) -> None:
    """Read `data`, but its first byte, which speaks to the C target, as a capture file."""
    path = Path(gettempdir()) / f"ftnids-fuzz-{os.getpid()}.pcap"
    path.write_bytes(data[1:])
    try:
        opened = files.open_file(str(path))
    except CaptureError:
        return
    finally:
        path.unlink()
    total = 0
    try:
        for stamp_ns, wirelen, frame in opened.packets:
            assert isinstance(stamp_ns, int)
            assert wirelen >= 0
            assert len(frame) <= limits.MAX_SNAPLEN
            total += 1
            assert total <= len(data), "more packets than bytes"
    except (CaptureError, files.TruncatedError):
        pass
    finally:
        opened.file.close()

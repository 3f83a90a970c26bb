"""The shared trace in a real ring."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ftnids.core import Capture, Ring

SLOTS = 1 << 17  # more than the trace has packets


@contextlib.contextmanager
def traced(trace: Path, name: str) -> Iterator[Ring]:
    """A ring with the whole trace in it, and nothing agreed."""
    capture = Capture.file(str(trace), snaplen=65535, bpf="")
    ring = Ring.create(
        f"{name}-{os.getpid()}",
        slots=SLOTS,
        arena_bytes=64 << 20,
        recovered_slots=1024,
        recovered_bytes=1 << 20,
        agreed_slots=SLOTS,
        linktype=capture.linktype,
        snaplen=capture.snaplen,
        seed=7,
    )
    try:
        while capture.run(ring, 4096, 100) >= 0:
            pass
        yield ring
    finally:
        capture.close()
        ring.close(unlink=True)

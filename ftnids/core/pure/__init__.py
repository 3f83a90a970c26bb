"""The core without a compiler: numpy, xxhash and pcapy-ng over the same segment, with the same hashes to the bit.

For reading, for checking the C core against, and for hosts that cannot build it; a hundred times slower.  Stores
become visible in the order in which they are made on x86-64 only; elsewhere a segment of this implementation must not
be read by another process.  Live stamps are in whole microseconds, and a filter sees cut packets as cut.
"""

from __future__ import annotations

from typing import Final

from ftnids.core.pure.handle import Handle
from ftnids.core.pure.hashing import hash_frame
from ftnids.core.pure.source import Source

IMPL: Final = "python"

__all__ = ["IMPL", "Handle", "Source", "hash_frame"]

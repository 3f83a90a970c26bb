"""The ring, capture and hashing: the only room that touches a packet's bytes.

`FTNIDS_IMPL=c|python` forces an implementation; `IMPL` tells which one is in use.
"""

from __future__ import annotations

import os
from typing import Final

from ftnids.core import capture as _capture
from ftnids.core import native as _native_module
from ftnids.core import ring as _ring
from ftnids.core.faults import RandomDrop
from ftnids.core.packets import RECOVERED, PacketBatch, pcap_header, splitmix64

_native: Final = _native_module.select(os.environ.get("FTNIDS_IMPL", ""))
IMPL: Final = _native.IMPL
hash_frame: Final = _native.hash_frame


class Ring(_ring.Ring):
    """The ring, on the implementation in use."""

    native = _native


class Capture(_capture.Capture):
    """A capture source, on the implementation in use."""

    native = _native


__all__ = [
    "IMPL",
    "RECOVERED",
    "Capture",
    "PacketBatch",
    "RandomDrop",
    "Ring",
    "hash_frame",
    "pcap_header",
    "splitmix64",
]

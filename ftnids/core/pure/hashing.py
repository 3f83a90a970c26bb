"""The packet hash, by the xxhash package."""

from __future__ import annotations

import xxhash

from ftnids.core.packets import splitmix64


def hash_frame(frame: bytes, seed: int, wirelen: int | None = None) -> int:
    """The packet hash of `frame`, of which `wirelen` bytes (default: all) were on the link."""
    value = xxhash.xxh3_64_intdigest(frame, seed)
    return value if wirelen is None or wirelen == len(frame) else value ^ splitmix64(wirelen)

"""Both cores on one segment: they refuse it with the same words, or read the same from it.

The input is that of `targets/attach.c`, but for its first byte's offsets bit, which stays with the C target.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ftnids.core import layout, native
from ftnids.core.layout import Description
from ftnids.core.packets import RECOVERED
from ftnids.errors import RingError

CHECKSUM, UNIT, MOST, LOOKS = 4, 512, 2 << 20, 8
FIELDS: int = layout.FORMAT.size
CORES: list[native.Implementation] = [native.select(name) for name in ("c", "python")]


def check(data: bytes) -> None:
    """Attach both cores to the segment that `data` describes, and compare what they make of it."""
    fix, mapped = data[:1] or b"\0", int.from_bytes(data[1:3], "little") * UNIT
    if not layout.HEADER_BYTES <= mapped <= MOST:
        return  # `segment.attach` looks at that
    described = data[3 : 3 + FIELDS].ljust(FIELDS, b"\0")
    if fix[0] & CHECKSUM:
        one = Description.unpack(described)
        described = replace(one, checksum=layout.fnv1a(one.pack()[:-8])).pack()
    memory = bytearray(mapped)
    memory[:FIELDS] = described
    _scribble(memory, data[3 + FIELDS :])
    seen = [_read(core, memory) for core in CORES]
    assert seen[0] == seen[1], f"C sees {seen[0]}, Python {seen[1]}"


def _scribble(memory: bytearray, patches: bytes) -> None:
    """Writes anywhere behind the description: 3 bytes offset, 1 byte length (0 to 8), the bytes."""
    while len(patches) >= 5:
        at, length = int.from_bytes(patches[:3], "little"), patches[3] % 9
        value = patches[4 : 4 + length]
        if at >= FIELDS and at + len(value) <= len(memory):
            memory[at : at + len(value)] = value
        patches = patches[4 + length :]


def _read(core: native.Implementation, memory: bytearray) -> list[Any]:
    try:
        handle = core.Handle(memory, False)  # type: ignore[arg-type]
    except RingError as error:
        return [str(error)]
    seen: list[Any] = [handle.head, handle.tail, handle.agreed, handle.stable, handle.fed, handle.ended]
    numbers = {(edge + step) % (1 << 62) for edge in (handle.tail, handle.head) for step in range(-LOOKS, LOOKS)}
    for ref in sorted(numbers | {number | RECOVERED for number in numbers} | set(range(LOOKS))):
        try:
            batch = handle.gather(np.array([ref], np.int64))
            seen.append((ref, batch.hash.tolist(), batch.wirelen.tolist(), batch.data))
        except IndexError:
            pass
    first = handle.fed
    ends = [last for last in (handle.stable, min(handle.stable, first + LOOKS)) if first <= last]
    with Path(os.devnull).open("wb", 0) as out:
        return seen + [handle.export_pcap(out.fileno(), first, last) for last in ends]

"""The sizes of all containers that a replica holds, found by walking its objects, so that no list of them can rot.

A container is named by the attributes that lead to it; what is inside a container adds up under one name
("engine.coordinator.merger.streams[].pending").  Only the first few items of a large container are looked into.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

OURS: Final = ("ftnids.", "snort_adapter.", "soak.", "__main__")
ITEMS: Final = 24  # looked into, of each container
DEPTH: Final = 12
OBJECTS: Final = 20_000  # looked at in one census


def census(root: object) -> dict[str, int]:
    """Entries of every container below `root`, elements of arrays and bytes of buffers included."""
    sizes: dict[str, int] = {}
    seen = {id(root)}
    waiting: deque[tuple[str, object, int]] = deque([("", root, 0)])
    for _ in range(OBJECTS):
        if not waiting:
            break
        name, value, depth = waiting.popleft()
        size = _size(value)
        if size is not None:
            sizes[name] = sizes.get(name, 0) + size
        if depth < DEPTH:
            for inner, child in _inside(name, value):
                if id(child) not in seen and not isinstance(child, str | int | float | None):
                    seen.add(id(child))
                    waiting.append((inner, child, depth + 1))
    return sizes


def memory_bytes() -> int:
    """Anonymous resident memory of this process: the heap, without the ring's shared segment."""
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise OSError("this kernel tells no RssAnon")


def _size(value: object) -> int | None:
    if isinstance(value, np.ndarray):
        return int(value.size)
    if isinstance(value, dict | list | set | frozenset | deque | bytes | bytearray):
        return len(value)
    return None


def _inside(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        items: list[Any] = list(value.values())[:ITEMS]  # a list first: another thread may add to it
        yield from ((f"{name}[]", one) for one in items)
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from ((f"{name}[]", one) for one in list(value)[:ITEMS])
    elif type(value).__module__.startswith(OURS):
        attributes = dict(getattr(value, "__dict__", {}))
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, slot):
                    attributes[slot] = getattr(value, slot)
        yield from ((f"{name}.{key}".removeprefix("."), one) for key, one in attributes.items())

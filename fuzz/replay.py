"""Inputs for a target without a fuzzer: the seeds, what was found once, and seeded mutations of both."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from fuzz import seeds

FOUND: Final = Path(__file__).with_name("found")
PYTHON: Final = (
    "wire",
    "records",
    "status",
    "pcap_twin",
    "attach_twin",
)  # targets in Python: modules with `check(data)`
TELLING: Final = (b"\0", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xff" * 8, b"\0" * 8)


def checker(target: str) -> Callable[[bytes], None]:
    """The function of a Python target that takes any bytes and raises only where there is a fault."""
    check: Callable[[bytes], None] = importlib.import_module(f"fuzz.{target}").check
    return check


def found(target: str) -> list[Path]:
    """Inputs that once were a fault."""
    return sorted((FOUND / target).glob("*"))


def inputs(target: str) -> Iterator[bytes]:
    """The seeds of a target, and what was found."""
    yield from seeds.CORPORA[target]()
    yield from (path.read_bytes() for path in found(target))


def mutations(data: bytes, rounds: int, seed: int) -> Iterator[bytes]:
    """`rounds` damaged copies of `data`: flipped bits, telling values, cuts, stretches moved and repeated."""
    draw = random.Random(seed)
    for _ in range(rounds):
        copy = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(copy) + 1)
            stretch = copy[at : at + draw.randint(1, 16)]
            match draw.randrange(6):
                case 0 if stretch:
                    copy[at] ^= 1 << draw.randrange(8)
                case 1:
                    value = draw.choice(TELLING)
                    copy[at : at + len(value)] = value
                case 2:
                    del copy[at : at + len(stretch)]
                case 3:
                    to = draw.randrange(len(copy) + 1)
                    copy[to:to] = stretch
                case 4:
                    copy[at : at + 1] = draw.randbytes(1)
                case 5 if draw.random() < 0.2:
                    del copy[at:]
        yield bytes(copy)

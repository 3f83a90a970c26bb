"""Long series of cases, of which one run takes a part."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, TypeVar

from tests.background import version

ALL: Final = bool(os.environ.get("FTNIDS_ALL"))
T = TypeVar("T")


def some(values: Iterable[T]) -> list[T]:
    """Each second one, the others with another version of the protocol's code; all of them with FTNIDS_ALL."""
    cases = list(values)
    return cases if ALL else cases[version() % 2 :: 2]

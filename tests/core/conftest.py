"""Every test of the core runs over both implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ftnids.core.ring import Ring
from tests.core.helpers import IMPLEMENTATIONS, Core


@pytest.fixture(params=IMPLEMENTATIONS)
def core(request: pytest.FixtureRequest) -> Core:
    """Each implementation in turn."""
    return Core(request.param)


@pytest.fixture
def new_ring(core: Core) -> Iterator[Callable[..., Ring]]:
    """Makes rings that go away with the test."""
    rings: list[Ring] = []

    def make(name: str = "", **changes: Any) -> Ring:
        rings.append(core.ring(name, **changes))
        return rings[-1]

    yield make
    for one in rings:
        one.close(unlink=True)


@pytest.fixture
def ring(new_ring: Callable[..., Ring]) -> Ring:
    """One small ring."""
    return new_ring()

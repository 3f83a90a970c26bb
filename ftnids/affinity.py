"""Which CPUs a replica's parts run on.

Affinity belongs to threads: each inherits that of the one that makes it.  The main thread's is set before ZeroMQ's
threads are made, the capture thread sets its own, and the IDS gets back what the process had at its start.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from ftnids.errors import ConfigError

AT_START: Final = frozenset(os.sched_getaffinity(0))


def check(key: str, cpus: Iterable[int]) -> None:
    """ConfigError when one of `cpus`, which `key` names, is not there for this process."""
    if absent := sorted(set(cpus) - AT_START):
        there = ", ".join(map(str, sorted(AT_START)))
        raise ConfigError(f"{key}: CPU {absent[0]} is not there for this process; it has {there}")


def pin(cpus: Iterable[int]) -> None:
    """Keep the calling thread, and all that it makes from now on, on `cpus`; none: where it is."""
    if wanted := set(cpus):
        os.sched_setaffinity(0, wanted)

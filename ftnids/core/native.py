"""What an implementation of the core offers, and which one is used.

Two implementations, one behaviour: the C extension `_core`, and `pure`, which is numpy, xxhash and pcapy-ng.
`FTNIDS_IMPL=c|python` forces one; by default it is C where it is built.
"""

from __future__ import annotations

import importlib
import mmap
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ftnids.core.packets import PacketBatch
from ftnids.errors import ConfigError


class Handle(Protocol):
    """One mapped ring: its counters (loads acquire, stores release) and what is done packet by packet."""

    def __init__(self, memory: mmap.mmap, writable: bool) -> None: ...

    tail: int
    recovered_tail: int
    agreed: int
    stable: int
    fed: int
    speculative: int

    @property
    def head(self) -> int: ...
    @property
    def watermark_ns(self) -> int: ...
    @property
    def ring_drops(self) -> int: ...
    @property
    def recovered_head(self) -> int: ...
    @property
    def recovered_rejected(self) -> int: ...
    @property
    def recovered_no_room(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    @property
    def epoch(self) -> int: ...
    def retract(self, seq: int) -> None: ...
    def wake(self) -> None: ...
    def set_end(self) -> None: ...
    def gather(self, refs: NDArray[np.int64]) -> PacketBatch: ...
    def store_recovered(
        self, hash: NDArray[np.uint64], caplen: NDArray[np.uint32], wirelen: NDArray[np.uint32], data: bytes
    ) -> NDArray[np.int64]: ...
    def wait_stable(self, seq: int, timeout_ns: int) -> int: ...
    def wait_news(self, seq: int, ahead: int, timeout_ns: int) -> None: ...
    def export_pcap(self, fd: int, first: int, last: int) -> tuple[int, int]: ...


class Source(Protocol):
    """One libpcap source."""

    @staticmethod
    def live(
        interface: str,
        snaplen: int,
        promiscuous: bool,
        buffer_bytes: int,
        bpf: str,
        immediate: bool,
        guard_ns: int,
    ) -> Source: ...
    @staticmethod
    def file(path: bytes, snaplen: int, bpf: str) -> Source: ...
    def set_pace(self, pace: str, interval_ns: int) -> None: ...
    def set_skew(self, offset_ns: int, drift: int, jitter_ns: int, seed: int) -> None: ...
    def set_drop(self, seed: int, first: int, after_kept: int, after_dropped: int) -> None: ...
    def set_share(self, mine: int, shares: int) -> None: ...
    def look(self) -> None: ...
    def run(self, ring: Handle, max_packets: int, timeout_ns: int) -> int: ...
    @property
    def linktype(self) -> int: ...
    @property
    def captured(self) -> int: ...
    @property
    def captured_bytes(self) -> int: ...
    @property
    def kernel_drops(self) -> int: ...
    @property
    def ring_drops(self) -> int: ...
    @property
    def injected_drops(self) -> int: ...
    @property
    def left_to_peers(self) -> int: ...
    @property
    def clock_steps(self) -> int: ...
    @property
    def warning(self) -> str: ...
    @property
    def clock_ns(self) -> int: ...
    def close(self) -> None: ...


class Implementation(Protocol):
    """A module that implements the core."""

    IMPL: str

    @property
    def Handle(self) -> type[Handle]: ...  # noqa: N802
    @property
    def Source(self) -> type[Source]: ...  # noqa: N802
    def hash_frame(self, frame: bytes, seed: int, wirelen: int | None = None) -> int: ...


MODULES = {"c": "ftnids.core._core", "python": "ftnids.core.pure"}


def select(wanted: str) -> Implementation:
    """The implementation `wanted`, or the best one there is when that is empty.  ConfigError when it cannot be had."""
    if wanted and wanted not in MODULES:
        raise ConfigError(f"FTNIDS_IMPL={wanted}: must be c or python")
    try:
        chosen: Implementation = importlib.import_module(MODULES[wanted or "c"])
    except ImportError as error:
        if wanted:
            raise ConfigError(f"FTNIDS_IMPL={wanted}: cannot be loaded ({error}); `make build` builds it") from None
        chosen = importlib.import_module(MODULES["python"])
    return chosen

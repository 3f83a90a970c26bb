"""From the configuration to an open source."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ftnids import log
from ftnids.capture.preflight import kernel_buffer, preflight
from ftnids.core import Capture, RandomDrop


class DropSettings(Protocol):
    """`[capture.drop]`."""

    @property
    def loss(self) -> float: ...
    @property
    def burst(self) -> float: ...
    @property
    def seed(self) -> int: ...


class CaptureSettings(Protocol):
    """`[capture]`: exactly one of `interface` and `file` is set."""

    @property
    def interface(self) -> str | None: ...
    @property
    def file(self) -> Path | None: ...
    @property
    def bpf(self) -> str: ...
    @property
    def snaplen(self) -> int: ...
    @property
    def promiscuous(self) -> bool: ...
    @property
    def buffer_mb(self) -> int: ...
    @property
    def pace(self) -> str: ...
    @property
    def pps(self) -> int: ...
    @property
    def clock_offset_us(self) -> int: ...
    @property
    def jitter_us(self) -> int: ...
    @property
    def drop(self) -> DropSettings: ...


def open_capture(settings: CaptureSettings, before: Capture | None = None) -> Capture:
    """The source that `[capture]` names, with its injected faults.  CaptureError when it cannot be opened.

    What would make this replica see other frames than its peers is logged.  With `before`, the open source of a replica
    that has ended in this process, it is that one, and its faults begin anew.
    """
    capture = before or (_live(settings, settings.interface) if settings.interface else _file(settings))
    if settings.drop.loss > 0:
        capture.set_drop(RandomDrop(settings.drop.loss, settings.drop.burst, settings.drop.seed))
    return capture


def _live(settings: CaptureSettings, interface: str) -> Capture:
    capture = Capture.live(
        interface,
        snaplen=settings.snaplen,
        promiscuous=settings.promiscuous,
        buffer_bytes=settings.buffer_mb << 20,
        bpf=settings.bpf,
        clock_offset_ns=settings.clock_offset_us * 1000,
        jitter_ns=settings.jitter_us * 1000,
        seed=settings.drop.seed,
    )
    for fault in (*preflight(interface), *kernel_buffer(interface, settings.snaplen, settings.buffer_mb << 20)):
        log.get("capture").warning("capture_interface", interface=interface, fault=fault.what, hint=fault.cure)
    return capture


def _file(settings: CaptureSettings) -> Capture:
    return Capture.file(
        str(settings.file),
        snaplen=settings.snaplen,
        bpf=settings.bpf,
        pace=settings.pace,
        pps=settings.pps,
        clock_offset_ns=settings.clock_offset_us * 1000,
        jitter_ns=settings.jitter_us * 1000,
        seed=settings.drop.seed,
    )

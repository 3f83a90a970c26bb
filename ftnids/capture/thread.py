"""The capture thread: one source into one ring until it ends or is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from ftnids import affinity, limits, log
from ftnids.core.capture import Capture
from ftnids.core.ring import Ring
from ftnids.errors import FtnidsError

LOOK_S: Final = 0.00005  # between two looks at a watermark that is being brought up to now
COUNTERS: Final = ("captured", "captured_bytes", "kernel_drops", "ring_drops", "injected_drops", "left_to_peers")


class CaptureThread:
    """Drives `Capture.run`.  The thread is in C, without the GIL, but for moments.

    `wake` is called, on this thread, when there is something that the main loop should not sleep through: the end,
    a whole batch of packets, or the first one after a quiet time.  The thread runs on `cpus`, if there are any.
    The counters live on after the end.  With `prompt`, it is called within CAPTURE_PROMPT_MS of each packet, too.
    """

    def __init__(
        self,
        capture: Capture,
        ring: Ring,
        wake: Callable[[], None] = lambda: None,
        cpus: Collection[int] = (),
        *,
        prompt: bool = False,
    ) -> None:
        self._drowsy_ms = limits.CAPTURE_PROMPT_MS if prompt else limits.CAPTURE_DROWSY_MS
        self._prompt = prompt
        self._capture, self._ring, self._wake, self._cpus = capture, ring, wake, cpus
        self._before = {name: getattr(capture, name) for name in COUNTERS}  # in an earlier ring
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._error: FtnidsError | None = None
        self._started = self._finished = False
        self.quiet = False  # nothing has come for CAPTURE_DROWSY_MS, and the next packet calls `wake`
        self._warned = ""

    def start(self) -> None:
        """Start capturing."""
        self._started = True
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does within CAPTURE_RUN_MS.  Before `start` it keeps the thread from capturing."""
        self._stopping.set()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until the thread has ended; nothing where it was never started."""
        if self._started:
            self._thread.join(timeout_s)

    def look(self) -> None:
        """Have the watermark brought up to now where it is not, if that is soon done; else it comes later."""
        stale_ns = self._capture.clock_ns - self._capture.guard_ns - limits.CAPTURE_STALE_NS
        if self._finished or self._ring.watermark_ns >= stale_ns:
            return
        self._capture.look()
        until = time.monotonic_ns() + limits.CAPTURE_STALE_NS
        while self._ring.watermark_ns < stale_ns and time.monotonic_ns() < until:
            time.sleep(LOOK_S)

    @property
    def ended(self) -> bool:
        """The stream is over: the file has ended, or the thread was stopped.  CaptureError if capturing failed."""
        if self._error is not None:
            raise self._error
        return self._finished or (self._stopping.is_set() and not self._started)

    @property
    def captured(self) -> int:
        """Packets put into the ring."""
        return self._count("captured")

    @property
    def captured_bytes(self) -> int:
        """Bytes of these packets, as they were on the link."""
        return self._count("captured_bytes")

    @property
    def kernel_drops(self) -> int:
        """Packets that the kernel or the interface dropped."""
        return self._count("kernel_drops")

    @property
    def ring_drops(self) -> int:
        """Packets dropped because the ring was full."""
        return self._count("ring_drops")

    @property
    def injected_drops(self) -> int:
        """Packets dropped by fault injection."""
        return self._count("injected_drops")

    @property
    def left_to_peers(self) -> int:
        """Packets that were a peer's to keep while the ring filled."""
        return self._count("left_to_peers")

    @property
    def warning(self) -> str:
        """One line about what is wrong with the source but not fatal; empty if nothing is."""
        return self._capture.warning

    def _count(self, name: str) -> int:
        """A counter of the source, without what an earlier thread of the same source had counted."""
        count: int = getattr(self._capture, name) - self._before[name]
        return count

    def _run(self) -> None:
        ran = False
        try:
            affinity.pin(self._cpus)
            while not self._stopping.is_set():
                ran = True
                most = 1 if self.quiet else limits.CAPTURE_RUN_PACKETS
                longest = limits.CAPTURE_RUN_MS if self.quiet else self._drowsy_ms
                put = self._capture.run(self._ring, most, longest)
                self._note_warning()
                self.quiet = put == 0
                if put < 0:
                    break
                if put == most or (put and self._prompt):
                    self._wake()
            else:
                if ran and self._capture.guard_ns:  # what a live source had received by then is in the stream
                    self._capture.run(self._ring, limits.CAPTURE_RUN_PACKETS, 1)
        except FtnidsError as error:
            self._error = error
        finally:
            self._finished = True
            self._wake()

    def _note_warning(self) -> None:
        if (warning := self._capture.warning) != self._warned:
            self._warned = warning
            log.get("capture").warning("capture_source", fault=warning)

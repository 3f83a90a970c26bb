"""Sources into the ring: a live interface or a capture file, with injected loss, on a thread of its own."""

from ftnids.capture.preflight import filter_fault, kernel_buffer, preflight
from ftnids.capture.sources import CaptureSettings, open_capture
from ftnids.capture.thread import CaptureThread

__all__ = ["CaptureSettings", "CaptureThread", "filter_fault", "kernel_buffer", "open_capture", "preflight"]

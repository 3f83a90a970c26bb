"""The lossless tap: `python -m ftnids.lab.tap INTERFACE FILE [--snaplen BYTES]`.

It writes all that it captures to a pcap file until SIGTERM.  It prints `ready` when it captures, and at the end one
line of JSON: packets captured, packets dropped by the kernel.
"""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

import numpy as np

from ftnids import limits
from ftnids.core import Capture, Ring, pcap_header
from ftnids.lab import leftovers
from ftnids.lab.writing import private, writing


class Tap:
    """One interface into one file, in arrival order, times in whole microseconds."""

    def __init__(self, interface: str, path: Path, snaplen: int = limits.MAX_SNAPLEN) -> None:
        self.capture = Capture.live(
            interface,
            snaplen=snaplen,
            promiscuous=True,
            buffer_bytes=limits.LAB_TAP_BUFFER,
            bpf="",
            immediate=False,  # packed blocks: in immediate mode each packet takes a slot as large as the largest may be
        )
        self.ring = Ring.create(
            f"{leftovers.ring_tag()}-tap",
            slots=limits.LAB_TAP_PACKETS,
            arena_bytes=limits.LAB_SCAN_BYTES,
            recovered_slots=limits.MIN_RING_SLOTS,
            recovered_bytes=limits.MIN_ARENA_BYTES,
            agreed_slots=limits.LAB_TAP_PACKETS,
            linktype=self.capture.linktype,
            snaplen=snaplen,
            seed=0,
            mode=0o600,
        )
        self.path, self.file = path, private(path)
        with writing(path):
            self.file.write(pcap_header(self.capture.linktype, snaplen))
            self.file.flush()  # the core writes to the same descriptor
        self.written = 0
        self.stopping = False

    def stop(self, *_: object) -> None:
        """Have `run` return when the kernel's buffer is empty."""
        self.stopping = True

    def run(self) -> None:
        """Capture until `stop`, and then until nothing is left in the kernel's buffer."""
        while True:
            stopping = self.stopping
            new = self.capture.run(self.ring, limits.LAB_TAP_PACKETS // 2, 50)
            self._write()
            if stopping and new == 0:
                return

    def _write(self) -> None:
        first, last = self.written, self.ring.head
        if last > first:
            refs = np.arange(first, last, dtype=np.int64)
            times_us = np.asarray(self.ring.times(first, last)) // 1_000
            self.ring.publish_agreed(first, refs, times_us, np.zeros(len(refs), np.uint8))
            self.ring.set_stable(last)
            with writing(self.path):
                self.written = self.ring.export_pcap(self.file.fileno(), first, last)
            self.ring.fed = last
            self.ring.free_captured(last)

    def close(self) -> None:
        """Close the file and the interface, remove the ring."""
        self.file.close()
        self.capture.close()
        self.ring.close(unlink=True)


def main() -> None:
    """The command line of this module's process."""
    parser = argparse.ArgumentParser(prog="ftnids.lab.tap")
    parser.add_argument("interface")
    parser.add_argument("file", type=Path)
    parser.add_argument("--snaplen", type=int, default=limits.MAX_SNAPLEN)  # the kernel's buffer holds more of less
    asked = parser.parse_args()
    tap = Tap(asked.interface, asked.file, asked.snaplen)
    signal.signal(signal.SIGTERM, tap.stop)
    try:
        print("ready", flush=True)
        tap.run()
        lost = tap.capture.kernel_drops + tap.capture.ring_drops
        print(json.dumps({"captured": tap.capture.captured, "dropped": lost}))
    finally:
        tap.close()


if __name__ == "__main__":
    main()

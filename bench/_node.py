"""A replica whose input is in its ring before it begins: `python -m bench._node CONFIG OUT`, for the benches of sync.

It is the replica that `ftnids run` runs, but for its capture: first, alone on a core, the whole file goes into the
ring, and one line with packets and seconds comes out.  A line on its input lets it begin.  At the end another line
says what it took, and OUT.npz holds the hashes of what it captured and of what was agreed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from ftnids import config, log
from ftnids.capture import CaptureThread
from ftnids.core import RECOVERED
from ftnids.replica import Replica
from ftnids.sync.actions import Action, End, Free, Publish, Start

CHUNK: Final = 1 << 16  # packets


class Loaded:
    """A capture thread that has ended."""

    def __init__(self, thread: CaptureThread) -> None:
        self._thread = thread

    def start(self) -> None:
        """Nothing is left to capture."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._thread, name)


class Preloaded(Replica):
    """A replica that keeps all packets in its ring, and notes when it began and ended."""

    def load(self) -> float:
        """Capture the whole file; returns the seconds it took."""
        began = time.perf_counter()
        self.thread.start()
        self.thread.join()
        seconds = time.perf_counter() - began
        assert not self.thread.ring_drops, "the ring is too small for the file"
        self.thread = Loaded(self.thread)  # type: ignore[assignment]
        self.published: list[Publish] = []
        self.began = self.ended = self.began_cpu = self.ended_cpu = 0.0
        return seconds

    def _act(self, action: Action) -> None:
        match action:
            case Free():
                return  # what is in the ring is looked at again at the end
            case Publish():
                self.published.append(action)
            case Start():
                self.began, self.began_cpu = time.monotonic(), time.process_time()
            case End():
                self.ended, self.ended_cpu = time.monotonic(), time.process_time()
        super()._act(action)

    def agreed(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Hashes of the agreed stream."""
        refs = np.concatenate([publish.refs for publish in self.published])
        hashes = np.empty(len(refs), np.uint64)
        own = refs < RECOVERED
        hashes[own] = self.ring.hashes(0, self.ring.head)[refs[own]]
        others = refs[~own]
        for first in range(0, len(others), CHUNK):
            part = slice(first, first + CHUNK)
            hashes[np.flatnonzero(~own)[part]] = self.ring.gather(others[part]).hash
        return hashes

    def _close(self) -> None:
        self.captured_hashes, self.agreed_hashes = self.ring.hashes(0, self.ring.head).copy(), self.agreed()
        self.bytes_sent, self.recovered = self.transport.counters["bytes_sent"], self.engine.member.recovered  # type: ignore[union-attr]
        super()._close()


def main(source: Path, out: Path) -> int:
    """Load, wait, run, tell."""
    settings = config.load(source)
    config.make_directories(settings.replica)
    log.configure("error")
    replica = Preloaded(settings)
    print(json.dumps({"loaded": replica.load(), "packets": replica.ring.head}), flush=True)
    sys.stdin.readline()
    status = replica.run()
    np.savez(out, captured=replica.captured_hashes, agreed=replica.agreed_hashes)
    facts = {
        "status": status,
        "seconds": replica.ended - replica.began,
        "cpu": replica.ended_cpu - replica.began_cpu,
        "sent": replica.bytes_sent,
        "recovered": replica.recovered,
    }
    print(json.dumps(facts), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

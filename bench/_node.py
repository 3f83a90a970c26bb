"""A replica that a bench watches: `python -m bench._node CONFIG OUT [--preload]`.

It is the replica that `ftnids run` runs.  With --preload, first, alone on a core, the whole file goes into the ring,
and only then the replica begins.  One line on standard output says that it is ready (and what loading took), a line
on its input lets it begin, and a last line says what it took; OUT.npz holds the hashes of what it captured and of
what was agreed, where it was preloaded.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from ftnids import config, log
from ftnids.capture import CaptureThread
from ftnids.core import RECOVERED
from ftnids.peers.packed import Writer, write_series
from ftnids.replica import Replica
from ftnids.sync.actions import Action, End, Free, Publish, Send, Start
from ftnids.sync.messages import U64, Decision

CHUNK: Final = 1 << 16  # packets


class Loaded:
    """A capture thread that has ended."""

    def __init__(self, thread: CaptureThread) -> None:
        self._thread = thread

    def start(self) -> None:
        """Nothing is left to capture."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._thread, name)


class Watched(Replica):
    """A replica that notes when it began and ended; a preloaded one keeps all packets in its ring."""

    preloaded = False
    began = ended = began_cpu = ended_cpu = 0.0
    time_bytes = 0  # of agreed times, in all decisions that this replica sent

    def stages(self) -> None:
        """Count the processor time of the main thread by stage, from now on."""
        self.spent: dict[str, float] = {}
        self.turns: list[float] = []  # processor time of each turn of the main loop, seconds
        for stage, owner, method in (
            ("receive and decode", self.transport, "receive"),
            ("take in messages", self.engine, "receive"),
            ("report, compare, decide", self.engine, "tick"),
            ("encode and send", self.transport, "send"),
            ("publish", self.ring, "publish_agreed"),
            ("gather recovered", self.ring, "gather"),
            ("store recovered", self.ring, "store_recovered"),
        ):
            setattr(owner, method, self._timed(stage, getattr(owner, method)))

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        self.spent[stage] = 0.0

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.spent[stage] += time.thread_time() - began

        return timed

    def load(self) -> float:
        """Capture the whole file; returns the seconds it took."""
        began = time.perf_counter()
        self.thread.start()
        self.thread.join()
        seconds = time.perf_counter() - began
        assert not self.thread.ring_drops, "the ring is too small for the file"
        self.thread = Loaded(self.thread)  # type: ignore[assignment]
        self.preloaded = True
        self.published: list[Publish] = []
        return seconds

    def _turn(self) -> None:
        began = time.thread_time()
        super()._turn()
        self.turns.append(time.thread_time() - began)

    def facts(self) -> dict[str, Any]:
        """What it took, from the first view to the end of the agreed stream."""
        member = self.engine.member
        assert member is not None
        return {
            "seconds": self.ended - self.began,
            "cpu": self.ended_cpu - self.began_cpu,
            "sent": self.transport.counters["bytes_sent"],
            "time_bytes": self.time_bytes,
            "captured": self.ring.head,
            "recovered": member.recovered,
            "agreed": member.stable,
            "ring_drops": self.thread.ring_drops,
            "memory": memory(),
            "turn_p99_ms": float(np.percentile(self.turns, 99)) * 1e3,
            "delay_p50_ms": self._delay.histogram.percentile(0.5),
            "delay_p99_ms": self._delay.histogram.percentile(0.99),
            "delay_max_ms": self._delay.histogram.max_ms,
            "stages": self.spent,
        }

    def _act(self, action: Action) -> None:
        match action:
            case Free() if self.preloaded:
                return  # what is in the ring is looked at again at the end
            case Publish() if self.preloaded:
                self.published.append(action)
            case Send(message=Decision() as decision) if not self.preloaded:
                out = Writer()
                write_series(out, decision.time_us, rising=True)
                self.time_bytes += len(out.take())
            case Start():
                self.began, self.began_cpu = time.monotonic(), time.process_time()
            case End():
                self.ended, self.ended_cpu = time.monotonic(), time.process_time()
        super()._act(action)

    def agreed(self) -> U64:
        """Hashes of the agreed stream."""
        refs = np.concatenate([publish.refs for publish in self.published])
        hashes = np.empty(len(refs), np.uint64)
        own = refs < RECOVERED
        hashes[own] = self.ring.hashes(0, self.ring.head)[refs[own]]
        others = np.flatnonzero(~own)
        for first in range(0, len(others), CHUNK):
            part = others[first : first + CHUNK]
            hashes[part] = self.ring.gather(refs[part]).hash
        return hashes

    def _close(self) -> None:
        self.told = self.facts()
        if self.preloaded:
            self.captured_hashes, self.agreed_hashes = self.ring.hashes(0, self.ring.head).copy(), self.agreed()
        super()._close()


def memory() -> int:
    """Bytes of memory that this process has of its own or shares, each page once."""
    return int(psutil.Process(os.getpid()).memory_full_info().pss)


def main(source: Path, out: Path, *, preload: bool) -> int:
    """Load, wait, run, tell."""
    settings = config.load(source)
    config.make_directories(settings.replica)
    log.configure("error")
    replica = Watched(settings)
    replica.stages()
    seconds = replica.load() if preload else 0.0
    print(json.dumps({"loaded": seconds, "packets": replica.ring.head}), flush=True)
    sys.stdin.readline()
    status = replica.run()
    if preload:
        np.savez(out, captured=replica.captured_hashes, agreed=replica.agreed_hashes)
    print(json.dumps(replica.told), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), preload="--preload" in sys.argv))

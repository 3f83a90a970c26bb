"""Sinks: each takes the stable packets of one ring, in agreed order, at its own pace.

Every sink is a thread that waits for `ring.wait_stable` and takes what has come, a batch at a
time; the packets themselves are copied in C, without the GIL.  `Feed` keeps `ring.fed` at the least of its
sinks' positions, so a slow sink holds back the ring's memory and nothing else, and a sink
that failed holds back nothing.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ftnids.core import pcap_header
from ftnids.errors import FeedError
from ftnids.feed.lines import hash_lines
from ftnids.feed.ring import AgreedRing, agreed_hashes
from ftnids.limits import FEED_BATCH, FEED_WAIT_S
from ftnids.log import get

log = get("feed")


class Sink:
    """One consumer of the agreed stream.

    `position` is the seq of the first packet that it has not consumed; `error` says why it gave
    up, if it did.  Subclasses take batches in `_take`.
    """

    name = "sink"

    def __init__(self, ring: AgreedRing) -> None:
        self.ring = ring
        self.position = ring.fed
        self.error: FeedError | None = None
        self.warning = ""  # what an operator should know now
        self.moved: Callable[[], None] = lambda: None  # called after each batch
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"feed-{self.name}", daemon=True)

    def start(self) -> None:
        """Begin; FeedError when the sink cannot take anything."""
        self._thread.start()

    def start_at(self, seq: int) -> None:
        """The ring's first packet is `seq`; before anything is published."""
        self.position = seq

    def stop(self) -> None:
        """Give up what is not consumed yet; returns at once."""
        self._stop.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the stream or of the sink; whether it is there."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def ended(self) -> bool:
        """The sink has finished or failed."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except (OSError, FeedError) as error:
            self.error = error if isinstance(error, FeedError) else FeedError(f"{self.name}: {error.strerror or error}")
            log.error("a feed gave up", sink=self.name, seq=self.position, reason=str(self.error))
        finally:
            self._close()
            self.moved()

    def _work(self) -> None:
        """The thread's life: an OSError or FeedError means that the sink gives up."""
        self._drain()

    def _drain(self) -> bool:
        """Take batches until the stream has ended (True) or this sink is stopped (False)."""
        while not self._stop.is_set():
            stable = self.ring.wait_stable(self.position, FEED_WAIT_S)
            if stable > self.position:
                self.position = self._take(self.position, min(stable, self.position + FEED_BATCH))
                self.moved()
            elif self.ring.ended and self.position >= self.ring.agreed:
                return True
            else:
                self._idle()
        return False

    def _take(self, first: int, last: int) -> int:
        """Consume [first, last) or a part of it; returns the next seq.  OSError or FeedError to give up."""
        return last

    def _idle(self) -> None:
        """Called when nothing came for a while."""

    def _close(self) -> None:
        """Free what the sink holds; called once, whatever happened."""


class Discard(Sink):
    """Takes the stream and drops it: the sink of a replica that feeds nothing."""

    name = "discard"


class PcapFile(Sink):
    """The agreed stream as a classic microsecond pcap file of mode 0600 (it holds packets)."""

    def __init__(self, ring: AgreedRing, path: Path) -> None:
        self.name = path.name
        super().__init__(ring)
        self._fd = private_file(path)
        os.write(self._fd, pcap_header(ring.linktype, ring.snaplen))

    def _take(self, first: int, last: int) -> int:
        return self.ring.export_pcap(self._fd, first, last)

    def _close(self) -> None:
        os.close(self._fd)


class Hashes(Sink):
    """A line "seq hash time_us" for each stable packet, and the SHA-256 of all lines so far."""

    def __init__(self, ring: AgreedRing, path: Path) -> None:
        self.name = path.name
        super().__init__(ring)
        self._fd = private_file(path)
        self._sha256 = hashlib.sha256()

    @property
    def stream_sha256(self) -> str:
        """Hex digest of the file's content so far; final once `ended`."""
        return self._sha256.hexdigest()

    def _take(self, first: int, last: int) -> int:
        refs, time_us, _ = self.ring.agreed_entries(first, last)
        lines = hash_lines(first, agreed_hashes(self.ring, refs), time_us)
        write_all(self._fd, lines)
        self._sha256.update(lines)
        return last

    def _close(self) -> None:
        os.close(self._fd)


class Feed:
    """The sinks of one ring.  Without any, what is stable counts as fed."""

    def __init__(self, ring: AgreedRing) -> None:
        self.ring = ring
        self.sinks: list[Sink] = []
        self._lock = threading.Lock()

    def add(self, sink: Sink) -> None:
        """Before `start`."""
        sink.moved = self._advance
        self.sinks.append(sink)

    def start(self) -> None:
        """Start all sinks; FeedError, with none left running, when one cannot start."""
        if not self.sinks:
            self.add(Discard(self.ring))
        try:
            for sink in self.sinks:
                sink.start()
        except FeedError:
            self.stop()
            raise

    def start_at(self, seq: int) -> None:
        """The ring's first packet is `seq` (a replica that joins late); before anything is published."""
        for sink in self.sinks:
            sink.start_at(seq)

    def stop(self) -> None:
        """End all sinks where they are."""
        for sink in self.sinks:
            sink.stop()
        for sink in self.sinks:
            sink.join()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait, at most `timeout_s` for each sink, until all have finished or failed; whether they have."""
        there = [sink.join(timeout_s) for sink in self.sinks]
        return all(there)

    @property
    def errors(self) -> list[FeedError]:
        """What made sinks give up."""
        return [sink.error for sink in self.sinks if sink.error]

    @property
    def warnings(self) -> list[str]:
        """What an operator should know: why sinks gave up, and what goes wrong in those that did not."""
        return [*map(str, self.errors), *(sink.warning for sink in self.sinks if sink.warning)]

    def _advance(self) -> None:
        """Called by the sinks' threads: what all live sinks have consumed is free."""
        with self._lock:
            live = [sink.position for sink in self.sinks if not sink.error]
            fed = min(live, default=self.ring.stable)
            if self.ring.fed < fed <= self.ring.stable:
                self.ring.fed = fed


def private_file(path: Path) -> int:
    """A file for writing from its start, of mode 0600 whatever it had before; FeedError when it cannot be."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o600)
    except OSError as error:
        raise FeedError(f"cannot write {path}: {error.strerror}; check log_dir and its owner") from None
    return fd


def write_all(fd: int, data: bytes) -> None:
    """Write everything, whatever pieces the kernel takes it in."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

"""One record with everything that can be said of a replica at one moment.

`replica.py` makes it once a second; it is written to `status.json` in the log directory, sent to
the peers, and is all that the status commands know.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue

from ftnids import counters


@dataclass(slots=True)
class Snapshot:
    """The status of one replica."""

    name: str
    state: str  # starting, waiting, running, ended, failed
    reason: str = ""  # why it failed
    pid: int = 0
    time: float = 0.0  # seconds since the epoch
    version: str = ""
    implementation: str = ""  # of the core: c or python
    view: dict[str, int] = field(default_factory=dict)  # lineage, number, coordinator, incarnation
    coordinator: str = ""
    members: list[str] = field(default_factory=list)
    counters: dict[str, int | float] = field(default_factory=dict)  # ftnids.counters.PER_REPLICA
    set: dict[str, int] = field(default_factory=dict)  # ftnids.counters.SET, on the coordinator
    seq: dict[str, int] = field(default_factory=dict)  # decided, acked, stable, fed
    rounds: int = 0
    dirty_rounds: int = 0
    ring: dict[str, int] = field(default_factory=dict)
    peers: dict[str, int] = field(default_factory=dict)
    ids: dict[str, str | int] = field(default_factory=dict)
    stream_sha256: str = ""  # of hashes.txt so far
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for key in counters.PER_REPLICA:
            self.counters.setdefault(key, 0)

    def json(self) -> bytes:
        """The record as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()


def write(path: Path, snapshot: Snapshot) -> None:
    """Replace `path` by `snapshot` in one step, so that a reader never sees half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(snapshot.json() + b"\n")
    temporary.replace(path)


class Writer:
    """Keeps `path` up to date, on a thread of its own: to replace a file may take the time of a disk's journal.

    `failed` is called on that thread when a snapshot cannot be written; the next one is tried again.
    """

    def __init__(self, path: Path, failed: Callable[[OSError], None]) -> None:
        self._path, self._failed = path, failed
        self._snapshots: SimpleQueue[Snapshot | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, snapshot: Snapshot) -> None:
        """Have this written, unless a newer one comes before its turn."""
        self._snapshots.put(snapshot)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="status", daemon=True)
            self._thread.start()

    def close(self, last: Snapshot) -> None:
        """Write the last one; returns when it is there."""
        self.put(last)
        self._snapshots.put(None)
        assert self._thread is not None
        self._thread.join()

    def _run(self) -> None:
        while (newest := self._snapshots.get()) is not None:
            over = False
            while not over and not self._snapshots.empty():
                following = self._snapshots.get()
                over, newest = following is None, following or newest
            try:
                write(self._path, newest)
            except OSError as error:
                self._failed(error)
            if over:
                return

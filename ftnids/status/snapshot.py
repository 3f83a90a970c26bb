"""One record with everything that can be said of a replica at one moment.

`replica.py` makes it once a second; it is written to `status.json` in the log directory, sent to the peers
(`roster.py`), handed to who watches (`server.py`), and is all that the status commands know.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Self

from ftnids import counters, limits

STATUS: Final = "status.json"  # in the log directory

Scalar = str | int | float | None
Alert = dict[str, Scalar]  # time, id, status, signature, severity, from, to, seq, replicas: see ftnids.alerts.recent


@dataclass(slots=True)
class Snapshot:
    """The status of one replica."""

    name: str
    state: str  # starting, waiting, running, ended, failed
    reason: str = ""  # why it failed
    pid: int = 0
    host: str = ""
    cluster: str = ""
    started: float = 0.0  # seconds since the epoch
    time: float = 0.0  # the same, of this record
    version: str = ""
    protocol: dict[str, int] = field(default_factory=dict)  # oldest, newest; view: what the set speaks, 0 before
    implementation: str = ""  # of the core: c or python
    view: dict[str, int] = field(default_factory=dict)  # lineage, number, coordinator, incarnation
    coordinator: str = ""
    members: list[str] = field(default_factory=list)
    counters: dict[str, int | float] = field(default_factory=dict)  # ftnids.counters.PER_REPLICA
    set: dict[str, int] = field(default_factory=dict)  # ftnids.counters.SET, on the coordinator
    seq: dict[str, int] = field(default_factory=dict)  # decided, acked, stable, fed
    rounds: int = 0
    dirty_rounds: int = 0
    delay: dict[str, list[float]] = field(default_factory=dict)  # the histogram: ftnids.status.delay.Histogram.record
    source: str = ""  # interface or file that is captured from
    snaplen: int = 0
    ring: dict[str, int] = field(default_factory=dict)
    peers: dict[str, int] = field(default_factory=dict)
    viewers: dict[str, int] = field(default_factory=dict)  # ftnids.status.server.COUNTERS
    ids: dict[str, str | int] = field(default_factory=dict)  # name "" where there is none
    alerts: list[Alert] = field(default_factory=list)  # the newest that this replica put out, oldest first
    outputs: dict[str, dict[str, int]] = field(default_factory=dict)  # of alerts, by setting: delivered, lost, ...
    clocks: dict[str, dict[str, int]] = field(default_factory=dict)  # by member: offset_us, tolerance_us
    stream_sha256: str = ""  # of hashes.txt so far
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for key in counters.PER_REPLICA:
            self.counters.setdefault(key, 0)

    def ids_number(self, name: str) -> float:
        """A number that the record has of the IDS; 0 where it has none."""
        value = self.ids.get(name, 0)
        return value if isinstance(value, int | float) else 0

    def tree(self) -> dict[str, Any]:
        """The record as what JSON holds; not a copy, which costs ten times as much."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def json(self) -> bytes:
        """The record as one line of JSON."""
        return json.dumps(self.tree(), separators=(",", ":")).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The record in `data`, JSON that another process wrote.  ValueError where it is none.

        Fields that are not there have their defaults, so that a replica of the version before is understood;
        what this version does not know is left out.
        """
        if len(data) > limits.MAX_STATUS_BYTES:
            raise ValueError(f"{len(data)} bytes are more than a status has")
        try:
            tree = json.loads(data, parse_constant=_no_constant)
        except RecursionError:
            raise ValueError("nested too deep") from None
        return cls.of(tree)

    @classmethod
    def of(cls, tree: object) -> Self:
        """The same of JSON that is parsed already."""
        if not isinstance(tree, dict) or not {"name", "state"} <= set(tree):
            raise ValueError("no status of a replica")
        known = {one.name: tree[one.name] for one in fields(cls) if one.name in tree}
        wrong = [name for name, value in known.items() if not _KINDS[_kind(name)](value)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: not what a status has there")
        return cls(**known)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _scalar(value: object) -> bool:
    return value is None or isinstance(value, str) or _number(value)


def _table(value: object, entry: Callable[[object], bool]) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) and entry(one) for key, one in value.items())


def _list(value: object, entry: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and all(map(entry, value))


_KINDS: Final[dict[str, Callable[[object], bool]]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: _number(value) and isinstance(value, int),
    "float": _number,
    "numbers": lambda value: _table(value, _number),
    "scalars": lambda value: _table(value, _scalar),
    "tables": lambda value: _table(value, lambda one: _table(one, _number)),
    "lists": lambda value: _table(value, lambda one: _list(one, _number)),
    "texts": lambda value: _list(value, lambda one: isinstance(one, str)),
    "records": lambda value: _list(value, lambda one: _table(one, _scalar)),
}
_SPECIAL: Final = {
    "ids": "scalars",
    "delay": "lists",
    "members": "texts",
    "warnings": "texts",
    "alerts": "records",
    "clocks": "tables",
    "outputs": "tables",
}


def _kind(name: str) -> str:
    """What a field holds, as a name in _KINDS."""
    kind: Any = Snapshot.__dataclass_fields__[name].type
    return _SPECIAL.get(name) or (kind if kind in _KINDS else "numbers")


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

"""Reads on in the log of an IDS that runs ahead: what it raised there, and may have to take back.

Theory of operation.  The reader of the log (`readers.py`) stops where the log is certain, and what it reads has its id
for good.  A scout reads on from there, with the ids that these alerts will have.  It keeps the place of each line, so
that lines are counted once: those that the reader has taken since are the reader's, those that were cut off are
*withdrawn*.  An IDS that was set back reads again what was right, and raises it again; so an alert on an earlier packet
than the first wrong one is left as it is.

Nothing is read while the log is cut, and what was read between two equal counts of the cuts (`Cuts.count`; odd while
there is one) is of one piece.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from dataclasses import dataclass
from typing import Protocol

from ftnids.alerts.identity import Identifier, Key
from ftnids.alerts.readers import UNREADABLE, AlertReader, Record
from ftnids.limits import ALERT_READ_BYTES, PROVISIONAL_OPEN


class Cuts(Protocol):
    """Where a log was cut, told by the thread that cuts it."""

    @property
    def count(self) -> int: ...
    def take(self) -> tuple[int, int] | None:
        """Of all cuts since the last call: the lowest size, and the lowest seq that was wrong."""


@dataclass(frozen=True, slots=True)
class _Line:
    end: int  # bytes of the log up to its end
    key: Key
    alert_id: str
    seq: int | None


class Scout:
    """Reads ahead of `reader` in the log of one run of an IDS, which `cuts` tells about."""

    def __init__(self, reader: AlertReader, cuts: Cuts) -> None:
        self._reader, self._cuts = reader, cuts
        self._at = 0
        self._fd = -1
        self._lines: deque[_Line] = deque()
        self._ahead: Counter[Key] = Counter()

    def look(self, identifier: Identifier) -> tuple[list[Record], list[str]]:
        """New alerts, with the ids that `identifier` will give them; and the ids of those that are withdrawn."""
        before = self._cuts.count
        withdrawn = self._heed()
        self._pass(self._reader.lines.taken)
        alerts: list[Record] = []
        while before % 2 == 0 and (room := PROVISIONAL_OPEN - len(self._lines)) > 0:
            data = self._read()
            if self._cuts.count != before:
                break  # what was read may be of two pieces
            taken, alerts_here = self._take(data, identifier, room)
            alerts += alerts_here
            self._at += taken
            if taken == 0 or len(data) < ALERT_READ_BYTES:
                break
        return alerts, withdrawn

    def close(self) -> list[str]:
        """The run is over, and its log read to the end; the ids of those that never came."""
        withdrawn = self._heed()
        self._pass(self._reader.lines.taken)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        return withdrawn + [line.alert_id for line in self._lines]

    def _heed(self) -> list[str]:
        """Forget what was cut off; the ids of what does not come again."""
        if (cut := self._cuts.take()) is None:
            return []
        size, wrong = cut
        gone = []
        while self._lines and self._lines[-1].end > size:
            line = self._lines.pop()
            self._ahead[line.key] -= 1
            if line.seq is None or line.seq >= wrong:
                gone.append(line.alert_id)
        self._ahead = +self._ahead
        self._at = min(self._at, size)
        return gone[::-1]

    def _pass(self, taken: int) -> None:
        """The reader has identified what stands in the first `taken` bytes."""
        while self._lines and self._lines[0].end <= taken:
            key = self._lines.popleft().key
            self._ahead[key] -= 1
            if not self._ahead[key]:
                del self._ahead[key]
        self._at = max(self._at, taken)

    def _read(self) -> bytes:
        if self._fd < 0:
            try:
                self._fd = os.open(self._reader.lines.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return b""
        return os.pread(self._fd, ALERT_READ_BYTES, self._at)

    def _take(self, data: bytes, identifier: Identifier, room: int) -> tuple[int, list[Record]]:
        """The alerts in the whole lines of `data`, at most `room` of them; and how many bytes those were."""
        alerts: list[Record] = []
        at = 0
        while len(alerts) < room and (end := data.find(b"\n", at) + 1):
            line, at = data[at : end - 1], end
            try:
                record = self._reader.record(line)
                if record["event_type"] != "alert":
                    continue
                alert, key = identifier.guess(record, self._ahead)
            except UNREADABLE:  # the reader will count it
                continue
            identity = alert["ftnids"]
            self._ahead[key] += 1
            self._lines.append(_Line(self._at + end, key, identity["id"], identity["seq"]))
            alerts.append(alert)
        return at, alerts

"""Where the set's alerts go: a JSON lines file, stdout, syslog."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import syslog
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol, TextIO

import structlog

from ftnids import log as logs
from ftnids.alerts.readers import Record
from ftnids.errors import ConfigError
from ftnids.limits import ALERT_BACKLOG, ALERT_BACKLOG_BYTES, ALERT_LOOKUP_BYTES, ALERT_STRETCHES, ALERT_TABLE

log = structlog.get_logger()


class Output(Protocol):
    """One place that alerts are put out to."""

    def write(self, records: Sequence[Record]) -> None:
        """Put the records out, in order; never raises for a fault of the place, never blocks for long."""

    def close(self) -> None:
        """Put out what is still held, if it can be; the last call."""


def as_line(record: Record) -> bytes:
    """A record as one JSON line."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode(errors="replace") + b"\n"


# As `as_line` writes it.  Inside a text the quotes would have backslashes.
_ID: Final = re.compile(rb'"ftnids":\{"id":"([^"\\]+)"')


class JsonLines(Output):
    """Appends to a file of mode 0600.

    A batch is either in the file as a whole or not at all.  What cannot be written (disk full) is held back and
    tried again with the next batch, up to ALERT_BACKLOG records and ALERT_BACKLOG_BYTES; what is beyond is lost,
    counted in `lost` and said in the log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0
        self.lost = 0
        self.failures = 0
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._limiter = logs.Limiter()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise ConfigError(f"alerts.output: cannot write {path}: {error.strerror}") from None
        self._looked_at = 0  # everything below is this process's, or has been looked at
        self._others: list[tuple[int, int]] = []  # stretches that others wrote, not looked at yet
        self._end_cut_line()

    def ids_of_others(self) -> list[str]:
        """The ids of alerts that this process has not put out, and that came into the file since the last call.

        Costs what others wrote, of which the newest ALERT_LOOKUP_BYTES are looked at: a coordinator may ask any time.
        """
        self._note_others(os.fstat(self._fd).st_size)
        others, self._others = self._others, []
        return [one for first, end in others for one in _ids(self._fd, first, end)]

    def _note_others(self, size: int) -> None:
        """The file has `size` bytes, of which this process wrote none since it looked last."""
        if size < self._looked_at:
            self._others.clear()  # somebody emptied the file
        elif size > self._looked_at:
            self._others.append((self._looked_at, size))
            if len(self._others) > ALERT_STRETCHES:
                self._others = [(self._others[0][0], size)]
        self._looked_at = size

    def write(self, records: Sequence[Record]) -> None:
        lines = list(map(as_line, records))
        self._backlog.extend(lines)
        self._backlog_bytes += sum(map(len, lines))
        self._flush()
        lost = self.lost
        while len(self._backlog) > ALERT_BACKLOG or self._backlog_bytes > ALERT_BACKLOG_BYTES:
            self._backlog_bytes -= len(self._backlog.popleft())
            self.lost += 1
        if self.lost > lost:
            event = "alerts lost: the output cannot be written"
            self._limiter.log(log, "error", "lost", event, path=str(self.path), lost=self.lost)

    def close(self) -> None:
        self._flush()
        self.lost += len(self._backlog)
        if self._backlog:
            log.error("alerts lost: the output cannot be written", path=str(self.path), lost=self.lost)
        os.close(self._fd)

    @property
    def held_back(self) -> int:
        """Records waiting for the file to take them."""
        return len(self._backlog)

    def _flush(self) -> None:
        if not self._backlog:
            return
        batch = b"".join(self._backlog)
        size = os.fstat(self._fd).st_size
        self._note_others(size)
        try:
            if os.write(self._fd, batch) < len(batch):
                raise OSError("no room for the whole batch")
        except OSError as error:
            os.ftruncate(self._fd, size)
            self.failures += 1
            facts = {"path": str(self.path), "records": len(self._backlog), "reason": str(error)}
            self._limiter.log(log, "error", "held", "alerts held back", **facts)
        else:
            end = os.fstat(self._fd).st_size
            if end == size + len(batch):  # else somebody wrote at the same moment, and it is looked at as a whole
                self._looked_at = end
            self.written += len(self._backlog)
            self._backlog.clear()
            self._backlog_bytes = 0

    def _end_cut_line(self) -> None:
        """A writer that was killed in the middle of a line leaves it; the next record starts a line of its own."""
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")


def _ids(fd: int, first: int, end: int) -> list[str]:
    """The ids in bytes [first, end) of a JSON lines output.  By the bytes alone: parsing takes far longer."""
    start = max(first, end - ALERT_LOOKUP_BYTES)
    found = _ID.findall(os.pread(fd, end - start, start))
    return [one.decode() for one in found[-ALERT_TABLE:]]


class Stdout(Output):
    """JSON lines on standard output; a closed pipe is an end, not an error."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def write(self, records: Sequence[Record]) -> None:
        try:
            self._stream.writelines(as_line(record).decode() for record in records)
            self._stream.flush()
        except BrokenPipeError:
            self._stream = io.StringIO()  # nobody reads it

    def close(self) -> None:
        """Standard output is not ours to close."""


class Syslog(Output):
    """One line an alert, by severity: 1 is an error, 2 a warning, else a notice."""

    PRIORITIES: Final = {1: syslog.LOG_ERR, 2: syslog.LOG_WARNING}

    def __init__(self, name: str = "ftnids") -> None:
        syslog.openlog(name, syslog.LOG_PID, syslog.LOG_DAEMON)

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            severity = int(record["alert"].get("severity", 3))
            line = summary(record).encode(errors="replace").replace(b"\0", b"?").decode()  # what a C string can hold
            syslog.syslog(self.PRIORITIES.get(severity, syslog.LOG_NOTICE), line)

    def close(self) -> None:
        syslog.closelog()


def summary(record: Record) -> str:
    """An alert in one readable line."""
    alert = record["alert"]
    source = _end(record.get("src_ip", "?"), record.get("src_port"))
    target = _end(record.get("dest_ip", "?"), record.get("dest_port"))
    names = f"[{alert['gid']}:{alert['signature_id']}:{alert['rev']}] {alert.get('signature', '')}"
    return f"{names} {{{record.get('proto', '?')}}} {source} -> {target} id {record['ftnids']['id']}"


def _end(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def split(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """(alerts, other EVE records), each in order."""
    alerts: list[Record] = []
    others: list[Record] = []
    for record in records:
        (alerts if record["event_type"] == "alert" else others).append(record)
    return alerts, others

"""Where the set's alerts go: a file of JSON lines, and what an output is.  `spooled.py` has the other ones."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from ftnids import log as logs
from ftnids.alerts.readers import Record
from ftnids.errors import ConfigError
from ftnids.limits import ALERT_BACKLOG, ALERT_BACKLOG_BYTES, ALERT_LOOKUP_BYTES, ALERT_STRETCHES, ALERT_TABLE
from ftnids.log import get

log = get("alerts")


class Output(Protocol):
    """One place that alerts are put out to."""

    name: str = ""  # the setting that it comes from

    def write(self, records: Sequence[Record]) -> None:
        """Put the records out, in order; never raises for a fault of the place, never blocks for long."""

    def reopen(self) -> None:
        """A signal says that files were renamed: go on in new ones."""
        return

    def counters(self) -> dict[str, int]:
        """What went through, for the status."""
        return {}

    def close(self) -> None:
        """Put out what is still held, if it can be; the last call."""


def as_line(record: Record) -> bytes:
    """A record as one JSON line."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode(errors="replace") + b"\n"


CONFIRMED: Final = "confirmed"
# As `as_line` writes it.  Inside a text the quotes would have backslashes.
_IDENTITY: Final = re.compile(rb'"ftnids":\{"id":"([^"\\]+)"(?:[^{}]*?"status":"(\w+)")?')


def name_of(alert_id: str, status: str) -> str:
    """What names a record: the id of an alert, with its status as long as another one may follow."""
    return alert_id if status in ("", CONFIRMED) else f"{alert_id}:{status}"


def names_in(text: bytes) -> list[str]:
    """The names of the newest ALERT_TABLE records in JSON lines; of a line without an id, a hash of it."""
    found = []
    for line in text.split(b"\n")[-ALERT_TABLE - 1 :]:
        if match := _IDENTITY.search(line):
            found.append(name_of(match[1].decode(), (match[2] or b"").decode()))
        elif line:
            found.append(hashlib.blake2b(line, digest_size=12).hexdigest())
    return found


def id_in(line: bytes) -> str:
    """The id of an alert in one JSON line, whatever its status; of a line without one, a hash of it."""
    return match[1].decode() if (match := _IDENTITY.search(line)) else names_in(line)[0]


def ids_in(text: bytes) -> list[str]:
    """The newest ALERT_TABLE ids in JSON lines that are out for good.  By the bytes alone: parsing takes far longer."""
    final = (b"", CONFIRMED.encode())
    return [one.decode() for one, status in _IDENTITY.findall(text) if status in final][-ALERT_TABLE:]


class JsonLines(Output):
    """Appends to a file of mode 0600.

    A batch is either in the file as a whole or not at all.  What cannot be written (disk full) is held back and
    tried again with the next batch, up to ALERT_BACKLOG records and ALERT_BACKLOG_BYTES; what is beyond is lost,
    counted in `lost` and said in the log.

    A file that was renamed or removed (logrotate) is made anew.  One of `rotate_bytes` or more is renamed to NAME.1
    (what was NAME.1 to NAME.2, and so on; `rotate_keep` of them stay); 0 never.
    """

    def __init__(
        self, path: Path, setting: str = "alerts.output", *, rotate_bytes: int = 0, rotate_keep: int = 4
    ) -> None:
        self.path, self.name = path, setting
        self._rotate_bytes, self._rotate_keep = rotate_bytes, rotate_keep
        self.written = 0
        self.lost = 0
        self.failures = 0
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._limiter = logs.Limiter()
        try:
            self._fd = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            raise ConfigError(f"{setting}: cannot write {path}: {error.strerror}") from None
        self._looked_at = 0  # everything below is this process's, or has been looked at
        self._others: list[tuple[int, int]] = []  # stretches that others wrote, not looked at yet
        self._other_ids = self._rotated_ids()  # ids that others wrote, from files that are no longer this one
        self._end_cut_line()

    def ids_of_others(self) -> list[str]:
        """The ids of alerts that this process has not put out, and that came into the file since the last call.

        Costs what others wrote, of which the newest ALERT_LOOKUP_BYTES are looked at: a coordinator may ask any time.
        """
        self._follow()
        return self._ids_of_others()

    def _ids_of_others(self) -> list[str]:
        self._note_others(os.fstat(self._fd).st_size)
        others, self._others = self._others, []
        known, self._other_ids = self._other_ids, []
        return known + [one for first, end in others for one in _ids(self._fd, first, end)]

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

    def counters(self) -> dict[str, int]:
        waiting = {"waiting": self.held_back, "waiting_bytes": self._backlog_bytes}
        return {"delivered": self.written, "failures": self.failures, "lost": self.lost, **waiting}

    @property
    def held_back(self) -> int:
        """Records waiting for the file to take them."""
        return len(self._backlog)

    def _flush(self) -> None:
        if not self._backlog:
            return
        self._follow()
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
            if self._rotate_bytes and end >= self._rotate_bytes:
                self._rotate()

    def _end_cut_line(self) -> None:
        """A writer that was killed in the middle of a line leaves it; the next record starts a line of its own."""
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")

    # -- files that were renamed ------------------------------------------------------------------

    def reopen(self) -> None:
        self._follow()

    def _follow(self) -> None:
        """Go on in the file of this name, where the open one no longer has it."""
        if self._is_named():
            return
        try:
            fd = os.open(self.path, _FLAGS, 0o600)
        except OSError as error:
            facts = {"path": str(self.path), "reason": error.strerror, "hint": "alerts go on into the renamed file"}
            self._limiter.log(log, "error", "reopen", "alert_file_not_reopened", **facts)
            return
        self._other_ids = self._ids_of_others()[-ALERT_TABLE:]
        os.close(self._fd)
        self._fd, self._looked_at = fd, 0
        self._note_others(os.fstat(fd).st_size)

    def _is_named(self) -> bool:
        """Whether the name still leads to the open file; what is no regular file is never renamed."""
        opened = os.fstat(self._fd)
        if not stat.S_ISREG(opened.st_mode):
            return True
        try:
            return os.path.samestat(opened, self.path.stat())
        except OSError:
            return False

    def _rotate(self) -> None:
        """Rename the file, which is full, and those before it; another replica that writes it follows."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the file is closed
            if not self._is_named():
                return
            for number in range(self._rotate_keep, 1, -1):
                with suppress(FileNotFoundError):
                    self._numbered(number - 1).rename(self._numbered(number))
            self.path.rename(self._numbered(1))
        except BlockingIOError:
            return  # the other replica is at it
        except OSError as error:
            facts = {"path": str(self.path), "reason": error.strerror, "hint": "see alerts.rotate_mb and the directory"}
            self._limiter.log(log, "error", "rotate", "alert_file_not_rotated", **facts)
            return
        self._follow()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _rotated_ids(self) -> list[str]:
        """Ids in the file that was this one before, so that a restart does not repeat them."""
        try:
            with self._numbered(1).open("rb") as file:
                return _ids(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError:
            return []


_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def _ids(fd: int, first: int, end: int) -> list[str]:
    """The ids in bytes [first, end) of a JSON lines output."""
    start = max(first, end - ALERT_LOOKUP_BYTES)
    return ids_in(os.pread(fd, end - start, start))


def split(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """(alerts, other EVE records), each in order."""
    alerts: list[Record] = []
    others: list[Record] = []
    for record in records:
        (alerts if record["event_type"] == "alert" else others).append(record)
    return alerts, others

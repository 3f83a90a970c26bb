"""A bounded queue of records on disk: what was put in is still there after a kill, and comes out in order.

Theory of operation.  Positions count the bytes of all records ever put in.  A *segment* is a file named after the
position of its first byte, with records as lines; records are added to the newest one until it is large enough.  The
file `delivered` holds the position below which everything is delivered.  Segments below it are kept for a while, where
the receiver may forget what it took; `rewind` goes back over them.  When all segments together outgrow the limit, the
oldest goes: if not all of it was delivered, those records are lost, and counted.

One thread puts in, another one takes out.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ftnids.errors import ConfigError
from ftnids.limits import ALERT_BACKLOG, ALERT_BACKLOG_BYTES, SPOOL_BATCH, SPOOL_BATCH_BYTES, SPOOL_SEGMENT_BYTES

DELIVERED: Final = "delivered"
_NAME: Final = re.compile(r"(\d{20})\.jsonl")
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(slots=True)
class Segment:
    """One file: records from position `start` to `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Records (lines with their ends) in order, and the position behind each."""

    lines: list[bytes]
    ends: list[int]


class Spool:
    """The queue in `directory` (0700, files 0600).  ConfigError, naming `setting`, when it cannot be had.

    `limit_bytes` of all segments, delivered ones included, of which `keep_bytes` are kept.  Of records that the disk
    does not take ALERT_BACKLOG wait in memory, in order.
    """

    def __init__(self, directory: Path, setting: str, *, limit_bytes: int, keep_bytes: int = 0) -> None:
        self._directory = directory
        self._limit, self._keep = limit_bytes, keep_bytes
        self._segment_bytes = min(SPOOL_SEGMENT_BYTES, max(limit_bytes // 4, 1))
        self._lock = threading.Lock()
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self.lost = 0  # records
        self.reason = ""  # why the disk takes nothing
        self._closed = False
        self._fd = -1  # of the newest segment
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._mark = os.open(directory / DELIVERED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._segments = self._found()
        except BlockingIOError:
            os.close(self._mark)
            raise ConfigError(f"{setting}: {directory} is in use by another replica; set another log_dir") from None
        except OSError as error:
            raise ConfigError(f"{setting}: cannot write {directory}: {error.strerror}") from None
        text = os.pread(self._mark, 32, 0).strip()
        self._delivered = int(text) if text.isdigit() else 0
        self._read = self._delivered  # what comes out next
        self._end = max(self._delivered, self._segments[-1].end if self._segments else 0)

    # -- in -------------------------------------------------------------------------------------

    def append(self, lines: Sequence[bytes]) -> None:
        """Put records in; each ends with a newline.  What the disk does not take is held and tried again next time."""
        with self._lock:
            self._backlog.extend(lines)
            self._backlog_bytes += sum(map(len, lines))
            self._write()
            while len(self._backlog) > ALERT_BACKLOG or self._backlog_bytes > ALERT_BACKLOG_BYTES:
                self._backlog_bytes -= len(self._backlog.popleft())
                self.lost += 1
            self._make_room()

    def _write(self) -> None:
        """Bring what waits into the newest segment: all of it, or nothing."""
        if not self._backlog:
            return
        try:
            segment = self._newest()
            batch = b"".join(self._backlog)
            try:
                if os.write(self._fd, batch) < len(batch):
                    raise OSError(0, "no room for all of it")
            except OSError:
                os.ftruncate(self._fd, segment.end - segment.start)
                raise
        except OSError as error:
            self.reason = error.strerror or str(error)
            return
        self.reason = ""
        segment.end += len(batch)
        self._end = segment.end
        self._backlog.clear()
        self._backlog_bytes = 0

    def _newest(self) -> Segment:
        """The segment that records go into, opened; a new one where it is full."""
        if self._segments and self._segments[-1].end - self._segments[-1].start < self._segment_bytes:
            with suppress(FileNotFoundError):  # somebody removed it
                if self._fd < 0:
                    self._fd = os.open(self._path(self._segments[-1]), _FLAGS)
                return self._segments[-1]
            self._segments.pop()
        self._close_newest()
        segment = Segment(self._end, self._end)
        self._fd = os.open(self._path(segment), _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        self._segments.append(segment)
        return segment

    def _make_room(self) -> None:
        while len(self._segments) > 1 and self._segments[-1].end - self._segments[0].start > self._limit:
            oldest = self._segments[0]
            if oldest.end > self._delivered:
                with suppress(OSError):
                    self.lost += len(self._lines(oldest, max(oldest.start, self._delivered), oldest.end)[0])
                self._advance(oldest.end)
                self._read = max(self._read, oldest.end)
            self._remove()

    # -- out ------------------------------------------------------------------------------------

    def read(self) -> Batch:
        """The next records, at most SPOOL_BATCH and about SPOOL_BATCH_BYTES; none when all are out."""
        with self._lock:
            if self._closed:
                return Batch([], [])
            self._write()
            for segment in list(self._segments):
                if segment.end <= self._read:
                    continue
                try:
                    return Batch(*self._lines(segment, max(self._read, segment.start), segment.end, SPOOL_BATCH))
                except FileNotFoundError:  # somebody removed it
                    self._segments.remove(segment)
                    self._close_newest()
                    self._read = segment.end
                except OSError as error:
                    self.reason = error.strerror or str(error)
                    break
        return Batch([], [])

    def done(self, end: int) -> None:
        """All below position `end` is delivered."""
        with self._lock:
            self._read = max(self._read, end)
            if end > self._delivered and not self._closed:
                self._advance(end)
                while len(self._segments) > 1 and self._segments[0].end <= self._delivered - self._keep:
                    self._remove()

    def rewind(self) -> int:
        """Go back to the oldest record that is still there; the bytes that come out again."""
        with self._lock:
            first = self._segments[0].start if self._segments else self._read
            again, self._read = self._read - first, min(first, self._read)
            return again

    def newest(self, most: int) -> list[bytes]:
        """The newest segments, oldest first: `most` bytes of them, and one more."""
        found: list[bytes] = []
        with self._lock, suppress(OSError):
            for segment in reversed(self._segments):
                found.insert(0, self._path(segment).read_bytes())
                if self._end - segment.start >= most:
                    break
        return found

    @property
    def waiting_bytes(self) -> int:
        """Bytes that are not delivered."""
        return max(self._end - self._delivered, 0) + self._backlog_bytes

    def close(self) -> None:
        """Close the files; what is in them stays.  Nothing comes out any more."""
        with self._lock:
            self._write()
            self.lost += len(self._backlog)
            self._backlog.clear()
            self._close_newest()
            os.close(self._mark)
            self._closed = True

    # -- files ----------------------------------------------------------------------------------

    def _found(self) -> deque[Segment]:
        """The segments that are there; a line that a kill cut, in the newest, is cut off."""
        found = []
        for path in self._directory.iterdir():
            if (match := _NAME.fullmatch(path.name)) and path.is_file() and not path.is_symlink():
                start = int(match[1])
                found.append(Segment(start, start + path.stat().st_size))
        found.sort(key=lambda segment: segment.start)
        if found:
            path = self._path(found[-1])
            whole = path.read_bytes().rfind(b"\n") + 1
            if found[-1].start + whole < found[-1].end:
                os.truncate(path, whole)
                found[-1].end = found[-1].start + whole
        return deque(found)

    def _path(self, segment: Segment) -> Path:
        return self._directory / f"{segment.start:020d}.jsonl"

    def _lines(self, segment: Segment, first: int, end: int, most: int = 0) -> tuple[list[bytes], list[int]]:
        """Records of a segment between two positions, at most `most` of them (0: all), and where each ends."""
        with self._path(segment).open("rb") as file:
            file.seek(first - segment.start)
            text = file.read(min(SPOOL_BATCH_BYTES, end - first) if most else end - first)
            if not text.endswith(b"\n"):
                text += file.readline()
        lines = [one + b"\n" for one in text.split(b"\n")[:-1]][: most or None]
        ends, position = [], first
        for line in lines:
            position += len(line)
            ends.append(position)
        return lines, ends

    def _advance(self, position: int) -> None:
        self._delivered = position
        with suppress(OSError):  # the disk is full: it is delivered again after a restart
            os.pwrite(self._mark, b"%020d\n" % position, 0)

    def _remove(self) -> None:
        with suppress(OSError):
            self._path(self._segments.popleft()).unlink()

    def _close_newest(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

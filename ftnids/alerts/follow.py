"""Follows a file that another process is appending to, line by line."""

from __future__ import annotations

import os
from pathlib import Path

from ftnids.limits import ALERT_READ_BYTES, MAX_LOG_LINE


class LineFollower:
    """The complete lines of a growing file, each once.

    The file need not exist yet.  A file that shrank is read from its start again; one that was
    renamed away is read to its end before the new one is opened.  A line longer than
    `max_line` bytes is skipped and counted in `overlong`; what the writer left without a newline
    when it ended is handed out by `poll(final=True)`.  Where `limit` is set, nothing behind so many bytes is read: the
    file may be cut there.
    """

    def __init__(
        self, path: Path, *, max_line: int = MAX_LOG_LINE, chunk: int = ALERT_READ_BYTES, last: int | None = None
    ) -> None:
        """`last`: of what is there now, the newest so many bytes alone, the first of which may be inside a line."""
        self.path = path
        self.overlong = 0
        self.restarts = 0  # truncations and rotations seen
        self.limit: int | None = None
        self._max_line = max_line
        self._chunk = chunk
        self._fd = -1
        self._offset = 0 if last is None or not path.exists() else max(0, path.stat().st_size - last)
        self._partial = b""
        self._skipping = False  # inside an overlong line

    def poll(self, *, final: bool = False) -> list[bytes]:
        """New complete lines without their newline, at most a chunk of the file at a time; never blocks.

        `final`: the writer has ended; all that is left comes, its last line even without a newline.
        """
        lines: list[bytes] = []
        while self._ready():
            limit = self.limit
            room = self._chunk if limit is None else max(0, min(self._chunk, limit - self._offset))
            data = os.pread(self._fd, room, self._offset)
            self._offset += len(data)
            lines += self._split(data)
            if (data and not final) or (not data and limit is not None):
                break
            if not data and not self._next_file():
                break
        if final and self._partial and not self._skipping and self.limit is None:
            lines.append(self._partial)
            self._partial = b""
        return lines

    @property
    def taken(self) -> int:
        """Bytes of the file whose lines have been handed out."""
        return self._offset - len(self._partial)

    def skip(self, size: int) -> None:
        """Begin behind the first `size` bytes; before anything is read."""
        self._offset = size

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _ready(self) -> bool:
        """Open the file when it is there; start again when it shrank."""
        if self._fd < 0:
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
        if os.fstat(self._fd).st_size < self._offset:
            self._start_again()
        return True

    def _next_file(self) -> bool:
        """At the end of the open file: whether another one has taken its name."""
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        if os.path.samestat(there, os.fstat(self._fd)):
            return False
        self.close()
        self._start_again()
        return True

    def _start_again(self) -> None:
        self._offset, self._partial, self._skipping = 0, b"", False
        self.restarts += 1

    def _split(self, data: bytes) -> list[bytes]:
        *complete, rest = (self._partial + data).split(b"\n")
        if self._skipping and complete:
            complete, self._skipping = complete[1:], False
        self._partial = b"" if self._skipping else rest
        if len(self._partial) > self._max_line:
            self._partial, self._skipping = b"", True
            self.overlong += 1
        kept = [line for line in complete if len(line) <= self._max_line]
        self.overlong += len(complete) - len(kept)
        return [line for line in kept if line]

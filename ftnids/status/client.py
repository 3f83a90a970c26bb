"""The other end of the status socket: what `top` and `status` look through."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ftnids import limits
from ftnids.status.roster import SetView
from ftnids.status.server import short

NOBODY: Final = "no replica answers there"  # in `trouble`: nothing is wrong but that none runs
RETRY_S: Final = 0.5  # between tries to connect
READ_BYTES: Final = 1 << 16
LINE_BYTES: Final = limits.MAX_MEMBERS * limits.MAX_STATUS_BYTES  # of one view


class Client:
    """Reads views from the first of `sockets` that answers, and from another when that one goes away.

    It never raises for what a replica does.  `trouble` says why there is no connection now; `source` is the path
    that is connected.
    """

    def __init__(self, sockets: Sequence[Path]) -> None:
        self._sockets = list(sockets)
        self._socket: socket.socket | None = None
        self._next = 0  # of `sockets`, to be tried
        self._tried_at = -RETRY_S
        self._buffer = bytearray()
        self._view: SetView | None = None
        self._came_at = 0.0
        self.source: Path | None = None
        self.trouble = ""

    @property
    def view(self) -> SetView | None:
        """The newest view, with the ages of now; whom it came from is gone where the connection is.  None: none yet."""
        if self._view is None:
            return None
        gone = "" if self.source is not None else self._view.source
        return self._view.later(time.monotonic() - self._came_at, gone)

    def poll(self, timeout_s: float) -> bool:
        """Look for news for `timeout_s`; whether a view has come."""
        until = time.monotonic() + timeout_s
        while True:
            if self._socket is None:
                self._connect()
            before = self._came_at
            left = max(0.0, until - time.monotonic())
            if self._socket is None:
                time.sleep(min(left, RETRY_S))
            elif select.select([self._socket], [], [], left)[0]:
                self._read(self._socket)
            if self._came_at != before:
                return True
            if time.monotonic() >= until:
                return False

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self.source = None
        self._buffer.clear()

    def _connect(self) -> None:
        """Try every socket once, at most every RETRY_S."""
        if time.monotonic() - self._tried_at < RETRY_S:
            return
        self._tried_at = time.monotonic()
        troubles = []
        for _ in self._sockets:
            path = self._sockets[self._next]
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                made.setblocking(False)
                with short(path) as name:
                    made.connect(name)
            except OSError as error:
                made.close()
                troubles.append(f"{path.name}: {_reason(error)}")
                self._next = (self._next + 1) % len(self._sockets)
            else:
                self._socket, self.source, self.trouble = made, path, ""
                return
        self.trouble = "; ".join(troubles)

    def _read(self, one: socket.socket) -> None:
        try:
            data = one.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(_reason(error))
            return
        if not data:
            self._lost("the replica has gone")
            return
        self._buffer += data
        if b"\n" in data:
            *lines, rest = bytes(self._buffer).split(b"\n")
            self._buffer = bytearray(rest)
            try:
                self._view, self._came_at = SetView.parse(lines[-1]), time.monotonic()
            except ValueError as error:
                self._lost(f"not understood: {error}")
        elif len(self._buffer) > LINE_BYTES:
            self._lost("sends lines without an end")

    def _lost(self, why: str) -> None:
        self.trouble = f"{self.source.name if self.source else ''}: {why}"
        self._next = (self._next + 1) % len(self._sockets)
        self._tried_at = time.monotonic()
        self.close()


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return NOBODY
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{os.strerror(error.errno)}: ask as root, or as a member of the replica's group"
    if error.errno == errno.EAGAIN:
        return "busy; trying again"
    return error.strerror or str(error)


def once(sockets: Sequence[Path], timeout_s: float) -> tuple[SetView | None, str]:
    """The first view that comes within `timeout_s`; else None, and why."""
    client = Client(sockets)
    with contextlib.closing(client):
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if client.poll(min(RETRY_S, max(0.0, until - time.monotonic()))):
                return client.view, ""
            if client.source is None and client.trouble:
                break
        return None, client.trouble or "no answer"

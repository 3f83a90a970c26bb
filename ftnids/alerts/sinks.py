"""Receivers of alerts that may be slow or gone for a while: standard output and syslog; the other ones are extras.

A sink is used by one thread (`ftnids.alerts.spooled`), never by the main loop, so it may wait, but no longer than it
says.
"""

from __future__ import annotations

import json
import os
import select
import socket
import syslog
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from ftnids.alerts.outputs import CONFIRMED
from ftnids.alerts.readers import Record
from ftnids.limits import SINK_WAIT_S, SYSLOG_BYTES

PIPE_BYTES: Final = 4096  # what a pipe that is ready takes without waiting


class SinkError(Exception):
    """The receiver took nothing; the text says why, `hint` what to do."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class ForgetfulError(Exception):
    """The receiver was restarted, and may lack what it took before: that is to be handed over again."""


class Sink(Protocol):
    """One receiver."""

    keep_bytes: int = 0  # how much of what it took is handed over again when it may have forgotten it

    def put(self, lines: Sequence[bytes]) -> int:
        """Hand over records, each a JSON line, in order; how many of them were taken, at least one if there is any.

        SinkError when it took none; ForgetfulError when it first wants again what it took before.  Waits for
        SINK_WAIT_S at most.
        """

    def close(self) -> None:
        """The last call."""


class Stdout(Sink):
    """JSON lines on standard output.  Where nobody reads it any more, alerts count as taken."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._line = self._rest = b""  # of a line whose beginning is out

    def put(self, lines: Sequence[bytes]) -> int:
        taken = 0
        try:
            for line in lines:
                if self._rest and self._line != line:  # the spool lost it meanwhile
                    self._write()
                self._line, self._rest = line, self._rest or line
                self._write()
                taken += 1
        except BrokenPipeError:
            self._rest = b""
            return len(lines)
        except TimeoutError:
            if not taken:
                raise SinkError("nobody reads standard output", "read it, or set alerts.stdout = false") from None
        except OSError as error:
            raise SinkError(f"standard output: {error.strerror}", "see where standard output goes") from None
        return taken

    def _write(self) -> None:
        """Write the rest of a line, in pieces that do not block.  TimeoutError when nobody reads."""
        until = time.monotonic() + SINK_WAIT_S
        while self._rest:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            if not poll.poll(max(until - time.monotonic(), 0) * 1000):
                raise TimeoutError
            self._rest = self._rest[os.write(self._fd, self._rest[:PIPE_BYTES]) :]

    def close(self) -> None:
        """Standard output is not ours to close."""


class Syslog(Sink):
    """One line an alert to the local syslog, by severity: 1 is an error, 2 a warning, else a notice."""

    PRIORITIES: Final = {1: syslog.LOG_ERR, 2: syslog.LOG_WARNING}

    def __init__(self, path: str = "/dev/log", name: str = "ftnids") -> None:
        self._path, self._name = path, name
        self._socket: socket.socket | None = None

    def put(self, lines: Sequence[bytes]) -> int:
        taken = 0
        try:
            self._connected()
            for line in lines:
                self._connected().send(self._message(line))
                taken += 1
        except OSError as error:
            self.close()
            if not taken:
                hint = "start the syslog daemon, or set alerts.syslog = false"
                raise SinkError(f"{self._path}: {error.strerror or 'takes nothing'}", hint) from None
        return taken

    def _connected(self) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            connection.settimeout(SINK_WAIT_S)
            try:
                connection.connect(self._path)
            except OSError:
                connection.close()
                raise
            self._socket = connection
        return self._socket

    def _message(self, line: bytes) -> bytes:
        severity, shown = 3, line.decode(errors="replace")
        with suppress(ValueError, KeyError, TypeError):  # else it is what a disk made of a record
            record = json.loads(line)
            severity, shown = int(record["alert"].get("severity", 3)), summary(record)
        priority = syslog.LOG_DAEMON | self.PRIORITIES.get(severity, syslog.LOG_NOTICE)
        text = f"<{priority}>{time.strftime('%b %e %H:%M:%S')} {self._name}[{os.getpid()}]: {shown}"
        return text.encode(errors="replace").translate(None, bytes(range(32)))[:SYSLOG_BYTES]

    def close(self) -> None:
        with suppress(OSError):
            if self._socket is not None:
                self._socket.close()
        self._socket = None


def summary(record: Record) -> str:
    """An alert in one readable line."""
    alert = record["alert"]
    source = _end(record.get("src_ip", "?"), record.get("src_port"))
    target = _end(record.get("dest_ip", "?"), record.get("dest_port"))
    names = f"[{alert['gid']}:{alert['signature_id']}:{alert['rev']}] {alert.get('signature', '')}"
    status = record["ftnids"].get("status", CONFIRMED)
    open_yet = "" if status == CONFIRMED else f" {status}"
    return f"{names} {{{record.get('proto', '?')}}} {source} -> {target} id {record['ftnids']['id']}{open_yet}"


def _end(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

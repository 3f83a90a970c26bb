"""Who watches: the status socket, and the page of metrics, on one thread.

The status socket is a Unix stream socket, mode 0660, in the replica's run directory.  Who connects gets one line of
JSON (`roster.SetView`) at once and then one a second; there is nothing to be said to it.  The page of metrics is
HTTP/1.0 on an address of the configuration.

The replica's main loop only says that there is news (`news`), which never waits.  Here nothing waits for anybody
either: what a viewer does not take stays in one buffer of one line, and newer lines pass it by; one that takes nothing
of a line for STATUS_VIEWER_S is dropped.  Viewers and requests are bounded in number, and a request in length and time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ftnids import limits, log
from ftnids.errors import ConfigError
from ftnids.status.roster import Roster

COUNTERS: Final = (
    "viewers",  # at the socket now
    "viewers_dropped",  # they took too long to read, or spoke
    "viewers_refused",  # too many at once
    "scrapes",  # pages of metrics handed out
    "scrapes_dropped",  # requests that were too many at once, too long, or took too long
)
SUFFIX: Final = ".status"  # of the socket's name, behind the replica's
MODE: Final = 0o660
PAUSE_S: Final = 1.0  # between looks without news; after a failed accept
READ_BYTES: Final = 4_096

Page = Callable[[], bytes]  # the metrics


def socket_path(run_dir: Path, name: str) -> Path:
    """Where replica `name` has its status socket."""
    return run_dir / f"{name}{SUFFIX}"


@contextlib.contextmanager
def short(path: Path) -> Iterator[str]:
    """A name of `path` that fits into a socket address, which has 107 bytes; good inside the block.  OSError."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@dataclass(eq=False)
class _Connection:
    """One viewer, or one request for the metrics."""

    socket: socket.socket
    viewer: bool
    since: float  # monotonic: when it came, or when the line that it has not taken whole was begun
    out: memoryview = field(default_factory=lambda: memoryview(b""))
    inbox: bytes = b""
    answered: bool = False


class Server:
    """The thread.  `page` makes the metrics; without an address there are none.

    ConfigError when the socket cannot be made or the address not be listened at.
    """

    def __init__(self, roster: Roster, path: Path, listen: tuple[str, int] | None = None, page: Page = bytes) -> None:
        self._roster, self._path, self._page = roster, path, page
        self._log, self._limiter = log.get("status"), log.Limiter()
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._connections: list[_Connection] = []
        self._line, self._line_at = b"", 0.0
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._wakeup)
            undo.callback(self._selector.close)
            self._listeners = [undo.enter_context(_unix(path))]
            if listen is not None:
                self._listeners.append(undo.enter_context(_tcp(*listen)))
            undo.pop_all()
        self._inode = path.stat().st_ino
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        self._listen_at = 0.0  # monotonic: before it, a listener that failed is left alone
        self._listen()
        self._thread = threading.Thread(target=self._run, name="status socket", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int] | None:
        """Where the metrics are; None where they are off."""
        if len(self._listeners) < 2:
            return None
        host, port = self._listeners[1].getsockname()[:2]
        return host, port

    @property
    def counters(self) -> dict[str, int]:
        """What has happened so far, by the names in COUNTERS."""
        return dict(self._counters)

    def news(self) -> None:
        """The roster has a newer snapshot of this replica.  Never waits."""
        os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        """Send the last line to those who take it now, and end."""
        self._stopping = True
        self.news()
        self._thread.join()
        with contextlib.suppress(OSError):
            if self._path.lstat().st_ino == self._inode:  # else it is a later replica's
                self._path.unlink()
        for listener in self._listeners:
            listener.close()
        self._selector.close()
        os.close(self._wakeup)

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._stopping
            try:
                self._turn(0.0 if closing else PAUSE_S)
            except Exception as error:  # whatever it was: the replica goes on, and so do the viewers
                self._limiter.log(self._log, "error", "turn", "status_socket_failed", reason=repr(error))
                time.sleep(PAUSE_S)
        for one in list(self._connections):
            self._end(one)

    def _turn(self, wait_s: float) -> None:
        for key, events in self._selector.select(wait_s):
            if key.fd == self._wakeup:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wakeup)
                self._broadcast()
            elif key.data is None:
                assert isinstance(key.fileobj, socket.socket)
                self._accept(key.fileobj)
            elif key.data in self._connections:
                self._serve(key.data, events)
        if self._connections and time.monotonic() - self._line_at > 2 * PAUSE_S:
            self._broadcast()  # the main loop does nothing: its age says so
        now = time.monotonic()
        for one in list(self._connections):
            patience = limits.STATUS_VIEWER_S if one.viewer else limits.METRICS_S
            if now - one.since > patience and (one.out or not one.viewer):
                self._drop(one)
        self._listen()

    def _listen(self) -> None:
        if time.monotonic() < self._listen_at:
            return
        for listener in self._listeners:
            if listener.fileno() not in self._selector.get_map():
                self._selector.register(listener, selectors.EVENT_READ)

    def _accept(self, listener: socket.socket) -> None:
        viewer = listener is self._listeners[0]
        try:
            made, _ = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._selector.unregister(listener)
                self._listen_at = time.monotonic() + PAUSE_S
                self._limiter.log(self._log, "warning", "accept", "status_socket_busy", reason=error.strerror)
            return
        made.setblocking(False)
        most = limits.STATUS_VIEWERS if viewer else limits.METRICS_REQUESTS
        if sum(one.viewer == viewer for one in self._connections) >= most:
            self._counters["viewers_refused" if viewer else "scrapes_dropped"] += 1
            made.close()
            return
        one = _Connection(made, viewer, time.monotonic())
        self._connections.append(one)
        self._selector.register(made, selectors.EVENT_READ, one)
        if viewer:
            self._counters["viewers"] += 1
            self._send(one, self._newest())

    def _newest(self) -> bytes:
        """The line as it is now; made anew once a second at most, and at news."""
        if time.monotonic() - self._line_at > PAUSE_S:
            self._line, self._line_at = self._roster.view().json() + b"\n", time.monotonic()
        return self._line

    def _broadcast(self) -> None:
        viewers = [one for one in self._connections if one.viewer]
        if not viewers:
            return
        self._line_at = 0.0
        line = self._newest()
        for one in viewers:
            if not one.out:
                one.since = time.monotonic()
                self._send(one, line)

    def _serve(self, one: _Connection, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send(one)
        if events & selectors.EVENT_READ and one in self._connections:
            try:
                data = one.socket.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._end(one)
            elif one.viewer or len(one.inbox) + len(data) > limits.METRICS_REQUEST:
                self._drop(one)
            else:
                one.inbox += data
                if not one.answered and (b"\n\r\n" in one.inbox or b"\n\n" in one.inbox):
                    one.answered = True
                    self._send(one, self._answer(one.inbox))

    def _answer(self, request: bytes) -> bytes:
        words = request.split(b"\n", 1)[0].split()
        path = words[1].split(b"?")[0] if len(words) > 1 else b""
        kind = "text/plain; version=0.0.4; charset=utf-8"
        if not words or words[0] not in (b"GET", b"HEAD"):
            status, body = "405 Method Not Allowed", b"GET /metrics\n"
        elif path == b"/metrics":
            status, body = "200 OK", self._page()
            self._counters["scrapes"] += 1
        else:
            status, body = "404 Not Found", b"the metrics are at /metrics\n"
        head = f"HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + (b"" if words and words[0] == b"HEAD" else body)

    def _send(self, one: _Connection, data: bytes = b"") -> None:
        """Send what waits, or `data` where nothing waits; what the other does not take now, waits."""
        one.out = one.out or memoryview(data)
        try:
            while one.out:
                one.out = one.out[one.socket.send(one.out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._end(one)
            return
        if not one.out and not one.viewer:
            with contextlib.suppress(OSError):
                one.socket.shutdown(socket.SHUT_WR)  # the reader ends the connection, or the time does
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if one.out else 0)
        self._selector.modify(one.socket, wanted, one)

    def _drop(self, one: _Connection) -> None:
        if one.viewer or not one.answered or one.out:
            self._counters["viewers_dropped" if one.viewer else "scrapes_dropped"] += 1
        self._end(one)

    def _end(self, one: _Connection) -> None:
        self._connections.remove(one)
        self._counters["viewers"] -= one.viewer
        self._selector.unregister(one.socket)
        one.socket.close()


def _unix(path: Path) -> socket.socket:
    """The listening status socket; one that a killed replica left is replaced."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short(path) as name:
            if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
                raise ConfigError(f"replica.run_dir: {path} is there and no socket; remove it")
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            made.bind(name)
            Path(name).chmod(MODE)
        made.setblocking(False)
        made.listen(limits.STATUS_VIEWERS)  # nobody gets in before
    except OSError as error:
        made.close()
        raise ConfigError(f"replica.run_dir: status socket {path} cannot be made: {error.strerror}") from None
    except ConfigError:
        made.close()
        raise
    return made


def _tcp(host: str, port: int) -> socket.socket:
    made = None
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.setblocking(False)
        made.listen(limits.METRICS_REQUESTS)
    except OSError as error:
        if made is not None:
            made.close()
        raise ConfigError(f"metrics.listen {host}:{port}: cannot listen there: {error.strerror}") from None
    return made

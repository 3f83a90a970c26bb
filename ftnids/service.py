"""What systemd is told of a replica (`Type=notify`): that it is ready, alive, reading its files again, ending.

One datagram each to the socket that NOTIFY_SOCKET names; where there is none, nothing happens.  The watchdog hears of
every turn of the main loop, so that a replica that hangs is started anew.  To start and to end may take longer than a
turn: for that time the watchdog is given more.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

SOCKET: Final = "NOTIFY_SOCKET"
TELL_S: Final = 1.0  # for a busy manager to take a message
SLOW_S: Final = 180.0  # for an IDS to test its rules, load them and open its input, or to end by itself


class Service:
    """One process as its service manager sees it.

    Takes its variables out of `environment`, so that an IDS does not speak for the replica.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        path = environment.pop(SOCKET, "")
        usec, owner = environment.pop("WATCHDOG_USEC", "0"), environment.pop("WATCHDOG_PID", "")
        mine = owner in ("", str(os.getpid()))
        self._path = "\0" + path[1:] if path.startswith("@") else path
        self._watchdog_s = int(usec) / 1e6 if mine and usec.isdecimal() else 0.0
        self._next = 0.0
        self._socket: socket.socket | None = None
        if path:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(TELL_S)

    def starting(self) -> None:
        """It begins, or begins anew."""
        self._slow("starting")

    def ready(self) -> None:
        """It does its work; from now on `alive` must come."""
        self._limit(self._watchdog_s)
        self._tell("READY=1", "STATUS=running")
        self._next = 0.0

    def alive(self) -> None:
        """The main loop turns.  Costs nothing more often than four times in a watchdog's interval."""
        if self._watchdog_s and (now := time.monotonic()) >= self._next:
            self._next = now + self._watchdog_s / 4
            self._tell("WATCHDOG=1")

    def reloading(self) -> None:
        """It reads its files again; `ready` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def ending(self, reason: str) -> None:
        """It ends, by itself or because it was told to."""
        self._slow(f"ending: {reason.splitlines()[0] if reason else 'told to, or the stream is over'}")

    def stopping(self) -> None:
        """It will not begin anew; the last call."""
        self._tell("STOPPING=1")
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _slow(self, status: str) -> None:
        self._limit(SLOW_S)
        self._tell("WATCHDOG=1", f"STATUS={status}")

    def _limit(self, seconds: float) -> None:
        if self._watchdog_s:
            self._tell(f"WATCHDOG_USEC={int(seconds * 1e6)}")

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # a manager that does not listen is no reason to end
                self._socket.sendto("\n".join(lines).encode(errors="replace"), self._path)

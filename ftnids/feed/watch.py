"""Tells when a log grows, by inotify: nobody has to look again and again."""

from __future__ import annotations

import ctypes
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from ftnids.limits import LOG_WATCH_S

log = structlog.get_logger()
IN_MODIFY: Final = 0x2
EVENT_BYTES: Final = 65_536


class LogWatch:
    """Calls `wake`, on a thread of its own, when a file in a folder that it follows has changed; and sets `news`.

    However often a file changes, `wake` comes at most every LOG_WATCH_S.  Where there is no inotify it never comes,
    which is said once.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.news = False  # to be cleared by who looks, before looking
        self._wake = wake
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self._followed: dict[Path, int] = {}
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="log watch", daemon=True)
        if self._fd < 0:
            self._refused(ctypes.get_errno())
        else:
            self._thread.start()

    def follow(self, folder: Path) -> None:
        """From now on, this folder and no other."""
        if folder in self._followed or self._fd < 0:
            return
        for number in self._followed.values():
            self._libc.inotify_rm_watch(self._fd, number)
        number = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_MODIFY)
        self._followed = {folder: number} if number >= 0 else {}
        self.news = True
        if number < 0:
            self._refused(ctypes.get_errno())
            self._followed = {folder: -1}

    def close(self) -> None:
        """End the thread."""
        os.eventfd_write(self._stop, 1)
        if self._thread.ident is not None:
            self._thread.join()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        os.close(self._stop)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            if any(fd == self._stop for fd, _ in poll.poll()):
                return
            os.read(self._fd, EVENT_BYTES)
            self.news = True
            self._wake()
            time.sleep(LOG_WATCH_S)

    @staticmethod
    def _refused(number: int) -> None:
        hint = "provisional alerts are looked for less often; see fs.inotify.max_user_instances and max_user_watches"
        log.warning("log_not_watched", reason=os.strerror(number), hint=hint)

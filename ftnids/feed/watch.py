"""Tells when a log grows, by inotify: nobody has to look again and again."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from ftnids.log import get

log = get("feed")
IN_MODIFY: Final = 0x2
EVENT_BYTES: Final = 65_536


class LogWatch:
    """A descriptor, `fd`, that is readable when a file in the folder that it follows has changed.

    Where there is no inotify `fd` is -1 or never readable, which is said once.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = int(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self._followed: Path | None = None
        self._number = -1
        if self.fd < 0:
            self._refused()

    def follow(self, folder: Path) -> None:
        """From now on, this folder and no other."""
        if folder == self._followed or self.fd < 0:
            return
        if self._number >= 0:
            self._libc.inotify_rm_watch(self.fd, self._number)
        self._followed = folder
        self._number = self._libc.inotify_add_watch(self.fd, os.fsencode(folder), IN_MODIFY)
        if self._number < 0:
            self._refused()

    def news(self) -> bool:
        """Whether something has changed since the last call; it never waits."""
        if self.fd < 0:
            return False
        try:
            return bool(os.read(self.fd, EVENT_BYTES))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Let go of the descriptor.  Twice is once."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @staticmethod
    def _refused() -> None:
        hint = "provisional alerts are looked for less often; see fs.inotify.max_user_instances and max_user_watches"
        log.warning("log_not_watched", reason=os.strerror(ctypes.get_errno()), hint=hint)

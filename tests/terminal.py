"""A real terminal for tests, and for the picture in README: tmux, whose panes can be read."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

PATIENCE_S: Final = 40.0
LOOK_S: Final = 0.05
AFTER: Final = '"$@"; echo "ended with status $?"; exec sleep 1000'  # so that its last words can be read


class Terminal:
    """One pane that runs `command`; a context manager, whose end ends the command, too."""

    def __init__(
        self, command: Sequence[str | Path], width: int = 80, height: int = 24, locale: str = "C.UTF-8"
    ) -> None:
        self._command = ["sh", "-c", AFTER, "sh", *map(str, command)]
        self._size = [f"-x{width}", f"-y{height}"]
        self._locale = locale

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp())  # a socket's path is short
        self._environment = {**os.environ, "LC_ALL": self._locale, "TERM": "xterm-256color"}
        self._environment.pop("TMUX", None)
        self._tmux(
            "start-server", ";", "set", "-g", "status", "off", ";", "new-session", "-d", *self._size, *self._command
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._tmux("kill-server")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _tmux(self, *words: str) -> str:
        unicode = ["-u"] if "UTF-8" in self._locale else []
        command = ["tmux", *unicode, "-f", os.devnull, "-S", str(self._folder / "s"), *words]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    def text(self) -> str:
        """What stands on the screen."""
        return self._tmux("capture-pane", "-p")

    def coloured(self) -> str:
        """The same with the escape sequences of its colours."""
        return self._tmux("capture-pane", "-p", "-e", "-N")

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self._tmux("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        """Another size."""
        self._tmux("resize-window", f"-x{width}", f"-y{height}")

    @property
    def status(self) -> int | None:
        """The command's exit status; None while it runs."""
        ended = re.search(r"^ended with status (\d+)$", self.text(), re.MULTILINE)
        return int(ended[1]) if ended else None

    def wait(self, there: Callable[[str], bool] | str) -> str:
        """The screen as soon as `there` says yes to it, or is in it."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            shown = self.text()
            if there in shown if isinstance(there, str) else there(shown):
                return shown
            time.sleep(LOOK_S)
        raise AssertionError(f"it did not come; on the screen:\n{self.text()}")

    def wait_end(self) -> int:
        """The exit status, as soon as there is one."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if (status := self.status) is not None:
                return status
            time.sleep(LOOK_S)
        raise AssertionError(f"it does not end; on the screen:\n{self.text()}")

"""`ftnids top` on a terminal: the curses shell around `screen.draw`."""

from __future__ import annotations

import contextlib
import curses
import locale
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ftnids.status.client import Client
from ftnids.status.columns import BAD, DIM, HEAD, OK, STYLES, TEXT, TITLE, WARN
from ftnids.status.model import Choice, Model, pressed
from ftnids.status.roster import SetView
from ftnids.status.screen import Line, draw

LOOK_S: Final = 0.1  # between looks at the keys
REDRAW_S: Final = 1.0  # without news: the ages grow
ESCAPE_MS: Final = 25  # after Esc: for the rest of a key's sequence
COLOURS: Final = {OK: curses.COLOR_GREEN, WARN: curses.COLOR_YELLOW, BAD: curses.COLOR_RED, HEAD: curses.COLOR_CYAN}
KEYS: Final = {
    curses.KEY_UP: "UP",
    curses.KEY_DOWN: "DOWN",
    curses.KEY_PPAGE: "PPAGE",
    curses.KEY_NPAGE: "NPAGE",
    curses.KEY_HOME: "HOME",
    27: "ESC",
    curses.KEY_BACKSPACE: "ESC",
}


class Terminal:
    """One run; `colours` False leaves them out.  `last` is what is shown until a replica answers."""

    def __init__(self, screen: curses.window, sockets: Sequence[Path], last: SetView | None, colours: bool) -> None:
        self._screen = screen
        self._client = Client(sockets)
        self._model = Model()
        if last is not None:
            self._model.take(last)
        self._choice = Choice()
        self._names = [member.name for member in last.members] if last is not None else []
        self._ascii = "UTF-8" not in locale.nl_langinfo(locale.CODESET).upper()
        self._attributes = _attributes(colours)
        self._drawn_at = 0.0

    def run(self) -> None:
        """Until q is pressed."""
        self._screen.keypad(True)
        self._screen.nodelay(True)
        with contextlib.suppress(curses.error):
            curses.curs_set(0)
        with contextlib.closing(self._client):
            while not self._choice.done:
                changed = self._read_keys()
                changed |= self._look()
                if changed or time.monotonic() - self._drawn_at >= REDRAW_S:
                    self._draw()

    def _read_keys(self) -> bool:
        changed = False
        while (code := self._screen.getch()) != -1:
            changed = True
            if code == curses.KEY_RESIZE:
                self._screen.clear()
                continue
            key = KEYS.get(code) or (chr(code) if 0 < code < 256 else "")
            self._choice = pressed(self._choice, key, self._names)
        return changed

    def _look(self) -> bool:
        """Take in what has come; whether anything has."""
        came = self._client.poll(LOOK_S)
        view = self._client.view
        if self._choice.paused:
            return False
        if view is not None and came:
            self._model.take(view)
            self._names = [member.name for member in view.members]
        elif view is not None:
            self._model.view = view  # older by now
        self._model.trouble = self._client.trouble
        return came

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        self._fit()
        height, width = self._screen.getmaxyx()
        self._screen.erase()
        for number, line in enumerate(draw(self._model, self._choice, width, height, self._ascii)):
            self._put(number, line)
        self._screen.refresh()

    def _fit(self) -> None:
        """Take the terminal's size from the terminal: curses goes by a signal, which may get lost."""
        with contextlib.suppress(OSError):  # the output is none: then the size is what curses was told
            width, height = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1)
            if width and height and (height, width) != self._screen.getmaxyx():
                curses.resizeterm(height, width)
                self._screen.clear()

    def _put(self, number: int, line: Line) -> None:
        column = 0
        for text, style in line:
            with contextlib.suppress(curses.error):  # the last cell of the last line; a window that shrank meanwhile
                self._screen.addstr(number, column, text, self._attributes[style])
            column += len(text)


def _attributes(colours: bool) -> dict[str, int]:
    """Of each style; without colours bold, dim and reverse must do."""
    attributes = dict.fromkeys(STYLES, curses.A_NORMAL)
    attributes |= {DIM: curses.A_DIM, HEAD: curses.A_BOLD, TITLE: curses.A_REVERSE, BAD: curses.A_BOLD, TEXT: 0}
    if colours and curses.has_colors():
        curses.start_color()
        curses.use_default_colors()
        for number, (style, colour) in enumerate(COLOURS.items(), 1):
            curses.init_pair(number, colour, -1)
            attributes[style] |= curses.color_pair(number)
    return attributes


def run(sockets: Sequence[Path], last: SetView | None, colours: bool) -> None:
    """Show the set until q is pressed.  curses.error where there is no terminal that can."""
    locale.setlocale(locale.LC_ALL, "")
    os.environ.setdefault("ESCDELAY", str(ESCAPE_MS))
    curses.wrapper(lambda screen: Terminal(screen, sockets, last, colours).run())

"""On which line of a TOML file each key stands; `tomllib` does not tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

Key = tuple[str | int, ...]  # names of tables and keys, and indexes into arrays of tables

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<string>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    |(?P<bare>[A-Za-z0-9_-]+)
    |(?P<mark>.)""",
    re.DOTALL | re.VERBOSE,
)


class Lines:
    """The lines of the keys of one file."""

    def __init__(self) -> None:
        self._lines: dict[Key, int] = {}

    def add(self, key: Key, line: int) -> None:
        """Note where `key` stands first."""
        self._lines.setdefault(key, line)

    def __contains__(self, key: Key) -> bool:
        """Whether `key` is in the file."""
        return key in self._lines

    def find(self, key: Key) -> int:
        """The line of `key`, or of the innermost table around it that is in the file; 1 if there is none."""
        for length in range(len(key), 0, -1):
            if key[:length] in self._lines:
                return self._lines[key[:length]]
        return 1


def lines_of(text: str) -> Lines:
    """The lines of the keys in `text`, which must be TOML.  Keys inside inline tables stand where the table does."""
    lines, arrays = Lines(), dict[Key, int]()
    table: Key = ()
    for line, marks, names, is_header in _statements(text):
        if not is_header:
            for length in range(1, len(names) + 1):
                lines.add(table + names[:length], line)
            continue
        if marks == 2:
            arrays[names] = arrays.get(names, -1) + 1
        table = ()
        for length in range(1, len(names) + 1):
            table += (names[length - 1],)
            lines.add(table, line)
            if names[:length] in arrays:
                table += (arrays[names[:length]],)
                lines.add(table, line)
    return lines


def _statements(text: str) -> Iterator[tuple[int, int, Key, bool]]:
    """Line, number of brackets, dotted name, and whether it is a table's header, of each statement."""
    line, start, brackets, depth = 1, 1, 0, 0
    names: list[str] = []
    in_value = False
    for token in _TOKEN.finditer(text + "\n"):
        kind, shown = token.lastgroup, token[0]
        if in_value:
            depth += (shown in "[{") - (shown in "]}") if kind == "mark" else 0
        elif kind in ("string", "bare"):
            names.append(shown if kind == "bare" else shown[1:-1])
        elif shown == "[":
            brackets += 1
        elif shown == "=":
            in_value = True
            yield start, 0, tuple(names), False
        if shown == "\n" and depth == 0:
            if brackets and not in_value:
                yield start, brackets, tuple(names), True
            names, brackets, in_value, start = [], 0, False, line + 1
        line += shown.count("\n")

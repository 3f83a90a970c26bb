"""Numbers, times and other people's texts, made fit for a line of a terminal.  No state, no I/O."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

SPARKS: Final = "▁▂▃▄▅▆▇█"
ASCII_SPARKS: Final = "_.-=+*%#"
BAR: Final = "█", "░"
ASCII_BAR: Final = "#", "-"


def plain(value: object) -> str:
    """A text without anything that moves the cursor, changes colours or is not one column wide.

    What an attacker can put into an alert must not speak to the operator's terminal.
    """
    return "".join(one if _one_column(one) else "?" for one in str(value))


def _one_column(one: str) -> bool:
    if " " <= one <= "~":
        return True
    wide = unicodedata.east_asian_width(one) in "WF"
    return one.isprintable() and not wide and not unicodedata.combining(one)


def cell(text: str, width: int, right: bool = False) -> str:
    """`text` in exactly `width` columns; one that is cut ends in ~."""
    if len(text) > width:
        text = text[: max(0, width - 1)] + "~" if width else ""
    return text.rjust(width) if right else text.ljust(width)


def protocol(versions: Mapping[str, float]) -> str:
    """What a replica speaks, and what its view does: 2 of 1-2; a blank where it does not say."""
    if not {"oldest", "newest"} <= versions.keys():
        return ""
    low, high, view = versions["oldest"], versions["newest"], versions.get("view", 0)
    return f"{view or '-'} of {low if low == high else f'{low}-{high}'}"


def count(value: float, width: int = 7) -> str:
    """A number of things in at most `width` columns (5 or more): 1,234,567, else 1.23M, 45.6G."""
    whole = f"{value:,.0f}"
    if len(whole) <= width:
        return whole
    unit = ""
    for unit in "kMGTPE":  # noqa: B007 - the last one stays
        value /= 1000
        if abs(value) < 999.5:
            break
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}{unit}"[:width]


def milliseconds(value: float) -> str:
    """A delay in ms in at most five columns."""
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}" if value < 99999 else ">99 s"


def percent(share: float) -> str:
    """A share in at most five columns: 0 %, 0.02%, 1.5 %, 100 %, without the blank."""
    if share == 0:
        return "0%"
    return f"{share * 100:.2f}%" if share < 0.0995 else f"{share * 100:.1f}%" if share < 0.995 else "100%"


def clock(seconds: float) -> str:
    """A time of the epoch as the hour here."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return "--:--:--"


def day(seconds: float) -> str:
    """A time of the epoch as day and hour here."""
    try:
        return time.strftime("%d %b %H:%M:%S", time.localtime(seconds)) if seconds > 0 else "-"
    except (OverflowError, OSError, ValueError):
        return "-"


def spark(values: Sequence[float], width: int, top: float = 0.0, ascii_only: bool = False) -> str:
    """The newest `width` values, one column each, the newest at the right; `top` or the largest is the highest mark.

    Blank: no value; the lowest mark: zero.
    """
    marks = ASCII_SPARKS if ascii_only else SPARKS
    shown = list(values)[-width:] if width > 0 else []
    highest = max(top, max(shown, default=0.0))
    drawn = ""
    for value in shown:
        drawn += marks[0] if value <= 0 else marks[min(len(marks) - 1, 1 + int(value / highest * (len(marks) - 2)))]
    return drawn.rjust(width)


def bar(share: float, width: int, ascii_only: bool = False) -> str:
    """A bar of `width` columns of which `share` (0 to 1) is filled; from 1 % on at least one."""
    full, empty = ASCII_BAR if ascii_only else BAR
    filled = min(width, max(round(share * width), int(share >= 0.01)))
    return full * filled + empty * (width - filled)

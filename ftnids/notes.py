"""What the protocol says of members by their numbers, with their names: operators know no numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

ONE: Final = {"member", "asked"}  # facts of a note that hold a member's number
MANY: Final = {"members"}
_IN_TEXT: Final = re.compile(r"\bmember (\d+)\b")


def named(facts: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
    """`facts` of a note with names in place of members' numbers; `names`: of all members, in the set's order."""
    return {key: _named(key, value, names) for key, value in facts.items()}


def text(reason: str, names: Sequence[str]) -> str:
    """`reason` with "member b" in place of "member 1"."""

    def name(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"member {names[number]}" if number < len(names) else found[0]

    return _IN_TEXT.sub(name, reason)


def _named(key: str, value: object, names: Sequence[str]) -> object:
    if key in ONE and isinstance(value, int):
        return names[value]
    if key in MANY and isinstance(value, list):
        return [names[member] for member in value]
    return text(value, names) if key == "reason" and isinstance(value, str) else value

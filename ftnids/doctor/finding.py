"""What the doctor finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"  # works without, or with less
    FAIL = "fail"  # a replica does not start, or does not work, like this


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the host: what was looked at and found, why it matters, what to do (empty when all is well)."""

    level: Level
    name: str  # stays the same from version to version
    what: str
    why: str
    do: str = ""


def ok(name: str, what: str, why: str) -> Finding:
    """Nothing to do."""
    return Finding(Level.OK, name, what, why)


def warn(name: str, what: str, why: str, do: str) -> Finding:
    """Something is missing that ftnids can do without."""
    return Finding(Level.WARN, name, what, why, do)


def fail(name: str, what: str, why: str, do: str) -> Finding:
    """Something is missing that ftnids needs."""
    return Finding(Level.FAIL, name, what, why, do)


def grade(name: str, *, needed: bool, what: str, why: str, do: str) -> Finding:
    """A fault that is fatal only where the thing is `needed`."""
    return (fail if needed else warn)(name, what, why, do)

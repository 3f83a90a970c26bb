"""Values of the configuration from other places than its file: the environment and the command line.

`FTNIDS_SYNC__K=8` is `sync.k = 8`, `FTNIDS_CLUSTER__MEMBER__2__ADDRESS` the address of the second member; on the
command line `--set sync.k=8` and `--set 'cluster.member[2].address=...'`.  The command line goes before the
environment, and both before the file.  A value is written as in TOML; a text may go without its quotes.  Relative
paths start from the working directory.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ftnids.errors import ConfigError
from ftnids.settings.words import Schema, dotted, node
from ftnids.toml_lines import Key, Lines

PREFIX: Final = "FTNIDS_"
MARK: Final = "__"
EITHER: Final = (("capture", "interface"), ("capture", "file"))  # who sets one of them unsets the other
_PART: Final = re.compile(r"([A-Za-z0-9_-]+)((?:\[[0-9]+\])*)")


@dataclass(frozen=True, slots=True)
class Override:
    """One value from elsewhere: `source` is what an error names."""

    source: str
    key: Key
    text: str


def of_environment(environment: Mapping[str, str]) -> list[Override]:
    """What the environment sets: every variable that begins with FTNIDS_ and has two underscores in it."""
    found = []
    for name in sorted(environment):
        rest = name.removeprefix(PREFIX)
        if rest != name and MARK in rest:
            parts = [int(part) - 1 if part.isdecimal() else part.lower() for part in rest.split(MARK)]
            found.append(Override(name, tuple(parts), environment[name]))
    return found


def of_options(
    sets: Sequence[str] = (), interface: str | None = None, file: Path | None = None, log_dir: Path | None = None
) -> list[Override]:
    """What the command line sets: `sets` are KEY=VALUE.  ConfigError for one that is not, and for both sources."""
    if interface is not None and file is not None:
        raise ConfigError("-i and -r: name an interface or a file, not both")
    found = []
    for one in sets:
        name, equals, text = one.partition("=")
        if not equals:
            raise ConfigError(f"--set {one}: wants KEY=VALUE, as in --set capture.snaplen=1600")
        found.append(Override(f"--set {name.strip()}", _key(name.strip()), text.strip()))
    short = (("-i", EITHER[0], interface), ("-r", EITHER[1], file), ("-l", ("replica", "log_dir"), log_dir))
    return found + [Override(source, key, str(value)) for source, key, value in short if value is not None]


def _key(name: str) -> Key:
    parts: list[str | int] = []
    for piece in name.split("."):
        match = _PART.fullmatch(piece)
        if match is None:
            raise ConfigError(f"--set {name}: {piece!r} is no name of a key; those are as in capture.snaplen")
        parts += [match[1], *(int(number) - 1 for number in re.findall(r"[0-9]+", match[2]))]
    return tuple(parts)


def applied(tree: dict[str, Any], overrides: Sequence[Override], whole: Schema) -> dict[str, Any]:
    """A copy of a file's `tree` with `overrides` put in, later ones over earlier ones.

    ConfigError for one that leads nowhere.  Whether its last part is a key, and its value allowed, is not looked at.
    """
    result = copy.deepcopy(tree)
    for one in overrides:
        place = _place(result, one)
        for key in EITHER:
            if one.key in EITHER and key != one.key:
                result["capture"].pop(key[-1], None)
        place[one.key[-1]] = _value(one, whole)
    return result


def _place(tree: dict[str, Any], one: Override) -> Any:
    """The table or list that the override's last part belongs into; tables that are missing are made."""
    place: Any = tree
    for number, part in enumerate(one.key):
        there = dotted(one.key[:number]) or "the file"
        if isinstance(part, int):
            if not isinstance(place, list) or not 0 <= part < len(place):
                many = f"{len(place)} of them, counted from 1" if isinstance(place, list) else "no list"
                raise ConfigError(f"{one.source}: {dotted(one.key)}: {there} is {many}")
        elif not isinstance(place, dict):
            raise ConfigError(f"{one.source}: {dotted(one.key)}: {there} is no table")
        if number == len(one.key) - 1:
            return place
        place = place[part] if isinstance(part, int) else place.setdefault(part, {})
    raise AssertionError("a key has a part")


def _value(one: Override, whole: Schema) -> Any:
    """The value that an override's text stands for, by the type of its key."""
    try:
        schema = node(whole, one.key)
    except KeyError:
        return one.text  # an unknown key: the models say so
    value = _parsed(one.text)
    if schema.get("type") != "string":
        if schema.get("type") == "number" and type(value) is int:
            value = float(value)
        return _rebased(value) if schema.get("items", {}).get("format") == "path" else value
    text = value if isinstance(value, str) else one.text
    return str(Path.cwd() / text) if text and schema.get("format") == "path" else text


def _rebased(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [str(Path.cwd() / one) if isinstance(one, str) and one else one for one in value]


def _parsed(text: str) -> Any:
    """`text` read as a TOML value; itself where it is none."""
    if "\n" in text:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def blamed(key: Key, overrides: Sequence[Override], lines: Lines) -> str:
    """The source of the value at `key`, or of a table that is not in the file; empty where it is the file."""
    for one in reversed(overrides):
        if key[: len(one.key)] == one.key or (one.key[: len(key)] == key and key not in lines):
            return one.source
    return ""


def mentioned(reason: str, overrides: Sequence[Override]) -> Iterator[str]:
    """Which settings that a reason names did not come from the file, and whence they did."""
    for name in dict.fromkeys(re.findall(r"\b[a-z]+(?:\.[a-z_]+)+\b", reason)):
        source = next((one.source for one in reversed(overrides) if dotted(one.key) == name), "")
        if source:
            yield f"{name} is from {source}"

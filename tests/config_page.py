"""Writes replicas/replica.toml and the list of keys in docs/configuration.md, from the models of `ftnids/config.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ftnids.config import schema
from ftnids.settings import text
from ftnids.settings.words import Schema, allowed, node
from ftnids.toml_lines import Key

ROOT: Final = Path(__file__).resolve().parent.parent
EXAMPLE: Final = ROOT / "replicas/replica.toml"
PAGE: Final = ROOT / "docs/configuration.md"
BEGIN: Final = "<!-- begin -->\n"
END: Final = "<!-- end -->\n"


def page() -> str:
    """The whole page, with the list as the models are now."""
    head, rest = PAGE.read_text().split(BEGIN)
    listed = "\n".join(rows())
    return f"{head}{BEGIN}\n{listed}\n{END}{rest.split(END)[1]}"


def rows() -> Iterator[str]:
    """A table for each section, in the order of the file."""
    yield from _sections((), schema())


def _sections(key: Key, table: Schema) -> Iterator[str]:
    inner: list[tuple[Key, Schema]] = []
    plain: list[str] = []
    for name in table["properties"]:
        child = node(schema(), (*key, name))
        if child.get("type") == "array" and "$ref" in child["items"]:
            inner.append(((*key, name, 0), node(schema(), (*key, name, 0))))
        elif child.get("type") == "object":
            inner.append(((*key, name), child))
        else:
            plain.append(_row(name, child, name in table.get("required", ())))
    if plain:
        shown = ".".join(str(part) for part in key if part != 0)
        yield from (f"### `{f'[[{shown}]]' if 0 in key else f'[{shown}]'}`", "", _cell(table["description"]), "")
        yield from ("| key | values | default | what it is |", "| --- | --- | --- | --- |", *plain, "")
    for where, child in inner:
        yield from _sections(where, child)


def _row(name: str, child: Schema, required: bool) -> str:
    default: Any = child.get("default")
    shown = "required" if required else "" if default is None else f"`{text.written(default)}`"
    return f"| `{name}` | {_cell(_allowed(child))} | {shown} | {_cell(child['description'])} |"


def _allowed(child: Schema) -> str:
    """In words which values there are; a path is a text in the file."""
    if child.get("type") == "array":
        return f"a list, each {_allowed(child['items'])}"
    return "a path" if child.get("format") == "path" else allowed(child)


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


if __name__ == "__main__":
    EXAMPLE.write_text(text.example())
    PAGE.write_text(page())

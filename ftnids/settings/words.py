"""Keys and values of the configuration in words: what is wrong with one, and what is allowed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import ErrorDetails

from ftnids.toml_lines import Key

Schema = Mapping[str, Any]  # the JSON schema of the whole configuration

_TYPES: Final = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a text",
    "array": "a list",
    "object": "a table",
}


def explained(whole: Schema, detail: ErrorDetails) -> str:
    """What is wrong with one value, and what is allowed."""
    key, kind, value = tuple(detail["loc"]), detail["type"], detail["input"]
    if kind == "extra_forbidden":
        keys = list(node(whole, key[:-1])["properties"])
        near = difflib.get_close_matches(str(key[-1]), keys, n=1, cutoff=0.5)
        return f": unknown key; did you mean {near[0]}?" if near else f": unknown key; those here: {', '.join(keys)}"
    what = allowed(node(whole, key))
    if kind == "missing":
        return f" is missing: must be {what}"
    shown = f": {len(value)} of them" if isinstance(value, (list, dict)) else f" = {toml(value)}"
    return f"{shown}: must be {what}"


def node(whole: Schema, key: Key) -> Schema:
    """The schema of what stands at `key`; KeyError when there is no such key."""
    found = whole
    for part in key:
        if isinstance(part, int):
            found = found["items"]
        else:
            outer = found["properties"][part]
            found = {**outer, **outer.get("anyOf", [{}])[0]}
        if "$ref" in found:
            found = whole["$defs"][found["$ref"].rpartition("/")[2]]
    return found


def allowed(schema: Schema) -> str:
    """In words, which values a schema allows."""
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    words = _TYPES[schema["type"]]
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        words += f", {low} to {high}"
    elif low is not None:
        words += f", {low} or more"
    if "minItems" in schema:
        words += f" of {schema['minItems']} to {schema['maxItems']}"
    if "maxLength" in schema:
        words += f" of {schema.get('minLength', 0)} to {schema['maxLength']} characters"
    if "pattern" in schema:
        words += " that begins with a letter or digit and has only letters, digits and . _ - in it"
    return words


def toml(value: object) -> str:
    """A value, roughly as it stands in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else str(value)


def dotted(key: Key) -> str:
    """A key in one piece; the members of a list count from 1."""
    return "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")

"""The configuration as a commented file, made from the models: the example, and what `ftnids init` writes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ftnids.config import Config
from ftnids.settings.words import toml

COLUMN: Final = 33  # where comments begin
WIDTH: Final = 120
Values = Mapping[str, Any]  # by dotted name; those of a list of tables are a list of them

EXAMPLE: Final[Values] = {
    "replica.name": "a",
    "cluster.name": "example",
    "cluster.member": [
        {"name": "a", "address": "tcp://127.0.0.1:5701"},
        {"name": "b", "address": "tcp://127.0.0.1:5702"},
    ],
    "capture.interface": "eth1",
}
_EXAMPLE_HEAD: Final = (
    'One replica of a two-replica set. Every key stands here with its default, except where "required" is said.',
    "Relative paths are relative to this file. More on each key: docs/configuration.md.",
)


def example() -> str:
    """`replicas/replica.toml`."""
    return document(_EXAMPLE_HEAD, EXAMPLE)


def document(head: Sequence[str], values: Values) -> str:
    """A configuration file with every key: as in `values`, else the default, else as a comment; `head` goes first."""
    lines = [f"# {line}".rstrip() for line in head]
    for name, field in Config.model_fields.items():
        lines += ["", *_table(name, _model(field), values)]
    return "\n".join(lines) + "\n"


def _table(name: str, model: type[BaseModel], values: Values) -> Iterator[str]:
    """A table, and those in it."""
    yield _commented(f"[{name}]", _first_line(model))
    inner = {key: field for key, field in model.model_fields.items() if _is_table(field)}
    for key, field in model.model_fields.items():
        if key not in inner:
            yield from _entry(key, field, values.get(f"{name}.{key}"))
    for key, field in inner.items():
        if field.is_required():  # a list of tables
            for number, one in enumerate(values[f"{name}.{key}"]):
                yield ""
                yield _commented(f"[[{name}.{key}]]", "" if number else _first_line(_model(field)))
                for part, inside in _model(field).model_fields.items():
                    yield from _entry(part, inside, one.get(part), said=not number)
        else:
            yield ""
            yield from _table(f"{name}.{key}", _model(field), values)


def _entry(key: str, field: FieldInfo, value: Any, *, said: bool = True) -> Iterator[str]:
    """A key with its value; one that has neither value nor default is a comment."""
    required = field.is_required()
    if value is None and not required:
        value = field.get_default(call_default_factory=True)
    text = f"# {key} = {toml((field.examples or ['...'])[0])}" if value is None else f"{key} = {written(value)}"
    if value is None and not said:
        return
    why = ("required; " if required else "") + (field.description or "")
    line = _commented(text, why if said else "")
    yield from [line] if len(line) <= WIDTH else _long(text, why)


def _long(text: str, why: str) -> Iterator[str]:
    """A key whose comment does not fit beside it."""
    yield from textwrap.wrap(why, WIDTH, initial_indent="# ", subsequent_indent="# ")
    yield text


def _commented(text: str, why: str) -> str:
    return f"{text:<{COLUMN - 1}} # {why}" if why else text


def _first_line(model: type[BaseModel]) -> str:
    text = (model.__doc__ or "").splitlines()[0].rstrip(".")
    return text[0].lower() + text[1:] if not text[:2].isupper() else text


def _is_table(field: FieldInfo) -> bool:
    return _found(field) is not None


def _model(field: FieldInfo) -> type[BaseModel]:
    model = _found(field)
    assert model is not None
    return model


def _found(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a table or of a list of them; None for a plain value."""
    for one in (field.annotation, *getattr(field.annotation, "__args__", ())):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def written(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, list):
        return f"[{', '.join(written(one) for one in value)}]"
    return toml(str(value) if isinstance(value, Path) else value)

"""The parts of docs/protocol.md that come from the code: `python -m tests.protocol_page` writes them into the page."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import Final

from ftnids.sync.membership import State
from ftnids.sync.messages import KINDS
from ftnids.sync.settings import MS, Timers

PAGE: Final = Path(__file__).resolve().parent.parent / "docs/protocol.md"
MARK: Final = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def messages() -> str:
    """Every kind of message with its number and what its class says of it."""
    lines = ["| message | kind | what it says |", "| --- | --- | --- |"]
    for kind, record in KINDS.items():
        says = inspect.cleandoc(record.__doc__ or "").split("\n\n")[0].split("\n")[0]
        lines.append(f"| {kind.name} | {int(kind)} | {says} |")
    return "\n".join(lines)


def timers() -> str:
    """The protocol's times with the comments that stand beside them."""
    source = inspect.getsource(Timers)
    comments = dict(re.findall(r"^    (\w+): int = .*?# (.*)$", source, re.MULTILINE))
    lines = ["| timer | default, ms | |", "| --- | --- | --- |"]
    for one in fields(Timers):
        assert isinstance(one.default, int)
        lines.append(f"| `{one.name}` | {one.default // MS:,} | {comments.get(one.name, '')} |")
    return "\n".join(lines)


def states() -> str:
    """The states that a HEARTBEAT names."""
    return ", ".join(f"{int(state)} {state.name}" for state in State) + "."


def page() -> str:
    """The page with its generated parts made anew."""
    made = {"messages": messages, "timers": timers, "states": states}
    return MARK.sub(lambda found: found[1] + made[found[2]]() + "\n" + found[3], PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())

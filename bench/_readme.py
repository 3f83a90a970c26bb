"""Puts what the benches found into bench/README.md: `python -m bench._readme`, after the benches have run."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from bench._results import FOLDER, goals, heading, line, load

PAGE: Final = Path(__file__).resolve().parent / "README.md"
MARK: Final = re.compile(r"(<!-- results of ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
GOALS: Final = re.compile(r"(<!-- goals -->\n).*?(<!-- end -->)", re.DOTALL)


def section(name: str) -> str:
    """The table of a bench, where it was measured, and its plot; nothing where it was not."""
    if not (FOLDER / f"{name}.json").exists():
        return ""
    told, rows = load(name)
    machine = told["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}"
    table = "\n".join([*heading(), *(line(row) for row in rows)])
    return f"\n`{told['command']}`, {told['trace']}; {where}.\n\n{table}\n\n![{name}](results/{name}.png)\n\n"


def page() -> str:
    """The whole page, up to date."""
    text = PAGE.read_text()
    measured = [name for _, name, _ in MARK.findall(text) if (FOLDER / f"{name}.json").exists()]
    table = "\n".join(goals(measured))
    text = GOALS.sub(lambda mark: f"{mark[1]}\n{table}\n\n{mark[2]}", text)
    return MARK.sub(lambda mark: mark[1] + section(mark[2]) + mark[3], text)


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.exit()

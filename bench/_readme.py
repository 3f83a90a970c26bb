"""Puts what the benches found into bench/README.md: `python -m bench._readme`, after the benches have run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from bench._results import FOLDER, Row, heading, line

PAGE: Final = Path(__file__).resolve().parent / "README.md"
MARK: Final = re.compile(r"(<!-- results of ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def section(name: str) -> str:
    """The table of a bench, where it was measured, and its plot; nothing where it was not."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return ""
    told: dict[str, Any] = json.loads(path.read_text())
    rows = [Row(**{key: row[key] for key in ("what", "measured", "unit", "baseline", "goal")}) for row in told["rows"]]
    machine = told["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}"
    table = "\n".join([*heading(), *(line(row) for row in rows)])
    return f"\n`{told['command']}`, {told['trace']}; {where}.\n\n{table}\n\n![{name}](results/{name}.png)\n\n"


def page() -> str:
    """The whole page, up to date."""
    return MARK.sub(lambda mark: mark[1] + section(mark[2]) + mark[3], PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.exit()

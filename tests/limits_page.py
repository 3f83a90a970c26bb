"""Writes the list of all limits into docs/limits.md, from the constants and comments of `ftnids/limits.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ftnids import limits

PAGE: Final = Path(__file__).resolve().parent.parent / "docs/limits.md"
BEGIN: Final = "<!-- begin -->\n"
END: Final = "<!-- end -->\n"
_SECTION: Final = re.compile(r"# -- (.+?) -+")
_LIMIT: Final = re.compile(r"(\w+): Final = [^#]+(?:# (.*))?")


def rows() -> str:
    """The constants as tables, a table for each section, in their order."""
    lines: list[str] = []
    for text in Path(limits.__file__).read_text().splitlines():
        if section := _SECTION.fullmatch(text):
            lines += [f"### {section[1].capitalize()}", "", "| limit | value | what it bounds |", "| --- | --- | --- |"]
        elif found := _LIMIT.fullmatch(text):
            value = getattr(limits, found[1])
            lines.append(f"| `{found[1]}` | {value:,} | {found[2] or ''} |")
        elif text.startswith("# ") and lines and lines[-1].startswith("| `"):
            lines[-1] = f"{lines[-1].removesuffix(' |')} {text[2:]} |"  # the comment goes on
    return re.sub(r"\|\n###", "|\n\n###", "\n".join(lines)) + "\n"


def page() -> str:
    """The whole page, with the list as the constants are now."""
    head, rest = PAGE.read_text().split(BEGIN)
    return f"{head}{BEGIN}\n{rows()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page())

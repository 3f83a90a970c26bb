"""The commands that README and the documentation show, for the tests that look whether they are true."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED: Final = re.compile(r"^    (?:make|ftnids|python -m|socat|docker) .*$", re.MULTILINE)
PROGRAMS: Final = ("ftnids ", "make ", "python -m ", "python3 -m ", "pip install ", "scripts/", "kill ", "systemctl ")
ROLE: Final = re.compile(r"# on (.+)")
WORDS: Final = frozenset(
    {"for", "do", "done", "in", "if", "then", "fi", "true", "wait", "export", "||", "&&", "&", ";", "|"}
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, first line, language and text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def role(self) -> str:
        """Of a block that begins with `# on ...`: the machine that it is for; else ""."""
        found = ROLE.match(self.text)
        return found[1] if found else ""

    def commands(self) -> list[list[str]]:
        """Each command of a shell block, in words."""
        found = []
        for line in self.text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            command: list[str] = []
            for word in [*lexer, ";"]:
                if word in WORDS or set(word) <= set(";&|"):
                    found += [command] if command else []
                    command = []
                else:
                    command.append(word)
        return found


def pages() -> list[Path]:
    """What a reader is shown: README, and the pages of docs/ and replicas/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "replicas").rglob("*.md"))]


def blocks(language: str = "sh") -> Iterator[Block]:
    """All fenced blocks of a language."""
    for page in pages():
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match[1] == language:
                yield Block(page, text.count("\n", 0, match.start()) + 2, match[1], match[2])


def inline() -> Iterator[tuple[str, list[str]]]:
    """(place, words) of each command between backticks."""
    for page in pages():
        text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text())
        for match in re.finditer(r"`([^`]+)`", text):
            command = " ".join(match[1].split())
            if command.startswith(PROGRAMS):
                yield f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}", shlex.split(command)

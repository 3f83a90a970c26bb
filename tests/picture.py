"""Makes the pictures of `ftnids top` in README and docs: a live lab (as root), a real terminal, and its screen as SVG.

python -m tests.picture
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from ftnids.lab import generate
from ftnids.lab.processes import Children, wait_until
from tests.terminal import Terminal

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
PICTURES: Final = {"top.svg": (80, 24), "top-wide.svg": (200, 60)}
TRAFFIC_S: Final = 75.0
SEEN_S: Final = 40.0  # of traffic, before the picture is taken
LOSS: Final = "0.05"

WIDTH, HEIGHT, SIZE = 8.4, 18, 14  # of a character, in pixels; of the font
FOREGROUND, BACKGROUND = "#d0d0d0", "#1c1c1c"
COLOURS: Final = {31: "#ff6c60", 32: "#8ccf7e", 33: "#e5c76b", 36: "#6cbfbf"}
SGR: Final = re.compile(r"\x1b\[([\d;]*)m")
OTHER: Final = re.compile(r"\x1b[()][0-9A-Z]|[\x0e\x0f]")  # character sets


@dataclass(frozen=True)
class Look:
    """How the next characters look."""

    colour: str = FOREGROUND
    bold: bool = False
    dim: bool = False
    reverse: bool = False


def after(look: Look, codes: str) -> Look:
    """The look after a sequence of SGR codes."""
    for code in (int(one or 0) for one in codes.split(";")):
        match code:
            case 0:
                look = Look()
            case 1 | 2:
                look = replace(look, bold=look.bold or code == 1, dim=look.dim or code == 2)
            case 7:
                look = replace(look, reverse=True)
            case 39:
                look = replace(look, colour=FOREGROUND)
            case _:
                look = replace(look, colour=COLOURS.get(code, look.colour))
    return look


def runs(screen: str) -> Iterator[tuple[int, int, str, Look]]:
    """(line, column, text, look) of everything on a screen that tmux captured with its escape sequences."""
    look = Look()
    for number, line in enumerate(OTHER.sub("", screen).split("\n")):
        column = 0
        for place, part in enumerate(SGR.split(line)):
            if place % 2:
                look = after(look, part)
            elif part:
                yield number, column, part, look
                column += len(part)


def svg(screen: str, width: int, height: int) -> str:
    """The picture of a screen of `width` by `height` characters."""
    across, down = width * WIDTH + 16, height * HEIGHT + 16
    box = f'viewBox="0 0 {across:.0f} {down}" width="{across:.0f}" height="{down}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f'<rect width="100%" height="100%" rx="6" fill="{BACKGROUND}"/>',
        f'<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{SIZE}" xml:space="preserve">',
    ]
    for line, column, text, look in runs(screen):
        x, y, length = 8 + column * WIDTH, 8 + line * HEIGHT, len(text) * WIDTH
        colour = look.colour
        if look.reverse:
            lines.append(f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{HEIGHT}" fill="{colour}"/>')
            colour = BACKGROUND
        if not text.strip():
            continue
        style = (' font-weight="bold"' if look.bold else "") + (' opacity="0.65"' if look.dim else "")
        where = f'x="{x:.1f}" y="{y + SIZE}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs"'
        lines.append(f'<text {where} fill="{colour}"{style}>{escape(text)}</text>')
    return "\n".join([*lines, "</g>", "</svg>", ""])


def take() -> dict[str, str]:
    """The pictures by their file names, of one lab with two replicas that lose 5 % each."""
    with tempfile.TemporaryDirectory() as folder, Children() as children:
        out, traffic = Path(folder, "out"), Path(folder, "traffic.pcap")
        generate.write(traffic, 1, connections=5000, lookups=3000, seconds=TRAFFIC_S)
        lab = ["lab", "-n", "2", "--loss", LOSS, "--pcap", str(traffic), "-o", str(out)]
        running = children.start("lab", [sys.executable, "-m", "ftnids", *lab], Path(folder, "log"))
        wait_until(lambda: (out / "r1/status.json").exists() or running.status is not None, 60, "the lab")
        assert running.status is None, running.last_words()
        size = PICTURES["top.svg"]
        with Terminal([sys.executable, "-m", "ftnids", "top", "-c", out], *size) as terminal:
            terminal.wait("2 of 2 running")
            time.sleep(SEEN_S)
            made = {}
            for name, size in PICTURES.items():
                terminal.resize(*size)
                time.sleep(2)
                made[name] = svg(terminal.coloured().rstrip("\n"), *size)
            terminal.press("q")
            return made


if __name__ == "__main__":
    for name, picture in take().items():
        (DOCS / name).write_text(picture)

"""The drawings of docs/how-it-works.md: `python -m tests.drawings` writes docs/*.svg anew."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
INK, PALE, BLUE, GREEN, RED, GREY = "#1b1f24", "#f3f5f7", "#1f5fae", "#1d7a3d", "#b3261e", "#6b7480"


class Drawing:
    """An SVG of boxes, arrows and words, on white."""

    def __init__(self, title: str, width: int, height: int) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' font-family="sans-serif" font-size="13" role="img">',
            f"<title>{escape(title)}</title>",
            "<defs>"
            + "".join(
                f'<marker id="tip{colour[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
                f' orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker>'
                for colour in (INK, BLUE, GREEN, RED, GREY)
            )
            + "</defs>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]

    def box(self, x: int, y: int, width: int, height: int, *words: str, colour: str = INK, fill: str = PALE) -> None:
        """A box with lines of text in its middle."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="{fill}" stroke="{colour}"/>'
        )
        top = y + height / 2 - 8 * (len(words) - 1) + 4.5
        for at, line in enumerate(words):
            self.text(x + width / 2, top + 16 * at, line, colour, "middle")

    def text(
        self, x: float, y: float, words: str, colour: str = INK, anchor: str = "start", bold: bool = False
    ) -> None:
        """One line of text; `y` is its base line."""
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
        )

    def arrow(self, x: int, y: int, to_x: int, to_y: int, colour: str = INK, both: bool = False) -> None:
        """A line with a tip at its end, or at both."""
        tips = f'marker-end="url(#tip{colour[1:]})"'
        if both:  # orient="auto" turns a tip with the line, so the other one is a line of its own
            middle_x, middle_y = (x + to_x) // 2, (y + to_y) // 2
            self.arrow(middle_x, middle_y, x, y, colour)
            x, y = middle_x, middle_y
        self.parts.append(f'<path d="M{x} {y} L{to_x} {to_y}" stroke="{colour}" stroke-width="1.5" {tips}/>')

    def line(self, x: int, y: int, to_x: int, to_y: int, colour: str = GREY, dashed: bool = True) -> None:
        """A plain line."""
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(f'<path d="M{x} {y} L{to_x} {to_y}" stroke="{colour}" stroke-width="1.5"{dashes}/>')

    def packets(self, x: int, y: int, names: str, colour: str = BLUE, step: int = 26) -> None:
        """A row of packets; a `.` is a place without one, a lower-case letter one that came from a peer."""
        for at, name in enumerate(names):
            if name == ".":
                self.box(x + step * at, y, step - 4, 22, colour="#c3c9d0", fill="white")
            else:
                own = name.isupper() or name.isdigit()
                self.box(x + step * at, y, step - 4, 22, name.upper(), colour=colour if own else GREEN)

    def svg(self) -> str:
        return "\n".join([*self.parts, "</svg>", ""])


def packet() -> str:
    """The life of a packet."""
    it = Drawing("The life of a packet: two replicas, one agreed stream, one alert", 900, 330)
    it.box(14, 40, 44, 250, "link", fill="#e4ebf5")
    for row, name, caught, filled in ((0, "a", "12.45", "12345"), (1, "b", "1.345", "12345")):
        y = 50 + 150 * row
        it.text(86, y - 12, f"replica {name}", INK, bold=True)
        it.arrow(58, y + 30, 84, y + 30)
        it.box(86, y, 84, 60, "capture", "hash, stamp")
        it.arrow(170, y + 30, 196, y + 30)
        it.packets(198, y + 38, caught)
        it.text(198, y + 22, "ring: what it caught")
        it.arrow(330, y + 30, 356, y + 30)
        it.box(358, y, 110, 60, "agree", "who has what?", colour=BLUE)
        it.arrow(468, y + 30, 494, y + 30)
        recovered = filled.replace(("3", "2")[row], "x")
        for at, one in enumerate(recovered):
            number = filled[at]
            it.box(496 + 26 * at, y + 38, 22, 22, number, colour=GREEN if one == "x" else BLUE)
        it.text(496, y + 22, "agreed stream")
        it.arrow(626, y + 30, 652, y + 30)
        it.box(654, y, 70, 60, "IDS")
        it.arrow(724, y + 30, 790, 170)
    it.arrow(413, 112, 413, 198, BLUE, both=True)
    it.text(422, 150, "hashes, times; decisions", BLUE)
    it.arrow(262, 112, 262, 198, GREEN, both=True)
    it.text(252, 150, "missing packets", GREEN, "end")
    it.box(792, 140, 94, 60, "each alert", "once", colour=INK)
    it.text(
        86, 300, "Packet 3 was lost by a, packet 2 by b. Both IDSs get 1 2 3 4 5, in this order, with the same times."
    )
    it.text(86, 319, "A packet is fed when every live replica has it: none can be lost any more.", GREY)
    return it.svg()


def a_round() -> str:
    """One round of the coordinator's merger."""
    it = Drawing("A round: two streams are compared, what is certain is decided, the rest waits", 900, 330)
    it.text(20, 58, "coordinator saw", INK)
    it.packets(170, 42, "ABCDEF.H", step=40)
    it.packets(530, 42, "J.L", step=40)
    it.text(20, 118, "member saw", INK)
    it.packets(170, 102, "A.CDEFGH", step=40)
    it.packets(530, 102, ".K.", step=40)
    for at in (0, 2, 3, 4, 5, 7):
        it.line(188 + 40 * at, 66, 188 + 40 * at, 100, GREY, dashed=False)
    it.line(250, 30, 408, 30, GREEN, dashed=False)
    it.text(329, 22, "anchor: l equal packets in a row (here 4)", GREEN, "middle")
    it.line(508, 34, 508, 246, RED)
    it.text(508, 28, "horizon", RED, "middle")
    it.text(672, 58, "until here nothing older can", GREY)
    it.text(672, 76, "come from anybody: all have", GREY)
    it.text(672, 94, "reported up to their watermark,", GREY)
    it.text(672, 112, "less clock tolerance and", GREY)
    it.text(672, 130, "reordering", GREY)
    it.arrow(330, 132, 330, 176)
    it.text(340, 160, "decide", INK)
    it.text(20, 206, "DECISION", INK)
    it.packets(170, 190, "ABCDEFGH", colour=INK, step=40)
    it.text(516, 206, "J, K, L: pending, next round", GREY)
    it.text(20, 232, "held by", INK)
    for at, who in enumerate(("both", "coord.", "both", "both", "both", "both", "mem.", "both")):
        it.text(188 + 40 * at, 232, who, GREEN if who != "both" else GREY, "middle")
    it.text(20, 270, "Each decided packet gets a number (seq), an agreed time, and the list of its holders.")
    it.text(20, 290, "The first holder sends B to the member and G to the coordinator (BYTES); who has all says ACK.")
    it.text(
        20,
        310,
        "Without a loss one hash for k = 56 packets is compared, and the whole cluster is decided at once.",
        GREY,
    )
    return it.svg()


def view_change() -> str:
    """A coordinator dies and comes back."""
    it = Drawing("A view change: the coordinator dies, another leads, the first one comes back", 900, 520)
    lives = {"r0": 150, "r1": 400, "r2": 650}
    for name, x in lives.items():
        it.box(x - 60, 14, 120, 30, f"replica {name}", fill="#e4ebf5")
    for name in ("r1", "r2"):
        it.line(lives[name], 44, lives[name], 505, GREY, dashed=False)
    it.line(150, 44, 150, 110, GREY, dashed=False)
    it.line(150, 365, 150, 505, GREY, dashed=False)
    steps = (
        (70, "r0", "r1", "DECISION (view 1: r0 r1 r2)", INK),
        (94, "r0", "r2", "", INK),
        (190, "r1", "r2", "PROPOSE view 2: r1 r2", BLUE),
        (222, "r2", "r1", "PROMISE: what I have, what I lack", BLUE),
        (254, "r1", "r2", "INSTALL view 2", BLUE),
        (300, "r1", "r2", "DECISION ... goes on", INK),
        (384, "r0", "r1", "JOIN (a new process)", GREEN),
        (414, "r1", "r0", "HISTORY: the newest packets", GREEN),
        (444, "r0", "r1", "JOIN ready: there I am", GREEN),
        (474, "r1", "r2", "INSTALL view 3: r0 r1 r2", GREEN),
        (474, "r1", "r0", "", GREEN),
    )
    for y, start, end, words, colour in steps:
        x, to_x = lives[start], lives[end]
        it.arrow(x, y, to_x, y, colour)
        if words:
            it.text((x + to_x) / 2, y - 6, words, colour, "middle")
    it.text(150, 116, "X", RED, "middle", bold=True)
    it.text(150, 136, "killed", RED, "middle")
    it.line(170, 150, 640, 150, RED)
    it.text(525, 142, "silent for sync.failure_ms", RED, "middle")
    it.text(720, 70, "the IDSs are fed", GREY)
    it.text(720, 194, "no acknowledgement", GREY)
    it.text(720, 212, "in view 1 any more", GREY)
    it.text(720, 254, "both have the same", GREY)
    it.text(720, 272, "decisions; fed again", GREY)
    it.text(720, 474, "r0's stream begins here", GREY)
    it.text(30, 300, "captures go on", GREY)
    it.text(30, 318, "all the time", GREY)
    return it.svg()


DRAWINGS: Final = {"packet.svg": packet, "round.svg": a_round, "view-change.svg": view_change}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (DOCS / name).write_text(draw())

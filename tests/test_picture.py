"""The pictures in README: how they are drawn, and that they are there."""

from __future__ import annotations

from xml.etree import ElementTree

from tests import picture
from tests.picture import DOCS, PICTURES, svg

SPACE = "{http://www.w3.org/2000/svg}"


def test_a_screen_as_svg() -> None:
    screen = "\x1b[7m title \x1b[0m\n\x1b[1;36mREPLICA\x1b[39m r0 <&>\x1b[0m \x1b[2m\x1b[32m▁█\x0f\x1b(B\x1b[m."
    root = ElementTree.fromstring(svg(screen, 20, 2))
    texts = root.findall(f".//{SPACE}text")
    assert [text.text for text in texts] == [" title ", "REPLICA", " r0 <&>", "▁█", "."]
    assert texts[0].get("fill") == picture.BACKGROUND
    assert len(root.findall(f".//{SPACE}rect")) == 2
    assert (texts[1].get("fill"), texts[1].get("font-weight")) == (picture.COLOURS[36], "bold")
    assert (texts[3].get("fill"), texts[3].get("opacity")) == (picture.COLOURS[32], "0.65")
    assert texts[4].get("opacity") is None
    assert [float(str(text.get("x"))) for text in texts[1:3]] == [8.0, round(8 + 7 * picture.WIDTH, 1)]


def test_the_pictures_are_those_of_a_set_that_runs() -> None:
    for name, (width, height) in PICTURES.items():
        root = ElementTree.parse(DOCS / name).getroot()
        assert root.get("height") == str(height * picture.HEIGHT + 16)
        assert root.get("width") == f"{width * picture.WIDTH + 16:.0f}"
        text = " ".join(text.text or "" for text in root.iter(f"{SPACE}text"))
        assert "ftnids top" in text
        assert "2 of 2 running" in text
        assert "REPLICA" in text
    assert "docs/top.svg" in (DOCS.parent / "README.md").read_text()

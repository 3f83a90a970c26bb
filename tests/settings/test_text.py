"""Files and pages that are made from the models are those that are there."""

from __future__ import annotations

import re
import tomllib

from ftnids import config
from ftnids.settings import text
from ftnids.settings.words import node
from tests import config_page


def test_the_example_and_the_page_are_current() -> None:
    again = "out of date: run `python -m tests.config_page`"
    assert config_page.EXAMPLE.read_text() == text.example(), again
    assert config_page.PAGE.read_text() == config_page.page(), again


def test_every_key_is_described_once_and_listed() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", "\n".join(config_page.rows()), re.MULTILINE)
    count = 0
    tables = [node(config.schema(), ()), *config.schema()["$defs"].values()]
    for table in tables:
        for name, child in table["properties"].items():
            if "$ref" in child or "$ref" in child.get("items", ()):
                continue
            assert child["description"], name
            count += 1
    assert len(listed) == count


def test_lines_are_no_longer_than_an_editor() -> None:
    assert max(map(len, text.example().splitlines())) <= text.WIDTH


def test_values_come_back_as_they_went() -> None:
    given = 'a "quoted" \\ value\twith ü and \x7f'
    shown = text.document([], {**text.EXAMPLE, "capture.bpf": given, "feed.cpus": [1, 2], "capture.drop.loss": 0.5})
    tree = tomllib.loads(shown)
    assert tree["capture"]["bpf"] == given
    assert tree["feed"]["cpus"] == [1, 2]
    assert tree["capture"]["drop"]["loss"] == 0.5

"""The man page is that of the commands as they are."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from ftnids.cli import COMMANDS
from tests import man_page


def test_it_is_current() -> None:
    assert man_page.PAGE.read_text() == man_page.page(), "out of date: run `python -m tests.man_page`"
    assert re.findall(r"^\.SS ftnids (\w+)", man_page.page(), re.MULTILINE) == list(COMMANDS)


def test_troff_has_nothing_to_say() -> None:
    if shutil.which("groff") is None:
        pytest.skip("needs groff")
    asked = ["groff", "-man", "-Tutf8", "-ww", "-z", str(man_page.PAGE)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

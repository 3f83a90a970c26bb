"""The Promela model of views and acknowledged decisions: it holds in every state, and each planted fault is found."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests import protocol_page

MODEL: Final = Path(__file__).resolve().parent.parent / "docs/model/views.pml"
MEMORY_MB: Final = 2_000
SECONDS: Final = 300  # a bound against hanging, for a machine that is busy; alone each takes a few seconds

# What is checked in every state: two replicas may die with two packets on the link, or with one packet while a
# live one may be suspected once.
WHOLE: Final = {
    "two crashes": ("-DCRASHES=2", "-DSLIPS=0", "-DPACKETS=2"),
    "two crashes and a false suspicion": ("-DCRASHES=2", "-DSLIPS=1", "-DPACKETS=1"),
}
# A fault, and the run that must find it.
FAULTS: Final = {
    "FEED_BEFORE_ACK": WHOLE["two crashes"],
    "ACK_BEFORE_BYTES": WHOLE["two crashes"],
    "FORGET_LAST_DECISION": WHOLE["two crashes"],
    "TAKE_AFTER_PROMISE": WHOLE["two crashes and a false suspicion"],
    "NOBODY_THAWS": WHOLE["two crashes and a false suspicion"],
}

needs_spin = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("gcc") is None, reason="needs spin and gcc (scripts/setup.sh)"
)


def check(directory: Path, *defines: str) -> str:
    """All states of the model with `defines`; what the checker says."""
    for command in (
        ("spin", "-a", *defines, str(MODEL)),
        ("gcc", "-O0", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}", "-o", "pan", "pan.c"),
    ):
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=SECONDS)
    done = subprocess.run(
        ("./pan", "-n", "-m100000"), cwd=directory, check=False, capture_output=True, text=True, timeout=SECONDS
    )
    return done.stdout


@needs_spin
@pytest.mark.timeout(4 * SECONDS)
@pytest.mark.parametrize("run", WHOLE)
def test_the_model_holds(run: str, tmp_path: Path) -> None:
    said = check(tmp_path, *WHOLE[run])
    assert "errors: 0" in said, said
    assert "Search not completed" not in said
    assert "max search depth too small" not in said
    states = re.search(r"(\d+) states, stored", said)
    assert states
    assert int(states[1]) > 100_000, "the model has shrunk: does it still do anything?"


@needs_spin
@pytest.mark.timeout(4 * SECONDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, tmp_path: Path) -> None:
    said = check(tmp_path, *FAULTS[fault], f"-D{fault}")
    assert "assertion violated" in said, said
    assert "errors: 1" in said, said


def test_the_protocol_page_is_the_code_s() -> None:
    """Its generated tables are up to date (else: `python -m tests.protocol_page`), and it names the tests there are."""
    text = protocol_page.PAGE.read_text()
    assert text == protocol_page.page()
    paper = (protocol_page.PAGE.parent.parent / "tests/sync/test_paper.py").read_text()
    assert set(re.findall(r"`(test_\w+)`", text)) == set(re.findall(r"^def (test_\w+)", paper, re.MULTILINE))

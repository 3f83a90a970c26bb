"""Who is on call looks on while replicas die and come back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ftnids import limits
from ftnids.commands import alerts, status
from ftnids.lab.processes import wait_until
from tests.alerts.records import ids_in
from tests.terminal import Terminal

from .conftest import Scene


def look(out: Path, *options: str) -> Result:
    return CliRunner().invoke(status.command, ["-c", str(out), *options], standalone_mode=False)


def becomes(out: Path, level: int, words: str = "") -> None:
    """Wait until the exit status of `ftnids status` is `level`, and `words` are in what it prints."""

    def there() -> bool:
        told = look(out)
        return told.return_value == level and words in told.output

    wait_until(there, limits.LAB_READY_SECONDS, f"exit status {level} {words}")


@pytest.mark.needs_tmux
def test_a_death_and_a_return_are_seen(scene: Scene) -> None:
    stage = scene(2)
    out = stage.places.out
    becomes(out, 0)
    with Terminal([sys.executable, "-m", "ftnids", "top", "-c", out]) as terminal:
        terminal.wait("2 of 2 running")
        stage.agree(2_000, "r0")
        stage.kill("r1")
        becomes(out, 1, "r1: dead, last heard")
        terminal.wait("r1        dead")
        stage.start("r1")
        stage.together("r0", "r1")
        becomes(out, 0)
        terminal.wait("2 of 2 running")
        stage.kill("r0")
        becomes(out, 1, "r0: dead, last heard")
        terminal.wait(lambda text: "from r1" in text and "r0        dead" in text)
        stage.start("r0")
        stage.together("r0", "r1")
        becomes(out, 0)
        shown = terminal.wait("2 of 2 running")
        if stage.options.ids != "none":
            assert "conf FTNIDS" in shown
        stage.finish(early=True)
        terminal.wait("0 of 2 running")
        terminal.press("q")
        assert terminal.wait_end() == 0
    becomes(out, 2, "r0: ended")
    told = CliRunner().invoke(alerts.command, ["-c", str(out), "--json"], standalone_mode=False)
    shown_ids = [json.loads(line)["ftnids"]["id"] for line in told.output.splitlines()]
    assert len(shown_ids) == len(set(shown_ids))
    assert set(shown_ids) == set(ids_in(out / "alerts.jsonl"))

"""`ftnids simulate` on the command line."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner, Result

from ftnids.cli import cli
from ftnids.errors import UsageError
from ftnids.sync.simulation import Result as Run
from ftnids.sync.simulation import Simulation


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", "--seeds", "1:2", *arguments], standalone_mode=False)


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run finds anything, and none takes long."""
    monkeypatch.setattr(Simulation, "run", lambda self: Run(self.weather.seed, 2, 9, 9, 0, 0, 0, 1, 1.0, 1.0, 1, []))


@pytest.mark.parametrize(("plant", "said"), [("feed-before-ack", True), (None, False)])
def test_a_planted_bug_that_is_not_found_is_told(plant: str | None, said: bool) -> None:
    result = run(*(["--plant", plant] if plant else []))
    assert result.return_value == 0
    assert "2 seeds from 1 on" in result.output
    assert (f"the planted bug {plant} was not found" in result.output) == said


@pytest.mark.parametrize("minutes", ["nan", "inf", "-inf", "-1", "0"])
def test_a_time_that_does_not_pass_is_refused(minutes: str) -> None:
    error = run("--minutes", minutes).exception
    assert isinstance(error, UsageError | click.UsageError), error
    assert (error.exit_status if isinstance(error, UsageError) else error.exit_code) == 2

"""Which implementation is used: the one that is asked for, or a clear refusal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftnids.core import native
from ftnids.errors import ConfigError

ROOT = Path(__file__).parents[2]


def chosen(wanted: str) -> str:
    """What a new process uses with this FTNIDS_IMPL."""
    code = "from ftnids.core import IMPL, Ring; print(IMPL, Ring.native.__name__)"
    environment = os.environ | {"FTNIDS_IMPL": wanted}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    return done.stdout or done.stderr


@pytest.mark.parametrize(("wanted", "implementation"), [("c", "c"), ("python", "python"), ("", "c")])
def test_environment_chooses(wanted: str, implementation: str) -> None:
    assert chosen(wanted) == f"{implementation} {native.MODULES[implementation]}\n"


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="FTNIDS_IMPL=rust: must be c or python"):
        native.select("rust")


def test_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced, it is refused with the cure; by default the other one steps in."""
    monkeypatch.setitem(native.MODULES, "c", "ftnids.core._not_built")
    with pytest.raises(ConfigError, match=r"FTNIDS_IMPL=c: cannot be loaded .*`make build`"):
        native.select("c")
    assert native.select("").IMPL == "python"

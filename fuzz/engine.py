"""Runs one Python target under atheris: `python -m fuzz.engine TARGET [libFuzzer options] [corpus folders]`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["ftnids"]):
    from fuzz import replay  # it imports what it replays, too

    check = replay.checker(sys.argv[1])

atheris.Setup([sys.argv[0], *sys.argv[2:]], check)
atheris.Fuzz()

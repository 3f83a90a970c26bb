"""What the command line says when something cannot be written: which file it was, in one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from ftnids import cli
from ftnids.errors import FtnidsError
from ftnids.lab import generate, truth
from ftnids.lab.writing import private, writing

ROOT: Final = Path(__file__).resolve().parent.parent
FULL: Final = Path("/dev/full")


@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_full_standard_output_is_named(environment: dict[str, str]) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ftnids", "doctor", "--json"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == "ftnids: cannot write to standard output: No space left on device\n"
    assert done.returncode == 1


def test_a_closed_standard_output_is_no_error() -> None:
    command = f"{sys.executable} -m ftnids simulate --seeds 1:1 >&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "said"), [("x/y", "x/y"), (None, "a file")])
def test_another_file_is_not_called_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str | None, said: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    monkeypatch.setattr(cli.cli, "main", full)
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"ftnids: cannot write to {said}: No space left on device\n"


def test_the_lab_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "full.pcap"
    path.symlink_to(FULL)
    with pytest.raises(FtnidsError, match=f"^{path}: cannot be written: No space left on device; make room"):
        generate.write(path, seed=1)
    generate.write(tmp_path / "x.pcap", seed=1, connections=5, lookups=5, seconds=0.1)
    with pytest.raises(FtnidsError, match=f"^{path}: cannot be written: No space left on device"):
        truth.union(tmp_path / "x.pcap", lambda hashes: (hashes > 0).astype("uint32"), 1, 65535, 1, path)
    with pytest.raises(FtnidsError, match="no/x: cannot be written: No such file"), writing(tmp_path / "no/x"):
        private(tmp_path / "no/x")

"""Children: started, waited for within bounds, and gone when the block is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftnids.errors import FtnidsError
from ftnids.lab.processes import Children, wait_until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
OWNER = """
import sys, time
from pathlib import Path
from ftnids.lab.processes import Children
with Children() as children:
    print(children.start("sleep", ["sleep", "60"], Path(sys.argv[1])).process.pid, flush=True)
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_children_end_with_the_block(tmp_path: Path) -> None:
    with Children() as children:
        child = children.start("sleep", ["sleep", "60"], tmp_path / "log")
        assert child.status is None
    assert child.status == -signal.SIGTERM


def test_one_that_does_not_end_is_killed_with_all_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftnids.limits.LAB_STOP_SECONDS", 0.2)
    with Children() as children:
        child = children.start("stubborn", [sys.executable, "-c", STUBBORN], tmp_path / "log", talks=True)
        assert child.read_line(10) == "up"
    assert child.status == -signal.SIGKILL


def test_children_end_with_a_killed_owner(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path / "log")], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    with owner, owner.stdout as out:
        pid = int(out.readline())
        assert alive(pid)
        os.kill(owner.pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), 10, "the end of the child")


def test_silence_and_failure_have_words(tmp_path: Path) -> None:
    with Children() as children:
        silent = children.start("quiet", ["sleep", "60"], tmp_path / "log", talks=True)
        with pytest.raises(FtnidsError, match=r"quiet did not start: silent for 0\.1 s"):
            silent.read_line(0.1)
        failing = children.start("bad", ["sh", "-c", "echo no such thing >&2; exit 3"], tmp_path / "log2", talks=True)
        with pytest.raises(FtnidsError, match="bad did not start: no such thing"):
            failing.read_line(10)
        killed = children.start("gone", ["sh", "-c", "echo all is well; sleep 60"], tmp_path / "log3")
        wait_until(lambda: bool((tmp_path / "log3").read_text()), 10, "the first line")
        killed.signal(signal.SIGKILL)
        wait_until(lambda: killed.status is not None, 10, "the end")
        assert killed.last_words() == "killed by SIGKILL"


def test_waiting_has_an_end() -> None:
    begin = time.monotonic()
    with pytest.raises(FtnidsError, match=r"the moon did not happen within 0\.1 s"):
        wait_until(lambda: False, 0.1, "the moon")
    assert time.monotonic() - begin >= 0.1

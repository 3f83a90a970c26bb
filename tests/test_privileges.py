"""What a replica still may do after the start, as the kernel sees it: each case in a process of its own."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftnids import privileges
from ftnids.config import parse_text
from ftnids.errors import ConfigError
from tests.two import two

NOBODY = "nobody"
BIND = 1 << privileges.CAPABILITIES["CAP_NET_BIND_SERVICE"]
DROP = """
import ctypes, json, sys
from pathlib import Path
from ftnids import log, privileges
from ftnids.config import load
from ftnids.errors import FtnidsError
log.configure("info", "json")
config = load(Path(sys.argv[1]))
try:
    privileges.prepare(config)
    privileges.drop(config)
except FtnidsError as error:
    sys.exit(f"refused: {error}")
print(json.dumps([path.read_text() for path in Path("/proc/self/task").glob("*/status")]))
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
print(json.dumps({"owner of /proc": Path("/proc/self/environ").owner(), "dumpable": dumpable}))
"""


def configuration(user: str = "", group: str = "", port: int = 5701) -> str:
    lines = ('run_dir = "run"', 'log_dir = "log"', f'user = "{user}"', f'group = "{group}"')
    return two("\n".join(lines), port=port)


@pytest.fixture
def folder(needs_root: None) -> Iterator[Path]:
    """A directory that other users may enter; pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def start(folder: Path, text: str, *before: str, script: str = DROP) -> subprocess.CompletedProcess[str]:
    """Drop privileges as `text` says, in a process that `before` starts."""
    (folder / "a.toml").write_text(text)
    command = [*before, sys.executable, "-c", script, str(folder / "a.toml")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def threads(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    """The fields of /proc/self/status, of each thread."""
    assert done.returncode == 0, done.stderr
    texts: list[str] = json.loads(done.stdout.splitlines()[0])
    return [dict(re.findall(r"^(\w+):\t(.*)$", text, re.MULTILINE)) for text in texts]


def held(status: dict[str, str], kind: str) -> int:
    return int(status[f"Cap{kind}"], 16)


def log_lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize(("port", "kept", "names"), [(5701, 0, []), (1023, BIND, ["CAP_NET_BIND_SERVICE"])])
def test_root_becomes_the_user_with_nothing_but_what_is_needed(
    folder: Path, port: int, kept: int, names: list[str]
) -> None:
    done = start(folder, configuration(NOBODY, port=port))
    uid = str(pwd.getpwnam(NOBODY).pw_uid)
    for status in threads(done):
        assert set(status["Uid"].split()) == {uid}
        assert set(status["Gid"].split()) == {str(pwd.getpwnam(NOBODY).pw_gid)}
        assert "0" not in status["Groups"].split()
        assert [held(status, kind) for kind in ("Prm", "Eff", "Bnd")] == [kept] * 3
        assert held(status, "Inh") == held(status, "Amb") == 0
        assert status["NoNewPrivs"] == "1"
    assert json.loads(done.stdout.splitlines()[1]) == {"owner of /proc": "root", "dumpable": 0}
    assert [(line["event"], line["user"], line["kept"]) for line in log_lines(done)] == [
        ("privileges_dropped", NOBODY, names)
    ]
    assert {(folder / name).owner() for name in ("run", "log")} == {NOBODY}


def test_a_capability_that_systemd_gave_is_given_up(folder: Path) -> None:
    """AmbientCapabilities=CAP_NET_RAW: the IDS would inherit it."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("needs setpriv")
    for name in ("run", "log"):
        (folder / name).mkdir()
        shutil.chown(folder / name, NOBODY)
    text = configuration()
    raw = [f"--{kind}-caps=-all,+net_raw" for kind in ("inh", "ambient")]
    done = start(folder, text, setpriv, f"--reuid={NOBODY}", "--clear-groups", *raw)
    (status,) = threads(done)
    assert [held(status, kind) for kind in ("Prm", "Eff", "Inh", "Amb")] == [0] * 4
    assert status["NoNewPrivs"] == "1"


def test_root_without_a_user_stays_root_and_says_so(folder: Path) -> None:
    done = start(folder, configuration())
    assert all(status["Uid"].split() == ["0"] * 4 and held(status, "Eff") for status in threads(done))
    assert [line["event"] for line in log_lines(done)] == ["runs_as_root"]


@pytest.mark.parametrize(
    ("user", "group", "complaint"),
    [
        ("nemo-nobody", "", 'replica.user = "nemo-nobody": there is no such user; make it with useradd'),
        (NOBODY, "nemo-group", 'replica.group = "nemo-group": there is no such group; make it with groupadd'),
        ("", "nogroup", 'replica.group = "nogroup": goes with replica.user'),
    ],
)
def test_who_is_not_there_is_one_clear_line(folder: Path, user: str, group: str, complaint: str) -> None:
    done = start(folder, configuration(user, group))
    assert done.returncode == 1
    assert done.stderr.startswith(f"refused: {complaint}")
    assert done.stderr.count("\n") == 1


def test_only_root_becomes_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    config = parse_text(configuration(NOBODY), tmp_path / "a.toml")
    with pytest.raises(ConfigError, match="only root can become another user, and this is daemon; start as root"):
        privileges.prepare(config)


def test_directories_of_another_are_one_clear_line(folder: Path) -> None:
    for name in ("run", "log"):
        (folder / name).mkdir(0o700)
    done = start(folder, configuration(NOBODY))
    assert done.returncode == 1
    assert re.search(r"refused: replica.log_dir .* may not be written by this user", done.stderr)


def test_a_user_who_cannot_run_this_python_is_one_clear_line(folder: Path) -> None:
    """Where it lies in root's home, the IDS could not be started."""
    hidden = folder / "hidden"
    hidden.mkdir(0o700)
    text = configuration(NOBODY) + '[feed]\nids = "suricata"\n'
    script = DROP.replace("log.configure", f"sys.executable = {str(hidden / 'python')!r}\nlog.configure")
    done = start(folder, text, script=script)
    assert re.search(r'refused: replica.user = "nobody": may not run .*/hidden/python, which starts', done.stderr)


def test_what_is_needed_depends_on_the_settings(tmp_path: Path) -> None:
    def needed(**changes: Any) -> set[str]:
        config = parse_text(configuration(**changes), tmp_path / "a.toml")
        return set(privileges.needed(config))

    assert needed() == set()
    assert needed(port=80) == {"CAP_NET_BIND_SERVICE"}

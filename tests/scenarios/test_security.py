"""What an operator does for security's sake while the set works: no root, new keys, a stolen replica."""

from __future__ import annotations

import contextlib
import copy
import json
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftnids import limits
from ftnids.errors import UsageError
from ftnids.lab import generate, leftovers, netns
from ftnids.lab.options import Options
from ftnids.lab.processes import wait_until
from ftnids.lab.replicas import toml
from ftnids.lab.stage import Stage
from ftnids.peers import keys
from tests.conftest import find

from .judge import SNAPLEN

NOBODY = "nobody"
Adjust = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that other users may enter; pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def stage(folder: Path, needs_root: None, seed: int) -> Iterator[Callable[..., Stage]]:
    """`stage(replicas, seconds, ids, adjust)`: a set that is up, with traffic."""
    try:
        netns.check_host("hub")
    except UsageError as error:
        pytest.skip(str(error))
    with contextlib.ExitStack() as stack:

        def make(replicas: int, seconds: float, ids: str, adjust: Adjust) -> Stage:
            path = folder / "traffic.pcap"
            generate.write(path, seed, int(20 * seconds), int(20 * seconds), seconds)
            options = Options(
                out=folder / "out", replicas=replicas, loss=0.05, seed=seed, pcap=path, ids=ids, netns=True
            )
            made = stack.enter_context(Stage(options, adjust))
            made.begin()
            return made

        yield make
    for ring in Path(leftovers.SHARED_MEMORY).glob(f"{leftovers.tag()}-*"):
        ring.unlink()  # of a replica that had to be killed; the lab removes its own user's only


def modest(name: str, tables: dict[str, Any]) -> None:
    """Small rings, outputs of its own; patient, because keys are what is tested and the machine may be busy."""
    own = Path(tables["replica"]["log_dir"])
    tables["cluster"] = copy.deepcopy(tables["cluster"])  # keys will differ from replica to replica
    tables["capture"]["snaplen"] = SNAPLEN
    tables["ring"] = {"slots": 65536, "arena_mb": 32, "recovered_mb": 16}
    tables["sync"] = {"failure_ms": 1_500}
    tables["alerts"] = {"output": str(own / "alerts.jsonl"), "eve_output": str(own / "eve.jsonl")}


def nobodys(name: str, tables: dict[str, Any]) -> None:
    """Started as root, to go on as nobody, who owns its directories and its keys."""
    modest(name, tables)
    tables["replica"]["user"] = NOBODY
    private = Path(tables["cluster"]["secret_file"]).parent
    private.chmod(0o755)
    directories = [Path(tables["replica"][key]) for key in ("run_dir", "log_dir")]
    for path in directories:
        path.mkdir(mode=0o700, exist_ok=True)
    for path in (*directories, *private.glob("*secret*")):
        shutil.chown(path, NOBODY)


def skip_where_nobody_can_run_this() -> None:
    """An interpreter in root's home is no use to another user."""
    try:
        command = [sys.executable, "-c", "import ftnids.feed"]
        subprocess.run(command, user=NOBODY, extra_groups=[], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"{NOBODY} cannot run {sys.executable}")


def said(stage: Stage, name: str, event: str) -> list[dict[str, Any]]:
    """What a replica's log says under one name."""
    lines = (stage.places.replica(name) / "replica.log").read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    return [record for record in records if record.get("event") == event]


def statuses(process: psutil.Process) -> list[dict[str, str]]:
    """/proc's status of each thread of a process."""
    texts = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/status")]
    return [dict(re.findall(r"^(\w+):\t(.*)$", text, re.MULTILINE)) for text in texts]


def test_a_replica_without_privileges_captures_feeds_and_rejoins(stage: Callable[..., Stage]) -> None:
    skip_where_nobody_can_run_this()
    ids = "none" if isinstance(find("needs_suricata"), str) else "suricata"
    made = stage(2, 20, ids, nobodys)
    made.agree(200, "r0")
    replica = psutil.Process(made.pid("r1"))
    everybody = [replica, *replica.children(recursive=True)]
    assert len(everybody) == 1 + (ids == "suricata")
    for process in everybody:
        for status in statuses(process):
            assert set(status["Uid"].split()) == {str(pwd.getpwnam(NOBODY).pw_uid)}
            assert int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0, status["Name"]
            assert status["NoNewPrivs"] == "1" or not int(status["CapEff"], 16)
    before = made.status("r1")["view"]["incarnation"]
    made.signal("r1", signal.SIGSTOP)
    made.together("r0")
    made.signal("r1", signal.SIGCONT)
    made.together("r0", "r1")
    assert said(made, "r1", "what an earlier run wrote is put aside") or made.status("r1")["view"] != before
    made.agree(200, "r1")
    assert made.pid("r1") == replica.pid
    assert replica.is_running()


def write(made: Stage, name: str) -> None:
    """Write the configuration of a running replica anew."""
    (made.places.replica(name) / "replica.toml").write_text(toml(made.tables[name]).lstrip())


def signalled(made: Stage, event: str, *names: str) -> None:
    """Tell replicas to read their keys again, and wait until each has said how that went."""
    before = {name: len(said(made, name, event)) for name in names}
    for name in names:
        write(made, name)
        made.signal(name, signal.SIGHUP)
    wait_until(
        lambda: all(len(said(made, name, event)) > before[name] for name in names), limits.LAB_READY_SECONDS, event
    )


def members(made: Stage, of: int) -> list[dict[str, Any]]:
    """What each replica's configuration says of member `of`."""
    return [made.tables[name]["cluster"]["member"][of] for name in made.options.names]


def test_keys_of_all_replicas_change_one_by_one(stage: Callable[..., Stage]) -> None:
    """The procedure of docs/security.md; the set agrees all the while, and its view stays."""
    made = stage(3, 30, "none", modest)
    names = made.options.names
    made.agree(100, "r0")
    views = {name: made.status(name)["view"] for name in names}
    for number, name in enumerate(names):
        others = [other for other in names if other != name]
        new = keys.generate(made.places.private / f"new-{name}", [name], secret=False)[name]
        for member in members(made, number):
            member["public_key"], member["old_public_key"] = new, member["public_key"]
        signalled(made, "keys_renewed", *others)
        made.tables[name]["cluster"]["key_file"] = str(made.places.private / f"new-{name}" / f"{name}.key_secret")
        signalled(made, "keys_renewed", name)
        made.agree(20, name)
        for member in members(made, number):
            del member["old_public_key"]
        signalled(made, "keys_renewed", *names)
        made.agree(20, name)
    assert {name: made.status(name)["view"] for name in names} == views
    assert all(made.status(name)["members"] == list(names) for name in names)
    assert all(made.status(name)["peers"]["connects"] > 2 for name in names)
    assert all(made.status(name)["peers"]["rejected_keys"] == 0 for name in names)


def test_a_stolen_replica_is_thrown_out(stage: Callable[..., Stage]) -> None:
    made = stage(3, 20, "none", modest)
    made.agree(50, "r0")
    nobody_has = keys.generate(made.places.private / "new", ["r2"], secret=False)["r2"]
    for name in ("r0", "r1"):
        made.tables[name]["cluster"]["member"][2]["public_key"] = nobody_has
    signalled(made, "keys_renewed", "r0", "r1")
    made.together("r0", "r1")
    made.agree(50, "r1")
    assert all(made.status(name)["peers"]["rejected_keys"] for name in ("r0", "r1"))


def test_a_mistake_changes_nothing(stage: Callable[..., Stage]) -> None:
    made = stage(2, 15, "none", modest)
    made.tables["r0"]["cluster"]["member"][1]["public_key"] = "short"
    signalled(made, "keys_not_renewed", "r0")
    assert "public_key of member 2: is no CURVE key" in said(made, "r0", "keys_not_renewed")[0]["reason"]
    made.tables["r0"]["cluster"]["member"][1]["public_key"] = made.tables["r1"]["cluster"]["member"][1]["public_key"]
    made.tables["r0"]["sync"]["failure_ms"] = 700
    signalled(made, "settings_wait_for_a_restart", "r0")
    assert said(made, "r0", "settings_wait_for_a_restart")[0]["settings"] == ["sync.failure_ms"]
    made.agree(50, "r0")
    made.together("r0", "r1")

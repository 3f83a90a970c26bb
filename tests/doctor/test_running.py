"""What a replica that runs says of itself and its set: each finding in both its states."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from ftnids import config
from ftnids.doctor import examine, programs, running, setting
from ftnids.doctor.finding import Finding, Level, fail, ok
from ftnids.status.roster import Member, Roster, SetView
from ftnids.status.server import Server, socket_path
from tests.doctor.test_stream import OWN, made
from tests.status.sets import snapshot, view
from tests.two import two

CLUSTER = f"doctor-running-{os.getpid()}"
BUSY, DONE = 1_000, 5_000  # packets agreed, before and after


def told(findings: Iterable[Finding], name: str, level: Level) -> list[str]:
    """What they say; all are of that name and level."""
    found = list(findings)
    for one in found:
        assert (one.name, one.level) == (name, level)
        assert one.why
        assert (one.do != "") == (level != Level.OK)
    return [one.what for one in found]


# -- the set and its clocks -----------------------------------------------------------------------------


def test_members_that_do_not_run_are_named() -> None:
    assert told(running.members(view()), "set", Level.OK) == ["r0, r1 run, in one view"]
    dead = Member("r1", 60.0, snapshot("r1"))
    failed = Member("r2", 3.0, snapshot("r2", state="failed", reason="its settings differ from the cluster's"))
    lines = told(running.members(view(Member("r0", 0.1, snapshot()), dead, failed, Member("r3"))), "set", Level.WARN)
    assert [line.partition(",")[0] for line in lines] == [
        "r1: dead",
        "r2: failed 3 s ago: its settings differ from the cluster's",
        "r3: never heard",
    ]


def clocked(**offsets_us: int) -> SetView:
    """A set that has measured these offsets."""
    measured = {name: {"offset_us": one, "tolerance_us": 200} for name, one in offsets_us.items()}
    return view(Member("r0", 0.1, snapshot(clocks=measured)), Member("r1", 0.1, snapshot("r1")))


def test_clocks_that_are_off_are_told() -> None:
    (near,) = told(running.clocks(clocked(r0=30, r1=-99_000), "r0"), "clock_offset", Level.OK)
    assert near == "the capture clock of r1 is 0.099030 s ahead of that of r0 (to 400 us)"
    (off,) = told(running.clocks(clocked(r0=0, r1=500_000), "r0"), "clock_offset", Level.WARN)
    assert "r1 is 0.500000 s behind that of r0" in off
    both = list(running.clocks(clocked(r0=0, r1=10, r2=-3_000_000), "r0"))
    assert [one.level for one in both] == [Level.OK, Level.WARN]
    assert list(running.clocks(view(), "r0")) == []  # an older release does not tell them


def test_other_snaplens_are_told() -> None:
    assert list(running.snaplens(view())) == []
    other = view(Member("r0", 0.1, snapshot()), Member("r1", 0.1, snapshot("r1", snaplen=96)))
    assert told(running.snaplens(other), "same_frames", Level.FAIL) == [
        "capture.snaplen differs: 65535 on r0, 96 on r1"
    ]


# -- what was recovered -----------------------------------------------------------------------------------


def counted(agreed: int, recovered: int, drops: int = 0, pid: int = 11) -> SetView:
    """A set of which r0 has these counters, and r1 captures all."""
    counters = {"agreed": agreed, "recovered": recovered, "injected_drops": drops // 2, "kernel_drops": drops // 2}
    mine = snapshot("r0", 100.0 + agreed / 1_000, counters=counters, pid=pid)
    return view(Member("r0", 0.1, mine), Member("r1", 0.1, snapshot("r1", counters={"agreed": agreed})))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((BUSY, 0), (DONE, 2_000), "r0 recovered 2,000 of 4,000 packets in 4.0 s, 2,000 without a drop"),
        ((BUSY, 500, 90_000), (DONE, 2_500, 90_100), "r0 recovered 2,000 of 4,000 packets in 4.0 s, 1,900 without"),
        ((BUSY, 900), (BUSY, 900), "r0 recovered 900 of 1,000 packets since it runs, 900 without a drop"),
    ],
    ids=["all of them", "behind earlier drops", "on a link that is quiet now"],
)
def test_what_drops_do_not_explain_is_told(before: tuple[int, ...], after: tuple[int, ...], words: str) -> None:
    (line,) = told(running.recovered(counted(*before), counted(*before), counted(*after)), "recovered", Level.WARN)
    assert line.startswith(words)


@pytest.mark.parametrize(
    ("first", "before", "after"),
    [
        ((0, 0), (0, 0), (0, 0)),
        ((500, 20, 20), (BUSY, 50, 50), (DONE, 250, 252)),
        ((500, 0, 0), (BUSY, 0, 400), (DONE, 400, 400)),  # dropped before, recovered now
        ((BUSY, 0), (BUSY, 0), (DONE, 30)),
        ((BUSY, 10), (BUSY, 10), (DONE, 20)),
        ((90_000, 5_000), (90_000, 5_000), (94_000, 5_000)),  # what was so is so no more
        ((BUSY, 0), (BUSY, 0), (BUSY + 40, 19)),
    ],
    ids=["silence", "pure loss", "a burst of drops", "a few", "as few as may be late", "cured", "hardly anything"],
)
def test_loss_and_a_quiet_link_give_no_alarm(
    first: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    found = running.recovered(counted(*first), counted(*before), counted(*after))
    (line,) = told(found, "recovered", Level.OK)
    assert line.startswith("recovered as drops explain: r0 ")


def test_another_life_gives_no_alarm() -> None:
    before = counted(BUSY, 0)
    after = counted(DONE, 2_000, 2_000, pid=12)
    told(running.recovered(before, before, after), "recovered", Level.OK)
    told(running.recovered(view(Member("r0")), view(Member("r0")), counted(0, 0)), "recovered", Level.OK)
    assert list(running.recovered(view(), view(), view(Member("r0"), Member("r1")))) == []


# -- the replica that answers -----------------------------------------------------------------------------


def test_its_own_port_is_no_fault() -> None:
    taken = fail("port", "tcp://127.0.0.1:1: Address already in use", "the peers send here", "stop what listens there")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        me = running.Running(os.getpid(), [])
        assert me.port(taken, port) is taken  # nobody listens
        listening.listen()
        found = me.port(taken, port)
        words = f"tcp://127.0.0.1:1 is taken by this replica, which runs (pid {os.getpid()})"
        assert (found.level, found.what) == (Level.OK, words)
        assert me.port(found, port) is found
    gone = running.Running(1 << 30, [])  # of another namespace, or of another user
    assert gone.port(taken, port).level == Level.OK


def configured(folder: Path) -> config.Config:
    """Of replica a, of which nothing is there but directories."""
    text = two(replica='run_dir = "run"\nlog_dir = "log"').replace('name = "test"', f'name = "{CLUSTER}"')
    (folder / "run").mkdir(exist_ok=True)
    return config.parse_text(text, folder / "replica.toml")


def test_one_that_does_not_run_is_not_looked_at(tmp_path: Path) -> None:
    loaded = configured(tmp_path)
    assert running.examine(loaded) is None
    path = socket_path(loaded.replica.run_dir, "a")
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(path))  # by one that was killed
    assert running.examine(loaded) is None


def test_without_one_all_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((programs, "ids"), (setting, "receivers")):
        monkeypatch.setattr(module, name, lambda *_, **__: [])
    monkeypatch.setattr(programs, "criu", lambda: ok("criu", "", ""))
    names = {finding.name for finding in examine(configured(tmp_path), None)}
    assert {"port", "peers", "keys", "user"} <= names
    assert not names & {"set", "recovered", "same_frames", "running", "clock_offset"}


def test_one_that_hangs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "ANSWER_S", 0.05)
    loaded = configured(tmp_path)
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(socket_path(loaded.replica.run_dir, "a")))
        silent.listen()
        found = running.examine(loaded)
    assert isinstance(found, Finding)
    assert (found.level, found.name) == (Level.WARN, "running")
    assert found.what.endswith("a.status: no answer")


def test_all_of_it_at_once(tmp_path: Path) -> None:
    """A status socket and a ring as a replica has them; the peer was never heard."""
    loaded = configured(tmp_path)
    roster = Roster(CLUSTER, ["a", "b"], 0)
    roster.own(snapshot("a", pid=os.getpid(), members=["a"]))
    server = Server(roster, socket_path(loaded.replica.run_dir, "a"))
    try:
        found = running.examine(loaded, 0.01)
        assert isinstance(found, running.Running)
        assert found.pid == os.getpid()
        levels = {one.name: one.level for one in found.findings}
        assert levels == {"set": Level.WARN, "recovered": Level.OK, "same_frames": Level.WARN}
        assert "is the replica running, and may you read it?" in found.findings[-1].what
        with made(tmp_path, loaded.ring_name):
            again = running.examine(loaded, 0.01)
    finally:
        server.close()
    assert isinstance(again, running.Running)
    assert again.findings[-1].what.startswith(f"a captured {OWN} frames in ")

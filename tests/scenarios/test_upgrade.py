"""What an operator fears of an upgrade: that the set blinks, or that releases do not understand each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftnids.lab import lives
from ftnids.lab.processes import wait_until
from ftnids.lab.stage import Stage
from ftnids.sync.messages import PROTOCOL

from .conftest import Scene, release
from .judge import judge

OLD = PROTOCOL - 1


def events(stage: Stage, name: str, *wanted: str) -> list[dict[str, Any]]:
    """What a replica's log says under these names."""
    log: Path = stage.places.replica(name) / "replica.log"
    return [event for event in lives.events(log) if event.get("event") in wanted]


def views(stage: Stage, name: str) -> list[tuple[tuple[str, ...], int]]:
    """Members and protocol version of each view that a replica was in."""
    return [(tuple(event["members"]), event["protocol"]) for event in events(stage, name, "view", "view_changed")]


def replace(stage: Stage, name: str, speaks: int) -> None:
    """Stop a replica in order, and start it as the other release, under load."""
    (other,) = {"r0", "r1"} - {name}
    stage.stop(name)
    stage.together(other)
    release(stage, speaks, name)
    stage.start(name)
    stage.together("r0", "r1")
    stage.agree(1_000, name)


def test_a_rolling_upgrade_under_load(scene: Scene) -> None:
    """One replica after the other; the set speaks the new version when both do."""
    stage = scene(2, speaks=OLD)
    stage.agree(1_000, "r0")
    replace(stage, "r1", PROTOCOL)
    assert stage.status("r1")["protocol"] == {"oldest": OLD, "newest": PROTOCOL, "view": OLD}
    assert stage.status("r0")["protocol"]["view"] == OLD
    replace(stage, "r0", PROTOCOL)
    assert {stage.status(name)["protocol"]["view"] for name in ("r0", "r1")} == {PROTOCOL}
    stage.finish(early=True)
    judge(stage)
    assert views(stage, "r1")[-1] == (("r0", "r1"), PROTOCOL)
    assert {protocol for members, protocol in views(stage, "r0")[:2]} == {OLD}
    assert [event["members"] for event in events(stage, "r1", "older_protocol")] == [["r0"]]
    assert all(stage.status(name)["peers"]["dropped_version"] == 0 for name in ("r0", "r1"))


def test_one_replica_is_rolled_back(scene: Scene) -> None:
    """The set goes back with it."""
    stage = scene(2)
    stage.agree(1_000, "r0")
    replace(stage, "r1", OLD)
    assert {stage.status(name)["protocol"]["view"] for name in ("r0", "r1")} == {OLD}
    stage.finish(early=True)
    judge(stage)
    assert views(stage, "r0")[0] == (("r0", "r1"), PROTOCOL)
    assert stage.status("r1")["peers"]["dropped_version"] == 0


def test_a_release_that_skips_a_version_is_told_so_and_stays_outside(scene: Scene) -> None:
    """The running set goes on as if it were not there, and both ends say what to do."""
    stage = scene(2, speaks=OLD)
    stage.agree(1_000, "r0")
    stage.stop("r1")
    stage.together("r0")
    release(stage, PROTOCOL + 1, "r1")
    stage.start("r1")
    wait_until(lambda: bool(stage.status("r1")["warnings"]), 30, "the warning of r1")
    (warning,) = stage.status("r1")["warnings"]
    upgrade = f"upgrade that member, first to a release that speaks {PROTOCOL}"
    assert warning == f"r0 speaks protocol {OLD}, this replica {PROTOCOL}-{PROTOCOL + 1}: {upgrade}"
    assert [event["reason"] for event in events(stage, "r1", "dropped_version")][:1] == [warning.removeprefix("r0 ")]
    stage.agree(1_000, "r0")
    assert stage.status("r0")["members"] == ["r0"]
    stage.kill("r1")
    release(stage, OLD, "r1")
    stage.start("r1")
    stage.together("r0", "r1")
    stage.finish(early=True)
    judge(stage)

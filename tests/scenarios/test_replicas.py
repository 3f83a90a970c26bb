"""What an operator fears for a replica: it is killed, it hangs, it comes back.  The others go on and lose nothing."""

from __future__ import annotations

import signal
import time

import pytest

from .conftest import Scene
from .judge import judge


def test_a_replica_is_killed_under_load(scene: Scene) -> None:
    stage = scene(2, busy=2.0)
    stage.agree(4_000, "r0")
    stage.kill("r1")
    stage.together(*stage.live)
    stage.agree(1_000, stage.live[0])
    stage.finish(early=True)
    told = judge(stage)
    assert [life.replica for life in told if not life.in_order] == ["r1"]


def test_the_coordinator_is_killed(scene: Scene) -> None:
    """Of the two others one leads; the alerts that the dead one had taken and not put out come from there."""
    stage = scene(3)
    stage.agree(4_000, "r1")
    stage.kill("r0")
    stage.together(*stage.live)
    assert {stage.status(name)["coordinator"] for name in stage.live} == {"r1"}
    stage.agree(1_000, stage.live[0])
    stage.finish(early=True)
    judge(stage)


@pytest.mark.parametrize("victim", ["r0", "r1"])
def test_a_replica_is_stopped_for_three_seconds(scene: Scene, victim: str) -> None:
    """As a frozen virtual machine is, the coordinator or another; when it wakes up it begins anew."""
    stage = scene(2)
    (other,) = {"r0", "r1"} - {victim}
    stage.agree(2_000, other)
    stage.signal(victim, signal.SIGSTOP)
    stage.together(other)
    time.sleep(3)
    stage.signal(victim, signal.SIGCONT)
    stage.together("r0", "r1")
    stage.agree(1_000, stage.live[0])
    stage.finish(early=True)
    told = judge(stage)
    assert any("without this replica" in life.reason for life in told if life.replica == victim)


def test_a_replica_is_restarted_and_rejoins(scene: Scene) -> None:
    """First in order, then by force."""
    stage = scene(2)
    stage.agree(2_000, "r0")
    stage.stop("r1")
    stage.together("r0")
    stage.start("r1")
    stage.together("r0", "r1")
    stage.kill("r1")
    stage.start("r1")
    stage.together("r0", "r1")
    stage.agree(1_000, stage.live[0])
    stage.finish(early=True)
    judge(stage)


def test_a_replica_that_rejoined_carries_on_alone(scene: Scene) -> None:
    """What it knows of the time before it joined is enough to lead, and to take the other in again."""
    stage = scene(2)
    stage.agree(2_000, "r0")
    stage.kill("r1")
    stage.start("r1")
    stage.together("r0", "r1")
    stage.agree(2_000, "r1")
    stage.kill("r0")
    stage.start("r0")
    stage.together("r0", "r1")
    stage.agree(1_000, stage.live[0])
    stage.finish(early=True)
    judge(stage)

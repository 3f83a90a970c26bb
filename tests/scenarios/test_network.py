"""What an operator fears for the sync network: it is cut, or bad.  Each side works on; then there is one set again."""

from __future__ import annotations

import time

import pytest

from .conftest import Scene
from .judge import judge, judge_branch


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("cut_s", "busy"), [(5, 1.0), (60, 0.3)])
def test_the_sync_link_is_cut(scene: Scene, cut_s: int, busy: float) -> None:
    """Both sides go on alone, with alerts of their own; r0's branch is kept, r1 begins anew."""
    stage = scene(2, apart=True, busy=busy)
    stage.agree(500, "r0")
    stage.link.cut("r1")
    since = time.monotonic()
    stage.together("r0")
    stage.together("r1")
    time.sleep(max(0.0, since + cut_s - time.monotonic()))
    stage.link.mend("r1")
    stage.together("r0", "r1")
    stage.agree(200, "r1")
    stage.finish(early=True)
    told = judge(stage)
    archived = next(life for life in told if "that branch is the stronger one" in life.reason)
    judge_branch(stage, archived)


def test_the_sync_network_loses_messages(scene: Scene) -> None:
    """Five in a hundred frames of all that the replicas say to each other."""
    stage = scene(3)
    stage.agree(500, "r0")
    stage.link.lose(0.05)
    stage.agree(10_000, "r0")
    stage.finish(early=True)
    judge(stage)

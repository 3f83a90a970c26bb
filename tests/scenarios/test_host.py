"""What an operator fears for a host: the IDS dies, or there is no room for a replica's ring."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ftnids.errors import FtnidsError
from tests.conftest import SHM

from .conftest import Scene
from .judge import judge


@pytest.mark.needs_suricata
def test_the_ids_is_killed(scene: Scene) -> None:
    """The coordinator's, which starts another at once; what the dead one did not raise the other replica's IDS did."""
    stage = scene(2)
    stage.agree(4_000, "r0")
    (ids,) = [
        one for one in psutil.Process(stage.pid("r0")).children(recursive=True) if "suricata" in one.name().lower()
    ]
    ids.kill()
    stage.agree(2_000, "r0")
    stage.agree(1_000, stage.live[0])
    stage.finish(early=True)
    told = judge(stage)
    assert all(life.in_order for life in told)
    assert len(list((stage.places.replica("r0") / "ids").glob("run-*"))) == 2


def test_dev_shm_is_full(scene: Scene) -> None:
    """A running set does not care; a replica that starts says what it needs, and joins when there is room."""
    stage = scene(2)
    stage.agree(2_000, "r0")
    stage.stop("r1")
    with full_shared_memory():
        with pytest.raises(FtnidsError, match=r"not enough room in /dev/shm: \d+ MB needed; lower ring.arena_mb"):
            stage.start("r1")
        stage.agree(2_000, "r0")
    stage.start("r1")
    stage.together("r0", "r1")
    stage.agree(1_000, stage.live[0])
    stage.finish(early=True)
    judge(stage)


@contextmanager
def full_shared_memory() -> Iterator[None]:
    """This run's own /dev/shm without room for another ring."""
    if f"ftnids-tests {SHM} tmpfs " not in Path("/proc/self/mounts").read_text():
        pytest.skip("needs a /dev/shm of its own")
    before = os.statvfs(SHM)
    used = (before.f_blocks - before.f_bfree) * before.f_frsize
    subprocess.run(["mount", "-o", f"remount,size={used + (1 << 20)}", SHM], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", f"remount,size={before.f_blocks * before.f_frsize}", SHM], check=True)

"""CPUs: each part of a replica stays where it is told to, and the IDS is not confined with the replica."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ftnids import affinity
from ftnids.capture import CaptureThread
from ftnids.errors import ConfigError
from ftnids.feed import tether
from tests.core.helpers import Core, some_packets, write_pcap

HAVE = sorted(affinity.AT_START)
two = pytest.mark.skipif(len(HAVE) < 2, reason="needs two CPUs")


def test_a_cpu_that_is_not_there_is_refused_by_name() -> None:
    affinity.check("capture.cpus", HAVE)
    affinity.check("capture.cpus", [])
    with pytest.raises(ConfigError, match=r"capture.cpus: CPU 4095 is not there for this process; it has \d"):
        affinity.check("capture.cpus", [HAVE[0], 4095])


@two
def test_the_capture_thread_moves_alone(tmp_path: Path) -> None:
    core = Core("python")
    source, ring = core.file(write_pcap(tmp_path / "x.pcap", some_packets(10, 1, 60))), core.ring()
    seen: list[set[int]] = []
    try:
        thread = CaptureThread(source, ring, wake=lambda: seen.append(os.sched_getaffinity(0)), cpus=[HAVE[1]])
        thread.start()
        thread.join(30)
        assert thread.ended
        assert seen[-1] == {HAVE[1]}
        assert os.sched_getaffinity(0) == set(HAVE)
    finally:
        source.close()
        ring.close(unlink=True)


@two
@pytest.mark.parametrize("cpus", [[0], [0, 1], [1]])
def test_the_ids_runs_where_it_is_told_to(cpus: list[int]) -> None:
    wanted = [HAVE[i] for i in cpus]
    program = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
    command = [sys.executable, tether.__file__, str(os.getpid()), f"--cpus={','.join(map(str, wanted))}", *program]
    try:
        affinity.pin([HAVE[0]])  # as the replica that starts it
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    finally:
        affinity.pin(HAVE)
    assert done.stdout.strip() == str(wanted)

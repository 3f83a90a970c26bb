"""A replica that joins gets the state of another one's IDS: attacks that began before it came are seen to their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ftnids.errors import UsageError
from ftnids.lab import generate, lives, netns
from ftnids.lab.options import Options
from ftnids.lab.processes import wait_until
from ftnids.lab.stage import Stage
from snort_adapter.launchers import LAUNCHERS

from .conftest import FAILURE_MS
from .judge import SNAPLEN, judge

LASTS_S = 30.0
ATTACKS = 250  # each begun in the first second, and ended by a packet some time later


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory, seed_of_session: int = 1) -> Path:
    path = tmp_path_factory.mktemp("spanning") / "traffic.pcap"
    step = (LASTS_S - 3) * 1e6 / ATTACKS
    flows = [generate.spanning(n, n * 2_000, int(3e6 + n * step)) for n in range(ATTACKS)]
    generate.write(path, 1, 600, 400, LASTS_S, flows)
    return path


def adjust(name: str, tables: dict[str, Any]) -> None:
    tables["capture"]["snaplen"] = SNAPLEN
    tables["ring"] = {"arena_mb": 64, "recovered_mb": 16}
    tables["sync"] = {"failure_ms": FAILURE_MS}
    tables["feed"]["state"] = "cold" if name == "r2" else "transfer"


def raised(stage: Stage, replica: str, run: int) -> set[int]:
    """The numbers of the spanning attacks in what one run of a replica's IDS has logged."""
    (log,) = (stage.places.replica(replica) / "ids" / f"run-{run}").glob("*.json*")
    found = log.read_bytes().replace(b"\0", b"").decode().splitlines()
    return {int(line.split("10.84.3.", 1)[1].split('"', 1)[0]) for line in found if "10.84.3." in line}


@pytest.mark.parametrize("ids", sorted(LAUNCHERS))
def test_attacks_that_span_a_join_are_seen(
    ids: str, capture: Path, tmp_path: Path, needs_criu: Path, request: pytest.FixtureRequest
) -> None:
    """Two replicas are killed and come back, one with the state of the third, one cold."""
    request.getfixturevalue(f"needs_{ids}")
    try:
        netns.check_host("hub")
    except UsageError as error:
        pytest.skip(str(error))
    options = Options(out=tmp_path / "out", replicas=3, loss=0.05, seed=1, pcap=capture, ids=ids, netns=True)
    with Stage(options, adjust) as stage:
        stage.begin()
        stage.agree(1_500, "r0")
        stage.kill("r1")
        stage.kill("r2")
        stage.together("r0")
        stage.start("r1", "r2")
        stage.together("r0", "r1", "r2")
        wait_until(lambda: stage.status("r1")["ids"]["state"] == "reads", 30, "the state of r1's IDS")
        stage.agree(1_000, "r1")
        stage.finish(early=True)
        counters = {name: stage.status(name)["counters"] for name in options.names}
        print({n: (c["states_received"], c["states_sent"], c["states_failed"]) for n, c in counters.items()})
        judge(stage)

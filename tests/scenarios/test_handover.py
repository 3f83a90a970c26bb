"""A replica that joins gets the state of another one's IDS: attacks that began before it came are seen to their end."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ftnids.errors import UsageError
from ftnids.lab import generate, lives, netns, summary
from ftnids.lab.options import Options
from ftnids.lab.processes import wait_until
from ftnids.lab.stage import Stage
from snort_adapter.launchers import LAUNCHERS
from tests.conftest import SEED

from .conftest import FAILURE_MS
from .judge import SNAPLEN, judge, output

LASTS_S = 30.0
IDSS = sorted(LAUNCHERS) if os.environ.get("FTNIDS_ALL") else ["suricata"]  # the run of all tests is to be short
ATTACKS = 250  # each begun in the first second, and ended by a packet some time later


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spanning") / "traffic.pcap"
    step = (LASTS_S - 3) * 1e6 / ATTACKS
    flows = [generate.spanning(n, n * 2_000, int(3e6 + n * step)) for n in range(ATTACKS)]
    generate.write(path, SEED, 600, 400, LASTS_S, flows)
    return path


def adjust(name: str, tables: dict[str, Any]) -> None:
    tables["capture"]["snaplen"] = SNAPLEN
    tables["ring"] = {"arena_mb": 64, "recovered_mb": 16}
    tables["sync"] = {"failure_ms": FAILURE_MS}
    tables["feed"]["state"] = "cold" if name == "r2" else "transfer"


def seen(stage: Stage, since: int) -> Counter[tuple[str, ...]]:
    """Which replicas raised them, of the spanning attacks that ended at seq `since` or later."""
    alerts = [one for one in summary.read_alerts(output(stage, "r0")) if one["src_ip"].startswith("10.84.3.")]
    return Counter(tuple(one["ftnids"]["replicas"]) for one in alerts if (one["ftnids"]["seq"] or 0) >= since)


@pytest.mark.parametrize("ids", IDSS)
def test_attacks_that_span_a_join_are_seen(
    ids: str, capture: Path, tmp_path: Path, needs_criu: Path, request: pytest.FixtureRequest
) -> None:
    """r1, and of Suricatas r2, are killed and come back: r1 with the state of r0's IDS, r2 cold."""
    request.getfixturevalue(f"needs_{ids}")
    try:
        netns.check_host("hub")
    except UsageError as error:
        pytest.skip(str(error))
    victims = ["r1", "r2"] if ids == "suricata" else ["r1"]
    options = Options(
        out=tmp_path / "out", replicas=1 + len(victims), loss=0.05, seed=SEED, pcap=capture, ids=ids, netns=True
    )
    with Stage(options, adjust) as stage:
        stage.begin()
        stage.agree(1_500, "r0")
        for name in victims:
            stage.kill(name)
        stage.together("r0")
        stage.start(*victims)
        stage.together(*options.names)
        wait_until(lambda: stage.status("r1")["ids"]["state"] == "reads", 30, "the state of r1's IDS")
        stage.agree(800, "r1")
        stage.finish(early=True)
        told = judge(stage)
        counters = {name: stage.status(name)["counters"] for name in options.names}
        assert (counters["r0"]["states_sent"], counters["r1"]["states_received"]) == (1, 1)
        assert sum(counters[name]["states_failed"] for name in options.names) == 0
        log = list(lives.events(stage.places.replica("r1") / "replica.log"))
        (begun,) = (one for one in log if one.get("event") == "IDS goes on from an image")
        assert begun["run"] == 1
        (live,) = (one for one in log if one.get("event") == "state_live")
        since = max([live["seq"], *(life.first for life in told if life.views)])  # all had come back
        raised = seen(stage, since)
        assert raised == {("r0", "r1"): raised.total()}, "with the state of another IDS alone"
        assert raised.total() > 10
        assert not any(alert["ftnids"].get("cold") for alert in summary.read_alerts(output(stage, "r0")))
        left = [
            path.name
            for name in options.names
            for path in Path(stage.tables[name]["replica"]["run_dir"]).rglob("*.img")
        ]
        assert left == []

"""The metrics: what they show, and that the dashboard, the rules and the page of operations name only what is there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ftnids import counters
from ftnids.status.delay import Histogram
from ftnids.status.metrics import Exporter
from ftnids.status.roster import Roster
from tests import dashboard
from tests.status.sets import IDS, snapshot

ROOT: Final = Path(__file__).resolve().parent.parent.parent
MONITORING: Final = ROOT / "replicas/monitoring"
OPERATIONS: Final = ROOT / "docs/operations.md"
NAME: Final = re.compile(r"\bftnids_\w+")


def page(**changes: Any) -> str:
    roster = Roster("office", ["r0", "r1"], me=0)
    delays = Histogram()
    delays.add(np.array([3.0, 30.0, 6000.0]))
    counted = {name: place for place, name in enumerate(counters.PER_REPLICA, 1)}
    totals = {name: place for place, name in enumerate(counters.SET, 1)}
    roster.own(snapshot("r0", counters=counted, set=totals, delay=delays.record(), **changes))
    return Exporter(roster).page().decode()


def values(text: str) -> dict[tuple[str, ...], float]:
    """By name and the labels that tell samples of one metric apart."""
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            assert one.labels.pop("cluster") == "office"
            assert one.labels.pop("replica") == "r0"
            found[(one.name, *one.labels.values())] = one.value
    return found


def test_every_counter_is_there_with_its_value() -> None:
    shown = values(page())
    place = {name: number for number, name in enumerate(counters.PER_REPLICA, 1)}
    assert shown["ftnids_capture_packets_total",] == place["captured"]
    assert shown["ftnids_capture_bytes_total",] == place["captured_bytes"]
    for where in ("kernel", "ring", "injected"):
        assert shown["ftnids_capture_drops_total", where] == place[f"{where}_drops"]
    for name in ("recovered", "lost", "ambiguous", "late", "agreed"):
        assert shown[f"ftnids_{name}_packets_total",] == place[name]
    assert shown["ftnids_desync_level",] == place["desync_level"]
    assert shown["ftnids_state", "running"] == 1
    assert shown["ftnids_state", "failed"] == 0
    assert shown["ftnids_member_up", "r0"] == 1
    assert shown["ftnids_member_up", "r1"] == 0
    assert (shown["ftnids_ring_bytes",], shown["ftnids_ring_used_bytes",]) == (10_000, 4_200)
    assert (shown["ftnids_ids_up",], shown["ftnids_ids_lag_packets",]) == (1, 3)
    assert shown["ftnids_alerts_total", "out"] == 1
    assert {key[1] for key in shown if key[0] == "ftnids_alerts_total"} == {
        name.removeprefix("alerts_") for name in counters.SET
    }


def test_the_histogram_is_cumulative_and_exact() -> None:
    shown = values(page())
    buckets = [(key[1], value) for key, value in shown.items() if key[0] == "ftnids_delay_seconds_bucket"]
    assert [float(bound) for bound, _ in buckets] == sorted(float(bound) for bound, _ in buckets)
    counted = dict(buckets)
    assert (counted["0.00256"], counted["0.00512"], counted["0.04096"], counted["+Inf"]) == (0, 1, 2, 3)
    assert shown["ftnids_delay_seconds_count",] == 3
    assert shown["ftnids_delay_seconds_sum",] == pytest.approx(6.033)


def test_without_an_ids_and_before_the_first_status() -> None:
    assert not [key for key in values(page(ids={"name": ""})) if key[0].startswith("ftnids_ids_up")]
    assert values(page(ids={**IDS, "state": "down"}))["ftnids_ids_up",] == 0
    assert Exporter(Roster("office", ["r0", "r1"], me=0)).page() == b""


def test_the_dashboard_is_the_one_that_its_panels_make() -> None:
    assert dashboard.PAGE.read_text() == dashboard.page(), "out of date: run `python -m tests.dashboard`"
    panels = json.loads(dashboard.PAGE.read_text())["panels"]
    assert len({one["id"] for one in panels}) == len(panels)


@pytest.mark.parametrize("path", [*sorted(MONITORING.iterdir()), OPERATIONS], ids=lambda path: path.name)
def test_every_metric_that_is_named_exists(path: Path) -> None:
    there = {key[0] for key in values(page())} | {"ftnids_delay_seconds"}  # a family of three
    named = set(NAME.findall(path.read_text()))
    assert named <= there, f"no such metric: {named - there}"


def test_every_metric_is_explained() -> None:
    families = {family.name for family in text_string_to_metric_families(page())}
    explained = NAME.findall(OPERATIONS.read_text())
    missing = {name for name in families if not any(one.startswith(name) for one in explained)}
    assert not missing, f"docs/operations.md does not explain {missing}"


def promtool(tool: Path, *words: str | Path, stdin: str = "") -> None:
    done = subprocess.run([tool, *words], input=stdin, capture_output=True, text=True, timeout=60, cwd=MONITORING)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_promtool_says(needs_promtool: Path) -> None:
    promtool(needs_promtool, "check", "rules", "ftnids.rules.yml")
    promtool(needs_promtool, "test", "rules", "ftnids.rules_test.yml")
    promtool(needs_promtool, "check", "config", "prometheus.yml")
    promtool(needs_promtool, "check", "metrics", stdin=page())

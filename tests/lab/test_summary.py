"""The verdict: every fault has words, and a run without one passes."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ftnids import counters
from ftnids.errors import FtnidsError
from ftnids.lab import report, summary
from ftnids.status.snapshot import Snapshot


def status(name: str, **changed: Any) -> dict[str, Any]:
    made = Snapshot(name, "ended", view={"number": 1}, coordinator="r0", members=["r0", "r1"])
    made.set = dict.fromkeys(counters.SET, 0) | {"alerts_out": 1} if name == "r0" else {}
    return asdict(made) | changed


def alert(number: str = "a") -> dict[str, Any]:
    return {
        "timestamp": "2026-01-01T00:00:00.000000+0000",
        "alert": {"signature": "an attack", "signature_id": 8400001},
        "ftnids": {"id": number, "replicas": ["r0", "r1"], "seq": 7},
    }


@pytest.fixture
def statuses(tmp_path: Path) -> dict[str, dict[str, Any]]:
    for name in ("r0", "r1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hashes.txt").write_text("0 00 0\n")
    return {name: status(name) for name in ("r0", "r1")}


def faults(statuses: dict[str, dict[str, Any]], out: Path, *alerts: dict[str, Any]) -> str:
    return "; ".join(summary.faults(statuses, alerts or (alert(),), summary.summarize(statuses, out)))


def test_all_is_well(statuses: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert faults(statuses, tmp_path) == ""


def test_summary_has_every_counter_by_its_name(statuses: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    made = summary.summarize(statuses, tmp_path)
    assert list(made) == ["replicas", *counters.SET]
    assert [list(row) for row in made["replicas"]] == [["name", *counters.PER_REPLICA, "stream_sha256"]] * 2
    assert len(made["replicas"][0]["stream_sha256"]) == 64


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"view": {"number": 2}}, "the view changed during the run, to number 2"),
        ({"view": {"number": 1, "lineage": 5}}, "different views"),
        ({"members": ["r1"]}, "replica r1 has seen a view change: r0 left its view"),
        ({"state": "failed", "reason": "r0 is silent"}, "replica r1 is failed, not ended: r0 is silent"),
        ({"state": "running"}, "replica r1 is running, not ended: no reason given"),
    ],
)
def test_a_fault_has_words(
    statuses: dict[str, dict[str, Any]], tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    statuses["r1"] |= changed
    assert words in faults(statuses, tmp_path)


def test_alerts_come_out_once(statuses: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    statuses["r0"]["set"]["alerts_out"] = 2
    assert faults(statuses, tmp_path, alert("a"), alert("b")) == ""
    assert "1 alerts came out more than once" in faults(statuses, tmp_path, alert("a"), alert("a"))
    assert "alerts.jsonl holds 1 alerts, the coordinator counted 2" in faults(statuses, tmp_path)


def test_unexplained_differences_fail() -> None:
    one = {"id": "a", "signature_id": 1, "side": "missing", "cause": "ambiguous"}
    assert summary.verdict({"alert_differences": [one]}, []) == []
    assert summary.verdict({}, []) == []
    (reason,) = summary.verdict({"alert_differences": [one, one | {"cause": "unexplained"}]}, [])
    assert reason.startswith("1 alerts differ")


def test_alerts_file(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    assert summary.read_alerts(path) == []
    path.write_text(json.dumps(alert()) + "\n")
    assert summary.read_alerts(path) == [alert()]
    path.write_text(json.dumps(alert()) + "\n[]\n")
    with pytest.raises(FtnidsError, match="line 2 is no JSON object"):
        summary.read_alerts(path)


def shown(made: dict[str, Any], alerts: int = 1) -> str:
    console = Console(file=io.StringIO(), width=200)
    report.show(console, made, [alert(str(number)) for number in range(alerts)])
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_report(statuses: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    made = summary.summarize(statuses, tmp_path) | {"reasons": []}
    assert "PASS" in shown(made)
    assert "an attack" in shown(made)
    assert "kernel drops" not in shown(made)
    assert "... and 5 more in alerts.jsonl" in shown(made, 10)
    made["replicas"][1] |= {"stream_sha256": "0" * 64, "kernel_drops": 3}
    made["reasons"] = ["a [bold] reason"]
    text = shown(made)
    assert "UNEQUAL" in text
    assert "kernel drops" in text
    assert "FAULT  a [bold] reason" in text
    assert "PASS" not in text


def test_report_of_a_reference(statuses: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    truth = {"packets": 10, "missing": 1, "extra": 0, "displaced": 2, "alerts": 3}
    differences = [{"id": "a", "signature_id": 5, "side": "missing", "cause": "late"}] * 12
    made = summary.summarize(statuses, tmp_path) | {"reasons": [], "reference": truth}
    made |= {"alerts_missing": 12, "alerts_spurious": 0, "alert_differences": differences}
    text = shown(made)
    assert "of 3 alerts 12 are missing, 0 spurious" in text
    assert "missing 5 (a): late" in text
    assert "all are in summary.json" in text

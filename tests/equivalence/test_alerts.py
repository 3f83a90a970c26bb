"""The set's alerts are those of one IDS over all that was captured, fed ahead or not, whatever was lost."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from ftnids.alerts import history
from snort_adapter.launchers import launcher
from tests.lab.test_lab import check_alerts, check_streams, lab

ALL = bool(os.environ.get("FTNIDS_ALL"))  # the run of all tests is to be short
LOSSES = ["0.01", "0.05", "0.2"] if ALL else ["0.05"]
WAYS = [("snort", "pessimistic", "none"), ("snort", "optimistic", "fork"), ("suricata", "optimistic", "criu")]
if ALL:
    WAYS += [("suricata", "pessimistic", "none"), ("snort", "optimistic", "criu")]


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_alerts_are_those_of_one_ids(
    tmp_path: Path, request: pytest.FixtureRequest, way: tuple[str, str, str], loss: str, seed: int
) -> None:
    ids, mode, checkpoint = way
    request.getfixturevalue(f"needs_{ids}")
    if checkpoint == "criu":
        request.getfixturevalue("needs_criu")
    elif ids == "snort" and (reason := launcher("snort").ring_fault()):
        pytest.skip(reason)
    asked = ("--no-netns", "--pps", "2000", "--ids", ids, "--mode", mode, "--checkpoint", checkpoint)
    status, summary, told = lab(tmp_path / "out", *asked, "--loss", loss, "--seed", str(seed), "--reference")
    assert status == 0, told
    check_streams(tmp_path / "out", summary)
    check_alerts(tmp_path / "out", summary)
    assert summary["alert_differences"] == []
    assert summary["alerts_out"] > 0
    thrown_back = sum(row["rollbacks"] for row in summary["replicas"])
    assert (thrown_back > 0) == (mode == "optimistic")


@pytest.mark.slow
def test_they_are_the_same_with_provisional_ones(
    tmp_path: Path, needs_snort: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Each of which has another word in the end."""
    if reason := launcher("snort").ring_fault():
        pytest.skip(reason)
    monkeypatch.setenv("FTNIDS_ALERTS__PROVISIONAL", "true")
    asked = ("--no-netns", "--pps", "2000", "--ids", "snort", "--mode", "optimistic", "--checkpoint", "fork")
    status, summary, told = lab(tmp_path / "out", *asked, "--loss", "0.05", "--seed", str(seed), "--reference")
    assert status == 0, told
    assert summary["alert_differences"] == []
    written = [json.loads(line)["ftnids"] for line in (tmp_path / "out" / "alerts.jsonl").read_text().splitlines()]
    count = Counter((one["id"], one["status"]) for one in written)
    assert set(count.values()) == {1}
    early = {alert_id for alert_id, status in count if status == "provisional"}
    assert early
    assert early <= {alert_id for alert_id, status in count if status != "provisional"}
    told_of = [row["ftnids"]["status"] for row in history.alerts([tmp_path / "out" / "alerts.jsonl"])]
    assert told_of.count("confirmed") == summary["alerts_out"] > 0

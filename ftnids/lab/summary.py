"""The summary of a run, as in `summary.json`, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftnids import counters
from ftnids.alerts.outputs import CONFIRMED
from ftnids.errors import FtnidsError
from ftnids.lab import verify

Status = Mapping[str, Any]


def summarize(statuses: Mapping[str, Status], out: Path) -> dict[str, Any]:
    """Each replica's counters and the SHA-256 of its hashes.txt; the coordinator's counters for the set."""
    replicas = []
    for name, status in statuses.items():
        hashes = out / name / "hashes.txt"
        row: dict[str, Any] = {"name": name}
        row |= {counter: status["counters"].get(counter, 0) for counter in counters.PER_REPLICA}
        row["stream_sha256"] = verify.sha256(hashes) if hashes.is_file() else ""
        replicas.append(row)
    leader = next((status for name, status in statuses.items() if status["coordinator"] == name), {})
    totals = leader.get("set", {})
    return {"replicas": replicas, **{counter: totals.get(counter, 0) for counter in counters.SET}}


def read_alerts(path: Path) -> list[dict[str, Any]]:
    """The set's confirmed alerts.  FtnidsError naming the line that is no JSON object; [] when there is no file."""
    if not path.is_file():
        return []
    alerts = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            alert = json.loads(line)
        except ValueError:
            alert = None
        if not isinstance(alert, dict):
            raise FtnidsError(f"{path} line {number} is no JSON object: {line[:80]!r}")
        if alert.get("ftnids", {}).get("status", CONFIRMED) == CONFIRMED:
            alerts.append(alert)
    return alerts


def faults(statuses: Mapping[str, Status], alerts: Sequence[Status], summary: Mapping[str, Any]) -> list[str]:
    """What must not be, apart from unequal streams, in words: view changes, failed replicas, alerts out twice."""
    found = []
    for name, status in statuses.items():
        if status["state"] != "ended":
            found.append(f"replica {name} is {status['state']}, not ended: {status['reason'] or 'no reason given'}")
        if gone := sorted(set(statuses) - set(status["members"])):
            found.append(f"replica {name} has seen a view change: {', '.join(gone)} left its view")
    views = {name: tuple(sorted(status["view"].items())) for name, status in statuses.items()}
    if len(set(views.values())) > 1:
        found.append(f"the replicas ended in different views: {views}")
    numbers = {status["view"].get("number") for status in statuses.values()}
    found += [f"the view changed during the run, to number {number}" for number in numbers if number and number > 1]
    ids = [alert["ftnids"]["id"] for alert in alerts]
    if len(set(ids)) != len(ids):
        found.append(f"{len(ids) - len(set(ids))} alerts came out more than once")
    if len(ids) != summary["alerts_out"]:
        found.append(f"alerts.jsonl holds {len(ids)} alerts, the coordinator counted {summary['alerts_out']}")
    return found


def warnings(statuses: Mapping[str, Status]) -> list[str]:
    """What the replicas warn of."""
    return [f"{name}: {warning}" for name, status in statuses.items() for warning in status["warnings"]]


def verdict(summary: Mapping[str, Any], reasons: Sequence[str]) -> list[str]:
    """Why the run has failed; [] when streams are equal and no difference of alerts is unexplained."""
    why = list(reasons)
    if unexplained := [one for one in summary.get("alert_differences", ()) if one["cause"] == "unexplained"]:
        why.append(f"{len(unexplained)} alerts differ from the reference without an explanation")
    return why

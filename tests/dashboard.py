"""Writes the Grafana dashboard, replicas/monitoring/grafana.json, from a list of its panels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).resolve().parent.parent / "replicas/monitoring/grafana.json"
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
WHICH: Final = 'cluster=~"$cluster", replica=~"$replica"'
Panel = tuple[str, str, str, dict[str, str]]  # title, kind, unit, legend: query

# fmt: off
PANELS: Final[list[Panel]] = [
    ("Replicas that run", "stat", "none", {"": 'sum(ftnids_state{state="running", %}) or vector(0)'}),
    ("Members heard by all", "stat", "none", {"{{member}}": "min by (member) (ftnids_member_up{%})"}),
    ("Coordinator", "stat", "none", {"{{replica}}": "ftnids_coordinator{%} == 1"}),
    ("Lost by all, last hour", "stat", "none", {"": "max(increase(ftnids_lost_packets_total{%}[1h])) or vector(0)"}),
    ("Captured", "timeseries", "pps", {"{{replica}}": "rate(ftnids_capture_packets_total{%}[$__rate_interval])"}),
    ("Captured", "timeseries", "bps", {"{{replica}}": "8 * rate(ftnids_capture_bytes_total{%}[$__rate_interval])"}),
    ("Dropped", "timeseries", "pps",
     {"{{replica}} {{where}}": "rate(ftnids_capture_drops_total{%}[$__rate_interval])"}),
    ("Recovered from peers, left to peers", "timeseries", "pps",
     {"{{replica}} recovered": "rate(ftnids_recovered_packets_total{%}[$__rate_interval])",
      "{{replica}} left": "rate(ftnids_left_to_peers_packets_total{%}[$__rate_interval])"}),
    ("Agreed", "timeseries", "pps", {"{{replica}}": "rate(ftnids_agreed_packets_total{%}[$__rate_interval])"}),
    ("Delay, capture to stable", "timeseries", "s",
     {"{{replica}} p50": "histogram_quantile(0.5, rate(ftnids_delay_seconds_bucket{%}[$__rate_interval]))",
      "{{replica}} p99": "histogram_quantile(0.99, rate(ftnids_delay_seconds_bucket{%}[$__rate_interval]))"}),
    ("Ambiguous, late, lost, clamped", "timeseries", "pps",
     {"{{replica}} ambiguous": "rate(ftnids_ambiguous_packets_total{%}[$__rate_interval])",
      "{{replica}} late": "rate(ftnids_late_packets_total{%}[$__rate_interval])",
      "{{replica}} lost": "rate(ftnids_lost_packets_total{%}[$__rate_interval])",
      "{{replica}} clamped": "rate(ftnids_clamped_timestamps_total{%}[$__rate_interval])"}),
    ("Desync level", "timeseries", "none", {"{{replica}}": "ftnids_desync_level{%}"}),
    ("Ring", "timeseries", "percentunit",
     {"{{replica}} bytes": "ftnids_ring_used_bytes{%} / ftnids_ring_bytes{%}",
      "{{replica}} packets": "ftnids_ring_used_slots{%} / ftnids_ring_slots{%}"}),
    ("IDS: packets not read", "timeseries", "none", {"{{replica}}": "ftnids_ids_lag_packets{%}"}),
    ("IDS: up, deaths in an hour", "timeseries", "none",
     {"{{replica}} up": "ftnids_ids_up{%}", "{{replica}} deaths": "increase(ftnids_ids_restarts_total{%}[1h])"}),
    ("Checkpoints, rollbacks", "timeseries", "ops",
     {"{{replica}} checkpoints": "rate(ftnids_checkpoints_total{%}[$__rate_interval])",
      "{{replica}} rollbacks": "rate(ftnids_rollbacks_total{%}[$__rate_interval])"}),
    ("Alerts raised by each IDS", "timeseries", "ops",
     {"{{replica}}": "rate(ftnids_ids_alerts_total{%}[$__rate_interval])"}),
    ("Alerts of the set", "timeseries", "ops",
     {"{{outcome}}": "sum by (outcome) (rate(ftnids_alerts_total{%}[$__rate_interval]))"}),
    ("Outputs: delivered, lost", "timeseries", "ops",
     {"{{replica}} {{output}} {{what}}": "rate(ftnids_output_alerts_total{%}[$__rate_interval])"}),
    ("Outputs: bytes that wait", "timeseries", "bytes",
     {"{{replica}} {{output}}": "ftnids_output_waiting_bytes{%}"}),
    ("View", "timeseries", "none",
     {"{{replica}} number": "ftnids_view_number{%}", "{{replica}} members": "ftnids_view_members{%}"}),
    ("Warnings in force, age of the status", "timeseries", "none",
     {"{{replica}} warnings": "ftnids_warnings{%}", "{{replica}} age s": "ftnids_status_age_seconds{%}"}),
]
# fmt: on


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    row, column = 0, 0
    for number, (title, kind, unit, queries) in enumerate(PANELS, 1):
        width, height = (6, 4) if kind == "stat" else (12, 7)
        panels.append(
            {
                "id": number,
                "title": title,
                "type": kind,
                "datasource": SOURCE,
                "gridPos": {"x": column, "y": row, "w": width, "h": height},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {
                        "refId": chr(ord("A") + place),
                        "datasource": SOURCE,
                        "expr": query.replace("%", WHICH),
                        "legendFormat": legend,
                    }
                    for place, (legend, query) in enumerate(queries.items())
                ],
            }
        )
        column += width
        if column >= 24:
            row, column = row + height, 0
    return {
        "uid": "ftnids",
        "title": "ftnids",
        "tags": ["ids"],
        "schemaVersion": 36,
        "version": 1,
        "editable": True,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                _variable("cluster", "label_values(ftnids_info, cluster)"),
                _variable("replica", 'label_values(ftnids_info{cluster=~"$cluster"}, replica)'),
            ]
        },
        "panels": panels,
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    every = {"selected": True, "text": "All", "value": "$__all"}
    several = {"includeAll": True, "multi": True, "refresh": 2, "current": every}
    return {"name": name, "type": "query", "datasource": SOURCE, "query": query, **several}


def page() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())

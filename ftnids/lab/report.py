"""The result for people: a row for each replica, a line for the set, some of the alerts, the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

ALERTS_SHOWN: Final = 5
DIFFERENCES_SHOWN: Final = 10
COLUMNS: Final = {
    "captured": "captured",
    "injected_drops": "injected",
    "recovered": "recovered",
    "lost": "lost",
    "ambiguous": "ambig.",
    "late": "late",
    "delay_p50_ms": "p50 ms",
    "delay_p99_ms": "p99 ms",
    "alerts": "alerts",
}
UNUSUAL: Final = {"kernel_drops": "kernel drops", "ring_drops": "ring drops"}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 1_000 else f"{value:.1f}"


def table(summary: Mapping[str, Any]) -> Table:
    """A row for each replica; columns of drops that should not be are there only when they are."""
    columns = COLUMNS | {key: text for key, text in UNUSUAL.items() if any(row[key] for row in summary["replicas"])}
    result = Table("replica", header_style="bold", box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for heading in (*columns.values(), "stream"):
        result.add_column(heading, justify="left" if heading == "stream" else "right")
    first = summary["replicas"][0]["stream_sha256"]
    for row in summary["replicas"]:
        equal = row["stream_sha256"] == first != ""
        result.add_row(row["name"], *(_number(row[key]) for key in columns), "equal" if equal else "UNEQUAL")
    return result


def show(console: Console, summary: Mapping[str, Any], alerts: Sequence[Mapping[str, Any]]) -> None:
    """Print it all."""
    console.print(table(summary))
    _show_set(console, summary)
    for alert in alerts[:ALERTS_SHOWN]:
        console.print(Text("  " + alert_line(alert)), soft_wrap=True)
    if len(alerts) > ALERTS_SHOWN:
        console.print(f"  ... and {len(alerts) - ALERTS_SHOWN:,} more in alerts.jsonl", highlight=False)
    _show_reference(console, summary)
    reasons = summary["reasons"]
    for reason in reasons:
        console.print(Text(f"FAULT  {reason}", style="red"), soft_wrap=True)
    text = f"FAIL  {len(reasons)} fault(s)" if reasons else "PASS  the replicas' streams are equal"
    if not reasons and "alert_differences" in summary:
        text += ", and no difference of alerts from the reference is unexplained"
    if damage := summary.get("damaged_input"):
        text += f" (of what could be read of the input: {damage})"
    colour = "red" if reasons else "yellow" if damage else "green"
    console.print(Text(text, style=f"bold {colour}"), soft_wrap=True)


def _show_set(console: Console, summary: Mapping[str, Any]) -> None:
    agreed = max(row["agreed"] for row in summary["replicas"])
    parts = [f"{agreed:,} packets agreed", f"{summary['alerts_out']:,} alerts out"]
    parts.append(f"{summary['alerts_suppressed']:,} copies suppressed")
    if summary["alerts_diverging"]:
        parts.append(f"{summary['alerts_diverging']:,} raised by some replicas only")
    console.print("set: " + ", ".join(parts), highlight=False, soft_wrap=True)


def _show_reference(console: Console, summary: Mapping[str, Any]) -> None:
    if "reference" not in summary:
        return
    truth = summary["reference"]
    packets = f"of {truth['packets']:,} packets captured by any replica the agreed stream misses {truth['missing']:,}"
    odd = f"has {truth['extra']:,} too many and {truth['displaced']:,} in another place"
    missing, spurious = summary["alerts_missing"], summary["alerts_spurious"]
    alerts = f"of {truth['alerts']:,} alerts {missing:,} are missing, {spurious:,} spurious"
    console.print(f"reference: {packets}, {odd}; {alerts}", highlight=False, soft_wrap=True)
    for one in summary["alert_differences"][:DIFFERENCES_SHOWN]:
        console.print(Text(f"  {one['side']} {one['signature_id']} ({one['id']}): {one['cause']}"), soft_wrap=True)
    if len(summary["alert_differences"]) > DIFFERENCES_SHOWN:
        console.print("  ... all are in summary.json", highlight=False)


def alert_line(alert: Mapping[str, Any]) -> str:
    """One alert in one line."""
    ends = [f"{alert.get(f'{side}_ip', '?')}:{alert.get(f'{side}_port', '-')}" for side in ("src", "dest")]
    seen_by = ",".join(alert["ftnids"]["replicas"])
    return f"{alert['timestamp']}  {ends[0]} -> {ends[1]}  {alert['alert']['signature']}  [{seen_by}]"

"""Compares the set's alerts with those of one IDS that was fed everything (`ftnids lab --reference`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ftnids.alerts.identity import Key, flow_key, signature_key
from ftnids.alerts.readers import Record, timestamp_us

MISSING = "missing"
SPURIOUS = "spurious"
UNEXPLAINED = "unexplained"


@dataclass(slots=True)
class Comparison:
    """What the two sides differ in; `differences` holds {id, signature_id, side, cause} each."""

    missing: int = 0
    spurious: int = 0
    differences: list[dict[str, Any]] = field(default_factory=list)

    @property
    def unexplained(self) -> int:
        return sum(difference["cause"] == UNEXPLAINED for difference in self.differences)


def unexplained(_: Record) -> str:
    """The cause of a difference when nothing is known of the packets."""
    return UNEXPLAINED


def compare(
    set_alerts: Iterable[Record], reference_alerts: Iterable[Record], cause: Callable[[Record], str] = unexplained
) -> Comparison:
    """Compare as multisets by signature and flow, without times and packet numbers.

    Both sides are identified alert records (`Identifier.identify`).  `cause` says why an alert of either side has no
    partner: "ambiguous" or "late" when its flow touches such a packet, else "unexplained".  Where a key comes more
    often on one side, the alerts whose time has no equal on the other side are the ones that differ.
    """
    ours, theirs = _by_key(set_alerts), _by_key(reference_alerts)
    result = Comparison()
    for key in sorted(ours.keys() | theirs.keys()):
        surplus = len(ours[key]) - len(theirs[key])
        side, many, few = (SPURIOUS, ours, theirs) if surplus > 0 else (MISSING, theirs, ours)
        for record in _unpaired(many[key], few[key])[: abs(surplus)]:
            result.differences.append(
                {
                    "id": record["ftnids"]["id"],
                    "signature_id": record["alert"]["signature_id"],
                    "side": side,
                    "cause": cause(record),
                }
            )
    result.missing = sum(difference["side"] == MISSING for difference in result.differences)
    result.spurious = len(result.differences) - result.missing
    return result


def _by_key(records: Iterable[Record]) -> defaultdict[Key, list[Record]]:
    groups: defaultdict[Key, list[Record]] = defaultdict(list)
    for record in records:
        groups[(*signature_key(record), *flow_key(record))].append(record)
    return groups


def _unpaired(many: list[Record], few: list[Record]) -> list[Record]:
    """`many` with those first that have no partner of equal time in `few`."""
    times = [timestamp_us(record) for record in few]
    alone: list[Record] = []
    paired: list[Record] = []
    for record in many:
        time = timestamp_us(record)
        if time in times:
            times.remove(time)
            paired.append(record)
        else:
            alone.append(record)
    return alone + paired

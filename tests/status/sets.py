"""Snapshots and views of sets that are not there, for tests of what shows them."""

from __future__ import annotations

from typing import Any

from ftnids.status.roster import Member, SetView
from ftnids.status.snapshot import Snapshot

RING = {"slots": 1000, "slots_used": 100, "arena_bytes": 10_000, "arena_used": 4_200}
IDS: dict[str, str | int] = {
    "name": "suricata",
    "mode": "pessimistic",
    "state": "reads",
    "version": "7.0.10",
    "pid": 77,
    "lag": 3,
    "deaths": 0,
    "log_failures": 0,
}


def alert(number: int, status: str = "confirmed", signature: str = "FTNIDS canary") -> dict[str, Any]:
    """An alert as a snapshot has it."""
    return {
        "time": f"2026-01-01T00:00:{number % 60:02d}.000000+0000",
        "id": f"{number:024x}",
        "status": status,
        "sid": "1:8400001:1",
        "signature": signature,
        "severity": 1,
        "proto": "TCP",
        "from": "10.0.0.1:4000",
        "to": "10.0.0.2:80",
        "seq": number,
        "replicas": "r0,r1",
        "silent": "",
    }


def snapshot(name: str = "r0", time: float = 100.0, state: str = "running", **changes: Any) -> Snapshot:
    """A replica that runs; `counters` are put on top of zeros."""
    made = Snapshot(
        name,
        state,
        pid=11,
        host="sensor",
        cluster="office",
        started=50.0,
        time=time,
        version="0.1.0",
        implementation="c",
        view={"lineage": 5, "number": 2, "incarnation": 1},
        coordinator="r0",
        members=["r0", "r1"],
        ring=dict(RING),
        ids=dict(IDS),
        outputs={"alerts.output": {"delivered": 9, "failures": 0, "lost": 0, "waiting_bytes": 0}},
        source="eth1",
        snaplen=65535,
    )
    counters = changes.pop("counters", {})
    for key, value in changes.items():
        setattr(made, key, value)
    made.counters |= counters
    return made


def view(*members: Member, time: float = 100.0) -> SetView:
    """A set as r0 tells of it; without members two that run."""
    both = (Member("r0", 0.1, snapshot("r0", time)), Member("r1", 0.4, snapshot("r1", time)))
    return SetView("office", "r0", time, members or both)

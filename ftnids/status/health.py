"""What is wrong with a set, from what one replica knows of it: in words, and as an exit status."""

from __future__ import annotations

from typing import Final

from ftnids.status.roster import ABSENT, DEAD, OVER, Member, SetView
from ftnids.status.snapshot import Snapshot

HEALTHY: Final = 0  # every member runs, all in one view, with its IDS
DEGRADED: Final = 1  # the set works, and something is wrong
DOWN: Final = 2  # no member runs, as far as can be seen from here
WORDS: Final = {HEALTHY: "healthy", DEGRADED: "degraded", DOWN: "down"}
FULL: Final = 0.9  # of a ring
SILENT_S: Final = 1.5  # a status comes every second


def level(view: SetView | None) -> int:
    """HEALTHY, DEGRADED or DOWN."""
    if view is None or not any(member.state == "running" for member in view.members):
        return DOWN
    return DEGRADED if problems(view) else HEALTHY


def problems(view: SetView) -> list[str]:
    """What is wrong now, a line each, the worst first.  Counters that have grown are no problem by themselves."""
    found = [line for member in view.members for line in _of_member(member)]
    running = {one.name: one.snapshot for one in view.members if one.state == "running" and one.snapshot is not None}
    silent = {one.name: one.age_s for one in view.members if one.name in running and (one.age_s or 0.0) > SILENT_S}
    left = [name for name in silent if any(name not in other.members for other in running.values())]
    found += [f"{name}: silent for {silence(silent[name] or 0.0)}, and out of the view" for name in left]
    views: dict[tuple[int, int], list[str]] = {}
    for name, snapshot in running.items():
        if name not in left:
            in_force = snapshot.view
            views.setdefault((in_force.get("lineage", 0), in_force.get("number", 0)), []).append(name)
    if len(views) > 1:
        sides = " | ".join(", ".join(names) for names in views.values())
        found.append(f"the members are in {len(views)} views: {sides}; a view change, or they do not reach each other")
    rules: dict[str, list[str]] = {}
    for name, snapshot in running.items():
        if digest := snapshot.ids.get("rules"):
            rules.setdefault(str(digest), []).append(name)
    if len(rules) > 1:
        sides = " | ".join(", ".join(names) for names in rules.values())
        found.append(f"the IDSs differ in version, configuration or rules: {sides}; their alerts will, too")
    return found + [f"{name}: {warning}" for name, one in running.items() for warning in _of_running(one)]


def silence(age_s: float) -> str:
    """An age for people."""
    if age_s < 120:
        return f"{age_s:.0f} s"
    return f"{age_s / 60:.0f} min" if age_s < 7200 else f"{age_s / 3600:.0f} h"


def fill(snapshot: Snapshot) -> float:
    """How full the ring of captured packets is: 0 to 1."""
    ring = snapshot.ring
    slots = ring.get("slots_used", 0) / max(1, ring.get("slots", 0))
    return min(1.0, max(0.0, slots, ring.get("arena_used", 0) / max(1, ring.get("arena_bytes", 0))))


def _of_member(member: Member) -> list[str]:
    state = member.state
    if state == "running":
        return []
    if state == ABSENT:
        return [f"{member.name}: never heard"]
    assert member.age_s is not None
    assert member.snapshot is not None
    if state == DEAD:
        return [f"{member.name}: dead, last heard {silence(member.age_s)} ago"]
    reason = f": {member.snapshot.reason}" if member.snapshot.reason else ""
    since = f" {silence(member.age_s)} ago" if state in OVER else ""
    return [f"{member.name}: {state}{since}{reason}"]


def _of_running(snapshot: Snapshot) -> list[str]:
    found = list(snapshot.warnings)
    ids = snapshot.ids
    if ids.get("state") == "down":
        found.append(f"its IDS ({ids.get('name')}) does not run; it has died {ids.get('deaths', 0)} times")
    for output, counted in snapshot.outputs.items():
        if counted.get("waiting_bytes", 0) > 0 and not counted.get("up", 0):
            found.append(f"{output} takes no alerts: {counted['waiting_bytes']:,} bytes wait; none is lost yet")
    if fill(snapshot) >= FULL:
        found.append(f"its ring is {fill(snapshot):.0%} full: see ring.slots and ring.arena_mb, and the IDS's lag")
    return found

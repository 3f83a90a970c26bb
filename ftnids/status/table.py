"""The table that `ftnids status` prints: a line for each member, then what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ftnids.status import health
from ftnids.status.roster import Member, SetView
from ftnids.status.snapshot import Snapshot
from ftnids.status.text import count, day, milliseconds, percent, plain, protocol

NONE: Final = "-"


def role(view: SetView, member: Member) -> str:
    """`coordinator`, `member`, or nothing of one that is in no view."""
    if not member.alive or member.snapshot is None or not member.snapshot.coordinator:
        return NONE
    return "coordinator" if member.snapshot.coordinator == member.name else "member"


def drops(snapshot: Snapshot) -> float:
    """Packets that the replica itself lost, wherever."""
    return sum(snapshot.counters[name] for name in ("kernel_drops", "ring_drops", "injected_drops"))


def ids(snapshot: Snapshot) -> str:
    """The IDS and what it does."""
    name, state = snapshot.ids.get("name", ""), snapshot.ids.get("state", "")
    return f"{name} {state}".strip() or "none"


COLUMNS: Final[tuple[tuple[str, bool, Callable[[Snapshot], str]], ...]] = (  # heading, at the right, value
    ("HOST", False, lambda one: one.host),
    ("PID", True, lambda one: str(one.pid)),
    ("STARTED", False, lambda one: day(one.started)),
    ("VIEW", True, lambda one: str(one.view.get("number", NONE))),
    ("CAPTURED", True, lambda one: count(one.counters["captured"], 9)),
    ("DROPPED", True, lambda one: count(drops(one), 9)),
    ("RECOVERED", True, lambda one: count(one.counters["recovered"], 9)),
    ("LOST", True, lambda one: count(one.counters["lost"], 9)),
    ("P50 ms", True, lambda one: milliseconds(one.counters["delay_p50_ms"])),
    ("P99 ms", True, lambda one: milliseconds(one.counters["delay_p99_ms"])),
    ("RING", True, lambda one: percent(health.fill(one))),
    ("IDS", False, ids),
    ("LAG", True, lambda one: count(one.ids_number("lag"), 7) if one.ids.get("name") else NONE),
    ("ALERTS", True, lambda one: count(one.counters["alerts"], 7)),
    ("VERSION", False, lambda one: plain(one.version) or NONE),
    ("PROTOCOL", False, lambda one: protocol(one.protocol) or NONE),
)


def table(view: SetView) -> list[str]:
    """Lines of text, as wide as they need."""
    rows = [("NAME", "ROLE", "STATE", *(heading for heading, _, _ in COLUMNS))]
    for member in view.members:
        one = member.snapshot
        facts = (NONE,) * len(COLUMNS) if one is None else tuple(value(one) for _, _, value in COLUMNS)
        rows.append((member.name, role(view, member), member.state, *facts))
    right = (False, False, False, *(at_right for _, at_right, _ in COLUMNS))
    return _aligned(rows, right)


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if at_right else text.ljust(width)
            for text, width, at_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def report(view: SetView | None, trouble: str) -> list[str]:
    """All that `ftnids status` prints; `trouble` says why no replica answers."""
    if view is None:
        return [plain(f"down: {trouble}")]
    lines = table(view)
    word = health.WORDS[health.level(view)]
    if trouble:
        lines.append(f"{word}: no replica answers, this is what the files tell; {trouble}")
    lines += [f"{word}: {problem}" for problem in health.problems(view)]
    if len(lines) == len(view.members) + 1:
        lines.append(f"{word}: cluster {view.cluster}, {len(view.members)} members in one view")
    lines += upgrading(view)
    return [plain(line) for line in lines]  # peers' texts, and nothing in them that a terminal obeys


def upgrading(view: SetView) -> list[str]:
    """A line where the members that live do not all speak the same newest protocol version; else nothing."""
    running = [one.snapshot for one in view.members if one.alive and one.snapshot is not None]
    speaks = {one.name: one.protocol.get("newest", 1) for one in running}
    newest = max(speaks.values(), default=0)
    older = [name for name, version in speaks.items() if version < newest]
    if not older:
        return []
    least = min(speaks.values())
    return [f"upgrade: the set speaks protocol {least} until {', '.join(older)}, too, can speak {newest}"]

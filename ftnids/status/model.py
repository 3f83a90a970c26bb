"""What `ftnids top` knows and what its user has chosen; keys change the choice.  No I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from ftnids import limits
from ftnids.status.columns import SORTS
from ftnids.status.rates import Histories
from ftnids.status.roster import Member, SetView
from ftnids.status.snapshot import Alert

OVERVIEW: Final = "overview"
REPLICA: Final = "replica"
ALERTS: Final = "alerts"
HELP: Final = "help"
PAGE: Final = 10  # lines that PgUp and PgDn move
LATEST: Final = 253_402_300_799.0  # the last second that a time stamp can tell: 9999-12-31T23:59:59

KEYS: Final = (
    ("q", "quit"),
    ("p", "pause"),
    ("s", "sort"),
    ("r", "replica"),
    ("a", "alerts"),
    ("h", "help"),
)
MOVES: Final = {"UP": -1, "k": -1, "DOWN": 1, "j": 1, "PPAGE": -PAGE, "NPAGE": PAGE, "HOME": -(1 << 30)}


@dataclass(frozen=True)
class Choice:
    """What the user wants to see."""

    page: str = OVERVIEW
    sort: str = next(iter(SORTS))
    replica: str = ""  # shown on the page REPLICA
    scroll: int = 0  # lines from the top of what scrolls
    paused: bool = False
    done: bool = False


def pressed(choice: Choice, key: str, names: Sequence[str]) -> Choice:
    """The choice after `key`: a character, or UP, DOWN, PPAGE, NPAGE, HOME, ESC; others change nothing.

    `names` are the members' in the order in which r goes through them.
    """
    if key in MOVES:
        return replace(choice, scroll=max(0, choice.scroll + MOVES[key]))
    match key:
        case "q":
            return replace(choice, done=True)
        case "p":
            return replace(choice, paused=not choice.paused)
        case "s":
            sorts = list(SORTS)
            return replace(choice, sort=sorts[(sorts.index(choice.sort) + 1) % len(sorts)])
        case "a" | "h" | "?":
            page = ALERTS if key == "a" else HELP
            return replace(choice, page=OVERVIEW if choice.page == page else page, scroll=0)
        case "r":
            return _next_replica(choice, names)
        case "ESC":
            return replace(choice, page=OVERVIEW, scroll=0)
    return choice


def _next_replica(choice: Choice, names: Sequence[str]) -> Choice:
    """The first replica, then the next; after the last one back to all of them."""
    place = names.index(choice.replica) + 1 if choice.page == REPLICA and choice.replica in names else 0
    if place >= len(names):
        return replace(choice, page=OVERVIEW, scroll=0)
    return replace(choice, page=REPLICA, replica=names[place], scroll=0)


class AlertLog:
    """The alerts that any member told of, each once, with its last status; the oldest go."""

    def __init__(self) -> None:
        self._alerts: OrderedDict[str, Alert] = OrderedDict()

    def add(self, alerts: Iterable[Alert]) -> None:
        """Take in what a member's snapshot has; another one may know better: confirmed holds, then retracted."""
        for alert in alerts:
            alert_id = str(alert.get("id"))
            known = self._alerts.get(alert_id)
            if known is None or _rank(alert) >= _rank(known):
                self._alerts[alert_id] = alert
        while len(self._alerts) > limits.TOP_ALERTS:
            self._alerts.popitem(last=False)

    def newest(self, now: float = 0.0) -> list[Alert]:
        """By their times, the newest first; at `now`, seconds since the epoch, what is provisional for too long is
        retracted."""
        moment = datetime.fromtimestamp(min(max(0.0, now), LATEST), UTC).isoformat(timespec="seconds")[:19]
        shown = [_lapsed(alert, moment) for alert in self._alerts.values()]
        return sorted(shown, key=lambda alert: str(alert.get("time")), reverse=True)


def _rank(alert: Alert) -> int:
    return {"provisional": 0, "retracted": 1}.get(str(alert.get("status")), 2)


def _lapsed(alert: Alert, moment: str) -> Alert:
    if alert.get("status") != "provisional" or not str(alert.get("until") or "~") < moment:
        return alert
    return {**alert, "status": "retracted"}


@dataclass
class Model:
    """What is known of the set.  `view` is None until a first one has come; `trouble` says why none comes."""

    view: SetView | None = None
    trouble: str = ""
    histories: Histories = field(default_factory=Histories)
    alerts: AlertLog = field(default_factory=AlertLog)

    def take(self, view: SetView) -> None:
        """A view has come."""
        self.view = view
        self.histories.add(view)
        for member in view.members:
            if member.snapshot is not None:
                self.alerts.add(member.snapshot.alerts)

    def members(self, sort: str) -> list[Member]:
        """In the order of `sort`."""
        if self.view is None:
            return []
        return sorted(self.view.members, key=lambda member: SORTS[sort](member, self.histories[member.name]))

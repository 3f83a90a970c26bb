"""The columns of `ftnids top`: what each shows of a replica, and when it is marked.  No state, no I/O.

A cell is a text and a style.  What is wrong is also told without the style: a number that has grown lately and should
not has a `!` behind it, and what is dead or down says so in a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ftnids.status import health
from ftnids.status.rates import History
from ftnids.status.roster import Member, SetView
from ftnids.status.snapshot import Snapshot
from ftnids.status.text import bar, count, milliseconds, percent, plain

TEXT: Final = "text"
DIM: Final = "dim"
OK: Final = "ok"
WARN: Final = "warn"
BAD: Final = "bad"
HEAD: Final = "head"
TITLE: Final = "title"
STYLES: Final = (TEXT, DIM, OK, WARN, BAD, HEAD, TITLE)

BAR: Final = 5
NEARLY: Final = 0.5  # of a ring: above, the feed lags
SLOW_MS: Final = 100.0  # a p99 above is marked
Cell = tuple[str, str]  # text, style


@dataclass(frozen=True)
class Row:
    """All that a column may look at."""

    view: SetView
    member: Member
    snapshot: Snapshot
    history: History
    ascii_only: bool = False


@dataclass(frozen=True)
class Column:
    """`value` gets a row and the column's width."""

    heading: str
    width: int
    value: Callable[[Row, int], Cell]
    right: bool = True


def state(member: Member) -> Cell:
    """What the member does, of one that is silent for how long."""
    word = member.state
    if word == "dead" and member.age_s is not None:
        return f"dead {health.silence(member.age_s)}".replace(" s", "s").replace(" min", "m").replace(" h", "h"), BAD
    return word, {"running": OK, "waiting": WARN, "starting": WARN, "ended": DIM}.get(word, BAD)


def _role(row: Row, width: int) -> Cell:
    if row.snapshot.coordinator == row.member.name:
        return "coord", TEXT
    return ("member", TEXT) if row.snapshot.coordinator else ("-", DIM)


def _counter(name: str, style: str = BAD) -> Callable[[Row, int], Cell]:
    """A counter that should stand still: marked while it grows."""

    def value(row: Row, width: int) -> Cell:
        number = row.snapshot.counters[name]
        if row.history.rate(name) > 0:
            return count(number, width - 1) + "!", style
        return count(number, width - 1) + " ", TEXT if number else DIM

    return value


def _plain_counter(name: str) -> Callable[[Row, int], Cell]:
    return lambda row, width: (count(row.snapshot.counters[name], width), TEXT)


def _rate(name: str, factor: float = 1.0, digits: bool = False) -> Callable[[Row, int], Cell]:
    def value(row: Row, width: int) -> Cell:
        rate = row.history.rate(name) * factor
        if digits and rate < 100:
            return f"{rate:.1f}", TEXT if rate else DIM
        return count(rate, width), TEXT if rate else DIM

    return value


def _desync(row: Row, width: int) -> Cell:
    level = row.snapshot.counters["desync_level"]
    return count(level, width), WARN if level else DIM


def _delay(share: float, mark: bool = False) -> Callable[[Row, int], Cell]:
    def value(row: Row, width: int) -> Cell:
        delay = row.history.delay(share)
        if delay is None:
            return "-", DIM
        return milliseconds(delay), WARN if mark and delay > SLOW_MS else TEXT

    return value


def _ring(row: Row, width: int) -> Cell:
    share = health.fill(row.snapshot)
    style = BAD if share >= health.FULL else WARN if share >= NEARLY else OK
    return f"{bar(share, BAR, row.ascii_only)} {share:>4.0%}", style


def _ids(row: Row, width: int) -> Cell:
    ids = row.snapshot.ids
    name, state_now = plain(ids.get("name", "")), plain(ids.get("state", ""))
    if not name:
        return "none", DIM
    if state_now == "reads":
        return name, TEXT
    return f"{name[:4]} {state_now}", BAD if state_now == "down" else DIM


def _mode(row: Row, width: int) -> Cell:
    return plain(row.snapshot.ids.get("mode", ""))[:width] if row.snapshot.ids.get("name") else "-", DIM


def _of_ids(name: str, style: str) -> Callable[[Row, int], Cell]:
    def value(row: Row, width: int) -> Cell:
        if not row.snapshot.ids.get("name"):
            return "-", DIM
        number = row.snapshot.ids_number(name)
        return count(number, width), style if number else DIM

    return value


CAPTURE: Final = (
    Column("ROLE", 6, _role, right=False),
    Column("PKT/S", 7, _rate("captured")),
    Column("MBIT/S", 6, _rate("captured_bytes", 8e-6, digits=True)),
    Column("KERNEL", 7, _counter("kernel_drops", WARN)),
    Column("RING", 6, _counter("ring_drops", WARN)),
    Column("RECOV", 7, _plain_counter("recovered")),
    Column("LOST", 6, _counter("lost")),
    Column("AMBIG", 5, _plain_counter("ambiguous")),
    Column("DS", 2, _desync),
)
FEED: Final = (
    Column("P50ms", 5, _delay(0.5)),
    Column("P99ms", 5, _delay(0.99, mark=True)),
    Column("RING", BAR + 5, _ring, right=False),
    Column("IDS", 9, _ids, right=False),
    Column("MODE", 4, _mode, right=False),
    Column("LAG", 6, _of_ids("lag", TEXT)),
    Column("DIED", 4, _of_ids("deaths", BAD)),
    Column("CKPT", 5, _plain_counter("checkpoints")),
    Column("BACK", 5, _plain_counter("rollbacks")),
    Column("ALERT/S", 7, _rate("alerts", digits=True)),
)
NAME_WIDTH: Final = 9
STATE_WIDTH: Final = 9

SORTS: Final[dict[str, Callable[[Member, History], tuple[float | str, ...]]]] = {
    "as configured": lambda member, history: (),
    "name": lambda member, history: (member.name,),
    "rate": lambda member, history: (-history.rate("captured"),),
    "loss": lambda member, history: (-history.loss(),),
    "lag": lambda member, history: (-_lag(member),),
    "alerts": lambda member, history: (-history.rate("alerts"),),
}


def _lag(member: Member) -> float:
    return 0.0 if member.snapshot is None else member.snapshot.ids_number("lag")


def loss(history: History) -> Cell:
    """The share that is lost now."""
    share = history.loss()
    return percent(share), WARN if share else DIM

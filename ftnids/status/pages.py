"""The other pages of `ftnids top`: one replica with all its counters, the help, and the line of an alert.  No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ftnids.status import health
from ftnids.status.columns import BAD, DIM, HEAD, OK, TEXT, WARN, Cell, state
from ftnids.status.model import Model
from ftnids.status.rates import COUNTED
from ftnids.status.snapshot import Alert, Snapshot
from ftnids.status.text import cell, count, day, plain, protocol

NARROW: Final = 100  # columns below which an alert's line leaves something out
WIDE: Final = 170  # columns from which it has the place in the stream and the id
PAIR: Final = 38  # columns of one counter on the page of a replica
SHORT: Final = {"confirmed": ("conf", OK), "provisional": ("prov", WARN), "retracted": ("RETR", BAD)}
HELP: Final = """
 q     quit                            r     one replica after the other
 p     pause; the set goes on          a     alerts on the whole screen
 s     next order of the replicas      h, ?  this page
 arrows, j, k, PgUp, PgDn, Home        scroll; Esc goes back

 STATE          running, waiting (for peers), dead (silent so long), ended, failed
 ROLE           coord: decides the order, and puts the alerts out
 KERNEL, RING   dropped by the kernel, by a full ring; ! means: growing now
 RECOV   LOST   recovered from a peer; lost by all, and in no stream
 AMBIG   DS     not to be told from a twin; by how much the window has grown
 P50ms  P99ms   from capture to stable, in the last 10 s
 RING           how full the ring of captured packets is
 IDS     MODE   what it does where it does not read; pess or opti(mistic)
 LAG     DIED   stable packets that it has not read; times that it died
 CKPT    BACK   checkpoints of the IDS; times that it was set back to one
 rate    loss   a mark a second: packets, and the share dropped wherever

 conf           confirmed: the packets of the alert are stable
 prov    RETR   provisional: they are not yet; retracted: taken back
 docs/operations.md says what to do when a counter moves.
"""


def help_lines() -> list[list[Cell]]:
    """The page of help."""
    return [[(line, TEXT)] for line in HELP.strip("\n").splitlines()]


def alert_line(alert: Alert, width: int) -> list[Cell]:
    """One alert in one line: time, status, signature, ends, who raised it."""
    status = plain(alert.get("status") or "")
    word, style = SHORT.get(status, (status[:4], TEXT))
    narrow = width < NARROW
    at = plain(str(alert.get("time") or "")[11 : 19 if narrow else 26])
    ends = plain(f"{alert.get('from') or ''} -> {alert.get('to') or ''}")
    who = "" if narrow else f"  [{plain(alert.get('replicas') or '')}]"
    who += f"  seq {plain(alert.get('seq'))}  {plain(alert.get('id') or '')}" if width >= WIDE else ""
    signature = cell(plain(alert.get("signature") or ""), max(24, width - 53 if narrow else width // 3))
    severity = alert.get("severity")
    text = DIM if status == "retracted" else BAD if severity == 1 else WARN if severity == 2 else TEXT
    return [(f"{at} ", DIM), (cell(word, 5), style), (signature, text), (f"  {ends}{who}", DIM)]


def detail(model: Model, name: str, width: int) -> list[list[Cell]]:
    """The page of one replica."""
    assert model.view is not None
    member = next((one for one in model.view.members if one.name == name), None)
    if member is None:
        return [[(f" {name} is no member any more", WARN)]]
    word, style = state(member)
    lines: list[list[Cell]] = [[(f" {member.name} ", HEAD), (word, style)]]
    one = member.snapshot
    if one is None:
        return lines
    lines += [[(line, TEXT)] for line in _facts(one)]
    if one.reason:
        lines.append([(f" reason: {plain(one.reason)}", BAD)])
    mine = (problem for problem in health.problems(model.view) if problem.startswith(f"{name}:"))
    lines += [[(f" ! {plain(problem)}", WARN)] for problem in mine]
    rates = {key: model.histories[name].rate(key) for key in COUNTED}
    lines += _block("counters, and a second now", one.counters, width, rates)
    lines += _block("set", one.set, width) if one.set else []
    lines += _block("seq", one.seq, width)
    lines += _block("IDS", {key: value for key, value in one.ids.items() if isinstance(value, int)}, width)
    lines += _block("ring", one.ring, width)
    for output, counted in one.outputs.items():
        lines += _block(plain(output), counted, width)
    lines += _block("viewers", one.viewers, width)
    return lines + _block("peers", one.peers, width)


def _facts(one: Snapshot) -> Iterator[str]:
    in_force = one.view
    yield (
        f" host {plain(one.host)}  pid {one.pid}  since {day(one.started)}  version {plain(one.version)}"
        f" ({plain(one.implementation)} core)"
    )
    yield f" captures from {plain(one.source)}  snaplen {one.snaplen}"
    members = ", ".join(map(plain, one.members)) or "none"
    yield (
        f" view {in_force.get('number', '-')} of lineage {in_force.get('lineage', '-')}"
        f"  coordinator {plain(one.coordinator) or '-'}  members {members}"
        f"  protocol {protocol(one.protocol) or '-'}"
    )
    ids = one.ids
    if ids.get("name"):
        words = (ids.get("name"), ids.get("version", ""), ids.get("state", ""), ids.get("mode", ""))
        yield f" IDS {' '.join(plain(word) for word in words if word)}"


def _block(
    title: str, numbers: Mapping[str, int | float | str], width: int, rates: Mapping[str, float] | None = None
) -> list[list[Cell]]:
    """Names and numbers in as many columns as there is room for."""
    texts = []
    for key, value in numbers.items():
        number = count(value, 15) if isinstance(value, int) else f"{value}"
        rate = (rates or {}).get(key, 0.0)
        texts.append(f" {cell(plain(key), 20)}{number:>10} {f'{count(rate, 5)}/s' if rate else '':<7}")
    columns = max(1, width // (PAIR + 1))
    rows = [texts[first : first + columns] for first in range(0, len(texts), columns)]
    return [[(f" {title}", HEAD)], *([("".join(text.ljust(PAIR + 1) for text in row), TEXT)] for row in rows)]

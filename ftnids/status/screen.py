"""`ftnids top` as lines of text with styles: what is known and chosen, and a size, make a screen.  No I/O.

A screen has at most as many lines as the terminal, each at most as wide.  From 170 columns on one table shows all;
below, there are two, one under the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ftnids.status import health
from ftnids.status.columns import (
    BAD,
    CAPTURE,
    DIM,
    FEED,
    HEAD,
    NAME_WIDTH,
    OK,
    STATE_WIDTH,
    TEXT,
    TITLE,
    WARN,
    Cell,
    Column,
    Row,
    loss,
    state,
)
from ftnids.status.model import ALERTS, HELP, KEYS, OVERVIEW, REPLICA, Choice, Model
from ftnids.status.pages import alert_line, detail, help_lines
from ftnids.status.rates import History, peak
from ftnids.status.roster import Member, SetView
from ftnids.status.text import cell, clock, count, plain, spark

Line = list[Cell]

WIDE: Final = 170  # columns from which one table holds all
LEAST_ALERTS: Final = 4  # lines of alerts that stay on the overview
LABEL: Final = 6  # of a sparkline
LEVELS: Final = (OK, WARN, BAD)


def draw(model: Model, choice: Choice, width: int, height: int, ascii_only: bool = False) -> list[Line]:
    """The screen: at most `height` lines of at most `width` columns."""
    head = [_title(model, choice, width), _health(model)]
    body_height = max(0, height - len(head) - 1)
    body = _body(model, choice, width, body_height, ascii_only)
    body = body[:body_height] + [[]] * (body_height - len(body))
    return [cut(line, width) for line in (head + body + [_keys(choice)])[:height]]


def text_of(line: Line) -> str:
    """A line without its styles."""
    return "".join(text for text, _ in line)


def cut(line: Line, width: int) -> Line:
    """The line in at most `width` columns, and whatever is in it, with nothing that a terminal obeys."""
    kept: Line = []
    for text, style in line:
        if width <= 0:
            break
        kept.append((plain(text[:width]), style))
        width -= len(text)
    return kept


# -- what every page has ----------------------------------------------------------------------------


def _title(model: Model, choice: Choice, width: int) -> Line:
    view = model.view
    if view is None:
        return [(cell(" ftnids top", width), TITLE)]
    running = sum(member.state == "running" for member in view.members)
    left = f" ftnids top  {plain(view.cluster)}  {running} of {len(view.members)} running  from {plain(view.source)}"
    order = "" if choice.sort == Choice.sort else f"by {choice.sort}  "
    right = f"{'PAUSED  ' if choice.paused else ''}{order}{clock(view.time)} "
    return [(cell(left, max(0, width - len(right) - 1)) + " " + right, TITLE)]


def _health(model: Model) -> Line:
    if model.view is None:
        return [(" " + plain(model.trouble or "waiting for a replica to answer"), BAD if model.trouble else DIM)]
    level = health.level(model.view)
    found = [*([model.trouble] if model.trouble else []), *health.problems(model.view)]
    more = f"  (and {len(found) - 1} more: r)" if len(found) > 1 else ""
    words = f": {plain(found[0])}{more}" if found else ""
    return [(f" {health.WORDS[level]}", LEVELS[level]), (words, TEXT)]


def _keys(choice: Choice) -> Line:
    line: Line = [(" ", TEXT)]
    for key, word in KEYS:
        line += [(key, HEAD), (f" {word}  ", DIM)]
    if choice.page != OVERVIEW:
        line += [("Esc", HEAD), (" back  ", DIM)]
    return [*line, ("arrows", HEAD), (" scroll", DIM)]


def _body(model: Model, choice: Choice, width: int, height: int, ascii_only: bool) -> list[Line]:
    if choice.page == HELP:
        return help_lines()[choice.scroll :]
    if choice.page == ALERTS:
        return _alerts(model, choice, width, height)
    if choice.page == REPLICA and model.view is not None:
        lines = detail(model, choice.replica, width)
        return lines[min(choice.scroll, max(0, len(lines) - height)) :]
    return _overview(model, choice, width, height, ascii_only)


# -- the overview -----------------------------------------------------------------------------------


def _overview(model: Model, choice: Choice, width: int, height: int, ascii_only: bool) -> list[Line]:
    if model.view is None:
        return []
    members = model.members(choice.sort)
    if width >= WIDE:
        lines = _wide(model, members, width, ascii_only)
    else:
        lines = _table(model, members, CAPTURE, ascii_only)
        if len(lines) * 2 + 1 + LEAST_ALERTS <= height:
            lines += _table(model, members, FEED, ascii_only, states=False)
        if len(lines) + len(members) + LEAST_ALERTS <= height:
            lines += [_sparks(member.name, model.histories[member.name], width, ascii_only) for member in members]
        elif len(lines) + 1 + LEAST_ALERTS <= height:
            lines.append(_sparks(*_worst(model, members), width, ascii_only))
    return lines + _alerts(model, choice, width, height - len(lines))


def _table(
    model: Model, members: Sequence[Member], columns: Sequence[Column], ascii_only: bool, states: bool = True
) -> list[Line]:
    heading = cell("REPLICA", NAME_WIDTH) + (f" {cell('STATE', STATE_WIDTH)}" if states else "")
    heading += "".join(" " + cell(column.heading, column.width, column.right) for column in columns)
    return [[(heading, HEAD)], *(_row(model, member, columns, ascii_only, states) for member in members)]


def _row(model: Model, member: Member, columns: Sequence[Column], ascii_only: bool, states: bool) -> Line:
    word, style = state(member)
    line: Line = [(cell(plain(member.name), NAME_WIDTH), TEXT)]
    line += [(f" {cell(word, STATE_WIDTH)}", style)] if states else []
    assert model.view is not None
    if member.snapshot is None:
        return line
    row = Row(model.view, member, member.snapshot, model.histories[member.name], ascii_only)
    for column in columns:
        text, style = column.value(row, column.width)
        line += [(" " + cell(text, column.width, column.right), style if member.alive else DIM)]
    return line


def _wide(model: Model, members: Sequence[Member], width: int, ascii_only: bool) -> list[Line]:
    """One table, with the sparklines in it."""
    lines = _table(model, members, (*CAPTURE, *FEED), ascii_only)
    each = max(8, (width - len(text_of(lines[0])) - 20) // 2)
    lines[0] = [(f"{text_of(lines[0])}  {cell('RATE', each)}  {cell('LOSS', each)}", HEAD)]
    for line, member in zip(lines[1:], members, strict=True):
        history = model.histories[member.name]
        rate = spark(history.series("captured", each), each, ascii_only=ascii_only)
        lost, style = loss(history)
        line += [("  " + rate, OK), ("  " + spark(history.losses(each), each, 0.01, ascii_only), WARN)]
        line += [(" " + lost, style)]
    return lines


def _sparks(name: str, history: History, width: int, ascii_only: bool) -> Line:
    """Rate and loss of one replica, a line."""
    each = max(4, (width - NAME_WIDTH - 2 * LABEL - 22) // 2)
    rates = history.series("captured", each)
    lost, style = loss(history)
    return [
        (cell(name, NAME_WIDTH), TEXT),
        (" rate ", DIM),
        (spark(rates, each, ascii_only=ascii_only), OK),
        (f" max {count(peak(rates), 6)}/s".ljust(13), DIM),
        (" loss ", DIM),
        (spark(history.losses(each), each, 0.01, ascii_only), WARN),
        (f" {lost}", style),
    ]


def _worst(model: Model, members: Sequence[Member]) -> tuple[str, History]:
    """The replica that loses most."""
    name = max((member.name for member in members), key=lambda one: model.histories[one].loss())
    return name, model.histories[name]


def _alerts(model: Model, choice: Choice, width: int, height: int) -> list[Line]:
    """The newest alerts, as many as fit."""
    if height < 2:
        return []
    alerts = model.alerts.newest(model.view.time if model.view else 0.0)
    first = min(choice.scroll, max(0, len(alerts) - (height - 1)))
    shown = alerts[first : first + height - 1]
    place = f" {first + 1} to {first + len(shown)} of {len(alerts)}" if alerts else " none yet"
    lines: list[Line] = [[("ALERTS", HEAD), (place, DIM), (_totals(model.view), DIM)]]
    return lines + [alert_line(alert, width) for alert in shown]


def _totals(view: SetView | None) -> str:
    """The set's counters, from whoever coordinates."""
    for member in view.members if view is not None else ():
        if member.alive and member.snapshot is not None and member.snapshot.set:
            told = member.snapshot.set
            words = ("out", "suppressed", "diverging", "provisional", "retracted")
            return "".join(f"  {word} {count(told.get(f'alerts_{word}', 0))}" for word in words)
    return ""

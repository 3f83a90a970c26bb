"""What a peer or the status socket says: any bytes become a view of the set, or a ValueError; and what shows the view.

A screen fits and moves no cursor, a report is printable, the page of metrics is made.
"""

from __future__ import annotations

from typing import Final

from ftnids.status import health, table
from ftnids.status.metrics import Exporter
from ftnids.status.model import ALERTS, OVERVIEW, REPLICA, Choice, Model
from ftnids.status.roster import Roster, SetView
from ftnids.status.screen import draw, text_of
from ftnids.status.snapshot import Snapshot

SIZES: Final = ((80, 24), (200, 30), (7, 3))


def check(data: bytes) -> None:
    """`data`: a line of the status socket, or one member's record."""
    try:
        record = Snapshot.parse(data)
    except ValueError:
        pass
    else:
        assert Snapshot.parse(record.json()) == record
        roster = Roster("office", [record.name, "b"], me=0)
        roster.own(record)
        roster.heard(1, data)
        Exporter(roster).page()
        _show(roster.view())
    try:
        view = SetView.parse(data)
    except ValueError:
        return
    _show(SetView.parse(view.json()))


def _show(view: SetView) -> None:
    model = Model()
    model.take(view)
    model.take(view.later(1.0, gone=view.source))
    for page in (OVERVIEW, REPLICA, ALERTS):
        name = view.members[0].name if view.members else ""
        for width, height in SIZES:
            lines = draw(model, Choice(page=page, replica=name), width, height)
            assert len(lines) <= height
            assert all(len(text_of(line)) <= width and text_of(line).isprintable() for line in lines)
    assert all(line.isprintable() for line in table.report(view, ""))
    assert health.level(view) in health.WORDS

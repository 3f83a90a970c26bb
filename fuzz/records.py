"""The way of an alert: an IDS's log of any bytes becomes records, ids, messages, one stream, lines.

What an IDS logs holds pieces of the traffic, which an attacker writes.  Nothing but counted refusals may come of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import gettempdir

from ftnids.alerts.dedup import Deduplicator
from ftnids.alerts.desk import Desk
from ftnids.alerts.identity import Identifier
from ftnids.alerts.outputs import Output, as_line, split
from ftnids.alerts.readers import AlertReader, EveReader, Record, SnortJsonReader
from ftnids.alerts.recent import short
from ftnids.alerts.sinks import summary
from ftnids.sync.messages import View

NAMES: list[str] = ["a", "b"]


class _Lines(Output):
    """An output that renders its records and forgets them."""

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            as_line(record)
            if record["event_type"] == "alert":
                summary(record).encode(errors="replace")
        json.dumps([short(record) for record in records], allow_nan=False)

    def close(self) -> None:
        pass


def check(data: bytes) -> None:
    """`data`: one byte that says whose log it is (even: Suricata, odd: Snort 3), then the log."""
    path = Path(gettempdir()) / f"ftnids-fuzz-{os.getpid()}.log"
    path.write_bytes(data[1:])
    kind: type[AlertReader] = SnortJsonReader if data[:1] and data[0] % 2 else EveReader
    reader = kind(path)
    try:
        _through_the_set(reader.poll(final=True))
    finally:
        reader.close()
        path.unlink()


def _through_the_set(records: list[Record]) -> None:
    """From one member to the coordinator and out."""
    identifier = Identifier("b", base_seq=5, base_us=1_700_000_000_000_000)
    output = _Lines()
    sender, coordinator = (_desk(me, output) for me in (1, 0))
    for desk in (sender, coordinator):
        desk.start(0, (0, 1), 0)
    alerts, others = split(records)
    sender.raised([identifier.identify(alert) for alert in alerts], 0)
    coordinator.raised(others, 0)
    sender.progress(1 << 40, final=True)
    for now_ns in range(0, 10 * 10**9, 10**9):
        for _, message in sender.tick(now_ns):
            for _, answer in coordinator.arrived(message, now_ns):
                sender.arrived(answer, now_ns)
        coordinator.tick(now_ns)
    coordinator.close()


def _desk(me: int, output: _Lines) -> Desk:
    def header() -> tuple[int, int, View]:
        return me, 1, View()

    return Desk(me, NAMES, header, Deduplicator(hold_ms=0), [output], [output])

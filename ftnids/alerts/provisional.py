"""Provisional alerts: put out before their packets are stable, and followed by another word.

Theory of operation.  The coordinator puts out what its own IDS raised on packets that can still change, as
*provisional*.  Each of them stays in this table until it is *confirmed*, which is the set's ordinary alert of the
same id, or *retracted*: its packet was another one, or its replica will not know any more.  Confirmed is the last word
on an id, whatever came before or comes after it.

Nothing stays open for ever.  A journal on disk holds what is open, and is written before the outputs are; a replica
that starts retracts what an earlier life left in it.  Of a replica that never comes back, a reader knows by the
record: past the time `until`, a provisional alert counts as retracted.
"""

from __future__ import annotations

import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from ftnids import log as logs
from ftnids.alerts.history import parse
from ftnids.alerts.outputs import as_line
from ftnids.alerts.readers import Record, eve_time
from ftnids.errors import ConfigError
from ftnids.limits import PROVISIONAL_BYTES, PROVISIONAL_OPEN, PROVISIONAL_S
from ftnids.log import get

log = get("alerts")
JOURNAL: Final = "provisional.jsonl"  # in the log directory
_CLOSED: Final = "closed"  # the key of a line that says which are open no more
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Provisional:
    """The alerts of this replica that are out as provisional, and open.

    `journal` is a file of mode 0600, made anew where it is not there.  Those that are open last for PROVISIONAL_S and
    `hold_ms`, and are at most `table`.  Times are int ns on any clock that does not step; `wall_ns` tells the time
    of day.  ConfigError when the journal cannot be written.
    """

    def __init__(
        self,
        journal: Path,
        *,
        hold_ms: int = 0,
        table: int = PROVISIONAL_OPEN,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.alerts_provisional = 0
        self.alerts_retracted = 0
        self._lasts_ns = int(PROVISIONAL_S * 1e9) + hold_ms * 1_000_000
        self._table, self._wall_ns, self._path = table, wall_ns, journal
        self._limiter = logs.Limiter()
        self._open: OrderedDict[str, tuple[Record, int, int]] = OrderedDict()  # with when it is overdue, and bytes
        self._bytes = 0
        self._closed: OrderedDict[str, None] = OrderedDict()  # ids that were retracted: provisional only once
        try:
            self._fd = os.open(journal, _FLAGS, 0o600)
            self._left = _open_in(self._fd)
        except OSError as error:
            raise ConfigError(f"alerts.provisional: cannot write {journal}: {error.strerror}") from None
        self._written = os.fstat(self._fd).st_size

    def left(self, known: Collection[str]) -> list[Record]:
        """To be put out at the start, before anything else: what an earlier life left open is retracted, but for the
        ids in `known`, which are out for good.  Call `forget_left` when it is out."""
        self._left = [record for record in self._left if record["ftnids"]["id"] not in known]
        return [self._retracted(record, "restart") for record in self._left]

    def forget_left(self) -> None:
        """What was `left` is out."""
        self.alerts_retracted += len(self._left)
        self._left = []
        self._tidy()

    def publish(self, alerts: Sequence[Record], now_ns: int) -> list[Record]:
        """To be put out: those of the alerts that were not provisional before, and find room."""
        until = eve_time((self._wall_ns() + self._lasts_ns) // 1_000)
        fresh: dict[str, tuple[Record, bytes]] = {}
        size = self._bytes
        for alert in alerts:
            alert_id = alert["ftnids"]["id"]
            if alert_id in self._open or alert_id in self._closed or alert_id in fresh:
                continue
            record = {**alert, "ftnids": {**alert["ftnids"], "status": "provisional", "until": until}}
            line = as_line(record)
            size += len(line)
            if len(self._open) + len(fresh) >= self._table or size > PROVISIONAL_BYTES:
                self._say("full", "too many provisional alerts are open: more come when they are confirmed", "")
                break
            fresh[alert_id] = record, line
        if not fresh or not self._write(b"".join(line for _, line in fresh.values())):
            return []
        for alert_id, (record, line) in fresh.items():
            self._open[alert_id] = record, now_ns + self._lasts_ns, len(line)
            self._bytes += len(line)
        self.alerts_provisional += len(fresh)
        return [record for record, _ in fresh.values()]

    def confirmed(self, ids: Iterable[str]) -> None:
        """These are out as confirmed."""
        self._close([one for one in ids if one in self._open])

    def retract(self, ids: Iterable[str], why: str) -> list[Record]:
        """To be put out: those of `ids` that are open are retracted.  Call `retracted` when that is out."""
        return [self._retracted(self._open[one][0], why) for one in ids if one in self._open]

    def retracted(self, records: Sequence[Record]) -> None:
        """These retractions are out."""
        ids = [record["ftnids"]["id"] for record in records]
        for one in ids:
            self._closed[one] = None
        while len(self._closed) > self._table:
            self._closed.popitem(last=False)
        self.alerts_retracted += len(ids)
        self._close(ids)

    def overdue(self, now_ns: int) -> list[str]:
        """The ids of those that were open for too long."""
        found = []
        for alert_id, (_, due_ns, _) in self._open.items():  # oldest first
            if due_ns > now_ns:
                break
            found.append(alert_id)
        return found

    def ids(self) -> list[str]:
        """Those that are open, oldest first."""
        return list(self._open)

    def close(self) -> None:
        """The last call; what is open then is retracted at the next start."""
        os.close(self._fd)

    @staticmethod
    def _retracted(record: Record, why: str) -> Record:
        identity = {**record["ftnids"], "status": "retracted", "why": why}
        identity.pop("until", None)
        return {**record, "ftnids": identity}

    # -- the journal ------------------------------------------------------------------------------

    def _close(self, ids: Sequence[str]) -> None:
        for one in ids:
            self._bytes -= self._open.pop(one)[2]
        if ids and self._open:
            self._write(json.dumps({_CLOSED: ids}).encode() + b"\n")
        if ids:
            self._tidy()

    def _write(self, data: bytes) -> bool:
        """Append it as a whole, or nothing; whether it is there."""
        try:
            if os.write(self._fd, data) < len(data):
                raise OSError(0, "no room for all of it")
        except OSError as error:
            os.ftruncate(self._fd, self._written)
            event = "provisional alerts held back: their journal cannot be written"
            self._say("journal", event, error.strerror or str(error))
            return False
        self._written += len(data)
        return True

    def _tidy(self) -> None:
        """Empty the journal where nothing is open, and make it anew where it has grown."""
        if self._left or not self._written:
            return
        if not self._open:
            os.ftruncate(self._fd, 0)
            self._written = 0
        elif self._written > 2 * PROVISIONAL_BYTES:
            self._renew()

    def _renew(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        try:
            fd = os.open(temporary, _FLAGS | os.O_EXCL, 0o600)
        except OSError as error:
            self._say("journal", "journal of provisional alerts not made anew", error.strerror or str(error))
            return
        data = b"".join(as_line(record) for record, _, _ in self._open.values())
        try:
            if os.write(fd, data) < len(data):
                raise OSError(0, "no room for all of it")
            temporary.replace(self._path)
        except OSError as error:
            os.close(fd)
            temporary.unlink(missing_ok=True)
            self._say("journal", "journal of provisional alerts not made anew", error.strerror or str(error))
            return
        os.close(self._fd)
        self._fd, self._written = fd, len(data)

    def _say(self, kind: str, event: str, reason: str) -> None:
        self._limiter.log(log, "warning", kind, event, path=str(self._path), open=len(self._open), reason=reason)


def _open_in(fd: int) -> list[Record]:
    """What an earlier life left open, of the newest bytes of a journal; a line that is none is left out."""
    size = os.fstat(fd).st_size
    start = max(0, size - 4 * PROVISIONAL_BYTES)
    found: OrderedDict[str, Record] = OrderedDict()
    for line in os.pread(fd, size - start, start).split(b"\n"):
        if (record := parse(line)) is not None and isinstance(alert_id := record["ftnids"].get("id"), str):
            found[alert_id] = record
            continue
        try:
            closed = json.loads(line)[_CLOSED]
            for one in closed if isinstance(closed, list) else ():
                found.pop(str(one), None)
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    if size and os.pread(fd, 1, size - 1) != b"\n":
        os.write(fd, b"\n")
    return list(found.values())[-PROVISIONAL_OPEN:]

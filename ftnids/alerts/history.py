"""Reads back the set's alerts from a JSON lines output and from what rotation made of it."""

from __future__ import annotations

import gzip
import heapq
import json
import re
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from ftnids.alerts.readers import Record, eve_time
from ftnids.limits import ALERT_TABLE, MAX_LOG_LINE

OPEN: Final = "provisional"  # a status after which another one comes
RETRACTED: Final = "retracted"  # one after which `confirmed` may still come
_RANKS: Final = {OPEN: 0, RETRACTED: 1}


def rank(status: object) -> int:
    """Of two words on one alert that of higher rank holds, whichever came first.  Confirmed has the highest."""
    return _RANKS.get(str(status), 2)


def lapsed(record: Record, now_us: int) -> Record | None:
    """A provisional alert that had no other word in its time, as retracted; None where it is none, or has time yet."""
    identity = record["ftnids"]
    if identity.get("status") != OPEN or not str(identity.get("until", "~")) < eve_time(now_us):
        return None
    return {**record, "ftnids": {**identity, "status": RETRACTED, "why": "time"}}


def files_of(path: Path) -> list[Path]:
    """`path` and its rotated files that are there, oldest first: path.2.gz, path.1, path."""
    number = re.compile(re.escape(path.name) + r"\.(\d+)(\.gz)?")
    rotated = [(int(found[1]), one) for one in _beside(path) if (found := number.fullmatch(one.name))]
    return [one for _, one in sorted(rotated, reverse=True)] + ([path] if path.exists() else [])


def _beside(path: Path) -> list[Path]:
    return list(path.parent.iterdir()) if path.parent.is_dir() else []


def parse(line: bytes) -> Record | None:
    """The alert in a line; None where it is none, as after a writer was killed in the middle of one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("ftnids"), dict):
        return None
    return record if isinstance(record.get("alert"), dict) else None


def alerts(paths: Sequence[Path]) -> Iterator[Record]:
    """The alerts of several outputs by their times, each once, with its last status; one that stayed provisional for
    too long is retracted.

    The files are read twice, and not held in memory.
    """
    last = _last_statuses(paths)
    once = Once()
    for record in heapq.merge(*(_records(path) for path in paths), key=lambda one: str(one.get("timestamp", ""))):
        identity = record["ftnids"]
        holds = last.get(str(identity.get("id")), OPEN)
        # What holds by now may have come since the first reading: then the other word is left out.
        if rank(identity.get("status")) >= rank(holds) and not once.known(record) and once.new(record):
            yield lapsed(record, time.time_ns() // 1_000) or record


class Once:
    """Tells whether an alert in this status was there before; of the newest ALERT_TABLE alerts."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, str] = OrderedDict()

    def known(self, record: Record) -> bool:
        """Whether it was there before, in whatever status."""
        return str(record["ftnids"].get("id")) in self._seen

    def new(self, record: Record) -> bool:
        """Whether it says anything new; to be asked once of each record, in order."""
        alert_id, status = str(record["ftnids"].get("id")), str(record["ftnids"].get("status"))
        before = self._seen.get(alert_id)
        if before is not None and rank(status) <= rank(before):
            return False
        self._seen[alert_id] = status
        self._seen.move_to_end(alert_id)
        if len(self._seen) > ALERT_TABLE:
            self._seen.popitem(last=False)
        return True


def _last_statuses(paths: Sequence[Path]) -> dict[str, str]:
    """By id, the status that holds of alerts that were provisional or retracted; of the newest ALERT_TABLE such."""
    last: OrderedDict[str, str] = OrderedDict()
    for path in paths:
        for line in _lines(path):
            if not last and b'"provisional"' not in line and b'"retracted"' not in line:
                continue
            record = parse(line)
            if record is None:
                continue
            alert_id, status = str(record["ftnids"].get("id")), str(record["ftnids"].get("status"))
            known = last.get(alert_id)
            if (known is None and rank(status) < 2) or (known is not None and rank(status) > rank(known)):
                last[alert_id] = status
                if len(last) > ALERT_TABLE:
                    last.popitem(last=False)
    return last


def _records(path: Path) -> Iterator[Record]:
    return (record for record in map(parse, _lines(path)) if record is not None)


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of an output and its rotated files; one that goes meanwhile, or is damaged, ends where it does."""
    for one in files_of(path):
        try:
            with gzip.open(one) if one.suffix == ".gz" else one.open("rb") as file:
                yield from _short_lines(iter(lambda file=file: file.readline(MAX_LOG_LINE), b""))  # type: ignore[misc]
        except (FileNotFoundError, EOFError, gzip.BadGzipFile, zlib.error):
            continue


def _short_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Whole lines alone; one that is too long comes in pieces, and is left out."""
    inside = False
    for piece in pieces:
        whole = not inside
        inside = len(piece) == MAX_LOG_LINE and not piece.endswith(b"\n")
        if whole and not inside:
            yield piece

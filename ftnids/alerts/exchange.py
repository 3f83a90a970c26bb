"""How alerts get from each member to the coordinator, which puts them out.

Theory of operation.  A member cuts what its IDS raised into numbered batches and sends them to
the coordinator until they are acknowledged; a few may be under way at once.  Every message tells
how far the member's IDS has been fed, whether it can write its log (else it is mute), and, when all batches
are made, that the IDS has ended.  The
coordinator takes the batches of a member in order, once, and answers with the number it wants
next.  Messages may be lost, repeated or overtaken; a restarted member (another incarnation) counts
from 0 again, and so does every member towards a new coordinator.

No sockets or clocks in here: `outgoing` says what to send, `arrived` takes what came.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ftnids.alerts.readers import Record
from ftnids.limits import ALERT_KEPT_BYTES, ALERT_WAITING_BYTES, MAX_ALERT_BATCH
from ftnids.sync.messages import Alert, View

KEPT_NS: Final = 3_000_000_000  # acknowledged alerts are kept that long, for a coordinator that dies with them
RESEND_NS: Final = 200_000_000
PROGRESS_NS: Final = 200_000_000
WINDOW: Final = 4  # batches under way

Header = Callable[[], tuple[int, int, View]]  # sender, incarnation, view: what every message carries


def _batches(records: Sequence[Record]) -> list[bytes]:
    """Records as JSON arrays of at most MAX_ALERT_BATCH bytes (a larger record goes alone)."""
    batches: list[bytes] = []
    lines: list[bytes] = []
    size = 2
    for record in records:
        line = json.dumps(record, separators=(",", ":")).encode()
        if lines and size + len(line) + 1 > MAX_ALERT_BATCH:
            batches.append(b"[" + b",".join(lines) + b"]")
            lines, size = [], 2
        lines.append(line)
        size += len(line) + 1
    if lines:
        batches.append(b"[" + b",".join(lines) + b"]")
    return batches


class Sender:
    """A member's side: what its IDS raised, on its way to the coordinator."""

    def __init__(self, header: Header) -> None:
        self.mute = False  # the IDS cannot write its log
        self._header = header
        self._waiting: dict[int, bytes] = {}  # not acknowledged, by number
        self._waiting_bytes = 0
        self._kept: deque[tuple[int, bytes]] = deque()  # acknowledged, with the time
        self._kept_bytes = 0
        self._now_ns = 0
        self._sent_ns: dict[int, int] = {}
        self._next = 0
        self._fed = 0
        self._final = False
        self._final_acked = False
        self._told_ns = -PROGRESS_NS
        self._told = (-1, False, False)  # fed, final, mute

    @property
    def done(self) -> bool:
        """Whether the coordinator has everything, the end included."""
        return self._final_acked

    @property
    def full(self) -> bool:
        """So much waits for the coordinator that no more should be `raised`."""
        return self._waiting_bytes >= ALERT_WAITING_BYTES

    def raised(self, records: Sequence[Record]) -> None:
        """The IDS raised these."""
        for batch in _batches(records):
            self._waiting[self._next] = batch
            self._waiting_bytes += len(batch)
            self._next += 1

    def progress(self, fed: int, *, final: bool = False) -> None:
        """The IDS has been given all below seq `fed`; `final`: it has ended and raised its last alert."""
        self._fed = max(self._fed, fed)
        self._final = self._final or final

    def acknowledged(self, answer: Alert) -> None:
        """The coordinator wants batch `answer.acked` next."""
        for number in [n for n in self._waiting if n < answer.acked]:
            batch = self._waiting.pop(number)
            self._waiting_bytes -= len(batch)
            self._kept.append((self._now_ns, batch))
            self._kept_bytes += len(batch)
            self._sent_ns.pop(number, None)
        if answer.final and answer.acked >= self._next:
            self._final_acked = True

    def again(self, *, lost: bool) -> list[bytes]:
        """There is another coordinator: send it what the last one did not take, and if that is `lost`, what it may
        have died with; returns those batches.  It has taken none from here, so their numbers begin with 0 again.
        """
        batches = [batch for _, batch in self._kept if lost] + [self._waiting[n] for n in sorted(self._waiting)]
        self._kept.clear()
        self._waiting = dict(enumerate(batches))
        self._waiting_bytes, self._kept_bytes = sum(map(len, batches)), 0
        self._next = len(batches)
        self._sent_ns.clear()
        self._final_acked, self._told = False, (-1, False, False)
        return batches

    def outgoing(self, now_ns: int) -> list[Alert]:
        """Messages to the coordinator that are due."""
        self._now_ns = now_ns
        while self._kept and (now_ns - self._kept[0][0] > KEPT_NS or self._kept_bytes > ALERT_KEPT_BYTES):
            self._kept_bytes -= len(self._kept.popleft()[1])
        out = []
        for number in sorted(self._waiting)[:WINDOW]:
            if now_ns - self._sent_ns.get(number, -RESEND_NS) >= RESEND_NS:
                self._sent_ns[number] = now_ns
                out.append(self._message(number, self._waiting[number]))
        told = (self._fed, self._final, self.mute)
        stale = now_ns - self._told_ns >= PROGRESS_NS
        if not self._waiting and not self._final_acked and stale and (told != self._told or self._final):
            self._told, self._told_ns = told, now_ns
            out.append(self._message(self._next, b"[]"))
        return out

    def _message(self, number: int, records: bytes) -> Alert:
        sender, incarnation, view = self._header()
        last = number + (records != b"[]") >= self._next
        final = self._final and last
        return Alert(
            sender, incarnation, view, number=number, fed=self._fed, final=final, mute=self.mute, records=records
        )


@dataclass(slots=True)
class _Source:
    incarnation: int
    wanted: int = 0
    final: bool = False
    mute: bool = False


@dataclass(slots=True)
class Arrival:
    """What one message told the coordinator."""

    records: list[Record]
    fed: int
    final: bool
    mute: bool
    answer: Alert


class Receiver:
    """The coordinator's side: each member's batches in order, once."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._sources: dict[int, _Source] = {}
        self.invalid = 0  # messages whose records are no JSON array of alert records

    def final(self, member: int) -> bool:
        """Whether `member` said its last word."""
        return member in self._sources and self._sources[member].final

    def arrived(self, message: Alert) -> Arrival:
        """Take in a member's message; its records come back only the first time."""
        source = self._sources.get(message.sender)
        if source is None or message.incarnation > source.incarnation:
            source = self._sources[message.sender] = _Source(message.incarnation)
        records: list[Record] = []
        if message.records != b"[]" and message.number == source.wanted:
            records = self._parse(message.records)
            source.wanted += 1
        known = message.number <= source.wanted
        if known:
            source.final, source.mute = source.final or message.final, message.mute
        me, incarnation, view = self._header()
        answer = Alert(me, incarnation, view, acked=source.wanted, final=source.final)
        return Arrival(records, message.fed if known else 0, source.final, source.mute, answer)

    def _parse(self, data: bytes) -> list[Record]:
        try:
            records = json.loads(data)
            if not isinstance(records, list):
                raise TypeError("no array")
            good = [r for r in records if isinstance(r, dict) and isinstance(r["ftnids"]["id"], str)]
        except (ValueError, TypeError, KeyError, RecursionError):
            self.invalid += 1
            return []
        self.invalid += len(good) != len(records)
        return good

"""One alert out of a set, however many replicas raised it.

Every replica's IDS is fed the same packets, so every replica raises the same alerts, with the same
ids (`ftnids.alerts.identity`) and at slightly different moments.  `Deduplicator` is the coordinator's
table of them.  It holds no clock, file or thread: records and times go in, records to put out
come back.

An alert goes out once, when every live member's IDS has raised it, or `hold_ms` after its
first copy.  What comes later is *suppressed*.  A live member whose IDS is past the alert's packet
(or has ended) and stayed silent for DIVERGENCE_MS makes the alert *diverging*: it is counted, told in
the log, and marked in the record when it is known before the record goes out.  An alert that only cold
IDSs raised, those restarted in mid-stream, waits for the word of one that is not; when that one is silent, the
alert comes from the missing memory of an older flow, and is dropped and counted as `unconfirmed`.  An IDS that
could not write its log when it saw the packet, a *mute* one, contradicts nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ftnids import log as logs
from ftnids.alerts.readers import Record
from ftnids.limits import ALERT_TABLE, DIVERGENCE_MS
from ftnids.log import get

MS: int = 1_000_000  # ns

log = get("alerts")


@dataclass(slots=True)
class _Member:
    """What is known of one live member's IDS."""

    fed: int = 0  # seq: it has been given all below
    ended: bool = False
    cold: bool = False  # its last alert said so
    mute: bool = False  # it cannot write its log
    mute_below: int = -1  # seq: what it raised on packets below may be lost


@dataclass(slots=True)
class _Entry:
    """One alert: who raised it, and what has become of it."""

    record: Record | None  # None once it is out
    first_ns: int
    behind: int  # seq: an IDS that was fed past this has seen the alert's packet
    holders: set[str] = field(default_factory=set)
    warm: bool = False  # raised by an IDS that has seen the flow from its start
    passed_ns: dict[str, int] = field(default_factory=dict)  # silent members, since when they are past it


class Deduplicator:
    """The table of a set's alerts.

    `known` are ids that are already in the output, from an earlier life of this process or from the coordinator
    before; such alerts are suppressed.  Times are int nanoseconds on any clock that does not step.
    """

    def __init__(self, *, hold_ms: int, known: Iterable[str] = (), table: int = ALERT_TABLE) -> None:
        self.hold_ns = hold_ms * MS
        self.alerts_out = 0
        self.alerts_suppressed = 0
        self.alerts_diverging = 0
        self.alerts_unconfirmed = 0  # raised by cold IDSs only
        self._limiter = logs.Limiter()
        self._diverged = 0  # since the last word of it in the log
        self._first_diverged = ""
        self._unconfirmed = 0
        self.alerts_hurried = 0  # put out before their time: the table was full
        self._hurried = 0
        self._table = table
        self._members: dict[str, _Member] = {}
        self._open: dict[str, _Entry] = {}  # waiting to go out, or for the silent members
        self._done: OrderedDict[str, None] = OrderedDict()
        self.mark_out(known)

    def set_members(self, live: Iterable[str]) -> None:
        """The live members that run an IDS; the others are waited for no longer."""
        live = list(live)
        self._members = {name: self._members.get(name, _Member()) for name in live}

    def progress(self, member: str, fed: int, *, ended: bool = False) -> None:
        """A live member's IDS has been given all below seq `fed`, and has ended if so said."""
        if member in self._members:
            state = self._members[member]
            state.fed = max(state.fed, fed)
            state.ended = state.ended or ended

    def muted(self, member: str, mute: bool) -> None:
        """Whether a live member's IDS cannot write its log; after the `progress` that it made until then."""
        if member in self._members:
            state = self._members[member]
            if mute or state.mute:
                state.mute_below = max(state.mute_below, state.fed)
            state.mute = mute

    def add(self, member: str, records: Sequence[Record], now_ns: int) -> list[Record]:
        """Alerts that `member` raised; returns those that all live members have raised by now."""
        out = []
        for record in records:
            out += self._take(member, record, now_ns)
        return out

    def tick(self, now_ns: int) -> list[Record]:
        """What is to be put out by the passing of time; to be called every 100 ms or so."""
        out = []
        for alert_id, entry in list(self._open.items()):
            self._watch(entry, now_ns)
            decided = len(self._passed(entry, now_ns)) == len(self._silent(entry))
            if decided or (entry.warm and now_ns - entry.first_ns >= self.hold_ns):
                out += self._release(entry)
            if decided:
                self._settle(alert_id, entry)
        self._tell()
        return out

    def finish(self) -> list[Record]:
        """All that is still held: the members have ended, or this process is about to."""
        out = []
        for alert_id, entry in list(self._open.items()):
            out += self._release(entry)
            self._settle(alert_id, entry)
        self._tell(last=True)
        return out

    def mark_out(self, ids: Iterable[str]) -> None:
        """Alerts that another coordinator has put out."""
        for alert_id in ids:
            self._open.pop(alert_id, None)
            self._remember(alert_id)

    def knows(self, alert_id: str) -> bool:
        """Whether a live member has raised it for good, or it is out."""
        return alert_id in self._open or alert_id in self._done

    def is_out(self, alert_id: str) -> bool:
        """Whether it is out, or nothing will come of it."""
        return alert_id in self._done

    def taken_back(self, alerts: int) -> None:
        """So many of the alerts handed out did not go out after all: another coordinator had put them out."""
        self.alerts_out -= alerts
        self.alerts_suppressed += alerts

    def _take(self, member: str, record: Record, now_ns: int) -> list[Record]:
        identity = record["ftnids"]
        alert_id = identity["id"]
        state = self._members.get(member, _Member())
        state.cold = bool(identity.get("cold"))
        if alert_id in self._done:
            self.alerts_suppressed += 1
            return []
        out = []
        entry = self._open.get(alert_id)
        if entry is None:
            out = self._make_room()
            behind = state.fed if identity["seq"] is None else identity["seq"] + 1
            entry = self._open[alert_id] = _Entry(record, now_ns, behind)
        else:
            self.alerts_suppressed += 1
        entry.holders.add(member)
        entry.passed_ns.pop(member, None)
        entry.warm = entry.warm or not identity.get("cold")
        if not self._silent(entry):
            out += self._release(entry)
            self._settle(alert_id, entry)
        return out

    def _make_room(self) -> list[Record]:
        """At the table's limit the oldest waits no longer."""
        if len(self._open) < self._table:
            return []
        self._hurried += 1
        self.alerts_hurried += 1
        alert_id, entry = next(iter(self._open.items()))
        out = self._release(entry)
        self._settle(alert_id, entry)
        return out

    def _silent(self, entry: _Entry) -> list[str]:
        return [name for name in self._members if name not in entry.holders]

    def _watch(self, entry: _Entry, now_ns: int) -> None:
        for name in self._silent(entry):
            state = self._members[name]
            if state.ended or state.fed >= entry.behind > 0:
                entry.passed_ns.setdefault(name, now_ns)

    def _passed(self, entry: _Entry, now_ns: int) -> list[str]:
        """The live members that will never raise this alert."""
        return [
            name
            for name in self._silent(entry)
            if name in entry.passed_ns
            and (self._members[name].ended or now_ns - entry.passed_ns[name] >= DIVERGENCE_MS * MS)
        ]

    def _release(self, entry: _Entry) -> list[Record]:
        """The record as it goes out, or nothing when it is out already or nobody confirms it."""
        record, entry.record = entry.record, None
        if record is None:
            return []
        silent = [name for name in self._silent(entry) if name in entry.passed_ns]
        if not entry.warm and any(self._contradicts(name, entry) for name in silent):
            self.alerts_unconfirmed += 1
            self._unconfirmed += 1
            return []
        self.alerts_out += 1
        identity = {**record["ftnids"], "replicas": sorted(entry.holders)}
        identity.pop("cold", None)
        if silent:
            identity["silent"] = sorted(silent)
        return [{**record, "ftnids": identity}]

    def _contradicts(self, name: str, entry: _Entry) -> bool:
        """Whether the silence of a member that is past the alert's packet says that there was nothing to raise."""
        state = self._members[name]
        return not (state.cold or state.mute or entry.behind <= state.mute_below)

    def _settle(self, alert_id: str, entry: _Entry) -> None:
        """Nothing more can come of this alert: tell a divergence, keep the id."""
        del self._open[alert_id]
        self._remember(alert_id)
        silent = [name for name in self._silent(entry) if name in entry.passed_ns]
        if silent and entry.warm:
            self.alerts_diverging += 1
            if not self._diverged:
                self._first_diverged = f"{alert_id} raised by {' '.join(sorted(entry.holders))}, not {' '.join(silent)}"
            self._diverged += 1

    def _tell(self, *, last: bool = False) -> None:
        """One line of each kind in LOG_REPEAT_S, however many alerts it is about; the `last` says what is left."""
        if self._diverged and self._due("diverged", last):
            event = "alerts that only some replicas raised"
            log.warning(event, count=self._diverged, first=self._first_diverged)
            self._diverged = 0
        if self._unconfirmed and self._due("unconfirmed", last):
            event = "alerts of a restarted IDS that no other confirms: not put out"
            log.warning(event, count=self._unconfirmed, alerts_unconfirmed=self.alerts_unconfirmed)
            self._unconfirmed = 0
        if self._hurried and self._due("hurried", last):
            log.warning(
                "more alerts wait for the other replicas than the table holds; the oldest went out",
                count=self._hurried,
                table=self._table,
                setting="alerts.hold_ms",
            )
            self._hurried = 0

    def _due(self, kind: str, last: bool) -> bool:
        return last or self._limiter.admit(kind) is not None

    def _remember(self, alert_id: str) -> None:
        self._done[alert_id] = None
        self._done.move_to_end(alert_id)
        while len(self._done) > self._table:
            self._done.popitem(last=False)

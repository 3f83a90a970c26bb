"""One replica's alerts: from its IDS to the coordinator, and on the coordinator out of the set.

Every replica reads what its IDS raised and gives each alert its id.  A member sends its alerts to the
coordinator; the coordinator puts its own and theirs through the `Deduplicator` and writes what comes
out.  Other EVE records (dns, http, flow, ...) leave the set once, too: the coordinator's copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from ftnids.alerts.dedup import MS, Deduplicator
from ftnids.alerts.exchange import Header, Receiver, Sender
from ftnids.alerts.outputs import Output, split
from ftnids.alerts.provisional import Provisional
from ftnids.alerts.readers import Record
from ftnids.counters import SET
from ftnids.limits import ALERT_BACKLOG, DOUBT_MS, LEAVER_MS, STALL_MS
from ftnids.sync.messages import Alert

Send = tuple[int, Alert]


class Desk:
    """What one replica does with alerts.

    `names` are the configured members' names; `outputs` take alerts, `eve_outputs` other records.  Times
    are int ns on any clock that does not step.

    A coordinator that did nothing for `stall_ms` (it was stopped, or the whole machine was) may have been replaced
    meanwhile, without having heard of it yet.  For DOUBT_MS it puts nothing out; what it then still has to put
    out, it looks up first.

    With a table of `provisional` alerts the coordinator also puts out what its own IDS raised on packets that can still
    change (`guessed`), and what becomes of it.  That goes past the de-duplication: the set's alerts are the same with
    it and without.
    """

    def __init__(
        self,
        me: int,
        names: Sequence[str],
        header: Header,
        deduplicator: Deduplicator,
        outputs: Sequence[Output],
        eve_outputs: Sequence[Output],
        known: Callable[[], Iterable[str]] = tuple,
        stall_ms: int = STALL_MS,
        provisional: Provisional | None = None,
    ) -> None:
        self._me = me
        self._names = names
        self._dedup = deduplicator
        self._outputs = outputs
        self._eve_outputs = eve_outputs
        self._known = known  # ids that others have put out since this was asked last
        self._provisional = provisional
        self._header = header
        self._sender = Sender(header)
        self._receiver = Receiver(header)
        self._coordinator: int | None = None
        self._others: tuple[int, ...] = ()
        self._final = False
        self._mute = False
        self._stall_ns = stall_ms * MS
        self._seen_ns = 0  # when this desk was busy last
        self._doubt_ns = 0  # until when it may have been replaced; 0: no doubt
        self._doubted: list[Record] = []  # what would have gone out since
        self.leaver: int | None = None  # the last coordinator, while it may still put out what it has taken and raised
        self.alerts = 0  # raised by this replica's IDS

    def start(self, coordinator: int, members: Sequence[int], now_ns: int, left: Sequence[int] = ()) -> None:
        """A view begins: who puts alerts out, and whose alerts count.

        Where it is another coordinator than before, everyone sends again what the last one may have died
        with, unless it is among those that `left` in order: they put out what they have taken.  What it did put
        out is known from the output, where that can be read here.  One that left has still some to put out, of packets
        whose alerts this replica's IDS may raise only now: until it is gone (`departed`; LEAVER_MS), none go out.
        """
        before, self._coordinator = self._coordinator, coordinator
        self._seen_ns = now_ns
        self._others = tuple(m for m in members if m != coordinator)
        again = self._sender.again(lost=before not in left) if before not in (None, coordinator) else []
        if coordinator == self._me:
            if before != self._me:
                self._receiver = Receiver(self._header)
            self._dedup.set_members([self._names[m] for m in members])
            self._dedup.muted(self._names[self._me], self._mute)
            self._look_up()
            if before in left and before != self._me:
                self.leaver, self._doubt_ns = before, now_ns + LEAVER_MS * MS
            for batch in again:
                self._put_out(self._dedup.add(self._names[self._me], json.loads(batch), now_ns))
        elif self._provisional is not None:
            self._retract(self._provisional.ids(), "lead")

    def departed(self) -> None:
        """The `leaver` has put out its last."""
        self.leaver = None
        if self._doubt_ns:
            self._decide_doubt()

    @property
    def _leads(self) -> bool:
        return self._coordinator == self._me

    def raised(self, records: Sequence[Record], now_ns: int) -> None:
        """This replica's IDS logged `records`, alerts with their ids among them."""
        self._awake(now_ns)
        alerts, others = split(records)
        self.alerts += len(alerts)
        if self._leads:
            self._put_out(self._dedup.add(self._names[self._me], alerts, now_ns))
            if others:
                for output in self._eve_outputs:
                    output.write(others)
        else:
            self._sender.raised(alerts)

    @property
    def guesses(self) -> bool:
        """Whether this desk puts out what is `guessed`, now."""
        return self._provisional is not None and self._leads and not self._doubt_ns

    def guessed(self, alerts: Sequence[Record], withdrawn: Sequence[str], now_ns: int) -> None:
        """This replica's IDS, which runs ahead, raised `alerts` and has taken back those with the ids `withdrawn`."""
        if self._provisional is None or not self.guesses:
            return
        self._retract([one for one in withdrawn if not self._dedup.knows(one)], "rollback")
        fresh = [a for a in alerts if not ("cold" in a["ftnids"] or self._dedup.is_out(a["ftnids"]["id"]))]
        if out := self._provisional.publish(fresh, now_ns):
            self._write(out)

    @property
    def full(self) -> bool:
        """The coordinator does not take this replica's alerts: until it does, none should be `raised`."""
        return not self._leads and self._sender.full

    def progress(self, fed: int, *, final: bool = False) -> None:
        """This replica's IDS has been given all below seq `fed`; `final`: it has ended."""
        self._final = self._final or final
        if self._leads:
            self._dedup.progress(self._names[self._me], fed, ended=final)
        else:
            self._sender.progress(fed, final=final)

    def muted(self, mute: bool) -> None:
        """This replica's IDS cannot write its log, or can again: what it does not raise meanwhile says nothing."""
        self._mute = self._sender.mute = mute
        if self._leads:
            self._dedup.muted(self._names[self._me], mute)

    def arrived(self, message: Alert, now_ns: int) -> list[Send]:
        """An ALERT message: alerts of a member, or the coordinator's answer to mine."""
        self._awake(now_ns)
        if message.sender == self._coordinator:
            self._sender.acknowledged(message)
            return []
        if not self._leads:
            return []
        came = self._receiver.arrived(message)
        name = self._names[message.sender]
        self._put_out(self._dedup.add(name, came.records, now_ns))
        self._dedup.progress(name, came.fed, ended=came.final)
        self._dedup.muted(name, came.mute)
        return [(message.sender, came.answer)]

    def tick(self, now_ns: int) -> list[Send]:
        """Messages that are due; on the coordinator, alerts whose time has come go out."""
        if self._coordinator is None:
            return []
        self._awake(now_ns)
        if self._leads:
            if self._doubt_ns and now_ns >= self._doubt_ns:
                self.departed()
            self._put_out(self._dedup.tick(now_ns))
            if self._provisional is not None:
                self._retract(self._provisional.overdue(now_ns), "time")
            return []
        return [(self._coordinator, message) for message in self._sender.outgoing(now_ns)]

    @property
    def done(self) -> bool:
        """Whether every alert of an ended stream has been handed over, or put out."""
        if self._leads:
            return self._final and all(self._receiver.final(m) for m in self._others)
        return self._sender.done

    def close(self) -> None:
        """Put out what is still held, and close the outputs."""
        if self._leads:
            self._put_out(self._dedup.finish())
            self._decide_doubt()
        if self._provisional is not None:
            self._retract(self._provisional.ids(), "end")
            self._provisional.close()
        for output in (*self._outputs, *self._eve_outputs):
            output.close()

    def reopen(self) -> None:
        """Files were renamed: go on in new ones."""
        for output in (*self._outputs, *self._eve_outputs):
            output.reopen()

    def outputs(self) -> dict[str, dict[str, int]]:
        """What went through each output, by its name."""
        named = [output for output in (*self._outputs, *self._eve_outputs) if output.name]
        return {output.name: output.counters() for output in named}

    def counters(self) -> dict[str, int]:
        """The set's counters, by their names."""
        return {key: getattr(self._dedup, key, getattr(self._provisional, key, 0)) for key in SET}

    def _awake(self, now_ns: int) -> None:
        """Notice that this process has not been running for a while."""
        if self._leads and now_ns - self._seen_ns > self._stall_ns:
            self._doubt_ns = max(self._doubt_ns, now_ns + DOUBT_MS * MS)
        self._seen_ns = now_ns

    def _decide_doubt(self) -> None:
        """Put out what nobody else has by now."""
        self._look_up()
        doubted, self._doubted, self._doubt_ns = self._doubted, [], 0
        self._put_out(doubted)

    def _look_up(self) -> None:
        """What others have put out meanwhile goes out no more."""
        known = set(self._known())
        self._dedup.mark_out(known)
        if self._provisional is not None:
            self._provisional.confirmed(known)
        fresh = [alert for alert in self._doubted if alert["ftnids"]["id"] not in known]
        self._dedup.taken_back(len(self._doubted) - len(fresh))
        self._doubted = fresh

    def _put_out(self, alerts: Sequence[Record]) -> None:
        if self._doubt_ns:
            self._doubted += alerts
            if len(self._doubted) > ALERT_BACKLOG:
                self._decide_doubt()
        elif alerts:
            self._write(alerts)
            if self._provisional is not None:
                self._provisional.confirmed(alert["ftnids"]["id"] for alert in alerts)

    def _retract(self, ids: Sequence[str], why: str) -> None:
        assert self._provisional is not None
        if ids and (records := self._provisional.retract(ids, why)):
            self._write(records)
            self._provisional.retracted(records)

    def _write(self, records: Sequence[Record]) -> None:
        for output in self._outputs:
            output.write(records)

"""What this replica's IDS logs, as alerts with their ids: what is certain, and what it raised while it ran ahead."""

from __future__ import annotations

from ftnids.alerts.identity import END_OF_FLOW, Identifier
from ftnids.alerts.readers import Record
from ftnids.alerts.scout import Scout
from ftnids.feed import Ids
from ftnids.feed.watch import LogWatch


class IdsLogs:
    """The logs of all runs of the IDS of replica `name`.

    With `ahead`, what it raises on packets that can still change is read, too; `fd` is readable when there may be
    something (-1: look now and then).
    """

    def __init__(self, name: str, ids: Ids, *, ahead: bool = False) -> None:
        self._name, self._ids = name, ids
        self._identifiers: dict[int, Identifier] = {}  # by run of the IDS
        self._scouts: dict[int, Scout] = {}
        self._withdrawn: list[str] = []
        self._watch = LogWatch() if ahead and ids.ahead else None
        self.fd = self._watch.fd if self._watch is not None else -1

    def news(self) -> bool:
        """Whether there may be something for `look_ahead`, since the last call."""
        return self._watch is not None and self._watch.news()

    def read(self, view: int, *, cut_short: bool = False) -> list[Record]:
        """What every run of the IDS has logged for certain since the last time, alerts with their ids.

        `view` is the number of the view in force; `cut_short`: an IDS that is stopped gives its flows up, while for the
        other replicas they go on.
        """
        records: list[Record] = []
        for run in list(self._ids.runs):
            ended = run.ended
            identifier = self._identifiers.get(run.number)
            if identifier is None:
                self._ids.note()  # when its first packet was
            if identifier is None and (run.base_us or ended):
                identifier = Identifier(self._name, run.base_seq, run.base_us, voids=run.voids)
                self._identifiers[run.number] = identifier
            if identifier is None:
                continue
            identifier.view = view
            self._ids.bound(run)
            logged = run.reader.poll()
            self._ids.note()
            done = ended and not logged
            if done:
                logged = run.reader.poll(final=True)  # a last line without its end
            if cut_short:
                logged = [r for r in logged if r.get("pkt_src") != END_OF_FLOW]
            records += [identifier.identify(r) if r["event_type"] == "alert" else r for r in logged]
            if done:
                if run.number in self._scouts:
                    self._withdrawn += self._scouts.pop(run.number).close()
                run.reader.close()
                self._ids.forget(run)
                del self._identifiers[run.number]
        return records

    def look_ahead(self) -> tuple[list[Record], list[str]]:
        """Alerts on packets that can still change, with their ids; and the ids of those that are taken back."""
        alerts: list[Record] = []
        withdrawn, self._withdrawn = self._withdrawn, []
        if self._watch is None:
            return alerts, withdrawn
        runs = list(self._ids.runs)
        if runs:
            self._watch.follow(runs[-1].log_dir)  # to leave a folder is news, too: not to and fro
        for run in runs:
            if (identifier := self._identifiers.get(run.number)) is None:
                continue
            scout = self._scouts.setdefault(run.number, Scout(run.reader, run.cuts))
            raised, gone = scout.look(identifier)
            alerts += raised
            withdrawn += gone
        return alerts, withdrawn

    def close(self) -> None:
        """Look no more."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        for scout in self._scouts.values():
            scout.close()

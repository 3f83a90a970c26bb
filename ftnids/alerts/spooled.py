"""An output that may be slow or dead: alerts go into a spool on disk, and from there, on a thread, to the receiver.

The main loop only ever waits for the disk.  A receiver that takes nothing is tried again, less and less often; when it
is back, it gets what it missed, in order.  A record leaves the spool when the receiver has taken it, so that a kill in
between hands it over again; an id that is in the spool is not put in again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ftnids import log as logs
from ftnids.alerts.outputs import Output, as_line, name_of, names_in
from ftnids.alerts.readers import Record
from ftnids.alerts.sinks import ForgetfulError, Sink, SinkError
from ftnids.alerts.spool import Spool
from ftnids.limits import ALERT_LOOKUP_BYTES, ALERT_TABLE, SINK_BACKOFF_S, SINK_CLOSE_S, SINK_WAIT_S

LOOK_S: Final = 1.0  # between looks at a spool without news: the disk may take again what it did not
FIRST_S: Final = 0.1  # before a receiver that failed is tried again


class Spooled(Output):
    """Alerts to `sink` by way of a spool of `limit_bytes` in `directory`; `setting` is what messages name."""

    def __init__(self, setting: str, sink: Sink, directory: Path, limit_bytes: int) -> None:
        self.name = setting
        self._sink = sink
        self._log = logs.get("alerts", output=setting)
        self._limiter = logs.Limiter()
        self._spool = Spool(directory, setting, limit_bytes=limit_bytes, keep_bytes=sink.keep_bytes)
        self._known: OrderedDict[str, None] = OrderedDict()  # names of records that are in the spool, or were lately
        for text in self._spool.newest(ALERT_LOOKUP_BYTES):
            for one in names_in(text):
                self._note(one)
        self.delivered = self.suppressed = self.failures = self._said_lost = 0
        self.up = True  # as far as is known
        self._news, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=setting, daemon=True)
        if waiting := self._spool.waiting_bytes:
            self._log.info("spool_found", bytes=waiting, hint="alerts that are not delivered yet go out first")
        self._thread.start()

    def write(self, records: Sequence[Record]) -> None:
        identities = [record["ftnids"] for record in records]
        names = [name_of(one["id"], one.get("status", "")) for one in identities]
        fresh = [record for record, name in zip(records, names, strict=True) if self._note(name)]
        self.suppressed += len(records) - len(fresh)
        self._spool.append([as_line(record) for record in fresh])
        if self._spool.reason:
            hint = "they wait in memory: see the disk of replica.log_dir"
            self._limiter.log(self._log, "error", "disk", "spool_not_written", reason=self._spool.reason, hint=hint)
        if self._spool.lost > self._said_lost:
            self._said_lost = self._spool.lost
            hint = "the receiver took too little for too long: a larger alerts.spool_mb holds more"
            self._limiter.log(self._log, "error", "lost", "alerts_lost", lost=self._spool.lost, hint=hint)
        self._news.set()

    def close(self) -> None:
        self._stopping.set()
        self._news.set()
        self._thread.join(SINK_CLOSE_S + SINK_WAIT_S)
        self._spool.close()
        if waiting := self._spool.waiting_bytes:
            self._log.warning("alerts_wait_in_spool", bytes=waiting, hint="they go out when the replica starts again")

    def counters(self) -> dict[str, int]:
        """What went through, for the status."""
        counted = {"delivered": self.delivered, "suppressed": self.suppressed, "failures": self.failures}
        return {**counted, "lost": self._spool.lost, "waiting_bytes": self._spool.waiting_bytes, "up": int(self.up)}

    def _note(self, one: str) -> bool:
        """Remember a name; whether it was new."""
        if one in self._known:
            return False
        self._known[one] = None
        if len(self._known) > ALERT_TABLE:
            self._known.popitem(last=False)
        return True

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        wait_s, until = FIRST_S, float("inf")
        while time.monotonic() < until:
            if self._stopping.is_set() and until == float("inf"):
                until = time.monotonic() + SINK_CLOSE_S
            self._news.clear()
            batch = self._spool.read()
            if not batch.lines:
                if self._stopping.is_set():
                    break
                self._news.wait(LOOK_S)
                continue
            try:
                taken = self._sink.put(batch.lines)
            except ForgetfulError:
                again = self._spool.rewind()
                if again:
                    self._log.info("alerts_handed_over_again", bytes=again)
                continue
            except Exception as error:  # whatever a receiver's library raises; this thread goes on
                self._failed(error if isinstance(error, SinkError) else SinkError(repr(error)))
                if self._stopping.wait(wait_s):
                    break  # it was down already
                wait_s = min(wait_s * 2, SINK_BACKOFF_S)
                continue
            wait_s = FIRST_S
            self._took(taken, batch.ends[taken - 1])
        self._sink.close()

    def _failed(self, error: SinkError) -> None:
        self.failures += 1
        self.up = False
        hint = error.hint or f"see {self.name}"
        facts = {"reason": str(error), "waiting_bytes": self._spool.waiting_bytes}
        self._limiter.log(self._log, "error", "down", "alert_output_down", **facts, hint=hint)

    def _took(self, records: int, end: int) -> None:
        self._spool.done(end)
        self.delivered += records
        if not self.up:
            self.up = True
            self._log.info("alert_output_up", waiting_bytes=self._spool.waiting_bytes)

"""One replica: how a packet travels from the wire to an alert.

This is the composition root, the only module that knows all the rooms:

    link -> capture -> ring -> sync -> agreed index -> feed -> IDS -> alerts

1. The capture thread copies the packet from the link into the ring and hashes it.
2. The main loop lets the engine read the new hashes and times; it reports them to the coordinator.
3. The coordinator's decision gives the packet its place; its bytes go to those who lost it.
4. When this replica has it, it enters the agreed index; when all have it, it is stable.
5. The feed threads hand stable packets to the IDS; the slot is free when everybody is past it.
6. What the IDS logs gets an id, goes to the coordinator, and leaves the set once.

The main loop decides nothing: it carries events to the engine and actions from it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from contextlib import ExitStack
from types import FrameType
from typing import Final

import numpy as np

from ftnids import __version__, affinity, core, limits, log, monitor, notes, outlets, privileges, protocol, rekey
from ftnids.ahead import Ahead
from ftnids.alerts.recent import Recent
from ftnids.capture import CaptureThread, open_capture
from ftnids.config import Config
from ftnids.core import Capture, PacketBatch, Ring
from ftnids.ids_logs import IdsLogs
from ftnids.joining import Joining
from ftnids.peers.transport import Transport
from ftnids.service import Service
from ftnids.status import snapshot
from ftnids.status.delay import DelayMeter
from ftnids.sync.actions import Action, Change, End, Fail, Free, Note, Publish, Push, Rejoin, Send, Stable, Start, Store
from ftnids.sync.engine import Engine
from ftnids.sync.messages import Alert, Ask, Bytes, Chunk, Leave, Message, Offer, Refuse, Status, Taken, View

EPOCH_NS: Final = time.time_ns() - time.monotonic_ns()
WAIT_S: Final = 0.02  # the main loop looks around at least that often
STATUS_S: Final = 1.0
ALERTS_S: Final = 0.05
FINISH_S: Final = 120.0  # after the end of the stream: for the IDS to end and the alerts to leave
LEAVE_S: Final = 0.5  # after a signal: for another member to begin to end, too; else this one leaves them
STOP_S: Final = 5.0  # after a signal: for all to end together, or to leave in order
LINGER_S: Final = 2.0  # for the others to see the end


class Replica:
    """One replica, built from its configuration; `run` returns the exit status.

    One that rejoins goes on with the `capture` of the one before it: to open another needs privileges that are gone.
    """

    def __init__(self, config: Config, capture: Capture | None = None, service: Service | None = None) -> None:
        self.config = config
        self.service = service or Service()
        self.service.starting()
        self.name = config.replica.name
        self.names = [member.name for member in config.cluster.member]
        self.me = config.me
        self.incarnation = time.time_ns()
        self._log = log.get("replica", replica=self.name)
        self._stopped_at = 0.0  # monotonic time of the first signal
        self._said_stopping = False
        self._reason = ""
        self._keys_changed = False  # a signal says so
        self.rejoin = False  # whether to start anew: the others have gone on without this replica
        self._ended = False  # the agreed stream is complete, and stable
        self._capture_ended = False
        self._captured_before = 0
        self._cut_short = False  # this replica ends before the stream does
        self._positions = np.empty(0, np.int64)  # own packets that are published and not stable, by place ...
        self._seqs = np.empty(0, np.int64)  # ... and seq
        self._status_at = self._alerts_at = self._waited_s = 0.0
        self._delay = DelayMeter()
        self._limiter = log.Limiter()
        with ExitStack() as undo:
            self._open(undo, capture)
            undo.pop_all()

    def _open(self, undo: ExitStack, capture: Capture | None) -> None:
        """Everything that can be refused is refused here, before the first packet: one clear line, nothing left."""
        config = self.config
        for key, cpus in config.cpus.items():
            affinity.check(key, cpus)
        affinity.pin(config.replica.cpus)
        privileges.prepare(config)
        monitor.prepare(config)
        self.capture = open_capture(config.capture, capture)
        undo.callback(self.capture.close)
        self.capture.set_share(0, 1)  # until it is in a view, also where it was in one before
        privileges.drop(config)
        identity = rekey.identity(config)
        self.ring = Ring.create(
            config.ring_name,
            slots=config.ring.slots,
            arena_bytes=config.ring.arena_bytes,
            recovered_slots=config.ring.slots,
            recovered_bytes=config.ring.recovered_bytes,
            agreed_slots=config.ring.slots,
            linktype=self.capture.linktype,
            snaplen=self.capture.snaplen,
            seed=identity.seed,
            group=config.ring.group or None,
        )
        undo.callback(self.ring.close, unlink=True)
        self.transport = Transport(
            self.me,
            [member.address for member in config.cluster.member],
            cluster_id=identity.cluster_id,
            keys=identity.keys,
            names=self.names,
        )
        undo.callback(self.transport.close)
        settings = protocol.settings(config, self.incarnation, self.capture.linktype, self.ring.agreed_slots)
        self.engine = Engine(settings, self.ring, self._now_ns())
        self.feed, self.ids, self._hashes = outlets.make_feed(config, self.ring)
        ahead = self.ids is not None and self.ids.ahead
        self._ahead = Ahead(self.engine, self.ring, self.me) if ahead else None
        early = config.alerts.provisional
        self._logs = IdsLogs(self.name, self.ids, ahead=early) if self.ids is not None else None
        self.transport.watch(self._logs.fd if self._logs is not None else -1)
        self._joining = Joining(config, self.ids, self.ring, self.engine, self.transport)
        recent = Recent()
        self.desk = outlets.make_desk(config, self._header, recent)
        self._monitor = monitor.Monitor(config, self.transport, self._header, recent)
        undo.callback(self._monitor.abandon)
        prompt = ahead and early
        if prompt:
            sys.setswitchinterval(limits.CAPTURE_PROMPT_MS / 2_000)
        wakes = self.transport.wake
        self.thread = CaptureThread(self.capture, self.ring, wakes, cpus=config.capture.cpus, prompt=prompt)

    # -- the loop -----------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until the agreed stream ends or a signal comes; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)
        try:
            self._joining.look_around()
            self.feed.start()  # the IDS is up before the first packet, or waits for another replica's state
            if not self.config.capture.from_start:
                self.thread.start()
            gc.collect()
            gc.freeze()  # what is there stays: a full collection takes tens of ms for it
            self._log.info("replica_up", members=self.names, implementation=core.IMPL, pid=os.getpid())
            self.service.ready()
            while not self._ended and not self._reason and not self._overdue():
                self._turn()
            if self._ended:
                self._finish()
            return 1 if self._reason else 0
        except Exception as error:
            self._reason, self.rejoin = str(error) or repr(error), False
            raise
        finally:
            self._close()

    def _turn(self) -> None:
        """Look around once: messages in, everything that is due, actions out."""
        if self._stopped_at and not self._said_stopping:  # the signal handler may have interrupted the logger
            self._said_stopping = True
            self._log.info("stopping", waits_s=STOP_S, hint="for the others to end, too; a second signal ends at once")
        self.service.alive()
        if self._keys_changed:
            self._keys_changed = False
            self.service.reloading()
            self.config = rekey.renew(self.config, self.transport, self.ring.seed)
            outlets.say_what_waits(self.ids)
            self.desk.reopen()
            self.service.ready()
        now = self._now_ns()
        wait_s = min((self.engine.deadline_ns() - now) / 1e9, WAIT_S)
        messages = self.transport.receive(0.0 if self._joining.eager else max(wait_s, 0.0))
        for message in messages:
            self._receive(message)
        self._delay.captured(self.ring.head, time.monotonic_ns())
        if self._ahead is not None and self._early_alone(messages):
            return
        if self.thread.ended and not self._capture_ended:
            self._capture_ended = True
            self.engine.end_of_stream()
        self.engine.fed(self.ring.fed)
        self.engine.filled(self.ring.fill)
        self.engine.quiet = self.thread.quiet
        if self.engine.waits:
            self.thread.look()
        self.engine.tick(self._now_ns())
        self._carry_out()
        if self.engine.moved:  # what came is stored now, and is acknowledged in the same turn
            self.engine.tick(self._now_ns())
            self._carry_out()
        if self._ahead is not None:
            self._ahead.look()
            self._look_ahead()
        self._joining.tick()
        self._look_after(time.monotonic())

    def _receive(self, message: Message) -> None:
        match message:
            case Alert():
                for member, answer in self.desk.arrived(message, time.monotonic_ns()):
                    self.transport.send(member, answer)
            case Status():
                self._monitor.heard(message)
            case Ask() | Offer() | Chunk() | Taken() | Refuse():
                self._joining.receive(message)
            case _:
                self.engine.receive(message, self._now_ns())

    def _carry_out(self) -> None:
        """Carry out what the engine asks for, until it asks for nothing more."""
        while actions := self.engine.actions():
            for action in actions:
                self._act(action)

    def _act(self, action: Action) -> None:
        match action:
            case Send():
                self.transport.send(action.member, action.message)
            case Push():
                self._push(action)
            case Store():
                self._store(action)
            case Publish():
                self.ring.publish_agreed(action.first_seq, action.refs, action.time_us, action.flags)
                own = np.flatnonzero((action.refs >= 0) & (action.refs < core.RECOVERED))  # -1: void
                self._positions = np.concatenate([self._positions, action.refs[own]])
                self._seqs = np.concatenate([self._seqs, own + action.first_seq])
            case Stable():
                self._stable(action.seq)
            case Free():
                if action.position >= 0:
                    self.ring.free_captured(action.position)
                self.ring.free_recovered(action.recovered)
            case Start():
                self._start(action)
            case Change():
                self._changed(action)
            case Rejoin():
                self.rejoin = not self.config.capture.from_start
                self._reason = notes.text(action.reason, self.names)
            case End():
                self.ring.set_end()
                self._ended = True
            case Note():
                if action.event != "view_changed":  # `_changed` says it, with more
                    getattr(self._log, action.level)(action.event, **notes.named(action.facts, self.names))
            case Fail():
                self._reason = notes.text(action.reason, self.names)

    # -- what the engine asks for ------------------------------------------------------------------

    def _push(self, push: Push) -> None:
        for part, batch in self.ring.gather(push.refs).parts(limits.MAX_BYTES_DATA):
            seqs, columns = push.seq[part], (batch.hash, batch.caplen, batch.wirelen, batch.data)
            self.transport.send(push.member, Bytes(self.me, self.incarnation, push.view, seqs, *columns))

    def _store(self, store: Store) -> None:
        message, wanted = store.message, store.mask.astype(bool)
        batch = PacketBatch(message.hash, message.caplen, message.wirelen, message.data).select(wanted)
        refs = self.ring.store_recovered(batch)
        self.engine.stored(message.seq[wanted], batch.hash, refs, self._now_ns())

    def _stable(self, seq: int) -> None:
        self.ring.set_stable(seq)
        count = int(np.searchsorted(self._seqs, seq))
        positions, self._positions, self._seqs = self._positions[:count], self._positions[count:], self._seqs[count:]
        if count == 0:
            return
        if self.config.capture.interface:
            times = self.ring.times(int(positions.min()), int(positions.max()) + 1)[positions - positions.min()]
            self._delay.histogram.add((self._now_ns() - times) / 1e6)
        else:
            self._delay.stable(positions, time.monotonic_ns())

    def _start(self, start: Start) -> None:
        self.feed.start_at(start.seq)
        self._joining.start(start.seq)
        self.capture.set_share(start.members.index(self.me), len(start.members))
        self._captured_before = start.position  # not in the agreed stream
        self._log.info("view", **self._view_facts(start), captured_before=start.position)
        self.desk.start(start.view.coordinator, start.members, time.monotonic_ns())
        self.desk.muted(self._joining.waits)
        if self.config.capture.from_start:
            self.thread.start()
        elif start.position > self.ring.tail:
            self.ring.free_captured(start.position)

    def _changed(self, change: Change) -> None:
        self.capture.set_share(change.members.index(self.me), len(change.members))
        self._log.warning("view_changed", **self._view_facts(change))
        self.desk.start(change.view.coordinator, change.members, time.monotonic_ns(), change.left)

    def _view_facts(self, what: Start | Change) -> dict[str, object]:
        """What the log says of a view: with lineage, number and coordinator it is told from all others."""
        coordinator, members = self.names[what.view.coordinator], [self.names[m] for m in what.members]
        facts = {"lineage": what.view.lineage, "number": what.view.number, "coordinator": coordinator}
        return {**facts, "members": members, "seq": what.seq, "protocol": what.protocol}

    # -- alerts and status ------------------------------------------------------------------------------

    def _look_after(self, now: float) -> None:
        if now - self._alerts_at >= ALERTS_S:
            waited = self.transport.waited_s
            self.engine.loaded(1 - min((waited - self._waited_s) / (now - self._alerts_at), 1.0))
            self._waited_s, self._alerts_at = waited, now
            self._alerts()
        if now - self._status_at >= STATUS_S:
            self._status_at = now
            if self.ids is not None:
                self.desk.muted(self.ids.log_fails() or self._joining.waits)
            self._monitor.put(self._snapshot(""))

    def _early_alone(self, messages: list[Message]) -> bool:
        """Do what must be early first; whether nothing else is to be done in this turn."""
        assert self._ahead is not None
        self._ahead.look()
        self._look_ahead()
        self.engine.quiet = self.thread.quiet
        due = time.monotonic() - self._alerts_at >= ALERTS_S or self.thread.ended or self._joining.eager
        due = due or self.engine.waits
        return not (due or messages or self._now_ns() >= self.engine.deadline_ns())

    def _look_ahead(self) -> None:
        """Put out what the IDS raised on packets that can still change, if it has."""
        if self._logs is not None and self._logs.news() and self.desk.guesses:
            self.desk.guessed(*self._logs.look_ahead(), time.monotonic_ns())

    def _alerts(self) -> None:
        now, fed, ended = time.monotonic_ns(), self.ring.fed, True
        if self.desk.full:  # the IDS's log waits on disk, and what this IDS was fed is not told before it is read
            hint = "the coordinator takes no alerts: see its log, and the disk that its outputs are on"
            self._limiter.log(self._log, "warning", "alerts", "alerts_wait", hint=hint)
        elif self.ids is not None and self._logs is not None:
            fed = self.ids.position
            self.desk.raised(self._logs.read(self.engine.view.number, cut_short=self._cut_short), now)
            if self.desk.guesses:
                self.desk.guessed(*self._logs.look_ahead(), now)
            ended = self.ids.ended and not self.ids.runs  # in this order: then no run comes any more, and all are read
        if not self.desk.full:
            self.desk.progress(fed, final=self.ring.ended and ended)
        if self.desk.leaver is not None and not self.transport.connected(self.desk.leaver):
            self.desk.departed()  # it closes its connections when its alerts are out
        for member, message in self.desk.tick(now):
            self.transport.send(member, message)

    def _last_alerts(self) -> None:
        """Read what an IDS that has ended logged, for a while."""
        until = time.monotonic() + LINGER_S
        self._alerts()
        while self.ids is not None and self.ids.runs and not self.desk.full and time.monotonic() < until:
            self._alerts()

    def _finish(self) -> None:
        """The stream is complete: let the feed end, and the last alerts leave the set."""
        deadline = time.monotonic() + FINISH_S
        while time.monotonic() < deadline and not self._reason and not (self.feed.join(0) and self.desk.done):
            self._turn()
        for error in self.feed.errors:
            self._reason = self._reason or str(error)
        until = time.monotonic() + LINGER_S
        while time.monotonic() < until and not self.engine.all_stable():
            self._turn()

    def _snapshot(self, state: str) -> snapshot.Snapshot:
        member, view = self.engine.member, self.engine.view
        record = snapshot.Snapshot(
            name=self.name,
            state=state or ("failed" if self._reason else monitor.STATES[self.engine.state]),
            reason=self._reason,
            pid=os.getpid(),
            time=time.time(),
            version=__version__,
            implementation=core.IMPL,
            warnings=[one for one in (self.thread.warning, *self.feed.warnings, *self.transport.warnings) if one],
            protocol=protocol.spoken(self.engine.membership.protocol),
        )
        record.ring = self.ring.stats()
        record.peers = {**self.transport.counters, **self.engine.counters()}
        record.counters |= {
            "captured": self.thread.captured,
            "captured_bytes": self.thread.captured_bytes,
            "captured_before": self._captured_before,
            "kernel_drops": self.thread.kernel_drops,
            "ring_drops": self.thread.ring_drops,
            "injected_drops": self.thread.injected_drops,
            "left_to_peers": self.thread.left_to_peers,
            **self._joining.counters(),
            "alerts": self.desk.alerts,
            "checkpoints": self.ids.checkpoints if self.ids is not None else 0,
            "rollbacks": self.ids.rollbacks if self.ids is not None else 0,
            "delay_p50_ms": round(self._delay.histogram.percentile(0.5), 3),
            "delay_p99_ms": round(self._delay.histogram.percentile(0.99), 3),
            "delay_max_ms": round(self._delay.histogram.max_ms, 3),
        }
        record.delay = self._delay.histogram.record()
        record.ids = monitor.ids_facts(self.config, self.ids, self.ring) | self._joining.facts()
        record.outputs = self.desk.outputs()
        if self._hashes is not None:
            record.stream_sha256 = self._hashes.stream_sha256
        if member is None:
            return record
        record.view = {"lineage": view.lineage, "number": view.number, "incarnation": view.incarnation}
        record.coordinator = self.names[view.coordinator]
        record.members = [self.names[m] for m in self.engine.members]
        record.clocks = monitor.clocks(member.offset_ns, member.tolerance_ns, self.names)
        record.set = self.desk.counters() if view.coordinator == self.me else {}
        record.seq = {"decided": member.window.end, "acked": member.acked, "stable": member.stable, "fed": member.fed}
        record.counters |= {
            "recovered": member.recovered,
            "lost": member.lost,
            "agreed": member.stable,
            "clamped": member.clamped,
        }
        if member.last is not None:
            for key in ("ambiguous", "late", "desync_level", "max_desync"):
                record.counters[key] = getattr(member.last, key)
            record.rounds, record.dirty_rounds = member.last.rounds, member.last.dirty_rounds
        return record

    # -- the rest ----------------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        """The capture clock: it does not step, and live packets are stamped on it."""
        return self.capture.clock_ns if self.config.capture.interface else time.monotonic_ns() + EPOCH_NS

    def _header(self) -> tuple[int, int, View]:
        return self.me, self.incarnation, self.engine.view

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopped_at:
            self._reason = self._reason or "stopped by a second signal before the stream was complete"
        self._stopped_at = self._stopped_at or time.monotonic()
        self.thread.stop()
        self.transport.wake()

    def take_over(self, before: Replica) -> None:
        """Heed the signals that reached the replica before this one when it had ended."""
        self._keys_changed = before._keys_changed
        self._joining.take_over(before._joining)
        if before._stopped_at:
            self._on_signal(signal.SIGTERM, None)

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        self._keys_changed = True
        self.transport.wake()

    def _overdue(self) -> bool:
        """After a signal: whether this replica has left the others, who go on, or cannot."""
        if not self._stopped_at:
            return False
        passed = time.monotonic() - self._stopped_at
        if self._capture_ended and passed > LEAVE_S and not self.engine.ending():
            self.engine.leave()
        return self.engine.member is None or self.engine.gone or passed > STOP_S

    def _close(self) -> None:
        self.service.ending(self._reason)
        if not self.rejoin:
            self.service.stopping()
        gc.unfreeze()
        self.thread.stop()
        self.thread.join()
        if not self._ended:
            for member in self.engine.members:
                if member != self.me:
                    leave = Leave(self.me, self.incarnation, self.engine.view, self._reason or "stopped")
                    self.transport.send(member, leave)
        self._cut_short = not self._ended
        self.feed.stop()
        self._joining.close()
        self._last_alerts()
        if self._logs is not None:
            self._logs.close()
        self.desk.close()
        over = "failed" if self._reason else "ended"
        self._monitor.close(self._snapshot("waiting" if self.rejoin else over))
        self.transport.close(flush_s=0.5)
        if not (self.rejoin and self.config.capture.interface):
            self.capture.close()
        self.ring.close(unlink=True)
        if self.rejoin:
            self._log.info("rejoining", reason=self._reason)
        elif self._reason:
            self._log.error("replica_failed", reason=self._reason)
        else:
            self._log.info("replica_down")

"""N engines in one process under seeded weather: the production protocol code, virtual time.

Theory of operation.  A heap holds what happens next: a message arrives, an engine's deadline comes, a
fault strikes.  Each replica reads a prepared capture stream through the clock that the weather
gave it.  The ring is a table from slot references to *true* packet indices, so every packet can be
traced to the wire.  After each step the promises are checked against that truth (`promises`); one that
does not hold raises `BrokenPromiseError`.

When all faults are over and all packets out, the captures end as soon as all replicas are in one
view; that this comes, and that then everything becomes stable, is liveness.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ftnids import limits
from ftnids.sync.actions import (
    Action,
    Change,
    End,
    Fail,
    Free,
    Note,
    Publish,
    Push,
    Rejoin,
    Send,
    Stable,
    Start,
    Store,
)
from ftnids.sync.engine import Engine
from ftnids.sync.member import RECOVERED
from ftnids.sync.messages import I64, Bytes, Message
from ftnids.sync.settings import MS, Settings, Timers
from ftnids.sync.simulation.life import FOREVER, Life, LocalClock, SimulatedStream
from ftnids.sync.simulation.promises import Judge
from ftnids.sync.simulation.traffic import Link, kept, lateness, traffic
from ftnids.sync.simulation.weather import US, Fault, Weather, draw

EPOCH = 1_700_000_000_000_000_000
DROWSY = limits.CAPTURE_DROWSY_MS * MS
TURN = 100 * US  # a replica reads its messages so often, all that are there
LOOK = 10 * MS  # how often the world looks whether everybody is back
QUIET = 30 * MS  # from the last packet or fault to the end of the captures, at least
BACK = 10_000 * MS  # after the last fault everybody is to be in one view within this ...
SETTLE = 5_000 * MS  # ... and everything stable within this
CLOCK_LOOK = 5 * MS

Plant = Callable[[Engine], None]


@dataclass(slots=True)
class Result:
    """What one run shows."""

    seed: int
    replicas: int
    union: int
    agreed: int
    ambiguous: int
    late: int
    excused: int
    views: int
    delay_p99_ms: float
    delay_max_ms: float
    messages: int
    log: list[str]


class Simulation:
    """One run; `plant` puts a known bug into each engine."""

    def __init__(self, weather: Weather, plant: Plant | None = None) -> None:
        self.weather = weather
        self._plant = plant
        self._rng = np.random.default_rng([0x52, weather.seed])
        self.link: Link = traffic(weather, self._rng, EPOCH + weather.lead)
        self.now = EPOCH
        self.log: list[str] = []
        self.messages = 0
        self.captures = kept(weather, self.link, self._rng)
        self._lateness = [lateness(weather, ids, self._rng) for ids in self.captures]
        self.judge = Judge(weather, self.link, self.captures, self._lateness)
        self._blocked: dict[tuple[int, int], int] = {}  # pairs (from, to) that no message passes: how often forbidden
        self._heap: list[tuple[int, int, int, Message | Callable[[], None] | None]] = []
        self._count = 0
        self._over_ns = int(self.link.time_ns[-1])  # no packet and no fault after this
        self._closing_ns = FOREVER
        self._clock_ns = self._clock_seq = 0
        self._at_work: dict[int, Life] = {}  # the newest process of each replica that has started
        born = weather.born or (0,) * weather.replicas
        for r in range(weather.replicas):
            self._at(EPOCH + born[r] + r * 1000, partial(self._start, r))
            self._over_ns = max(self._over_ns, EPOCH + born[r])
        for fault in weather.faults:
            at = EPOCH + weather.lead + fault.at
            self._over_ns = max(self._over_ns, at + fault.length)
            self._at(at, partial(self._strike, fault))
        self._at(EPOCH + LOOK, self._look)

    @property
    def lives(self) -> list[Life]:
        """All processes that there ever were."""
        return self.judge.lives

    @property
    def replicas(self) -> list[Life]:
        """The newest process of each replica that has started."""
        return [self._at_work[r] for r in sorted(self._at_work)]

    # -- the world ------------------------------------------------------------------------------

    def run(self) -> Result:
        """Run to the end of the agreed stream; raises BrokenPromiseError."""
        while not self._over():
            self.now, _, r, what = heapq.heappop(self._heap)
            if r < 0:
                assert callable(what)
                what()
            elif (life := self._at_work.get(r)) and not life.dead:
                assert not callable(what)
                self._step(life, what)
        self.judge.at_end(self._survivors())
        return self._result()

    def _over(self) -> bool:
        """Whether all have come, and all that survive have ended."""
        if self._closing_ns == FOREVER or len(self._at_work) < self.weather.replicas:
            return False
        return all(x.ended for x in self._survivors())

    def _survivors(self) -> list[Life]:
        """All but those that left the last view after the captures had begun to end: nobody lets them in any more."""
        return [x for x in self.replicas if not x.missed_the_end]

    def _schedule(self, at: int, r: int, what: Message | Callable[[], None] | None) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, r, what))

    def _at(self, at: int, what: Callable[[], None]) -> None:
        self._schedule(at, -1, what)

    def _say(self, text: str) -> None:
        self.log.append(f"{(self.now - EPOCH - self.weather.lead) / 1e6:.3f} ms {text}")

    def _start(self, r: int) -> None:
        """A process of replica `r` starts, and captures from now on."""
        w, born = self.weather, self.now
        since = born if born > EPOCH + r * 1000 else 0
        here = self.link.time_ns[self.captures[r]] >= since
        ids = self.captures[r][here]
        true = self.link.time_ns[ids] + self._lateness[r][here]
        order = np.argsort(true, kind="stable")
        clock = self._clock_of(r)
        times = clock.stamps(true[order])
        if w.jitter:
            times = times + self._rng.integers(0, w.jitter + 1, len(times))
        times = np.maximum.accumulate(times) if len(times) else times
        stream = SimulatedStream(ids[order], self.link.hash[ids[order]], times.astype(np.int64), w.slots)
        settings = Settings(
            me=r,
            members=w.replicas,
            incarnation=self.now + r,
            wait_for_all=w.wait_for_all,
            agreed_slots=w.agreed_slots,
            timers=Timers(match=300 * MS, join=500 * MS),
        )
        engine = Engine(settings, stream, clock.now(self.now))
        if self._plant:
            self._plant(engine)
        life = Life(r, stream, clock, engine)
        self._at_work[r] = life
        self.lives.append(life)
        self._schedule(self.now, r, None)

    def _clock_of(self, r: int) -> LocalClock:
        w, first = self.weather, EPOCH + self.weather.lead
        steps = sorted((first + f.at, f.length) for f in w.faults if f.kind == "step" and f.replicas >> r & 1)
        return LocalClock(EPOCH, w.offset[r], w.drift[r], steps)

    # -- what befalls replicas --------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        self._say(f"{fault.kind} {fault.length / 1e6:.3f} ms, replicas {self._names(fault.replicas)}")
        if fault.kind in ("cut", "deaf"):
            pairs = self._pairs(fault)
            self._block(pairs, 1)
            self._at(self.now + fault.length, partial(self._block, pairs, -1))
            return
        for life in self.replicas:
            if not fault.replicas >> life.me & 1 or life.dead:
                continue
            life.troubled = True
            match fault.kind:
                case "crash":
                    self._kill(life, fault.length)
                case "stop":
                    life.stalled_until = max(life.stalled_until, self.now + fault.length)
                case "stuck":
                    life.stuck_until = max(life.stuck_until, self.now + fault.length)
                case "hang":
                    life.hung_until = max(life.hung_until, self.now + fault.length)
                    self._at(life.hung_until, partial(self._feed, life))

    def _pairs(self, fault: Fault) -> list[tuple[int, int]]:
        everybody = range(self.weather.replicas)
        inside = [r for r in everybody if fault.replicas >> r & 1]
        outside = [r for r in everybody if not fault.replicas >> r & 1 and fault.of >> r & 1]
        pairs = [(a, b) for a in outside for b in inside]
        return pairs + [(b, a) for a, b in pairs] if fault.kind == "cut" else pairs

    def _block(self, pairs: list[tuple[int, int]], by: int) -> None:
        for pair in pairs:
            self._blocked[pair] = self._blocked.get(pair, 0) + by

    def _names(self, mask: int) -> str:
        return " ".join(f"r{r}" for r in range(self.weather.replicas) if mask >> r & 1)

    def _kill(self, life: Life, restart_after: int) -> None:
        life.dead = True
        self._over_ns = max(self._over_ns, self.now + restart_after)
        self._at(self.now + restart_after, partial(self._start, life.me))

    def _look(self) -> None:
        """End the captures when everybody is back after all faults; that must come."""
        lives = self.replicas
        if self._closing_ns == FOREVER and self.now > self._over_ns + QUIET:
            views = {life.view for life in lives if not life.dead}
            if len(views) == 1 and all(len(life.engine.members) == self.weather.replicas for life in lives):
                self._closing_ns = self.now
                self._say("the captures end")
            elif self.now > self._over_ns + BACK:
                self._broken("liveness: not all are back in one view")
        if self._closing_ns != FOREVER and self.now > self._closing_ns + SETTLE:
            self._broken("liveness: not everything is stable")
        self._at(self.now + LOOK, self._look)

    def _broken(self, what: str) -> None:
        self.judge.broken(what + ": " + "; ".join(self._where(x) for x in self.replicas))

    def _where(self, x: Life) -> str:
        m, view = x.engine.member, x.view
        inside = f" view {view.number} of r{view.coordinator} {x.engine.members}" if view.number else ""
        return f"r{x.me} {x.engine.state.name}{inside}" + (
            f" decided {m.window.end} acked {m.acked} stable {m.stable} fed {m.fed}" if m else ""
        )

    # -- one step of one replica ------------------------------------------------------------------

    def _step(self, x: Life, message: Message | None) -> None:
        if message is None and self.now != x.due_ns and x.due_ns >= 0:
            return  # an older deadline
        if self.now < x.stalled_until:
            self._schedule(x.stalled_until, x.me, message)
            if message is None:
                x.due_ns = x.stalled_until
            return
        local = x.local(self.now)
        if message is not None:
            self.messages += 1
            x.engine.receive(message, local)
            if x.due_ns > self.now + TURN:
                self._due(x, self.now + TURN)
            return
        self._capture(x, local)
        x.engine.filled((x.stream.head - x.stream.tail) / self.weather.slots)
        x.engine.quiet = x.stream.quiet_ns(local - self.weather.jitter) >= DROWSY
        x.engine.tick(local)
        self._carry_out(x)
        if x.engine.moved:
            x.engine.tick(local)
            self._carry_out(x)
        self._note_clock(x)
        due = self.now + max(x.engine.deadline_ns() - local, TURN)
        if x.engine.quiet:  # the next packet wakes it, once the capture thread sees it
            wakes = max(x.stuck_until, self.now + x.stream.next_ns + self.weather.jitter - local)
            due = min(due, max(wakes, self.now + TURN))
        if self.weather.stall and self._rng.random() < 0.002:
            x.stalled_until = due = self.now + int(self._rng.integers(0, self.weather.stall))
        if not x.dead:
            self._due(x, due)

    def _due(self, x: Life, at: int) -> None:
        x.due_ns = at
        self._schedule(at, x.me, None)

    def _capture(self, x: Life, local: int) -> None:
        """What the capture thread has published by now."""
        if self.now < x.stuck_until:
            return
        x.stream.until(local - self.weather.jitter)
        if not x.closing and self.now > self._closing_ns:
            x.closing = True
            x.stream.until(FOREVER)
            x.engine.end_of_stream()

    def _note_clock(self, x: Life) -> None:
        """Tell the judge by how much the clocks may err just now, and whether they do not err more."""
        coordinator = x.engine.coordinator
        if coordinator is None or (coordinator.seq == self._clock_seq and self.now - self._clock_ns < CLOCK_LOOK):
            return
        self._clock_ns, self._clock_seq = self.now, coordinator.seq
        widest, room, least, mine = 0, FOREVER, FOREVER, x.local(self.now)
        for m in coordinator.members:
            other = self._at_work.get(m)
            if other and not other.dead and m != x.me:
                tolerance = coordinator.merger.tolerance_ns(m, other.local(self.now))
                error = abs(other.local(self.now) + coordinator.merger.offset_ns(m) - mine)
                widest, error = max(widest, tolerance), error + self.weather.jitter
                room, least = min(room, tolerance - error), min(least, coordinator.merger.tolerance_ns(m) - error)
        self.judge.clock(self.now, widest, room, least)

    def _carry_out(self, x: Life) -> None:
        actions = x.engine.actions()
        while actions:
            for action in actions:
                self._act(x, action)
            actions = x.engine.actions()

    def _act(self, x: Life, action: Action) -> None:
        match action:
            case Send():
                self._send(x.me, action.member, action.message)
            case Push():
                self._send(x.me, action.member, self._bytes(x, action))
            case Store():
                self._store(x, action)
            case Publish():
                true = np.full(len(action.refs), -1)
                here = action.refs >= 0
                true[here] = self._true(x, action.refs[here])
                self.judge.published(x, action.first_seq, true, action.time_us.copy(), action.flags.copy())
            case Stable():
                self.judge.stable(x, action.seq, self.now)
                self._feed(x)
            case Free():
                if action.position >= 0:
                    x.stream.tail = action.position
                x.freed_recovered = action.recovered
            case Start():
                x.start = action.position
                if action.position > x.stream.tail:
                    x.stream.tail = action.position
                self.judge.entered(x, action.view, action.members, action.seq, self.now)
                self._say(f"r{x.me} starts in view {action.view.number} {action.members} at seq {action.seq}")
            case Change():
                self.judge.entered(x, action.view, action.members, action.seq, self.now)
                self._say(f"r{x.me} view {action.view.number} of r{action.view.coordinator} {action.members}")
            case Rejoin():
                self._say(f"r{x.me} rejoins: {action.reason}")
                if self._closing_ns == FOREVER:
                    self._kill(x, 50 * MS)
                else:
                    x.dead = x.missed_the_end = True
            case End():
                x.ended = True
            case Note():
                self._say(f"r{x.me} {action.event} {action.facts}")
            case Fail():
                self.judge.broken(f"r{x.me} failed: {action.reason}")

    def _feed(self, x: Life) -> None:
        """The IDS takes what is stable."""
        if self.now >= x.hung_until and not x.dead and x.view.number:
            x.engine.fed(x.stable)

    # -- messages and bytes -----------------------------------------------------------------------------

    def _send(self, me: int, to: int, message: Message) -> None:
        w, rng = self.weather, self._rng
        if self._blocked.get((me, to)) or (w.message_loss and rng.random() < w.message_loss):
            return
        times = 2 if w.message_repeat and rng.random() < w.message_repeat else 1
        for _ in range(times):
            wait = w.delay + int(w.delay_spread * rng.random())
            if w.stale and rng.random() < w.stale:
                wait += int(w.stale_by * rng.random())
            self._schedule(self.now + wait, to, message)

    def _true(self, x: Life, refs: I64) -> I64:
        """True packet indices behind slot references."""
        out = np.empty(len(refs), np.int64)
        own = refs < RECOVERED
        out[own] = x.stream.ids[refs[own]]
        numbers = refs[~own] - RECOVERED
        assert (numbers >= x.freed_recovered).all(), "a freed recovered packet is used"
        out[~own] = [x.recovered[n] for n in numbers.tolist()]
        return out

    def _bytes(self, x: Life, push: Push) -> Message:
        true = self._true(x, push.refs)
        message = Bytes(x.me, x.engine.settings.incarnation, push.view, push.seq, self.link.hash[true])
        message.data = true.astype("<i8").tobytes()
        return message

    def _store(self, x: Life, action: Store) -> None:
        message, wanted = action.message, action.mask.astype(bool)
        true = np.frombuffer(message.data, "<i8")[wanted]
        first = len(x.recovered)
        x.recovered.extend(true.tolist())
        refs = RECOVERED + np.arange(first, first + len(true))
        x.engine.stored(message.seq[wanted], message.hash[wanted], refs, x.local(self.now))

    def _result(self) -> Result:
        view = self._survivors()[0].view
        delays = self.judge.delays_ms(view)
        last = next((m.last for x in self.replicas if (m := x.engine.member) is not None and m.last), None)
        return Result(
            self.weather.seed,
            self.weather.replicas,
            len(np.unique(np.concatenate([life.stream.ids for life in self.lives]))),
            len(delays),
            last.ambiguous if last else 0,
            last.late if last else 0,
            self.judge.excused,
            view.number,
            float(np.percentile(delays, 99)) if len(delays) else 0.0,
            float(delays.max(initial=0)),
            self.messages,
            self.log,
        )


def simulate(seed: int, replicas: int | None = None) -> Result:
    """Run one seed; raises BrokenPromiseError when a promise does not hold."""
    return Simulation(draw(seed, replicas)).run()

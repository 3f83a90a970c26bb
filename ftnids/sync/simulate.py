"""N engines in one process under seeded weather: the production protocol code, virtual time.

Theory of operation.  A heap holds what happens next: a message arrives, an engine's deadline
comes.  Each replica reads a prepared capture stream through the clock that the weather gave it.
The ring is a table from slot references to *true* packet indices, so every packet can be traced
to the wire.  After each step the promises are checked against that truth; one that does not hold
raises `BrokenPromiseError`, whose text holds the command that replays the run.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

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
from ftnids.sync.messages import I64, U64, Bytes, Flag, Message
from ftnids.sync.settings import MS, Settings, Timers
from ftnids.sync.weather import US, Fault, Link, Weather, draw, kept, traffic

EPOCH = 1_700_000_000_000_000_000
WARM_UP = 1_000 * MS  # true time before the first packet
BOUND = 20 * MS  # T
DECIDED = 400 * MS  # within this a packet is decided, also through a view change
REJOIN = 2_000 * MS  # after a fault everybody is to be back within this
SETTLE = 10_000 * MS  # after the last packet everything must be stable within this


class BrokenPromiseError(AssertionError):
    """A promise did not hold."""


class SimulatedStream:
    """What one replica captures, released as its time comes."""

    def __init__(self, ids: I64, hashes: U64, times: I64) -> None:
        self.ids = ids
        self._hashes = hashes
        self._times = times
        self.head = 0
        self.tail = 0
        self.watermark_ns = 0

    def until(self, local_ns: int) -> None:
        """All that was captured up to `local_ns` is published."""
        self.head = int(np.searchsorted(self._times, local_ns, side="right"))
        self.watermark_ns = max(self.watermark_ns, local_ns)

    def hashes(self, first: int, last: int) -> U64:
        """Hashes of positions [first, last)."""
        assert self.tail <= first <= last <= self.head, "the engine reads a freed or unpublished position"
        return self._hashes[first:last]

    def times(self, first: int, last: int) -> I64:
        """Capture times of positions [first, last)."""
        assert self.tail <= first <= last <= self.head, "the engine reads a freed or unpublished position"
        return self._times[first:last]


@dataclass
class Replica:
    """One simulated replica: engine, stream, clock, and what it published."""

    stream: SimulatedStream
    engine: Engine
    offset_ns: int
    drift: float
    recovered: list[int] = field(default_factory=list)  # true index by recovered number
    published: list[tuple[int, int, int]] = field(default_factory=list)  # true index, time, flags, from `stable` on
    published_end: int = 0
    stable: int = 0
    first_seq: int = 0
    freed_recovered: int = 0
    start: int = -1
    ended: bool = False
    failed: str = ""
    due_ns: int = -1
    stalled_until: int = 0
    said_end: bool = False
    dead: bool = False

    def local(self, true_ns: int) -> int:
        """This replica's clock at true time."""
        return true_ns + self.offset_ns + int((true_ns - EPOCH) * self.drift * 1e-6)


@dataclass(slots=True)
class Result:
    """What one run shows."""

    seed: int
    replicas: int
    union: int
    agreed: int
    ambiguous: int
    late: int
    delay_p99_ms: float
    delay_max_ms: float
    messages: int
    log: list[str]


class Simulation:
    """One run."""

    def __init__(self, weather: Weather) -> None:
        self.weather = weather
        self._rng = np.random.default_rng([0x51, weather.seed])
        self.link: Link = traffic(weather, self._rng, EPOCH + WARM_UP)
        self.now = EPOCH
        self.log: list[str] = []
        self.captures = [kept(weather, r, len(self.link), self._rng) for r in range(weather.replicas)]
        self.replicas = [self._replica(r, 0) for r in range(weather.replicas)]
        self.gone: list[Replica] = []
        self.agreed: list[int] = []  # true index by seq: the first publisher's word
        self.times: list[int] = []
        self.flags: list[int] = []  # of the agreed packets that are not void
        self._tolerances: list[tuple[int, int]] = []  # true time, the largest tolerance in force from then on
        self._stable_at = np.zeros(0, np.int64)
        self._heap: list[tuple[int, int, int, Message | Fault | None]] = []
        self._count = 0
        self.messages = 0
        self._last_ns = int(self.link.time_ns[-1])
        for r in range(weather.replicas):
            self._schedule(EPOCH + r * 1000, r, None)
        for fault in weather.faults:
            self._last_ns = max(self._last_ns, EPOCH + WARM_UP + fault.at + fault.length + REJOIN)
            for r in range(weather.replicas):
                if fault.replicas >> r & 1:
                    self._schedule(EPOCH + WARM_UP + fault.at, r, fault)

    def _replica(self, r: int, since: int) -> Replica:
        """Replica `r` as it starts, capturing what comes after the true time `since`."""
        w = self.weather
        ids = self.captures[r]
        ids = ids[self.link.time_ns[ids] >= since]
        true = self.link.time_ns[ids]
        times = true + w.offset[r] + ((true - EPOCH) * w.drift[r] * 1e-6).astype(np.int64)
        if w.jitter:
            times = times + self._rng.integers(0, w.jitter + 1, len(times))
        times = np.maximum.accumulate(times) if len(times) else times
        stream = SimulatedStream(ids, self.link.hash[ids], times.astype(np.int64))
        settings = Settings(
            me=r,
            members=w.replicas,
            incarnation=self.now + r,
            wait_for_all=True,
            agreed_slots=1 << 20,
            timers=Timers(match=300 * MS),
        )
        replica = Replica(stream, None, w.offset[r], w.drift[r])  # type: ignore[arg-type]
        replica.engine = Engine(settings, stream, replica.local(self.now))
        return replica

    # -- the world ------------------------------------------------------------------------------

    def _schedule(self, at: int, r: int, message: Message | Fault | None) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, r, message))

    def run(self) -> Result:
        """Run to the end of the agreed stream; raises BrokenPromiseError."""
        while self._heap and not all(x.ended for x in self.replicas):
            self.now, _, r, message = heapq.heappop(self._heap)
            if self.now > self._last_ns + SETTLE:
                self._broken("liveness: " + "; ".join(self._where(i) for i in range(len(self.replicas))))
            if isinstance(message, Fault):
                self._strike(r, message)
            elif not self.replicas[r].dead:
                self._step(r, message)
        self._check_end()
        return self._result()

    def _strike(self, r: int, fault: Fault) -> None:
        """Something befalls replica `r`."""
        x = self.replicas[r]
        self.log.append(
            f"{(self.now - EPOCH) / 1e6:.3f} ms r{r} {fault.kind} {fault.length / 1e6:.0f} ms dead {x.dead}"
        )
        if fault.kind == "crash" and x.dead:
            self._restart(r)
        elif not self._survivor(x):
            return
        elif fault.kind == "crash":
            self._kill(r, fault.length)
        elif fault.kind == "stop":
            x.stalled_until = self.now + fault.length
            self._last_ns = max(self._last_ns, x.stalled_until + REJOIN)

    def _survivor(self, x: Replica) -> bool:
        """Whether somebody else in the same view goes on when `x` goes."""
        others = [y for y in self.replicas if y is not x and not y.dead and y.stalled_until <= self.now]
        return any(y.engine.view == x.engine.view and y.engine.members == x.engine.members for y in others)

    def _kill(self, r: int, restart_after: int) -> None:
        x = self.replicas[r]
        x.dead = True
        self._last_ns = max(self._last_ns, self.now + restart_after + REJOIN)
        self._schedule(self.now + restart_after, r, Fault("crash", 0, 0, 1 << r))

    def _restart(self, r: int) -> None:
        """Replica `r` starts again, as a new incarnation with nothing in hand."""
        self.gone.append(self.replicas[r])
        self.replicas[r] = self._replica(r, self.now)
        self._schedule(self.now, r, None)

    def _step(self, r: int, message: Message | None) -> None:
        x = self.replicas[r]
        if message is None and self.now != x.due_ns and x.due_ns >= 0:
            return  # an older deadline
        if self.now < x.stalled_until:
            self._schedule(x.stalled_until, r, message)
            return
        local = x.local(self.now)
        x.stream.until(local - self.weather.jitter)
        if not x.said_end and self.now > self._last_ns + 30 * MS:
            x.said_end = True
            x.stream.until(np.iinfo(np.int64).max)
            x.engine.end_of_stream()
        if message is not None:
            self.messages += 1
            x.engine.receive(message, local)
        self._note_tolerance(x)
        x.engine.tick(local)
        self._carry_out(r, x)
        self._note_tolerance(x)
        due = self.now + max(x.engine.deadline_ns() - local, 10 * US)
        if self.weather.stall and self._rng.random() < 0.002:
            x.stalled_until = due = self.now + int(self._rng.integers(0, self.weather.stall))
        x.due_ns = due
        self._schedule(due, r, None)

    def _carry_out(self, r: int, x: Replica) -> None:
        actions = x.engine.actions()
        while actions:
            for action in actions:
                self._act(r, x, action)
            actions = x.engine.actions()

    def _note_tolerance(self, x: Replica) -> None:
        """Remember by how much the clocks may err just now."""
        coordinator = x.engine.coordinator
        if coordinator is not None:
            tolerance = max(coordinator.merger.tolerance_ns(m) for m in coordinator.members)
            if not self._tolerances or self._tolerances[-1][1] != tolerance:
                self._tolerances.append((self.now, tolerance))

    def _act(self, r: int, x: Replica, action: Action) -> None:
        match action:
            case Send():
                self._send(action.member, action.message)
            case Push():
                self._send(action.member, self._bytes(r, x, action))
            case Store():
                self._store(x, action)
            case Publish():
                self._publish(r, x, action)
            case Stable():
                self._stable(r, x, action)
            case Free():
                if action.position >= 0:
                    x.stream.tail = action.position
                x.freed_recovered = action.recovered
            case Start():
                x.start = action.position
                x.first_seq = x.stable = x.published_end = action.seq
                if action.position > x.stream.tail:
                    x.stream.tail = action.position
            case Change():
                self.log.append(f"{(self.now - EPOCH) / 1e6:.3f} ms r{r} view {action.view.number} {action.members}")
            case Rejoin():
                self.log.append(f"{(self.now - EPOCH) / 1e6:.3f} ms r{r} rejoins: {action.reason}")
                self._kill(r, 50 * MS)
            case End():
                x.ended = True
            case Note():
                self.log.append(f"{(self.now - EPOCH) / 1e6:.3f} ms r{r} {action.event} {action.facts}")
            case Fail():
                self._broken(f"r{r} failed: {action.reason}")

    def _send(self, to: int, message: Message) -> None:
        w = self.weather
        if w.message_loss and self._rng.random() < w.message_loss:
            return
        times = 2 if w.message_repeat and self._rng.random() < w.message_repeat else 1
        for _ in range(times):
            wait = w.delay + (int(self._rng.integers(0, w.delay_spread)) if w.delay_spread else 0)
            self._schedule(self.now + wait, to, message)

    def _true(self, x: Replica, refs: I64) -> I64:
        """True packet indices behind slot references."""
        out = np.empty(len(refs), np.int64)
        own = refs < RECOVERED
        out[own] = x.stream.ids[refs[own]]
        table = np.array(x.recovered, np.int64)
        numbers = refs[~own] - RECOVERED
        assert (numbers >= x.freed_recovered).all(), "a freed recovered packet is used"
        out[~own] = table[numbers] if len(numbers) else []
        return out

    def _bytes(self, r: int, x: Replica, push: Push) -> Message:
        true = self._true(x, push.refs)
        message = Bytes(r, x.engine.settings.incarnation, push.view, push.seq, self.link.hash[true])
        message.data = true.astype("<i8").tobytes()
        return message

    def _store(self, x: Replica, action: Store) -> None:
        message, wanted = action.message, action.mask.astype(bool)
        true = np.frombuffer(message.data, "<i8")[wanted]
        first = len(x.recovered)
        x.recovered.extend(true.tolist())
        refs = RECOVERED + np.arange(first, first + len(true))
        x.engine.stored(message.seq[wanted], message.hash[wanted], refs, x.local(self.now))

    # -- the promises -----------------------------------------------------------------------------

    def _broken(self, what: str) -> None:
        w = self.weather
        replay = f"ftnids simulate --seeds {w.seed}:{w.seed} --replicas {w.replicas}"
        raise BrokenPromiseError(f"seed {w.seed}: {what}\nreplay: {replay}")

    def _where(self, r: int) -> str:
        x = self.replicas[r]
        m = x.engine.member
        return f"r{r} {x.engine.state.name}" + (
            f" decided {m.window.end} acked {m.acked} stable {m.stable} fed {m.fed}" if m else ""
        )

    def _publish(self, r: int, x: Replica, action: Publish) -> None:
        if action.first_seq != x.published_end:
            self._broken(f"agreement: r{r} publishes from {action.first_seq} after {x.published_end}")
        for ref in action.refs[action.flags & Flag.VOID == 0].tolist():
            assert ref >= 0, "published without its bytes"
        true = np.full(len(action.refs), -1)
        here = action.refs >= 0
        true[here] = self._true(x, action.refs[here])
        x.published_end += len(true)
        x.published += zip(true.tolist(), action.time_us.tolist(), action.flags.tolist(), strict=True)

    def _stable(self, r: int, x: Replica, action: Stable) -> None:
        """Agreement, validity and the meaning of stable."""
        members = x.engine.members
        for i in members:
            other = self.replicas[i]
            if not other.dead and i in other.engine.members and other.published_end < action.seq:
                self._broken(f"stable: r{r} calls {action.seq} stable, r{i} has {other.published_end}")
        first, count = x.stable, action.seq - x.stable
        fresh, x.published = x.published[:count], x.published[count:]
        x.stable = action.seq
        for i, (a, t, f) in enumerate(fresh):
            seq = first + i
            if seq < len(self.agreed):
                known = self.agreed[seq]
                same = (a < 0) == (known < 0) and (a < 0 or self.link.hash[known] == self.link.hash[a])
                if not same or self.times[seq] != t:
                    self._broken(f"agreement: r{r} has another packet or time at seq {seq}")
                continue
            if seq != len(self.agreed):
                self._broken(f"agreement: r{r} calls {seq} stable, {len(self.agreed)} is next")
            if self.times and t < self.times[-1]:
                self._broken(f"order: agreed time decreases at seq {seq}")
            self.agreed.append(a)
            self.times.append(t)
            if a >= 0:
                self.flags.append(f)
        x.engine.fed(action.seq)
        if len(self._stable_at) < action.seq:
            grown = np.zeros(max(action.seq, 2 * len(self._stable_at)), np.int64)
            grown[: len(self._stable_at)] = self._stable_at
            self._stable_at = grown
        self._stable_at[first : action.seq] = self.now  # the last replica's word stays

    def _check_end(self) -> None:
        self._check_completeness()
        self._check_order()
        if self.weather.healthy:
            worst = self._delays().max(initial=0)
            if worst > BOUND / 1e6:
                self._broken(f"delay: a packet was stable {worst:.1f} ms after its capture")

    def _captured(self) -> list[I64]:
        """What each replica that lived to the end captured in its views."""
        return [x.stream.ids[max(x.start, 0) :] for x in self.replicas if not x.dead]

    def _ever(self) -> list[I64]:
        """What anyone ever captured."""
        return [x.stream.ids for x in (*self.replicas, *self.gone)]

    def _tolerance(self, times: I64) -> I64:
        """By packet: equal ones closer than this are ambiguous: neither clocks nor order tell them apart."""
        since = np.array([at for at, _ in self._tolerances])
        value = np.array([tolerance for _, tolerance in self._tolerances])
        first = np.maximum(np.searchsorted(since, times) - 1, 0)
        last = np.minimum(np.searchsorted(since, times + DECIDED), len(value) - 1)
        in_force = np.array([value[a : b + 1].max() for a, b in zip(first, last, strict=True)])
        return np.asarray(limits.REORDER_NS + 2 * in_force + 4 * self.weather.jitter, np.int64)

    def _check_completeness(self) -> None:
        """Once per real occurrence; between the largest replica's count and the union where ambiguous."""
        captured = self._captured()
        union = np.unique(np.concatenate(self._ever()))
        _, group = np.unique(self.link.hash, return_inverse=True)
        order = np.lexsort((self.link.time_ns, group))
        gaps = np.diff(self.link.time_ns[order])
        fresh = np.r_[True, (np.diff(group[order]) != 0) | (gaps > self._tolerance(self.link.time_ns)[order][1:])]
        burst = np.empty(len(order), np.int64)
        burst[order] = np.cumsum(fresh) - 1
        bursts = int(burst.max()) + 1
        most = np.max([np.bincount(burst[c], minlength=bursts) for c in captured], axis=0)
        in_union = np.bincount(burst[union], minlength=bursts)
        found = np.array(self.agreed, np.int64)
        agreed = np.bincount(burst[found[found >= 0]], minlength=bursts)
        for name, bad in (("lost", agreed < most), ("twice", agreed > in_union)):
            if bad.any():
                b = int(np.flatnonzero(bad)[0])
                self._broken(
                    f"completeness: packets {np.flatnonzero(burst == b).tolist()[:8]} {name}: "
                    f"agreed {agreed[b]}, most {most[b]}, union {in_union[b]}; {int(bad.sum())} such"
                )

    def _check_order(self) -> None:
        """Packets of which there is only one keep the order in which each replica captured them.

        A repeat may be taken for a reordered packet, and then replicas contradict each other: only runs without tell.
        """
        if self.weather.repeats or self.weather.flood:
            return
        _, index, counts = np.unique(self.link.hash, return_index=True, return_counts=True)
        single = np.zeros(len(self.link), bool)
        single[index[counts == 1]] = True
        everywhere = np.zeros(len(self.link), np.int64)
        for ids in self._captured():
            everywhere[ids] += 1
        agreed = np.array(self.agreed, np.int64)
        agreed = agreed[agreed >= 0]
        ordinary = np.array(self.flags, np.int64) & Flag.LATE == 0
        common = agreed[single[agreed] & (everywhere[agreed] == len(self._captured())) & ordinary]
        if (np.diff(common) < 0).any():
            at = int(np.flatnonzero(np.diff(common) < 0)[0])
            self._broken(f"order: packet {common[at]} before {common[at + 1]}")
        for r, ids in enumerate(self._captured()):
            mine = agreed[single[agreed] & np.isin(agreed, ids) & ordinary]
            if (np.diff(mine) < 0).any():
                at = int(np.flatnonzero(np.diff(mine) < 0)[0])
                self._broken(f"order: r{r}'s packet {mine[at]} before {mine[at + 1]}")

    def _delays(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        agreed = np.array(self.agreed, np.int64)
        here = agreed >= 0
        return (self._stable_at[: len(agreed)][here] - self.link.time_ns[agreed[here]]) / 1e6

    def _result(self) -> Result:
        last = next(m.last for x in self.replicas if (m := x.engine.member) is not None)
        delays = self._delays()
        union = len(np.unique(np.concatenate(self._captured())))
        return Result(
            self.weather.seed,
            self.weather.replicas,
            union,
            len(self.agreed),
            last.ambiguous if last else 0,
            last.late if last else 0,
            float(np.percentile(delays, 99)) if len(delays) else 0.0,
            float(delays.max(initial=0)),
            self.messages,
            self.log,
        )


def simulate(seed: int, replicas: int | None = None) -> Result:
    """Run one seed; raises BrokenPromiseError when a promise does not hold."""
    return Simulation(draw(seed, replicas)).run()

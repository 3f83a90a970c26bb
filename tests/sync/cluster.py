"""N engines on a network that a test breaks as it likes: links cut one way, captures that stick, feeds that stop.

Time goes in steps of a few milliseconds.  The simulation draws its weather; here a test says what happens and when,
reads the engines' own tables, and checks at the end that replicas of one view hold one stream.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

import numpy as np

from ftnids.sync.actions import Change, Fail, Free, Note, Publish, Push, Rejoin, Send, Stable, Start, Store
from ftnids.sync.engine import Engine
from ftnids.sync.member import RECOVERED
from ftnids.sync.messages import I64, U64, Bytes, Message
from ftnids.sync.settings import MS, Settings, Timers

EPOCH = 1_700_000_000_000_000_000
RESTART_MS = 50
STEP_MS = 4
TIMERS = Timers(report=STEP_MS * MS, match=100 * MS, join=500 * MS)
FOREVER = int(np.iinfo(np.int64).max)


class Capture:
    """A capture stream with a ring of `slots` places; what finds none is dropped."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.ids: list[int] = []
        self._hash: U64 = np.empty(0, np.uint64)
        self._time: I64 = np.empty(0, np.int64)
        self.tail = 0
        self.watermark_ns = 0
        self.drops = 0

    @property
    def head(self) -> int:
        return len(self.ids)

    def put(self, ids: list[int], hashes: U64, times: I64) -> None:
        room = self.slots - (self.head - self.tail)
        self.drops += max(0, len(ids) - room)
        self.ids += ids[:room]
        self._hash = np.concatenate([self._hash, hashes[:room]])
        self._time = np.concatenate([self._time, times[:room]])

    def hashes(self, first: int, last: int) -> U64:
        assert self.tail <= first <= last <= self.head
        return self._hash[first:last]

    def times(self, first: int, last: int) -> I64:
        assert self.tail <= first <= last <= self.head
        return self._time[first:last]


class Host:
    """One replica: engine, capture, what it published, what its feed has taken."""

    def __init__(self, engine: Engine, capture: Capture, born: int) -> None:
        self.engine = engine
        self.capture = capture
        self.born = born
        self.recovered: list[int] = []
        self.agreed: dict[int, tuple[int, int]] = {}  # by seq: packet, time; stable or not
        self.start = -1
        self.stable = 0
        self.fed = 0
        self.ended = False

    @property
    def members(self) -> tuple[int, ...]:
        return self.engine.members

    @property
    def stream(self) -> dict[int, tuple[int, int]]:
        """What is stable here."""
        return {seq: packet for seq, packet in self.agreed.items() if seq < self.stable}


class Cluster:
    """N replicas, one link with `rate` packets/s, and a network from each to each."""

    def __init__(
        self,
        count: int,
        *,
        rate: float = 500.0,
        loss: float = 0.1,
        slots: int = 1 << 20,
        seed: int = 1,
        message_loss: float = 0.0,
        **settings: object,
    ) -> None:
        self.rng = np.random.default_rng([0xE, seed])
        self.count, self.rate, self.loss, self.slots = count, rate, loss, slots
        self.message_loss = message_loss
        self.settings = {"timers": TIMERS, **settings}
        self.now = EPOCH
        self.packets = 0
        self.blocked: set[tuple[int, int]] = set()  # (a, b): what a sends does not reach b
        self.stuck: set[int] = set()  # whose capture stands still
        self.paused: set[int] = set()  # who does nothing, and reads its mail later; the capture goes on
        self.down: dict[int, int] = {}  # by dead replica: when it starts again
        self.hung: set[int] = set()  # whose feed takes nothing
        self.slow: dict[int, int] = {}  # packets/s that a feed takes
        self.full_stops = False  # a full ring makes the capture wait, as a file does
        self.filter: Callable[[int, int, Message], bool] = lambda a, b, message: True  # False: lost
        self.delay: Callable[[int, int, Message], int] = lambda a, b, message: MS // 5
        self.notes: list[tuple[int, int, str, dict[str, object]]] = []  # ms, replica, event, facts
        self.restarts = [0] * count
        self._mail: list[tuple[int, int, int, Message]] = []
        self._sent = 0
        self.hosts = [self._host(r) for r in range(count)]

    def _host(self, r: int) -> Host:
        capture = Capture(self.slots)
        given = {"me": r, "members": self.count, "incarnation": self.now + r, "agreed_slots": 1 << 20, **self.settings}
        return Host(Engine(Settings(**given), capture, self.now), capture, self.now)  # type: ignore[arg-type]

    # -- what a test does to it --------------------------------------------------------------------

    def cut(self, *sides: Iterable[int]) -> None:
        """Separate `sides` from each other."""
        groups = [set(side) for side in sides]
        for one in groups:
            for other in groups:
                if one is not other:
                    self.blocked |= {(a, b) for a in one for b in other}

    def heal(self) -> None:
        self.blocked.clear()

    def kill(self, r: int, restart_ms: int | None = None) -> None:
        self.down[r] = FOREVER if restart_ms is None else self.now + restart_ms * MS

    def run(self, ms: int) -> Cluster:
        for _ in range(-(-ms // STEP_MS)):
            self._step()
        return self

    def until(self, done: Callable[[], bool], ms: int) -> int:
        """Run until `done`, at most `ms`; how long it took."""
        for passed in range(0, ms, STEP_MS):
            if done():
                return passed
            self._step()
        assert done(), self.describe()
        return ms

    # -- time ---------------------------------------------------------------------------------------

    def _step(self) -> None:
        self.now += STEP_MS * MS
        for r, at in list(self.down.items()):
            if self.now >= at:
                del self.down[r]
                self.restarts[r] += 1
                self.hung.discard(r)
                self.hosts[r] = self._host(r)
        self._capture()
        later: list[tuple[int, int, int, Message]] = []
        while self._mail and self._mail[0][0] <= self.now:
            _, number, r, message = heapq.heappop(self._mail)
            if r in self.paused:
                later.append((self.now + STEP_MS * MS, number, r, message))
            elif r not in self.down:
                self.hosts[r].engine.receive(message, self.now)
                self._carry_out(r)
        for item in later:
            heapq.heappush(self._mail, item)
        for r, host in enumerate(self.hosts):
            if r in self.down or r in self.paused or host.ended:
                continue
            if r not in self.hung:
                room = self.slow.get(r, FOREVER) * STEP_MS // 1000
                host.fed = min(host.stable, host.fed + room)
            host.engine.fed(host.fed)
            host.engine.filled((host.capture.head - host.capture.tail) / host.capture.slots)
            host.engine.tick(self.now)
            self._carry_out(r)

    def _capture(self) -> None:
        fresh = int(self.rng.poisson(self.rate * STEP_MS / 1000))
        ids = np.arange(self.packets, self.packets + fresh)
        self.packets += fresh
        times = np.sort(self.now - self.rng.integers(0, STEP_MS * MS, fresh))
        hashes = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        for r, host in enumerate(self.hosts):
            keep = self.rng.random(fresh) >= self.loss
            full = host.capture.head - host.capture.tail >= host.capture.slots
            if r in self.stuck or r in self.down or host.ended or (full and self.full_stops):
                continue
            host.capture.put(ids[keep].tolist(), hashes[keep], times[keep])
            host.capture.watermark_ns = self.now

    # -- what an engine asks for ----------------------------------------------------------------------

    def _carry_out(self, r: int) -> None:
        host = self.hosts[r]
        while actions := host.engine.actions():
            for action in actions:
                self._act(r, host, action)
                if r in self.down:
                    return

    def _act(self, r: int, host: Host, action: object) -> None:
        match action:
            case Send():
                self._send(r, action.member, action.message)
            case Push():
                ids = np.array([self._packet(host, ref) for ref in action.refs.tolist()])
                hashes = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
                message = Bytes(r, host.engine.settings.incarnation, action.view, action.seq, hashes)
                message.data = ids.astype("<i8").tobytes()
                self._send(r, action.member, message)
            case Store():
                wanted = action.mask.astype(bool)
                ids = np.frombuffer(action.message.data, "<i8")[wanted]
                refs = RECOVERED + np.arange(len(host.recovered), len(host.recovered) + len(ids))
                host.recovered += ids.tolist()
                host.engine.stored(action.message.seq[wanted], action.message.hash[wanted], refs, self.now)
            case Publish():
                for i, (ref, time) in enumerate(zip(action.refs.tolist(), action.time_us.tolist(), strict=True)):
                    host.agreed[action.first_seq + i] = (self._packet(host, ref) if ref >= 0 else -1, time)
            case Stable():
                assert all(seq in host.agreed for seq in range(host.stable, action.seq)), "stable, but not here"
                host.stable = action.seq
            case Free():
                host.capture.tail = max(host.capture.tail, action.position)
            case Start():
                host.start, host.stable, host.fed = action.position, action.seq, action.seq
                host.capture.tail = max(host.capture.tail, action.position)
            case Rejoin():
                self.note(r, "rejoin", {"reason": action.reason})
                self.kill(r, RESTART_MS)
            case Note():
                self.note(r, action.event, action.facts)
            case Fail():
                raise AssertionError(f"replica {r} failed: {action.reason}")
            case Change():
                self.note(r, "view", {"number": action.view.number, "members": action.members})
            case _:
                host.ended = True

    def _packet(self, host: Host, ref: int) -> int:
        return host.recovered[ref - RECOVERED] if ref >= RECOVERED else host.capture.ids[ref]

    def _send(self, a: int, b: int, message: Message) -> None:
        if (a, b) in self.blocked or not self.filter(a, b, message) or self.rng.random() < self.message_loss:
            return
        self._sent += 1
        heapq.heappush(self._mail, (self.now + self.delay(a, b, message), self._sent, b, message))

    def note(self, r: int, event: str, facts: dict[str, object]) -> None:
        self.notes.append(((self.now - EPOCH) // MS, r, event, facts))

    # -- what a test asks ---------------------------------------------------------------------------------

    def events(self, event: str) -> list[tuple[int, int, dict[str, object]]]:
        return [(ms, r, facts) for ms, r, name, facts in self.notes if name == event]

    def together(self, *members: int) -> bool:
        """Whether `members` are up and in one view of just them."""
        if any(m in self.down for m in members):
            return False
        views = {self.hosts[m].engine.view for m in members}
        return len(views) == 1 and all(self.hosts[m].members == members for m in members)

    def ready(self) -> Cluster:
        """Run until all are in the first view and packets flow."""
        everyone = tuple(range(self.count))
        self.until(lambda: self.together(*everyone), 3_000)
        self.until(lambda: min(h.stable for h in self.hosts) > 0, 1_000)
        return self

    def describe(self) -> str:
        lines = []
        for r, host in enumerate(self.hosts):
            member, view = host.engine.member, host.engine.view
            where = f"decided {member.window.end} acked {member.acked} stable {host.stable}" if member else ""
            frozen = "frozen" if member and member.frozen else ""
            lines.append(
                f"{r}: {'down' if r in self.down else host.engine.state.name} view {view.number} of {view.coordinator} "
                f"{host.members} {where} {frozen}"
            )
        return "\n".join([*lines, *(f"{ms} ms r{r} {event} {facts}" for ms, r, event, facts in self.notes)])

    def agree(self, *members: int) -> None:
        """The streams of `members` are equal where they overlap, without repeats, times never decreasing."""
        streams = [self.hosts[m].stream for m in members]
        for stream in streams:
            seqs = sorted(stream)
            assert seqs == list(range(seqs[0], seqs[-1] + 1)) if seqs else True
            packets = [stream[seq][0] for seq in seqs if stream[seq][0] >= 0]
            assert len(packets) == len(set(packets)), "a packet came out twice"
            times = [stream[seq][1] for seq in seqs]
            assert times == sorted(times), "agreed time decreases"
            for other in streams:
                for seq in stream.keys() & other.keys():
                    assert stream[seq] == other[seq], f"seq {seq} differs"

    def lost(self, r: int, *, settle_ms: int = 0) -> list[int]:
        """Packets that `r` captured in its views and that are not in its agreed stream, the newest ones aside.

        These are younger than `settle_ms`, or by default than a stream needs to settle.  That takes longer where
        messages are lost: a report is sent again after 50 ms, and may be lost again.
        """
        settle_ms = settle_ms or (300 if self.message_loss else 100)
        host = self.hosts[r]
        times = host.capture._time
        own = host.capture.ids[max(host.start, 0) : int(np.searchsorted(times, self.now - settle_ms * MS))]
        there = {packet for packet, _ in host.stream.values()}
        return [packet for packet in own if packet not in there]

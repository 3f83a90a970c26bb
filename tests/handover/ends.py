"""Joiners and donors that talk over a made-up network, with files and IDSs that are made up, too."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from ftnids.handover.actions import Check, Cold, Drop, Forget, Prepare, Read, Restore, Write
from ftnids.handover.donor import Donor
from ftnids.handover.joiner import Joiner, Phase
from ftnids.sync.actions import Note, Send
from ftnids.sync.messages import Ask, Chunk, Message, Offer, Refuse, Taken

MS = 1_000_000
SECOND = 1000 * MS
TURN = 5 * MS
PIECE = 10  # bytes

Event = tuple[int, int, Callable[[], None]]


@dataclass
class World:
    """Replicas by number; whoever is `alive` hears and is heard.

    `loss` of the messages, each late by up to `late`; those of one replica to another overtake each other if `mixed`.
    """

    rng: random.Random
    loss: float = 0.0
    late: int = 2 * MS
    mixed: bool = False
    now: int = SECOND
    alive: set[int] = field(default_factory=set)
    ends: dict[int, Replica] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    sent: list[tuple[int, int, Message]] = field(default_factory=list)
    count: int = 0
    last: dict[tuple[int, int], int] = field(default_factory=dict)  # when the newest of each way comes

    def add(self, number: int, **more: object) -> Replica:
        self.alive.add(number)
        self.ends[number] = replica = Replica(self, number, **more)  # type: ignore[arg-type]
        return replica

    def after(self, delay: int, what: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + delay, self.count, what))

    def send(self, source: int, target: int, message: Message) -> None:
        self.sent.append((source, target, message))
        if self.rng.random() >= self.loss:
            comes = self.now + self.rng.randint(0, self.late)
            if not self.mixed:
                comes = self.last[source, target] = max(comes, self.last.get((source, target), 0))
            self.after(comes - self.now, lambda: self.deliver(target, message))

    def deliver(self, target: int, message: Message) -> None:
        if target in self.alive and message.sender in self.alive:
            self.ends[target].receive(message)

    def run(self, until: Callable[[], bool], seconds: float = 60) -> None:
        """Turn after turn, until something is so."""
        end = self.now + int(seconds * SECOND)
        while not until():
            assert self.now < end, "it takes too long"
            self.now += TURN
            while self.events and self.events[0][0] <= self.now:
                heapq.heappop(self.events)[2]()
            for number in sorted(self.alive):
                self.ends[number].turn()


@dataclass
class Replica:
    """Both ends of one replica, its disk and its IDS.

    `image`: what it gives, in pieces; `slow`: how long its disk takes for one; `broken`: what goes wrong here, and why
    it is said to.
    """

    world: World
    me: int
    image: int = 40
    slow: int = 2 * MS
    broken: dict[str, str] = field(default_factory=dict)
    disk: dict[int, list[bytes]] = field(default_factory=dict)  # by transfer: pieces that came
    taken: set[int] = field(default_factory=set)  # transfers for which an image lies here
    ids: list[str] = field(default_factory=list)  # how its IDS began
    facts: list[tuple[str, dict[str, object]]] = field(default_factory=list)  # events that were noted
    most_written: int = 0

    def __post_init__(self) -> None:
        self.joiner = Joiner(self.me, 1, lambda: self.world.rng.randrange(1, 1 << 64))
        self.donor = Donor(self.me, 1)
        self._waiting = self._disk_free = 0  # pieces that are not written yet; when the last one will be

    def join(self, seq: int = 7) -> None:
        self.joiner.candidates = self.others()
        self.joiner.begin(seq, b"{}", self.world.now)

    def others(self) -> list[int]:
        return sorted(self.world.alive - {self.me})

    def receive(self, message: Message) -> None:
        now = self.world.now
        if isinstance(message, Ask | Taken) or (
            isinstance(message, Refuse) and message.transfer != self.joiner.transfer
        ):
            self.donor.received(message, now)
        else:
            assert isinstance(message, Offer | Chunk | Refuse)
            self.joiner.received(message, now)

    def turn(self) -> None:
        now = self.world.now
        self.joiner.candidates = self.others()
        self.joiner.tick(now)
        self.donor.present(tuple(sorted(self.world.alive)))
        self.donor.tick(now)
        while actions := [*self.joiner.actions(), *self.donor.actions()]:
            for action in actions:
                self.act(action)

    def fault(self, what: str) -> str:
        return self.broken.get(what, "")

    def act(self, action: object) -> None:
        world, after = self.world, self.world.after
        match action:
            case Send():
                world.send(self.me, action.member, action.message)
            case Note():
                self.facts.append((action.event, action.facts))
            case Check(offer):
                self.disk[offer.transfer] = []
                why, pieces = self.fault("check"), int(offer.manifest)
                after(3 * MS, lambda: self.joiner.checked(offer.transfer, why, pieces, pieces * PIECE, world.now))
            case Write(transfer, data):
                self._waiting += 1
                self.most_written = max(self.most_written, self._waiting)
                self._disk_free = max(self._disk_free, world.now) + world.rng.randint(
                    0, self.slow
                )  # one after the other
                after(self._disk_free - world.now, lambda: self.wrote(transfer, data))
            case Restore(transfer):
                after(20 * MS, lambda: self.restored(transfer))
            case Forget(transfer):
                self.disk.pop(transfer, None)
            case Cold(reason):
                self.ids.append(f"cold: {reason}")
            case Prepare(transfer):
                self.taken.add(transfer)
                after(100 * MS, lambda: self.prepared(transfer))
            case Read(transfer, first, last):
                pieces_read = [b"%10d" % number for number in range(first, last)]
                after(2 * MS, lambda: self.donor.read(transfer, first, pieces_read, self.fault("read")))
            case Drop(transfer):
                self.taken.discard(transfer)

    def wrote(self, transfer: int, data: bytes) -> None:
        self._waiting -= 1
        pieces = self.disk.get(transfer, [])
        pieces.append(data)
        self.joiner.wrote(transfer, self.fault("write"), PIECE * len(pieces), self.world.now)

    def restored(self, transfer: int) -> None:
        why = self.fault("restore")
        assert self.disk[transfer] == [b"%10d" % number for number in range(self.joiner.total // PIECE)]
        self.ids.append(f"cold: {why}" if why else f"from {self.joiner.donor}")
        self.joiner.restored(transfer, why, self.world.now)

    def prepared(self, transfer: int) -> None:
        why = self.fault("dump")
        self.donor.prepared(transfer, b"%d" % self.image, self.image, why, self.world.now)

    @property
    def over(self) -> bool:
        return self.joiner.phase is Phase.OVER

    def clean(self) -> bool:
        """Nothing of any image lies here."""
        return not self.disk and not self.taken

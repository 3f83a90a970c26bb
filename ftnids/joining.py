"""State transfer of one replica: the two machines of `ftnids.handover` on a transport, an IDS and files.

What takes time is not done in the main loop: images are hashed, read and written by a thread of this module, taken and
restored by the IDS's supervisor (`ftnids.feed.kept`).  Each answers with a future; `tick` hands it to the machine.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from ftnids import log, notes
from ftnids.config import Config
from ftnids.core import Ring
from ftnids.feed import Ids
from ftnids.feed.checkpoint import CheckpointError
from ftnids.feed.criu_checkpoints import INCOMING, OUTGOING
from ftnids.feed.images import Image
from ftnids.feed.kept import Donation, KeptIds
from ftnids.feed.transfer import Manifest, Packer, Unpacker, differences, facts, manifest_of, needed, needs
from ftnids.handover.actions import Action, Check, Cold, Drop, Forget, Prepare, Read, Restore, Write
from ftnids.handover.donor import Donor
from ftnids.handover.joiner import Joiner, Phase
from ftnids.limits import MAX_UNSTABLE, STATE_LOOK_S
from ftnids.peers.transport import Transport
from ftnids.sync.actions import Note, Send
from ftnids.sync.engine import Engine
from ftnids.sync.messages import Ask, Chunk, Heartbeat, Offer, Refuse, Taken

Handover = Ask | Offer | Chunk | Taken | Refuse
LEAST: Final = 2  # the protocol version that has these messages

_T = TypeVar("_T")


class Joining:
    """A replica's transfers, in both directions; of the main loop's thread."""

    def __init__(self, config: Config, ids: Ids | None, ring: Ring, engine: Engine, transport: Transport) -> None:
        self._ring, self._engine, self._transport = ring, engine, transport
        self._names = [member.name for member in config.cluster.member]
        self._log = log.get("state", replica=config.replica.name)
        self._ids = ids if config.feed.state == "transfer" and isinstance(ids, KeptIds) else None
        self._folder = config.replica.run_dir / INCOMING
        settings = engine.settings
        self.joiner = Joiner(settings.me, settings.incarnation, lambda: secrets.randbits(64) or 1)
        refusal = 'it has feed.state = "cold"' if config.feed.state == "cold" else "it has no IDS that CRIU can copy"
        self.donor = Donor(settings.me, settings.incarnation, "" if self._ids else refusal)
        self.received = 0
        self.pause_ms = 0.0  # of the feed, for the newest image that was taken
        self._cold = self._ids is None  # do not ask for a state
        self._asked_s = 0.0  # monotonic time of the first question
        self._catches_up = False  # the IDS goes on from an image, and is behind
        self._done: deque[tuple[Future[Any], Callable[[Future[Any]], None]]] = deque()
        self._woken = False  # something in `_done` does not wait
        self._worker: ThreadPoolExecutor | None = None
        self._incoming: dict[int, Unpacker] = {}  # by transfer
        self._gift: Future[Donation] | None = None  # that is being taken
        self._image: Image | None = None  # that was taken for the transfer that goes on
        self._packer: Packer | None = None
        self._about: tuple[str, str, str] = ("", "", "")
        self._needs = b""
        if self._ids is not None:
            one = self._ids.launcher
            self._about = f"{one.name} {one.version}", one.digest, self._ids.criu_version
            self._needs = needs(*self._about)

    # -- the replica's start ----------------------------------------------------------------------

    def take_over(self, before: Joining) -> None:
        """After a life that got no state, by failure or refusal: this time the IDS is up before the replica joins."""
        got_none = before.joiner.cold or before.joiner.failures > 0
        self._cold = self._cold or (got_none and not before.received)

    def look_around(self) -> None:
        """Before the feed starts: where a set is heard running, its IDS waits for a state."""
        if self._ids is None or self._cold:
            return
        until = time.monotonic() + STATE_LOOK_S
        while (left := until - time.monotonic()) > 0:
            for message in self._transport.receive(left):
                if isinstance(message, Heartbeat) and message.view.number:
                    self._ids.hold()
                    return

    def start(self, seq: int) -> None:
        """The first view: `seq` is this replica's first packet there.  Before anything is published."""
        if self._ids is None:
            return
        if seq == 0 or self._cold:
            self._ids.begin(None)
            return
        self._ids.hold()
        self._asked_s = time.monotonic()
        self.joiner.candidates = self._candidates()
        self.joiner.begin(seq, self._needs, time.monotonic_ns())

    # -- the loop ----------------------------------------------------------------------------------

    def receive(self, message: Handover) -> None:
        """A message of a transfer."""
        now = time.monotonic_ns()
        match message:
            case Offer() | Chunk():
                self.joiner.received(message, now)
            case Refuse() if message.transfer == self.joiner.transfer:
                self.joiner.received(message, now)
            case _:
                self.donor.received(message, now)

    def tick(self) -> None:
        """Everything that is due; cheap where nothing is."""
        self._woken = False
        while self._done:
            future, then = self._done.popleft()
            then(future)
        now = time.monotonic_ns()
        if self.joiner.active:
            ring = self._ring
            behind = max(ring.fill, (ring.agreed - ring.fed) / ring.agreed_slots)
            self.joiner.candidates = self._candidates()
            self.joiner.filled(int(1000 * behind), now)
            self.joiner.tick(now)
        if self._ids is not None:
            if self._catches_up and self._ids.position >= self._ring.stable:
                self._catches_up = False
                seconds = round(time.monotonic() - self._asked_s, 3)
                self._log.info("state_live", seq=self._ids.position, seconds=seconds)
            self.donor.later = "it waits for a state itself" if self._ids.held else ""
            self.donor.present(self._engine.members)
            self.donor.tick(now)
        self._carry_out()

    @property
    def eager(self) -> bool:
        """Whether the main loop is not to wait."""
        return self._woken or self.donor.eager

    @property
    def waits(self) -> bool:
        """Whether the IDS waits for a state: its silence says nothing."""
        return self._ids is not None and self._ids.held

    def counters(self) -> dict[str, int]:
        """Of the status record."""
        failed = self.joiner.failures + self.donor.failures
        return {"states_received": self.received, "states_sent": self.donor.sent, "states_failed": failed}

    def facts(self) -> dict[str, str | int]:
        """What the status says of a transfer that is on its way, for its part about the IDS."""
        if not (self.joiner.active or self.waits):
            return {}
        return {"state": "waits", "image_bytes": self.joiner.bytes, "image_total": self.joiner.total}

    def close(self) -> None:
        """End all transfers, and leave nothing of them; the feed has been stopped."""
        self.joiner.abandon()
        self.donor.abandon()
        self._carry_out()
        if self._worker is not None:
            self._worker.shutdown()
        for folder in (self._folder, self._folder.with_name(OUTGOING)):
            shutil.rmtree(folder, ignore_errors=True)

    def _candidates(self) -> list[int]:
        """Members that may be asked: the coordinator, who has the most to do, comes last."""
        engine = self._engine
        peers = [m for m in engine.members if m != engine.settings.me]
        able = [m for m in peers if engine.membership.peers[m].speaks >= LEAST]
        return sorted(able, key=lambda m: (m == engine.view.coordinator, m))

    # -- what the machines ask for -------------------------------------------------------------------

    def _carry_out(self) -> None:
        while actions := [*self.joiner.actions(), *self.donor.actions()]:
            for action in actions:
                self._act(action)

    def _act(self, action: Action) -> None:
        match action:
            case Send():
                if self._transport.speaks(action.member) >= LEAST:  # else it has just come back: say it again
                    self._transport.send(action.member, action.message)
            case Note():
                getattr(self._log, action.level)(action.event, **notes.named(action.facts, self._names))
            case Check():
                self._check(action.offer)
            case Write():
                # The next piece wakes the main loop soon enough; a turn for each that is written would cost more.
                self._work(lambda: self._taken(action), lambda done: self._wrote(action.transfer, done), wake=False)
            case Restore():
                unpacker = self._incoming[action.transfer]
                self._work(unpacker.image, lambda done: self._restore(action.transfer, unpacker.manifest, done))
            case Forget():
                if (dropped := self._incoming.pop(action.transfer, None)) is not None:
                    self._work(dropped.drop, _nothing)
            case Cold():
                assert self._ids is not None
                self._ids.begin(None)
            case Prepare():
                self._work(lambda: self._fits(action.facts), lambda done: self._give(action, done))
            case Read():
                self._read(action)
            case Drop():
                self._drop()

    def _work(self, job: Callable[[], _T], then: Callable[[Future[_T]], None], *, wake: bool = True) -> None:
        """Have the thread do `job`, and the main loop `then`: at once, or without `wake` when it looks around."""
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, "state")
        self._watch(self._worker.submit(job), then, wake=wake)

    def _watch(self, future: Future[_T], then: Callable[[Future[_T]], None], *, wake: bool = True) -> None:
        def done(future: Future[_T]) -> None:
            self._done.append((future, then))
            if wake:
                self._woken = True
                self._transport.wake()

        future.add_done_callback(done)

    # -- as the joiner -------------------------------------------------------------------------------

    def _check(self, offer: Offer) -> None:
        least, most = self.joiner.seq, self._ring.stable + MAX_UNSTABLE

        def look() -> Unpacker:
            manifest = Manifest.decode(offer.manifest)
            if not least <= manifest.seq <= most:
                raise CheckpointError(f"the image was taken at {manifest.seq}, and is wanted from {least} to {most}")
            if found := differences(manifest.facts, *self._about):
                raise CheckpointError("; ".join(found))
            return Unpacker(manifest, self._folder / f"{offer.transfer:x}")

        def looked(done: Future[Unpacker]) -> None:
            reason, pieces, total = _reason(done), 0, 0
            if not reason:
                unpacker = done.result()
                if offer.transfer != self.joiner.transfer:
                    self._work(unpacker.drop, _nothing)
                    return
                self._incoming[offer.transfer] = unpacker
                pieces, total = unpacker.manifest.pieces, unpacker.manifest.total
            self.joiner.checked(offer.transfer, reason, pieces, total, time.monotonic_ns())

        self._work(look, looked)

    def _taken(self, write: Write) -> int:
        unpacker = self._incoming.get(write.transfer)
        if unpacker is None:
            raise CheckpointError("not wanted any more")
        unpacker.take(write.data)
        return unpacker.received

    def _wrote(self, transfer: int, done: Future[int]) -> None:
        reason = _reason(done)
        self.joiner.wrote(transfer, reason, 0 if reason else done.result(), time.monotonic_ns())

    def _restore(self, transfer: int, manifest: Manifest, done: Future[Image]) -> None:
        assert self._ids is not None
        if self.joiner.phase is not Phase.RESTORING or transfer != self.joiner.transfer:
            return
        if reason := _reason(done):
            self._ids.begin(None)
            self.joiner.restored(transfer, reason, time.monotonic_ns())
            return

        def restored(done: Future[int]) -> None:
            reason = _reason(done)
            self._catches_up = not reason
            self.received += not reason
            self.joiner.restored(transfer, reason, time.monotonic_ns())

        self._watch(self._ids.begin((done.result(), manifest)), restored)

    # -- as the donor --------------------------------------------------------------------------------

    def _fits(self, theirs: bytes) -> None:
        if found := differences(needed(theirs), *self._about):
            raise CheckpointError("; ".join(found))

    def _give(self, prepare: Prepare, done: Future[None]) -> None:
        assert self._ids is not None
        if prepare.transfer != self.donor.transfer:
            return
        most = self._ring.stable + MAX_UNSTABLE
        late = f"it begins at {prepare.seq}, and here it is {most} at most" if prepare.seq > most else ""
        if reason := _reason(done) or late:
            self._prepared(prepare.transfer, reason)
            return
        self._gift = self._ids.donate(prepare.seq)
        self._watch(self._gift, lambda done: self._given(prepare.transfer, done))

    def _given(self, transfer: int, done: Future[Donation]) -> None:
        if reason := _reason(done):
            self._prepared(transfer, reason)
            return
        donation = done.result()
        self.pause_ms = round(donation.pause_s * 1e3, 3)
        self._log.info("state_taken", seq=donation.image.seq, pause_ms=self.pause_ms)
        if transfer != self.donor.transfer:
            self._return(donation.image)
            return
        self._gift, self._image = None, donation.image

        def pack() -> tuple[Packer, bytes]:
            about = facts(*self._about, donation.pid)
            of = {"base_seq": donation.base_seq, "base_us": donation.base_us}
            manifest = manifest_of(donation.image, about, **of, voids=donation.voids)
            return Packer(donation.image, manifest), manifest.encode()

        def packed(done: Future[tuple[Packer, bytes]]) -> None:
            if transfer != self.donor.transfer:
                return
            if reason := _reason(done):
                self._prepared(transfer, reason)
                return
            self._packer, manifest = done.result()
            self.donor.prepared(transfer, manifest, self._packer.count, "", time.monotonic_ns())

        self._work(pack, packed)

    def _prepared(self, transfer: int, reason: str) -> None:
        self.donor.prepared(transfer, b"", 0, reason, time.monotonic_ns())

    def _read(self, read: Read) -> None:
        packer = self._packer
        assert packer is not None

        def come(done: Future[list[bytes]]) -> None:
            reason = _reason(done)
            self.donor.read(read.transfer, read.first, [] if reason else done.result(), reason)

        self._work(lambda: [packer.read(number) for number in range(read.first, read.last)], come)

    def _drop(self) -> None:
        packer, self._packer = self._packer, None
        gift, self._gift = self._gift, None
        image, self._image = self._image, None
        if gift is not None:
            gift.cancel()  # what is taken nevertheless is returned when it comes
        if packer is not None:
            self._work(packer.close, _nothing)
        if image is not None:
            self._return(image)

    def _return(self, image: Image) -> None:
        assert self._ids is not None
        ids = self._ids
        self._work(lambda: ids.returned(image), _nothing)


def _nothing(done: Future[Any]) -> None:
    """Nobody waits for this."""


def _reason(done: Future[Any]) -> str:
    """Why something could not be done, in one line; "" where it was."""
    if done.cancelled():
        return "the IDS was stopped"
    error = done.exception()
    if error is None:
        return ""
    if not isinstance(error, CheckpointError | OSError):
        raise error
    return str(error)

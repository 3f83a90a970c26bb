"""State transfer in one process: real files and threads, a made-up network, IDSs that only note what they are told."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from ftnids import joining, limits
from ftnids.config import Config, parse_text
from ftnids.feed.checkpoint import CheckpointError
from ftnids.feed.criu_checkpoints import INCOMING, OUTGOING
from ftnids.feed.images import Image, Images
from ftnids.feed.kept import Donation, KeptIds
from ftnids.feed.transfer import Facts, Manifest
from ftnids.joining import Joining
from ftnids.sync.messages import Ask, Chunk, Heartbeat, Message, Refuse, View
from tests.two import two

CONTENT = {"core-10.img": b"c" * 300, "empty.img": b"", "pages-1.img": os.urandom(40 * limits.IMAGE_CHUNK + 5)}
FIRST = 500
WAIT_S = 30


class FakeIds(KeptIds):
    """Gives an image of CONTENT, at seq FIRST + 7."""

    def __init__(self, folder: Path) -> None:
        self.launcher = SimpleNamespace(name="fake", version="1", digest="d")  # type: ignore[assignment]
        self.held = False
        self.position = FIRST
        self.begun: list[tuple[Image, Manifest] | None] = []
        self.content: dict[str, bytes] = {}  # of the image from which it began
        self.fails = ""  # why it gives nothing, or does not begin
        self._images = Images(folder / OUTGOING)
        self.waits: Future[Donation] | None = None

    @property
    def criu_version(self) -> str:
        return "4.1"

    def hold(self) -> None:
        self.held = True

    def begin(self, incoming: tuple[Image, Manifest] | None) -> Future[int]:
        self.held = False
        self.begun.append(incoming)
        future: Future[int] = Future()
        if incoming is not None and self.fails:
            future.set_exception(CheckpointError(self.fails))
            return future
        if incoming is not None:
            self.content = {path.name: path.read_bytes() for path in incoming[0].criu.iterdir()}
            self.position = incoming[1].seq
        future.set_result(self.position)
        return future

    def donate(self, seq: int) -> Future[Donation]:
        future: Future[Donation] = Future()
        if self.fails:
            future.set_exception(CheckpointError(self.fails))
        elif self.waits is not None:
            self.waits = future
        else:
            future.set_result(self.gift(seq))
        return future

    def gift(self, seq: int) -> Donation:
        assert self._images is not None
        folder = self._images.new()
        for name, content in CONTENT.items():
            (folder / "criu" / name).write_bytes(content)
        return Donation(Image(folder, seq + 7, 10, 17, ("fake",), {"eve.json": 5}), os.getpid(), 0, 9, (3, 4), 0.1)


@dataclass
class Net:
    """Two replicas; `meddle` may change, or drop, each message on its way."""

    sides: dict[int, Side] = field(default_factory=dict)
    meddle: Callable[[Message], Message | None] = lambda message: message
    speaks: int = 2

    def run(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not until():
            assert time.monotonic() < deadline
            for side in self.sides.values():
                while side.inbox:
                    side.joining.receive(side.inbox.popleft())
                side.joining.tick()
            time.sleep(0.0005)


class Side:
    """One replica, as far as `Joining` sees it."""

    def __init__(self, net: Net, me: int, folder: Path, config: Config) -> None:
        self.net, self.me, self.folder = net, me, folder
        self.inbox: deque[Any] = deque()
        self.heard: list[Message] = []
        peers = {1 - me: SimpleNamespace(speaks=net.speaks)}
        self.engine = SimpleNamespace(
            settings=SimpleNamespace(me=me, incarnation=1),
            members=(0, 1),
            view=View(1, 1, 0, 1),
            membership=SimpleNamespace(peers=peers),
        )
        self.ring = SimpleNamespace(fill=0.0, agreed=FIRST, fed=FIRST, agreed_slots=1000, stable=FIRST)
        self.ids = FakeIds(folder)
        parts: list[Any] = [config, self.ids, self.ring, self.engine, self]
        self.joining = Joining(*parts)
        net.sides[me] = self

    # -- as its transport --
    def send(self, member: int, message: Message) -> bool:
        changed = self.net.meddle(message)
        if changed is not None and member in self.net.sides:
            self.net.sides[member].inbox.append(changed)
        return True

    def speaks(self, member: int) -> int:
        return self.net.speaks

    def wake(self) -> None:
        pass

    def receive(self, timeout_s: float) -> list[Message]:
        heard, self.heard = self.heard, []
        return heard

    def left(self) -> list[str]:
        """Files of images that lie here."""
        return [file for name in (INCOMING, OUTGOING) for _, _, files in os.walk(self.folder / name) for file in files]


def configured(folder: Path, state: str = "transfer") -> Config:
    text = two(replica=f'run_dir = "{folder}"\nlog_dir = "{folder}"')
    return parse_text(f'{text}[feed]\nids = "snort"\nstate = "{state}"\n', folder / "a.toml")


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    about = Facts(ids="fake 1", ids_digest="d", criu="4.1", machine=os.uname().machine, cpu="", mapped={})
    monkeypatch.setattr(joining, "facts", lambda *_: about.model_copy(update={"cpu": joining_cpu()}))
    net = Net()
    for me, name in enumerate(("donor", "joiner")):
        (tmp_path / name).mkdir()
        Side(net, me, tmp_path / name, configured(tmp_path / name))
    yield net
    for side in net.sides.values():
        side.joining.close()
        assert side.left() == []


def joining_cpu() -> str:
    from ftnids.feed.transfer import cpu_digest

    return cpu_digest()


def join(net: Net) -> tuple[Side, Side]:
    donor, joiner = net.sides[0], net.sides[1]
    joiner.joining.start(FIRST)
    net.run(lambda: bool(joiner.ids.begun))
    net.run(lambda: not joiner.joining.joiner.active and not donor.left() and not joiner.left())
    return donor, joiner


def test_an_image_travels_whole(net: Net) -> None:
    with capture_logs() as said:
        donor, joiner = join(net)
        joiner.ring.stable = FIRST + 7
        net.run(lambda: "state_live" in [line["event"] for line in said])
    assert joiner.ids.content == CONTENT
    (begun,) = joiner.ids.begun
    assert begun is not None
    assert (begun[1].seq, begun[1].voids, begun[1].base_us) == (FIRST + 7, [3, 4], 9)
    assert joiner.joining.counters() == {"states_received": 1, "states_sent": 0, "states_failed": 0}
    assert donor.joining.counters() == {"states_received": 0, "states_sent": 1, "states_failed": 0}
    assert donor.joining.pause_ms == 100
    events = [line["event"] for line in said]
    for event in ("state_asked", "state_wanted", "state_taken", "state_comes", "state_sent", "state_restored"):
        assert events.count(event) == 1
    assert {line.get("member") for line in said if line["event"] == "state_comes"} == {"a"}


def test_the_status_says_that_the_ids_waits(net: Net) -> None:
    joiner = net.sides[1]
    assert joiner.joining.facts() == {}
    joiner.joining.start(FIRST)
    assert joiner.joining.waits
    net.run(lambda: joiner.joining.joiner.bytes > 0)
    facts = joiner.joining.facts()
    assert facts["state"] == "waits"
    assert 0 < int(facts["image_bytes"]) <= int(facts["image_total"]) == sum(map(len, CONTENT.values()))
    net.run(lambda: bool(joiner.ids.begun))


def cold(net: Net) -> str:
    """How a joiner says that its IDS began cold, after a transfer in which something is wrong."""
    with capture_logs() as said:
        _, joiner = join(net)
    assert joiner.ids.begun[-1] is None or joiner.ids.fails
    assert joiner.joining.counters()["states_received"] == 0
    (reason,) = [line["reason"] for line in said if line["event"] == "state_cold"]
    assert "\n" not in reason
    return str(reason)


def test_hostile_pieces_are_noticed(net: Net) -> None:
    def damaged(message: Message) -> Message:
        if isinstance(message, Chunk) and message.number == 9:
            message = Chunk(0, 1, View(), message.transfer, 9, message.data[:-1] + b"\0" * 1)
        return message

    net.meddle = damaged
    assert "pages-1.img: wrong digest" in cold(net)


def test_a_manifest_that_cannot_be_is_refused(net: Net) -> None:
    def changed(message: Message) -> Message:
        if getattr(message, "manifest", b""):
            message.manifest = message.manifest.replace(b"core-10.img", b"../../x.img")  # type: ignore[attr-defined]
        return message

    net.meddle = changed
    assert "files.0.name" in cold(net)


@pytest.mark.parametrize("seq", [FIRST - 8, FIRST + limits.MAX_UNSTABLE])
def test_an_image_of_another_time_is_refused(net: Net, seq: int) -> None:
    donor = net.sides[0]
    donor.ids.gift = lambda _: FakeIds.gift(donor.ids, seq)  # type: ignore[method-assign, assignment]
    assert f"the image was taken at {seq + 7}, and is wanted from {FIRST} to" in cold(net)


def test_what_differs_is_known_before_an_image_is_taken(net: Net) -> None:
    net.sides[0].joining._about = "fake 2", "d", "4.1"
    assert "IDS: fake 1 there, fake 2 here" in cold(net)
    assert net.sides[0].joining.pause_ms == 0


def test_a_first_packet_that_cannot_be_holds_nobody_up(net: Net) -> None:
    def far(message: Message) -> Message:
        if isinstance(message, Ask):
            message = Ask(1, 1, View(), message.transfer, 1 << 60, message.facts)
        return message

    net.meddle = far
    assert f"it begins at {1 << 60}, and here it is" in cold(net)
    assert net.sides[0].ids.waits is None


def test_a_transfer_that_ends_early_leaves_no_file_open(net: Net) -> None:
    def ended(message: Message) -> Message:
        if isinstance(message, Chunk) and message.number == 9:
            return Refuse(0, 1, View(), message.transfer, reason="no more")
        return message

    net.meddle = ended
    cold(net)
    net.sides[1].joining.close()
    assert not [one for one in open_files() if one.endswith(".img (deleted)")]


def open_files() -> list[str]:
    found = []
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the list itself
            found.append(str(one.readlink()))
    return found


def test_a_full_disk_at_the_joiner(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) == limits.IMAGE_CHUNK:
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    assert "No space left on device; make room in replica.run_dir" in cold(net)


def test_a_dump_that_fails_at_the_donor(net: Net) -> None:
    net.sides[0].ids.fails = "criu dump failed: No space left; make room in replica.run_dir"
    assert "member b" not in (reason := cold(net))
    assert "criu dump failed: No space left" in reason
    assert net.sides[0].joining.counters()["states_failed"] == 1


def test_a_restore_that_fails(net: Net) -> None:
    net.sides[1].ids.fails = "criu restore failed: no reason"
    assert cold(net) == "criu restore failed: no reason"


def test_a_donor_that_goes_leaves_no_open_file(net: Net) -> None:
    donor, joiner = net.sides[0], net.sides[1]
    net.meddle = lambda message: None if isinstance(message, Chunk) and message.number > 9 else message
    joiner.joining.start(FIRST)
    net.run(lambda: joiner.joining.joiner._written == 10)
    (unpacker,) = joiner.joining._incoming.values()
    assert unpacker._fd >= 0
    del net.sides[0]
    joiner.engine.members = (1,)
    net.run(lambda: unpacker._fd < 0 and not joiner.left() and bool(joiner.ids.begun))
    donor.joining.close()


def test_a_seq_that_is_far_off_is_not_waited_for(net: Net) -> None:
    joiner, most = net.sides[1], FIRST + limits.MAX_UNSTABLE
    joiner.ring.stable = joiner.ring.agreed = joiner.ring.fed = most + 1
    with capture_logs() as said:
        joiner.joining.start(most + 1)
        net.run(lambda: bool(joiner.ids.begun))
    (reason,) = [line["reason"] for line in said if line["event"] == "state_cold"]
    assert f"it begins at {most + 1}, and here it is {most} at most" in reason


def test_an_image_that_vanishes_at_the_donor(net: Net) -> None:
    def vanishing(message: Message) -> Message:
        if isinstance(message, Chunk):
            for path in (net.sides[0].folder / OUTGOING).rglob("pages-1.img"):
                path.unlink()
            net.sides[0].joining._packer.close()  # type: ignore[union-attr]
        return message

    net.meddle = vanishing
    assert "cannot read" in cold(net)


def test_a_donor_that_does_not_give(net: Net, tmp_path: Path) -> None:
    (tmp_path / "cold").mkdir()
    donor = Side(net, 0, tmp_path / "cold", configured(tmp_path / "cold", "cold"))
    assert cold(net) == 'no replica gives its state: member a: it has feed.state = "cold"'
    assert donor.joining.counters()["states_failed"] == 0


def test_who_speaks_the_version_before_is_not_asked(net: Net) -> None:
    sent: list[Message] = []
    net.speaks = 1
    net.meddle = sent.append
    net.sides[1].engine.membership.peers[0].speaks = 1
    assert cold(net) == "no replica gives its state: none is there that could"
    assert sent == []


def test_an_image_that_comes_when_nobody_wants_it_is_removed(net: Net) -> None:
    """The joiner has left while the donor's IDS was not at the seq yet."""
    donor, joiner = net.sides[0], net.sides[1]
    waiting: Future[Donation] = Future()
    donor.ids.waits = waiting
    joiner.joining.start(FIRST)
    net.run(lambda: donor.ids.waits is not waiting)
    future = donor.ids.waits
    assert future is not None
    future.set_running_or_notify_cancel()
    donor.engine.members = (0,)
    net.run(lambda: donor.joining.donor.failures == 1)
    future.set_result(donor.ids.gift(FIRST))
    assert donor.left()
    net.run(lambda: not donor.left())


def test_a_founder_begins_at_once(net: Net) -> None:
    joiner = net.sides[1]
    joiner.joining.look_around()
    assert not joiner.ids.held
    joiner.joining.start(0)
    assert joiner.ids.begun == [None]
    assert not joiner.joining.joiner.active


def test_the_ids_waits_where_a_set_is_heard(net: Net) -> None:
    joiner = net.sides[1]
    joiner.heard = [Heartbeat(0, 1, View()), Heartbeat(0, 1, View(1, 3, 0, 1))]
    joiner.joining.look_around()
    assert joiner.ids.held


def test_after_a_transfer_that_failed_the_next_life_begins_cold(net: Net, tmp_path: Path) -> None:
    net.sides[0].ids.fails = "no"
    cold(net)
    before = net.sides[1].joining
    again = Side(net, 1, tmp_path / "joiner", configured(tmp_path / "joiner"))
    again.joining.take_over(before)
    again.heard = [Heartbeat(0, 1, View(1, 3, 0, 1))]
    again.joining.look_around()
    assert not again.ids.held
    again.joining.start(FIRST)
    assert again.ids.begun == [None]


def test_a_replica_without_an_ids_refuses(net: Net, tmp_path: Path) -> None:
    side = net.sides[0]
    parts: list[Any] = [configured(tmp_path / "donor", "cold"), None, side.ring, side.engine, side]
    side.joining = Joining(*parts)
    assert "it has feed.state" in cold(net)
    side.joining.start(FIRST)
    side.joining.receive(Refuse(1, 1, View(), 77))
    side.joining.tick()

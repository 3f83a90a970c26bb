"""How replicas find each other: matching a history, founding, refusing."""

from collections import deque

import numpy as np
import pytest

from ftnids.sync.actions import Fail, Send
from ftnids.sync.membership import Membership, State, match_history
from ftnids.sync.messages import Heartbeat, History, Install, Join, View
from ftnids.sync.settings import MS, Settings, Timers
from tests.sync.streams import MemoryStream

EPOCH = 1_700_000_000_000_000_000


class Room:
    """Memberships that hear each other at once; what `cut` names is lost."""

    def __init__(self, count: int, **changes: object) -> None:
        self.now = EPOCH
        self.nodes: list[Membership] = []
        self.streams = [MemoryStream() for _ in range(count)]
        self.offsets = [0] * count
        for me in range(count):
            given = {"me": me, "members": count, "incarnation": EPOCH + 10 * (count - me), "digest": b"same", **changes}
            self.nodes.append(Membership(Settings(**given), self.streams[me]))  # type: ignore[arg-type]
        self.cut: set[int] = set()
        self.installed: Install | None = None
        self.failed: dict[int, str] = {}

    def deliver(self) -> None:
        queue = deque((me, a) for me, node in enumerate(self.nodes) for a in self._taken(node))
        while queue:
            me, action = queue.popleft()
            if isinstance(action, Fail):
                self.failed[me] = action.reason
            if not isinstance(action, Send) or {me, action.member} & self.cut:
                continue
            node = self.nodes[action.member]
            local = self.now + self.offsets[action.member]
            node.heard(action.message, local)
            match action.message:
                case Heartbeat():
                    node.heartbeat(action.message, local)
                case Join():
                    node.joined(action.message, local)
                case History():
                    node.history(action.message, local)
            queue.extend((action.member, a) for a in self._taken(node))

    @staticmethod
    def _taken(node: Membership) -> list[object]:
        out, node.out = node.out, []
        return out  # type: ignore[return-value]

    def run(self, seconds: float) -> Install | None:
        until = self.now + int(seconds * 1e9)
        while self.now < until and self.installed is None:
            self.now += 20 * MS
            for me, node in enumerate(self.nodes):
                if me in self.cut or node.state in (State.FAILED, State.RUNNING):
                    continue
                local = self.now + self.offsets[me]
                node.beat(Heartbeat(me, node._settings.incarnation, View()), local)
                self.installed = self.installed or node.tick(local)
            self.deliver()
        return self.installed


def test_the_first_one_up_founds_the_lineage() -> None:
    room = Room(3)
    install = room.run(5)
    assert install is not None
    assert install.installed.coordinator == 2  # the lowest incarnation
    assert install.installed.lineage == room.nodes[2]._settings.incarnation
    assert install.members == 0b111


def test_the_founder_waits_for_its_peers_and_then_goes_on_without_them() -> None:
    room = Room(3, timers=Timers(join=2_000 * MS))
    room.cut = {1}
    assert room.run(1.5) is None
    install = room.run(5)
    assert install is not None
    assert install.members == 0b101


def test_the_wait_for_others_begins_when_a_replica_first_looks_around() -> None:
    """Its IDS may have taken longer to load than it waits for others: it must not found beside a running set."""
    room = Room(2, timers=Timers(join=2_000 * MS))
    room.cut = {1}
    room.now += 60_000 * MS
    assert room.run(1.5) is None
    room.cut = set()
    install = room.run(5)
    assert install is not None
    assert install.members == 0b11


def test_wait_for_all_waits() -> None:
    room = Room(3, timers=Timers(join=500 * MS), wait_for_all=True)
    room.cut = {0}
    assert room.run(5) is None
    room.cut = set()
    install = room.run(5)
    assert install is not None
    assert install.members == 0b111


def test_a_joiner_finds_the_history_in_its_own_stream_and_starts_where_the_view_starts() -> None:
    room = Room(2)
    rng = np.random.default_rng(5)
    times = EPOCH - 10**9 + np.arange(500) * 100_000
    hashes = rng.integers(1, 1 << 62, 500, dtype=np.uint64)
    keep = rng.random(500) > 0.3
    room.streams[1].put(hashes, times)
    room.streams[0].put(hashes[keep], times[keep] + 3_000_000_000)
    room.offsets[0] = 3_000_000_000
    install = room.run(5)
    assert install is not None
    assert install.offset_ns == {0: -3_000_000_000}
    assert install.tolerance_ns[0] < 1 * MS
    assert install.start == {0: int(keep.sum()), 1: 500}


def test_on_a_quiet_link_the_clocks_are_taken_from_round_trips() -> None:
    room = Room(2, timers=Timers(match=300 * MS))
    room.offsets[0] = 7_000_000
    install = room.run(5)
    assert install is not None
    assert install.offset_ns == {0: -7_000_000}
    assert install.start == {0: 0, 1: 0}


def test_a_replica_with_other_settings_is_refused_with_the_difference() -> None:
    room = Room(2)
    stream = MemoryStream()
    odd = Settings(me=0, members=2, incarnation=EPOCH + 99, digest=b"other", config="sync.k = 8\nsame = 1")
    room.nodes[1]._settings = Settings(
        me=1, members=2, incarnation=EPOCH, digest=b"same", config="sync.k = 56\nsame = 1"
    )
    room.nodes[0] = Membership(odd, stream)
    room.run(0.5)
    assert "the joiner has sync.k = 8; the set has sync.k = 56" in room.failed[0]
    assert "same" not in room.failed[0]


def test_match_history_survives_loss_repeats_and_offset() -> None:
    rng = np.random.default_rng(1)
    hashes = rng.integers(1, 1 << 62, 4000, dtype=np.uint64)
    hashes[::7] = hashes[0]
    times = np.cumsum(rng.integers(1_000, 100_000, 4000))
    a, b = rng.random(4000) > 0.5, rng.random(4000) > 0.5
    jitter = rng.integers(0, 20_000, 4000)
    found = match_history(hashes[a], times[a], hashes[b], (times + 5_000_000 + jitter)[b], 8)
    assert found is not None
    offset, tolerance = found
    assert abs(offset + 5_010_000) < 2_000
    assert 10_000 < tolerance < 200_000


@pytest.mark.parametrize("common", [0, 7])
def test_match_history_wants_enough_common_packets(common: int) -> None:
    a = np.arange(1, 100, dtype=np.uint64)
    b = np.concatenate([np.arange(1, 1 + common, dtype=np.uint64), np.arange(1000, 1100, dtype=np.uint64)])
    assert match_history(a, a.astype(np.int64), b, b.astype(np.int64), 8) is None

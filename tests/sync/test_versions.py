"""A set whose members speak different versions of the protocol; every message goes over the wire as each speaks it."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, replace

import pytest

from ftnids.errors import WireError
from ftnids.peers import wire
from ftnids.sync.actions import Action, Change, Note, Start
from ftnids.sync.engine import Engine
from ftnids.sync.messages import PROTOCOL, Bytes, Install, Message, View
from ftnids.sync.simulation import Fault, Simulation, Weather, draw
from ftnids.sync.simulation.life import Life
from tests.older import newest
from tests.sync.test_simulate import CALM
from tests.thinned import some

MS = 1_000_000
ID = bytes(8)


@dataclass(slots=True)
class Coded(Message):
    """A message as bytes, on its way."""

    data: bytes = b""


class Mixed(Simulation):
    """`releases[r]` says what the processes of replica r speak, one after the other; the last one stays.

    As in the transport, a peer is written to in the older version until it is heard, and again from its restart on.
    """

    def __init__(self, weather: Weather, releases: list[list[int]]) -> None:
        self._releases = releases
        self._speaks: dict[int, int] = {}  # by replica: what its process of now speaks
        self._known: dict[tuple[int, int], int] = {}  # (a, b): what a writes to b
        self._started: Counter[int] = Counter()
        self.dropped: Counter[type[Exception]] = Counter()
        self.unsendable: Counter[type[Message]] = Counter()
        self.protocols: dict[View, set[int]] = {}
        self.joins: list[dict[str, object]] = []
        super().__init__(weather, self._release)

    def _release(self, engine: Engine) -> None:
        """A process starts, of the next release."""
        me = engine.settings.me
        self._speaks[me] = speaks = self._releases[me][min(self._started[me], len(self._releases[me]) - 1)]
        self._started[me] += 1
        software = "" if speaks == 1 else f"release {speaks}"
        engine.settings = replace(engine.settings, protocol=speaks, software=software)
        engine.membership._settings = engine.settings
        self._known = {pair: version for pair, version in self._known.items() if me not in pair}

    def _send(self, me: int, to: int, message: Message) -> None:
        if isinstance(message, Bytes):  # the simulation's carry no frames
            super()._send(me, to, message)
            return
        with newest(self._speaks[me]):
            try:
                data = wire.encode(message, ID, self._known.get((me, to), wire.oldest()))
            except WireError:
                self.unsendable[type(message)] += 1
                return
        super()._send(me, to, Coded(message.sender, message.incarnation, message.view, data))

    def _step(self, x: Life, message: Message | None) -> None:
        if isinstance(message, Coded):
            with newest(self._speaks[x.me]):
                try:
                    decoded = wire.decode(message.data, ID)
                except WireError as error:
                    self.dropped[type(error)] += 1
                    return
                self._known[x.me, message.sender] = wire.newest_of(message.data)
            message = decoded
        super()._step(x, message)

    def _act(self, x: Life, action: Action) -> None:
        if isinstance(action, Start | Change):
            self.protocols.setdefault(action.view, set()).add(action.protocol)
        if isinstance(action, Note) and action.event == "member_joins":
            self.joins.append(action.facts)
        super()._act(x, action)

    def of_views(self) -> list[int]:
        """The protocol versions of the views, one after the other, each known to all its members alike."""
        assert all(len(told) == 1 for told in self.protocols.values()), self.protocols
        return [min(self.protocols[view]) for view in sorted(self.protocols)]


def restarts(*at_ms: tuple[int, int]) -> tuple[Fault, ...]:
    """Replica and time of each restart; it takes 200 ms."""
    return tuple(Fault("crash", ms * MS, 200 * MS, 1 << replica) for replica, ms in at_ms)


def rolled(replicas: int, releases: list[list[int]], *at_ms: tuple[int, int]) -> Mixed:
    """A run with these restarts under steady traffic and loss."""
    n, faults = replicas, restarts(*at_ms)
    calm = replace(CALM, replicas=n, loss=(0.1,) * n, offset=(0,) * n, drift=(0.0,) * n, faults=faults)
    mixed = Mixed(replace(calm, packets=2_000, rate=500.0), releases)
    mixed.run()
    return mixed


def test_a_set_of_one_release_speaks_its_version() -> None:
    for version in (1, 2):
        mixed = rolled(2, [[version], [version]])
        assert mixed.of_views() == [version]
        assert not mixed.dropped


@pytest.mark.parametrize("replicas", [2, 3])
def test_a_rolling_upgrade(replicas: int) -> None:
    """The coordinator is the last but one, or the last, to go; the set speaks 2 from when nobody speaks 1 any more."""
    order = [*range(1, replicas), 0]
    mixed = rolled(replicas, [[1, 2]] * replicas, *((r, 200 + 1_200 * step) for step, r in enumerate(order)))
    versions = mixed.of_views()
    assert versions == sorted(versions)
    assert (versions[0], versions[-1]) == (1, 2)
    assert all(x.engine.membership.protocol == 2 for x in mixed.replicas)
    assert not mixed.dropped
    told = [(facts["software"], facts["speaks"]) for facts in mixed.joins]
    assert told[0] == ("not said", 1)
    assert told[-1] == ("release 2", 2)


def test_the_last_old_member_holds_the_set_at_its_version() -> None:
    mixed = rolled(3, [[2], [2], [1]], (0, 300))
    assert set(mixed.of_views()) <= {1, 2}
    assert all(x.engine.membership.protocol == 1 for x in mixed.replicas)


def test_a_member_that_is_rolled_back_takes_the_set_back() -> None:
    mixed = rolled(2, [[2], [2, 1, 2]], (1, 300), (1, 2_000))
    versions = mixed.of_views()
    assert versions[0] == versions[-1] == 2
    assert 1 in versions


def test_a_release_that_skips_one_is_not_understood() -> None:
    """Each end drops what the other says, and goes on alone."""
    weather = replace(CALM, packets=50, wait_for_all=False)
    mixed = Mixed(weather, [[1], [3]])
    mixed._over_ns = mixed.now + (1 << 60)  # they will never be one set
    while mixed.now < mixed.link.time_ns[-1] + 1_000 * MS:
        mixed.now, _, r, what = heapq.heappop(mixed._heap)
        if r < 0:
            assert callable(what)
            what()
        else:
            assert not callable(what)
            mixed._step(mixed._at_work[r], what)
    assert set(mixed.dropped) == {wire.ProtocolVersionError}
    assert [x.engine.members for x in mixed.replicas] == [(0,), (1,)]


@pytest.mark.parametrize("seed", some([9_000, 9_001, *range(9_003, 9_010)]))  # 9,002 is long
def test_mixed_releases_under_any_weather(seed: int) -> None:
    """Every process of any replica may be of either release."""
    weather = draw(seed)
    releases = [[1 + (seed >> (r + life) & 1 ^ (r + life) % 2) for life in range(4)] for r in range(weather.replicas)]
    mixed = Mixed(weather, releases)
    mixed.run()
    mixed.of_views()
    assert not mixed.unsendable.keys() - {Install}


def test_the_version_is_the_newest_that_the_tables_have() -> None:
    assert max(wire.VERSIONS) == PROTOCOL
    assert sorted(wire.VERSIONS) == [PROTOCOL - 1, PROTOCOL]

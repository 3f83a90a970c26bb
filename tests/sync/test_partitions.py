"""Cuts of every shape: both ways and one, in halves and thirds, at boot, while a view changes, while one joins."""

from __future__ import annotations

import pytest

from ftnids.sync.messages import Bytes, Install, Message, Promise, Propose, Report
from tests.sync.cluster import Cluster
from tests.thinned import some


def settled(cluster: Cluster, *members: int, ms: int = 3_000) -> Cluster:
    """Run until `members` are one view, then on, and check what they hold."""
    cluster.until(lambda: cluster.together(*members), ms)
    cluster.run(400)
    assert cluster.together(*members), cluster.describe()
    cluster.agree(*members)
    assert [cluster.lost(r) for r in members] == [[] for _ in members]
    return cluster


@pytest.mark.parametrize("sides", [((0,), (1,)), ((0, 1), (2,)), ((0,), (1, 2)), ((0, 1), (2, 3)), ((3,), (0, 1, 2))])
def test_both_sides_of_a_cut_go_on_and_one_branch_is_kept(sides: tuple[tuple[int, ...], ...]) -> None:
    count = sum(map(len, sides))
    cluster = Cluster(count).ready()
    cluster.cut(*sides)
    for side in sides:
        settled(cluster, *side, ms=1_000)
    kept = max(sides, key=lambda side: (len(side), -min(side)))
    cluster.run(1_000).heal()
    settled(cluster, *range(count))
    assert {r for r in range(count) if cluster.restarts[r] == 0} == set(kept)


def test_three_sides_that_heal_two_by_two() -> None:
    cluster = Cluster(5).ready()
    sides = (0,), (1, 2), (3, 4)
    cluster.cut(*sides)
    for side in sides:
        settled(cluster, *side, ms=1_000)
    cluster.heal()
    cluster.cut((0,), (1, 2, 3, 4))
    settled(cluster, 1, 2, 3, 4)
    cluster.heal()
    settled(cluster, 0, 1, 2, 3, 4)
    assert [r for r in range(5) if cluster.restarts[r]] == [0, 3, 4]


@pytest.mark.parametrize("deaf", [0, 1, 2])
def test_one_that_hears_nobody_takes_nobody_along(deaf: int) -> None:
    """It goes on alone; the others, who hear that, do not take it for the stronger branch."""
    cluster = Cluster(3).ready()
    rest = tuple(r for r in range(3) if r != deaf)
    cluster.blocked = {(r, deaf) for r in rest}
    settled(cluster, *rest, ms=1_000)
    cluster.run(2_000)
    assert [cluster.restarts[r] for r in rest] == [0, 0]
    settled(cluster, deaf, ms=10)
    cluster.heal()
    settled(cluster, 0, 1, 2)
    assert [cluster.restarts[r] for r in rest] == [0, 0]


@pytest.mark.parametrize("mute", [0, 1, 2])
def test_one_that_nobody_hears_waits_until_it_is_heard(mute: int) -> None:
    cluster = Cluster(3).ready()
    rest = tuple(r for r in range(3) if r != mute)
    cluster.blocked = {(mute, r) for r in rest}
    settled(cluster, *rest, ms=1_000)
    cluster.run(2_000).heal()
    settled(cluster, 0, 1, 2)
    assert [cluster.restarts[r] for r in rest] == [0, 0]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("link", [(0, 1), (1, 0)])
def test_one_link_that_fails_one_way(link: tuple[int, int], count: int) -> None:
    cluster = Cluster(count).ready()
    cluster.blocked = {link}
    cluster.run(1_000)
    before = [host.stable for host in cluster.hosts]
    cluster.run(1_000)
    going_on = [r for r in range(count) if cluster.hosts[r].stable > before[r] + 400]
    assert len(going_on) >= count - 1, cluster.describe()
    assert sum(cluster.restarts) <= 1, cluster.describe()
    cluster.heal()
    settled(cluster, *range(count))


@pytest.mark.parametrize("pair", some([(0, 1), (0, 2), (1, 2)]))
def test_two_that_do_not_hear_each_other_beside_a_third(pair: tuple[int, int]) -> None:
    """One of them leaves, once, and comes back when the link does."""
    cluster = Cluster(3).ready()
    cluster.cut((pair[0],), (pair[1],))
    stays = pair[0]
    third = next(r for r in range(3) if r not in pair)
    settled(cluster, *sorted((stays, third)), ms=1_000)
    cluster.run(3_000)
    assert cluster.restarts[pair[1]] == 1, cluster.describe()
    assert len({host.engine.view.number for r, host in enumerate(cluster.hosts) if r != pair[1]}) == 1
    cluster.heal()
    settled(cluster, 0, 1, 2)


def test_the_coordinator_dies_where_two_of_the_rest_do_not_hear_each_other() -> None:
    cluster = Cluster(4).ready()
    cluster.cut((1,), (2,))
    cluster.kill(0)
    cluster.until(lambda: cluster.together(1, 3), 2_000)
    cluster.run(1_000)
    assert cluster.together(1, 3)
    cluster.heal()
    settled(cluster, 1, 2, 3)


@pytest.mark.parametrize("length", some(range(280, 700, 60)))
@pytest.mark.parametrize("ways", [1, 2])
def test_a_cut_that_heals_while_the_view_changes(length: int, ways: int) -> None:
    """Whoever has promised by then is not left waiting for ever."""
    cluster = Cluster(3, seed=length).ready()
    cluster.blocked = {(0, 1), (0, 2)} if ways == 1 else {(0, 1), (0, 2), (1, 0), (2, 0)}
    cluster.run(length).heal()
    settled(cluster, 0, 1, 2)


@pytest.mark.parametrize("length", some(range(280, 700, 60)))
def test_a_link_that_heals_while_the_view_changes(length: int) -> None:
    cluster = Cluster(3, seed=length).ready()
    cluster.blocked = {(0, 1)}
    cluster.run(length).heal()
    settled(cluster, 0, 1, 2)


@pytest.mark.parametrize("founder", [0, 1])
def test_lineages_founded_apart_at_boot_become_one(founder: int) -> None:
    """The founder of the older one is alone, and yet its lineage is kept: it is the older one."""
    cluster = Cluster(3)
    rest = tuple(r for r in range(3) if r != founder)
    cluster.cut((founder,), rest)
    settled(cluster, founder)
    settled(cluster, *rest)
    cluster.heal()
    settled(cluster, 0, 1, 2)
    lineage = cluster.hosts[0].engine.view.lineage
    assert lineage == min(host.born + r for r, host in enumerate(cluster.hosts) if cluster.restarts[r] == 0)


def test_a_founder_that_waits_for_all_hears_of_a_set_that_did_not() -> None:
    """It has begun to found when it hears that others did: it joins them."""
    cluster = Cluster(3, message_loss=0.0)
    cluster.cut((0,), (1, 2))
    cluster.hosts[0].engine.membership._settings = cluster.hosts[0].engine.settings
    cluster.run(520)
    cluster.heal()
    settled(cluster, 0, 1, 2)


def test_a_replica_that_joins_during_a_cut() -> None:
    cluster = Cluster(4).ready()
    cluster.kill(3, 100)
    cluster.run(60)
    cluster.cut((0,), (1, 2))  # 3, when it comes, hears both sides
    cluster.until(lambda: cluster.together(1, 2, 3) or cluster.together(0, 3), 3_000)
    cluster.heal()
    settled(cluster, 0, 1, 2, 3)


@pytest.mark.parametrize("passed", range(0, 200, 40))
def test_the_coordinator_dies_while_a_replica_joins(passed: int) -> None:
    """The one that joins has the lowest id, and may have to lead at once."""
    cluster = Cluster(3, seed=passed, rate=300).ready()
    cluster.kill(0, 500)
    cluster.until(lambda: cluster.together(1, 2), 2_000)
    cluster.until(lambda: 0 not in cluster.down, 2_000)
    cluster.run(80 + passed)
    cluster.kill(1)
    settled(cluster, 0, 2, ms=4_000)


@pytest.mark.parametrize("kind", [Propose, Promise, Install])
@pytest.mark.parametrize("victim", [0, 1])
def test_what_changes_a_view_may_be_lost(kind: type[Message], victim: int) -> None:
    cluster = Cluster(4).ready()
    seen: set[tuple[int, int]] = set()

    def once(a: int, b: int, message: Message) -> bool:
        if not isinstance(message, kind) or (a, b) in seen:
            return True
        seen.add((a, b))
        return False

    cluster.filter = once
    cluster.kill(victim)
    settled(cluster, *(r for r in range(4) if r != victim), ms=1_500)


def test_an_install_that_only_one_got_before_its_sender_died() -> None:
    cluster = Cluster(4).ready()
    cluster.filter = lambda a, b, message: not (isinstance(message, Install) and a == 1 and b == 3)
    cluster.kill(0)
    cluster.until(lambda: cluster.hosts[2].engine.view.number == 2, 1_500)
    cluster.kill(1)
    settled(cluster, 2, 3, ms=2_000)
    assert cluster.restarts[3] == 0, "it had promised, and what it captured goes on"


def test_an_install_that_comes_after_its_sender_died_and_another_took_over() -> None:
    cluster = Cluster(4).ready()

    def slow(a: int, b: int, message: Message) -> int:
        return 700_000_000 if isinstance(message, Install) and a == 1 else 200_000

    cluster.delay = slow
    cluster.kill(0)
    cluster.until(lambda: cluster.hosts[1].engine.view.number == 2, 1_500)
    cluster.kill(1)
    settled(cluster, 2, 3, ms=2_500)
    cluster.run(1_000)
    assert cluster.together(2, 3)


def test_a_decision_that_comes_after_the_promise_changes_nothing() -> None:
    cluster = Cluster(3).ready()

    def late(a: int, b: int, message: Message) -> int:
        return 450_000_000 if a == 0 and type(message).__name__ in ("Decision", "Bytes") else 200_000

    cluster.run(100)
    cluster.delay = late
    cluster.run(200)
    cluster.kill(0)
    settled(cluster, 1, 2, ms=1_500)


def test_an_install_for_the_process_before_is_not_for_this_one() -> None:
    cluster = Cluster(3).ready()
    cluster.run(200)

    def late(a: int, b: int, message: Message) -> int:
        return 150_000_000 if isinstance(message, Install) and b == 1 else 200_000

    cluster.delay = late
    cluster.kill(2)
    cluster.until(lambda: cluster.hosts[0].engine.view.number == 2, 1_000)
    cluster.kill(1, 20)
    cluster.run(400)
    cluster.delay = lambda a, b, message: 200_000
    settled(cluster, 0, 1, ms=3_000)


@pytest.mark.parametrize("length", some([60, 330, 400, 600]))
def test_one_that_sleeps_while_it_is_let_in_holds_nobody_up(length: int) -> None:
    """It wakes up to an INSTALL of a view that the others have left."""
    cluster = Cluster(3, seed=length)
    cluster.filter = lambda a, b, message: not (isinstance(message, Install) and b == 2)
    cluster.until(lambda: cluster.together(0, 1) or cluster.hosts[0].members == (0, 1, 2), 1_000)
    cluster.paused.add(2)
    cluster.filter = lambda a, b, message: True
    cluster.run(length)
    cluster.paused.clear()
    cluster.until(lambda: cluster.together(0, 1, 2), 1_500)
    before = cluster.hosts[0].stable
    cluster.run(200)
    assert cluster.hosts[0].stable > before
    settled(cluster, 0, 1, 2)


def test_the_first_reports_of_one_that_joins_may_be_lost() -> None:
    """Where its stream begins is told by all of them."""
    cluster = Cluster(3).ready()
    cluster.kill(2, 20)
    cluster.until(lambda: 2 not in cluster.down, 1_000)
    lost: list[int] = []

    def first(a: int, b: int, message: Message) -> bool:
        if a == 2 and isinstance(message, Report) and len(message.hash) and len(lost) < 2:
            lost.append(message.position)
            return False
        return True

    cluster.filter = first
    settled(cluster, 0, 1, 2)
    assert len(lost) == 2


def test_what_was_declared_void_stays_so_for_a_candidate_that_did_not_hear_of_it() -> None:
    """0 dies with the only copies; 1 installs a view that only 3 hears of, and dies, too; 2 leads."""
    cluster = Cluster(4, loss=0.4).ready()
    cluster.filter = lambda a, b, message: not (isinstance(message, Bytes) and 0 in (a, b))
    cluster.run(200)
    cluster.kill(0)
    cluster.filter = lambda a, b, message: not (isinstance(message, Install) and a == 1 and b == 2)
    cluster.until(lambda: cluster.hosts[3].engine.view.number == 2, 1_500)
    cluster.kill(1)
    settled(cluster, 2, 3, ms=2_000)
    void = [seq for seq, (packet, _) in cluster.hosts[2].stream.items() if packet < 0]
    assert void
    assert [cluster.hosts[3].stream[seq][0] for seq in void] == [-1] * len(void)


@pytest.mark.parametrize("seed", some(range(6)))
def test_cuts_and_crashes_at_random(seed: int) -> None:
    """Links fail and heal one by one, replicas crash: in the end all are together, and nobody's stream differs."""
    cluster = Cluster(4, seed=seed, rate=500, message_loss=0.02).ready()
    rng = cluster.rng
    for _ in range(12):
        cluster.run(int(rng.integers(20, 600)))
        what = rng.random()
        a, b = (int(x) for x in rng.choice(4, 2, replace=False))
        if what < 0.5:
            cluster.blocked ^= {(a, b)}
        elif what < 0.7:
            cluster.blocked ^= {(a, b), (b, a)}
        elif what < 0.8 and a not in cluster.down:
            cluster.kill(a, int(rng.integers(10, 500)))
        elif what < 0.9:
            cluster.stuck ^= {a}
        else:
            cluster.heal()
    cluster.heal()
    cluster.stuck.clear()
    settled(cluster, 0, 1, 2, 3, ms=8_000)

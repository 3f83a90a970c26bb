"""Who cannot keep up leaves the view, comes back when it can, and never makes another drop a packet."""

from __future__ import annotations

import pytest

from ftnids.sync.watch import FEED, RING
from tests.sync.cluster import Cluster
from tests.thinned import some

SLOTS = 1 << 10


def others(cluster: Cluster, victim: int) -> tuple[int, ...]:
    return tuple(r for r in range(cluster.count) if r != victim)


@pytest.mark.parametrize(("count", "victim"), some([(2, 0), (2, 1), (3, 0), (3, 1), (5, 4), (5, 0)]))
def test_a_capture_that_sticks_leaves_within_a_second_and_comes_back_when_it_moves(count: int, victim: int) -> None:
    """Victim 0 is the coordinator: the members vote."""
    cluster = Cluster(count).ready()
    rest = others(cluster, victim)
    cluster.stuck.add(victim)
    assert cluster.until(lambda: cluster.together(*rest), 1_000) < 600
    before = {r: cluster.hosts[r].stable for r in rest}
    cluster.run(1_500)
    assert cluster.together(*rest), "it does not come back while it stands still"
    assert cluster.restarts[victim] == 1
    assert all(cluster.hosts[r].stable > before[r] + 400 for r in rest)
    cluster.stuck.clear()
    cluster.until(lambda: cluster.together(*range(count)), 2_000)
    cluster.run(300)
    cluster.agree(*range(count))
    assert [cluster.lost(r) for r in range(count)] == [[]] * count


def test_a_short_stick_changes_nothing() -> None:
    cluster = Cluster(3).ready()
    cluster.stuck.add(1)
    cluster.run(250)
    cluster.stuck.clear()
    cluster.run(500)
    assert [host.engine.view.number for host in cluster.hosts] == [1, 1, 1]


def test_a_set_that_stands_still_as_a_whole_stays_together() -> None:
    cluster = Cluster(3).ready()
    cluster.stuck |= {0, 1, 2}
    cluster.run(2_000)
    assert [host.engine.view.number for host in cluster.hosts] == [1, 1, 1]


def test_all_but_one_capture_stick() -> None:
    cluster = Cluster(3).ready()
    cluster.stuck |= {0, 1}
    assert cluster.until(lambda: cluster.together(2), 1_000) < 600
    cluster.run(500)
    assert cluster.lost(2) == []


@pytest.mark.parametrize("victim", [0, 2])
def test_a_feed_that_hangs_pins_nobody_else_s_ring(victim: int) -> None:
    """Its own ring fills, then it acknowledges no more; the others must not drop a packet for it."""
    cluster = Cluster(3, rate=2_000, slots=4 * SLOTS, agreed_slots=SLOTS).ready()
    rest = others(cluster, victim)
    cluster.hung.add(victim)
    cluster.until(lambda: cluster.together(*rest), 5_000)
    cluster.run(1_000)
    assert [cluster.hosts[r].capture.drops for r in rest] == [0, 0]
    cluster.agree(*rest)
    assert [cluster.lost(r) for r in rest] == [[], []]
    assert [facts["reason"] for _, _, facts in cluster.events("member_leaves")] == [FEED]
    assert [r for _, r, _ in cluster.events("cannot_keep_up")] == [victim]


@pytest.mark.parametrize(("rate", "slots", "reason"), [(4_000, 2 * SLOTS, RING), (1_500, 4 * SLOTS, FEED)])
@pytest.mark.parametrize("victim", [0, 2])
def test_a_feed_that_is_slow_leaves_before_the_others_rings_are_full(
    victim: int, rate: float, slots: int, reason: str
) -> None:
    """It acknowledges on and on, but ever later."""
    cluster = Cluster(3, rate=rate, slots=slots, agreed_slots=SLOTS).ready()
    rest = others(cluster, victim)
    cluster.slow[victim] = 300
    cluster.until(lambda: cluster.together(*rest), 5_000)
    assert [cluster.hosts[r].capture.drops for r in rest] == [0, 0]
    assert [facts["reason"] for _, _, facts in cluster.events("member_leaves")] == [reason]


def test_feeds_that_are_all_slow_keep_the_set_together() -> None:
    """Nobody holds up anybody: each ring drops what its own feed cannot take."""
    cluster = Cluster(3, rate=4_000, slots=2 * SLOTS, agreed_slots=SLOTS).ready()
    cluster.slow = dict.fromkeys(range(3), 2_000)
    cluster.run(3_000)
    assert cluster.together(0, 1, 2), cluster.describe()
    cluster.agree(0, 1, 2)


def test_a_ring_that_is_too_small_drops_but_sheds_nobody() -> None:
    cluster = Cluster(3, rate=20_000, slots=64, loss=0.0).ready()
    cluster.run(1_000)
    assert cluster.hosts[0].capture.drops > 0
    assert cluster.together(0, 1, 2), cluster.describe()


def test_files_wait_for_the_slowest() -> None:
    """Replicas that replay files have another clock in their packets and time enough: nobody is late."""
    cluster = Cluster(2, rate=4_000, slots=2 * SLOTS, agreed_slots=SLOTS, live=False).ready()
    cluster.hung.add(1)
    cluster.run(3_000)
    assert cluster.together(0, 1)
    assert cluster.hosts[0].capture.drops > 0, "a file source would wait here"


def test_a_file_that_cannot_be_read_on_leaves_the_set_that_waits_for_it() -> None:
    cluster = Cluster(2, rate=4_000, slots=2 * SLOTS, live=False).ready()
    cluster.full_stops = True
    cluster.stuck.add(1)
    cluster.until(lambda: cluster.together(0), 3_000)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_replica_that_loses_messages_makes_nobody_drop(share: float) -> None:
    cluster = Cluster(3, rate=2_000, slots=2 * SLOTS).ready()
    cluster.filter = lambda a, b, message: 2 not in (a, b) or cluster.rng.random() >= share
    cluster.run(4_000)
    assert [cluster.hosts[r].capture.drops for r in (0, 1)] == [0, 0]
    cluster.agree(0, 1)
    assert [cluster.lost(r, settle_ms=1_000) for r in (0, 1)] == [[], []]

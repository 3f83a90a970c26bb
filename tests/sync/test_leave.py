"""A replica that is told to stop leaves in order: quickly, and with nothing lost that it alone had."""

from __future__ import annotations

import pytest

from ftnids.sync.messages import Leave
from tests.sync.cluster import Cluster


def stop(cluster: Cluster, r: int) -> set[int]:
    """End the capture of `r` and let it leave; returns what it captured in the view."""
    host = cluster.hosts[r]
    cluster.stuck.add(r)
    host.engine.end_of_stream()
    host.engine.leave()
    return set(host.capture.ids[host.start :])


@pytest.mark.parametrize(("count", "victim"), [(2, 0), (2, 1), (3, 0), (3, 2)])
@pytest.mark.parametrize("message_loss", [0.0, 0.2])
def test_what_only_it_had_stays_in_the_set(count: int, victim: int, message_loss: float) -> None:
    cluster = Cluster(count, loss=0.3, message_loss=message_loss).ready()
    cluster.run(300)
    rest = tuple(r for r in range(count) if r != victim)
    captured = stop(cluster, victim)
    host = cluster.hosts[victim]
    assert cluster.until(lambda: host.engine.gone, 2_000) < (200 if message_loss == 0 else 1_500)
    cluster.kill(victim)
    cluster.until(lambda: cluster.together(*rest), 1_000)
    cluster.run(200)
    cluster.agree(*rest)
    for r in rest:
        assert captured <= {packet for packet, _ in cluster.hosts[r].stream.values()}
        assert cluster.lost(r) == []
        assert all(packet >= 0 for packet, _ in cluster.hosts[r].stream.values()), "a packet is void"


def test_the_others_do_not_wait_for_the_failure_timeout() -> None:
    cluster = Cluster(3).ready()
    stop(cluster, 1)
    assert cluster.until(lambda: cluster.together(0, 2), 1_000) < 200
    assert [facts["reason"] for _, _, facts in cluster.events("member_leaves")] == ["it took its leave"]


def test_one_that_leaves_does_not_rejoin() -> None:
    cluster = Cluster(3).ready()
    stop(cluster, 1)
    cluster.run(1_000)
    assert cluster.restarts[1] == 0
    assert cluster.together(0, 2)


def test_all_that_stop_together_end_the_stream() -> None:
    """Nobody has left before the last one stops: the stream ends, and each has all of it."""
    cluster = Cluster(3).ready()
    for r in range(3):
        cluster.stuck.add(r)
        cluster.hosts[r].engine.end_of_stream()
        cluster.run(20)
    cluster.until(lambda: all(host.ended for host in cluster.hosts), 1_000)
    assert len({host.stable for host in cluster.hosts}) == 1


def test_a_leave_that_is_never_heard_ends_by_itself() -> None:
    cluster = Cluster(2).ready()
    cluster.filter = lambda a, b, message: not isinstance(message, Leave)
    stop(cluster, 1)
    cluster.until(lambda: cluster.hosts[1].engine.gone, 1_000)
    cluster.kill(1)
    cluster.until(lambda: cluster.together(0), 1_000)


def test_one_that_is_alone_ends_the_stream_itself() -> None:
    cluster = Cluster(2).ready()
    cluster.kill(1)
    cluster.until(lambda: cluster.together(0), 1_000)
    stop(cluster, 0)
    cluster.until(lambda: cluster.hosts[0].ended, 500)

"""The cases of the paper's Figure 1, one test each, with two replicas, k = 8 and l = 3; docs/protocol.md names them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ftnids.sync.actions import Publish, Store
from ftnids.sync.member import RECOVERED, Member
from ftnids.sync.merge import Merger, Settings
from ftnids.sync.messages import Bytes, Decision, View
from ftnids.sync.settings import Settings as MemberSettings
from ftnids.sync.settle import Settled
from ftnids.sync.summaries import cluster_hash

MS = 1_000_000  # ns; packet n of the link comes at n ms
K, L = 8, 3


def replicas() -> Merger:
    """Two replicas with the same clock."""
    merger = Merger((0, 1), 0, Settings(k=K, l=L))
    merger.set_offset(1, 0, 10_000)
    return merger


def capture(merger: Merger, member: int, packets: Iterable[int]) -> None:
    """`member` reports packets of the link, by their numbers, behind what it has reported."""
    numbers = np.array(list(packets), np.int64)
    merger.add(member, merger.reported(member), numbers.astype(np.uint64) + np.uint64(100), numbers * MS)


def decide(merger: Merger) -> list[Settled]:
    blocks = []
    while (block := merger.decide()) is not None:
        blocks.append(block)
    return blocks


def decided(blocks: list[Settled]) -> list[int]:
    """The numbers of the packets that were decided."""
    return [int(value) - 100 for block in blocks for value in block.hash]


def lost(blocks: list[Settled], member: int) -> list[int]:
    """The numbers of those that `member` must get from the other."""
    return [
        int(value) - 100
        for block in blocks
        for value, place in zip(block.hash, block.places[:, member], strict=True)
        if place < 0
    ]


def test_cluster_hashes_are_compared_first() -> None:
    """Of equal clusters only the hash is sent; the packets behind one that differs are asked for."""
    merger = replicas()
    capture(merger, 0, range(2 * K))
    hashes = np.arange(2 * K, dtype=np.uint64) + np.uint64(100)
    hashes[K + 2] += np.uint64(1_000)
    clusters = np.array([cluster_hash(hashes[:K]), cluster_hash(hashes[K:])], np.uint64)
    first, last = np.array([0, K]) * MS, np.array([K - 1, 2 * K - 1]) * MS
    merger.add_clusters(1, 0, K, clusters, first, last)
    assert decided(decide(merger)) == list(range(K))
    merger.watermark(0, 3 * K * MS)
    decide(merger)
    assert merger.wanted() == [(1, K, K)]


def test_ok() -> None:
    """All clusters agree and nothing is pending: decided at once, no watermark is needed."""
    merger = replicas()
    for member in (0, 1):
        capture(merger, member, range(K))
    blocks = decide(merger)
    assert decided(blocks) == list(range(K))
    assert lost(blocks, 0) == lost(blocks, 1) == []
    assert (merger.rounds, merger.dirty_rounds, merger.desync_level) == (1, 0, 0)


def test_minus_1_this_replica_lost_nothing() -> None:
    """Replica 0 has all that is decided: nothing to recover, desync 0."""
    merger = replicas()
    capture(merger, 0, range(K))
    capture(merger, 1, [0, 1, 3, 4, 5, 6, 7])
    blocks = decide(merger)
    assert decided(blocks) == list(range(K))
    assert lost(blocks, 0) == []
    assert merger.desync_level == 0


def test_minus_2_this_replica_lost_packets_and_the_other_none() -> None:
    """Replica 1 is told which packets it lacks, up to the last anchor; not OK, desync 0."""
    merger = replicas()
    capture(merger, 0, range(K))
    capture(merger, 1, [0, 1, 3, 4, 5, 6, 7])
    blocks = decide(merger)
    assert lost(blocks, 1) == [2]
    assert (merger.rounds, merger.dirty_rounds, merger.desync_level) == (1, 1, 0)


def test_what_was_lost_is_enqueued_in_its_place() -> None:
    """The packet that the other replica pushes goes to the IDS between its neighbours, not behind them."""
    view = View(1, 1, 0, 1)
    member = Member(MemberSettings(me=1, members=2, incarnation=1), view, (0, 1), 0, 0)
    decision = Decision(0, 1, view, time_us=np.arange(3), holders=np.array([3, 1, 3], np.uint32), members=3)
    decision.flags, decision.hash = np.zeros(3, np.uint8), np.array([101], np.uint64)
    decision.places = {0: np.arange(3), 1: np.arange(2)}
    member.decided(decision, 0)
    member.advance(0)
    assert member.acked == 1
    member.offered(Bytes(0, 1, view, np.array([1]), decision.hash, np.ones(1, np.uint32), np.ones(1, np.uint32), b"x"))
    assert any(isinstance(action, Store) for action in member.out)
    member.stored(np.array([1]), decision.hash, np.array([RECOVERED]), 0)
    member.advance(0)
    published = [action.refs.tolist() for action in member.out if isinstance(action, Publish)]
    assert published == [[0], [RECOVERED, 1]]


def test_minus_3_no_anchor() -> None:
    """No l common packets in a row: unknown, desync + 1 for each k; the paper waits on, the horizon decides."""
    merger = replicas()
    capture(merger, 0, [n for n in range(2 * K) if n % 4 != 0])
    capture(merger, 1, [n for n in range(2 * K) if n % 4 != 2])
    assert decide(merger) == []
    first = merger.desync_level
    for at in (2 * K, 3 * K):
        capture(merger, 0, [n for n in range(at, at + K) if n % 4 != 0])
        capture(merger, 1, [n for n in range(at, at + K) if n % 4 != 2])
        assert decide(merger) == []
    assert (first, merger.desync_level) == (2, 4)
    for member in (0, 1):
        merger.watermark(member, 2 * K * MS)
    assert decided(decide(merger)) == list(range(2 * K))


def test_anchor() -> None:
    """What is missing before the last anchor is enqueued; what comes behind it is unknown still."""
    merger = replicas()
    capture(merger, 0, [0, 1, 2, 4, 5, 6, 7, 9])
    capture(merger, 1, [0, 2, 3, 4, 5, 6, 8, 10])
    blocks = decide(merger)
    assert decided(blocks) == [0, 1, 2, 3, 4, 5, 6]
    assert (lost(blocks, 0), lost(blocks, 1)) == ([3], [1])
    assert merger.pending(0) > 0


def test_credit() -> None:
    """Packets behind the anchor are carried over: they are the first of the next round."""
    merger = replicas()
    capture(merger, 0, [0, 1, 2, 4, 5, 6, 7, 9])
    capture(merger, 1, [0, 2, 3, 4, 5, 6, 8, 10])
    decide(merger)
    assert (merger.pending(0), merger.pending(1)) == (2, 2)
    for member in (0, 1):
        capture(merger, member, [11, 12, 13, 14])
    assert decided(decide(merger)) == [7, 8, 9, 10, 11, 12, 13, 14]


def test_count_resynchronized_blocks() -> None:
    """The desync level is made anew at an anchor: as many as there are whole clusters behind it."""
    merger = replicas()
    capture(merger, 0, [n for n in range(3 * K) if n % 4 != 0])
    capture(merger, 1, [n for n in range(3 * K) if n % 4 != 2])
    decide(merger)
    assert merger.desync_level == 3
    common = range(3 * K, 3 * K + L + 1)
    for member, gap in ((0, 0), (1, 2)):
        capture(merger, member, common)
        capture(merger, member, [n for n in range(common.stop, common.stop + K + 1) if n % 4 != gap])
    blocks = decide(merger)
    assert decided(blocks) == list(range(common.stop))
    assert (merger.desync_level, merger.max_desync) == (1, 3)


def test_not_ok_and_unknown() -> None:
    """Decided dirty is counted once a round; what is unknown is not counted until it is decided."""
    merger = replicas()
    capture(merger, 0, [0, 1, 2, 4, 5, 6, 7, 9])
    capture(merger, 1, [0, 2, 3, 4, 5, 6, 8, 10])
    decide(merger)
    assert (merger.rounds, merger.dirty_rounds) == (1, 1)
    for member in (0, 1):
        merger.watermark(member, 20 * MS)
    decide(merger)
    assert (merger.rounds, merger.dirty_rounds) == (2, 2)

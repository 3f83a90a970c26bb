"""The merger: promises 2, 3 and 4 whatever comes in which portions; late packets; summaries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids.sync.merge import Merger, Settings
from ftnids.sync.messages import I64, U64, Flag
from ftnids.sync.settle import Settled
from ftnids.sync.summaries import cluster_hash
from tests.sync.captures import US, Link, links, make_link

MS = 1_000_000


@pytest.fixture(params=["c", "python"])
def impl(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FTNIDS_IMPL", request.param)
    return str(request.param)


def merger(link: Link, *, seeded: bool = True) -> Merger:
    """A merger for the link; seeded with clock offsets that are right to twice the jitter."""
    made = Merger(range(len(link.ids)), 0, Settings())
    for member, offset in enumerate(link.offsets):
        if seeded:
            made.set_offset(member, -offset, 2 * link.jitter_ns + 6 * US)
    return made


def settle(made: Merger) -> list[Settled]:
    blocks = []
    while (block := made.decide()) is not None:
        blocks.append(block)
    return blocks


def feed(made: Merger, link: Link, *, seed: int, portion: int) -> list[Settled]:
    """Report everything in portions of random size, members in random turn, decisions in between."""
    rng = np.random.default_rng(seed)
    at = [0] * len(link.ids)
    blocks: list[Settled] = []
    while any(at[m] < len(own) for m, own in enumerate(link.ids)):
        member = int(rng.integers(len(at)))
        first, last = at[member], min(at[member] + int(rng.integers(1, portion + 1)), len(link.ids[member]))
        again = max(first - int(rng.integers(0, 3)), 0)  # reports are cumulative and overlap
        made.add(member, again, link.hashes[member][again:last], link.times[member][again:last])
        at[member] = last
        if last:
            made.watermark(member, int(link.times[member][last - 1]) - (last < len(link.ids[member])))
        blocks += settle(made)
    for member in range(len(at)):
        made.watermark(member, 0, end=True)
    return blocks + settle(made)


def places(blocks: list[Settled], replicas: int) -> I64:
    return np.concatenate([np.empty((0, replicas), np.int64), *(block.places for block in blocks)])


def check(link: Link, blocks: list[Settled], made: Merger) -> None:
    """Validity, completeness and order of a finished merge."""
    merged = places(blocks, len(link.ids))
    for member, own in enumerate(link.ids):
        skipped = [block.skipped.get(member, np.empty(0, np.int64)) for block in blocks]
        consumed = np.concatenate([merged[:, member][merged[:, member] >= 0], *skipped])
        assert sorted(consumed.tolist()) == list(range(len(own)))
        assert made.pending(member) == 0
        assert made.consumed(member) == made.reported(member) == len(own)
    time = np.concatenate([np.empty(0, np.int64), *(block.time_us for block in blocks)])
    assert (np.diff(time) >= 0).all()
    cuts = [block.cut_ns for block in blocks]
    assert cuts == sorted(cuts)
    for block in blocks:
        for row, hash_ in zip(block.places.tolist(), block.hash.tolist(), strict=True):
            assert {int(link.hashes[m][p]) for m, p in enumerate(row) if p >= 0} == {hash_}


@pytest.mark.usefixtures("impl")
@given(link=links, seed=st.integers(0, 2**32), portion=st.sampled_from([1, 5, 40, 1000]))
def test_complete_whatever_comes_when(link: Link, seed: int, portion: int) -> None:
    made = merger(link)
    blocks = feed(made, link, seed=seed, portion=portion)
    check(link, blocks, made)
    numbers = link.bursts(500 * US + 4 * link.jitter_ns)
    agreed = [
        next(link.ids[m][p] for m, p in enumerate(row) if p >= 0) for row in places(blocks, len(link.ids)).tolist()
    ]
    count = np.bincount(numbers[np.array(agreed, np.int64)], minlength=int(numbers.max()) + 1)
    assert (count >= link.most(numbers)).all()
    assert (count <= np.bincount(numbers[np.array(sorted(link.union), np.int64)], minlength=len(count))).all()


@pytest.mark.usefixtures("impl")
@given(seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.02, 0.3]), portion=st.sampled_from([3, 50, 5000]))
def test_without_repeats_the_union_comes_out_in_order(seed: int, loss: float, portion: int) -> None:
    link = make_link(seed, packets=150, replicas=3, loss=loss, jitter_ns=0)
    made = merger(link)
    blocks = feed(made, link, seed=seed, portion=portion)
    check(link, blocks, made)
    rows = places(blocks, 3).tolist()
    assert [next(int(link.ids[m][p]) for m, p in enumerate(row) if p >= 0) for row in rows] == sorted(link.union)
    assert made.late == made.ambiguous == 0


@given(st.integers(0, 2**32))
def test_clocks_far_apart_are_found(seed: int) -> None:
    link = make_link(seed, packets=2000, replicas=3, loss=0.05, offsets=(0, 5_000_000 * US, -70 * US))
    made = merger(link, seeded=False)
    for member in range(3):
        made.add(member, 0, link.hashes[member], link.times[member])
        made.watermark(member, 0, end=True)
    blocks = settle(made)
    check(link, blocks, made)
    assert len(places(blocks, 3)) == len(link.union)
    assert abs(made.offset_ns(1) + 5_000_000 * US) < 10 * US
    assert made.tolerance_ns(2) < 100 * US


def test_a_clean_stretch_needs_no_watermark() -> None:
    link = make_link(1, packets=500, loss=0.0)
    made = merger(link)
    for member in (0, 1):
        made.add(member, 0, link.hashes[member], link.times[member])
    assert sum(len(block.hash) for block in settle(made)) == 500
    assert made.rounds == -(-500 // 56)
    assert made.dirty_rounds == made.desync_level == 0


def test_nothing_is_settled_before_every_watermark() -> None:
    made = Merger([4, 9], 4, Settings())
    made.set_offset(9, 0, 10 * US)
    made.add(4, 0, np.array([1, 2], np.uint64), np.array([1 * MS, 2 * MS]))
    made.watermark(4, 10 * MS)
    assert made.decide() is None
    made.watermark(9, 2 * MS)
    blocks = settle(made)
    assert places(blocks, 2).tolist() == [[0, -1]]
    assert blocks[-1].cut_ns <= 2 * MS
    made.watermark(9, 5 * MS)
    assert places(settle(made), 2).tolist() == [[1, -1]]


def test_an_anchor_settles_without_a_watermark_but_not_inside_the_reorder_window() -> None:
    hashes = np.arange(1, 40, dtype=np.uint64)
    times = np.arange(39) * 100 * US
    made = Merger([0, 1], 0, Settings())
    made.set_offset(1, 0, 10 * US)
    made.add(0, 0, hashes, times)
    made.add(1, 0, np.delete(hashes, 12), np.delete(times, 12))
    settled = places(settle(made), 2)
    assert len(settled) == 39
    assert settled[12].tolist() == [12, -1]
    early = Merger([0, 1], 0, Settings(l=4))
    early.set_offset(1, 0, 10 * US)
    early.add(0, 0, hashes[:17], times[:17])
    early.add(1, 0, np.delete(hashes, 12)[:16], np.delete(times, 12)[:16])
    assert len(places(settle(early), 2)) == 12


def test_a_flood_makes_no_anchor() -> None:
    made = Merger([0, 1], 0, Settings())
    made.set_offset(1, 0, 10 * US)
    times = np.arange(60) * 20 * US
    made.add(0, 0, np.r_[np.uint64(5), np.full(59, 7, np.uint64)], times)
    made.add(1, 0, np.full(59, 7, np.uint64), times[1:])
    assert made.decide() is None


def test_gaps_are_refused_and_overlaps_ignored() -> None:
    made = Merger([0, 1], 0, Settings(), start={1: 100})
    made.add(1, 100, np.array([1, 2], np.uint64), np.array([1, 2]))
    made.add(1, 101, np.array([2, 3], np.uint64), np.array([2, 3]))
    assert made.reported(1) == 103
    assert made.pending(1) == 3
    with pytest.raises(ValueError, match="position 104, expected 103"):
        made.add(1, 104, np.array([4], np.uint64), np.array([4]))


def late_pair(when_ns: int, hash_: int = 1) -> tuple[Merger, Settled]:
    """Member 0's packet 1 at 1 ms is settled alone; then member 1 reports one after all."""
    made = Merger([0, 1], 0, Settings())
    made.set_offset(1, 0, 10 * US)
    made.add(0, 0, np.array([1], np.uint64), np.array([1 * MS]))
    made.watermark(0, 20 * MS)
    made.watermark(1, 20 * MS)
    assert sum(len(block.hash) for block in settle(made)) == 1
    made.add(1, 0, np.array([hash_], np.uint64), np.array([when_ns]))
    block = made.decide()
    assert block is not None
    return made, block


def test_a_late_duplicate_is_skipped() -> None:
    made, block = late_pair(1 * MS + 3 * US)
    assert block.skipped[1].tolist() == [0]
    assert len(block.hash) == 0
    assert made.late == 0


@pytest.mark.parametrize(("when", "hash_"), [(1 * MS, 2), (2 * MS, 1)])
def test_what_comes_late_and_nobody_had_is_appended(when: int, hash_: int) -> None:
    made, block = late_pair(when, hash_)
    assert block.places.tolist() == [[-1, 0]]
    assert block.flags[0] & Flag.LATE
    assert made.late == 1


def test_late_times_are_clamped() -> None:
    made, block = late_pair(100 * US, 2)
    assert block.time_us.tolist() == [1000]
    assert block.flags[0] & Flag.CLAMPED
    assert made.clamped == 1


def clusters(hashes: U64, times: I64, k: int) -> tuple[U64, I64, I64]:
    starts = range(0, len(hashes) - k + 1, k)
    sums = np.array([cluster_hash(hashes[i : i + k]) for i in starts], np.uint64)
    return sums, times[: len(sums) * k : k], times[k - 1 :: k][: len(sums)]


def summarised(link: Link, k: int = 56) -> tuple[Merger, int]:
    """Member 1 sends clusters, then a rest in detail; the merger and where the rest begins."""
    made = merger(link)
    made.add(0, 0, link.hashes[0], link.times[0])
    made.watermark(0, 0, end=True)
    sums, first, last = clusters(link.hashes[1], link.times[1], k)
    made.add_clusters(1, 0, k, sums, first, last)
    rest = k * len(sums)
    made.add(1, rest, link.hashes[1][rest:], link.times[1][rest:])
    made.watermark(1, 0, end=True)
    return made, rest


def test_equal_clusters_stand_for_their_packets() -> None:
    link = make_link(3, packets=1000, loss=0.0, offsets=(0, 300 * US))
    made, _ = summarised(link)
    blocks = settle(made)
    assert made.wanted() == []
    check(link, blocks, made)
    assert (places(blocks, 2) == np.arange(1000)[:, None]).all()


def test_only_clusters_that_differ_are_asked_for() -> None:
    link = make_link(5, packets=3000, loss=0.002, offsets=(0, 300 * US))
    made, rest = summarised(link)
    blocks = settle(made)
    asked = made.wanted()
    lost = len(set(np.r_[0:3000]) - set(link.ids[0].tolist())) + len(set(np.r_[0:3000]) - set(link.ids[1].tolist()))
    assert 0 < len(asked) <= 2 * lost < rest // 56
    for member, position, count in asked:
        own = slice(position, position + count)
        made.add_detail(member, position, link.hashes[member][own], link.times[member][own])
    blocks += settle(made)
    assert made.wanted() == []
    check(link, blocks, made)
    assert len(places(blocks, 2)) == len(link.union)


def test_dirty_rounds_and_desync_are_counted() -> None:
    link = make_link(2, packets=56 * 20, loss=0.3)
    made = merger(link)
    feed(made, link, seed=1, portion=10_000)
    assert made.rounds == -(-len(link.union) // 56)
    assert 0 < made.dirty_rounds <= made.rounds
    assert 0 < made.max_desync <= 16


def test_the_history_is_what_was_settled() -> None:
    link = make_link(8, packets=300, loss=0.1)
    made = merger(link)
    blocks = feed(made, link, seed=2, portion=30)
    hashes, times = made.history()
    assert hashes.tolist() == [h for block in blocks for h in block.hash.tolist()]
    assert (np.diff(times) >= 0).all()


def test_the_rest_goes_on_without_a_member_that_left() -> None:
    link = make_link(4, packets=200, replicas=3, loss=0.1)
    made = merger(link)
    for member in (0, 1):
        made.add(member, 0, link.hashes[member], link.times[member])
        made.watermark(member, 0, end=True)
    assert made.decide() is None
    made.drop_member(2)
    merged = places(settle(made), 3)
    assert len(merged) == len(set(link.ids[0].tolist()) | set(link.ids[1].tolist()))
    assert (merged[:, 2] == -1).all()
    with pytest.raises(ValueError, match="reference"):
        made.drop_member(0)


def test_the_reference_is_a_member() -> None:
    with pytest.raises(ValueError, match="reference 5"):
        Merger([0, 1], 5, Settings())

"""The aligners: one contract, checked on both kernels and on the difflib reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnids.core import aligner as kernels
from ftnids.errors import UsageError
from ftnids.sync import align, bursts
from ftnids.sync.messages import I64, U64, Flag
from tests.sync.captures import US, Link, links, make_link

TOLERANCE = 46 * US
REORDER = 500 * US, 64
Merge = Callable[..., align.Merged]


def _python(*arguments: object) -> align.Merged:
    return align.Merged(*bursts.merge(*arguments))  # type: ignore[arg-type]


def _c(*arguments: object) -> align.Merged:
    native = kernels.built()
    if native is None:
        pytest.skip("the C kernels are not built")
    return align.Merged(*native.merge(*arguments))  # type: ignore[arg-type]


both = pytest.mark.parametrize("merge", [_python, _c])
all_three = pytest.mark.parametrize("merge", [_python, _c, align.merge_difflib])


def run(merge: Merge, link: Link, tolerance: int = TOLERANCE) -> align.Merged:
    return merge(link.hashes, link.corrected, [0] + [tolerance] * (len(link.hashes) - 1), *REORDER)


def simple(merge: Merge, *captures: list[tuple[int, int]], tolerance: int = TOLERANCE) -> list[list[int]]:
    """Merge captures given as (hash, time in us); the places as lists."""
    hashes = [np.array([h for h, _ in own], np.uint64) for own in captures]
    times = [np.array([t * US for _, t in own], np.int64) for own in captures]
    merged = merge(hashes, times, [0] + [tolerance] * (len(captures) - 1), *REORDER)
    assert (np.diff(merged.time_ns) >= 0).all()
    return merged.place.tolist()  # type: ignore[no-any-return]


def agree(hashes: list[U64], times: list[I64], tolerances: list[int]) -> None:
    """Both kernels make the same of it, to the bit."""
    c, python = (merge(hashes, times, tolerances, *REORDER) for merge in (_c, _python))
    assert np.array_equal(c.place, python.place)
    assert np.array_equal(c.time_ns, python.time_ns)
    assert np.array_equal(c.flags, python.flags)


@all_three
@given(link=links)
def test_every_packet_comes_out_once(merge: Merge, link: Link) -> None:
    merged = run(merge, link)
    for r, own in enumerate(link.ids):
        places = merged.place[:, r]
        assert sorted(places[places >= 0].tolist()) == list(range(len(own)))
    assert (merged.place >= 0).any(axis=1).all()
    assert (np.diff(merged.time_ns) >= 0).all()


@all_three
@given(link=links)
def test_only_equal_packets_are_joined_and_only_near_ones(merge: Merge, link: Link) -> None:
    merged = run(merge, link)
    for row in merged.place.tolist():
        held = [(r, i) for r, i in enumerate(row) if i >= 0]
        assert len({int(link.hashes[r][i]) for r, i in held}) == 1
        times = [int(link.corrected[r][i]) for r, i in held]
        assert max(times) - min(times) <= max(TOLERANCE, REORDER[0])


@given(link=links)
@settings(max_examples=150)
def test_both_kernels_agree_to_the_bit(link: Link) -> None:
    agree(link.hashes, link.corrected, [0] + [TOLERANCE] * (len(link.hashes) - 1))


@given(
    seed=st.integers(0, 2**32),
    replicas=st.integers(2, 7),
    tolerance=st.sampled_from([TOLERANCE, 400 * US, 3_000 * US]),
    gap=st.sampled_from([1, 5, 20]),
    jitter=st.sampled_from([20, 100]),
)
@settings(max_examples=60)
def test_both_kernels_agree_on_floods_that_the_ruler_parts(
    seed: int, replicas: int, tolerance: int, gap: int, jitter: int
) -> None:
    """Three tenths of the packets are equal; the others allow some pairs of them and forbid nearer ones."""
    rng = np.random.default_rng(seed)
    count = 400
    link = make_link(seed, packets=count, replicas=replicas, loss=0, gap_ns=gap * US, jitter_ns=jitter * US)
    hashes = np.where(rng.random(count) < 0.7, np.arange(1, count + 1), 0).astype(np.uint64)
    kept = [np.flatnonzero(rng.random(count) >= loss) for loss in rng.choice([0, 0.3, 0.9], replicas)]
    times = [own[k] for own, k in zip(link.times, kept, strict=True)]
    tolerances = [0, *rng.choice([tolerance, tolerance // 2], replicas - 1).tolist()]
    agree([hashes[k] for k in kept], times, tolerances)


@pytest.mark.parametrize("replicas", [2, 7])
def test_both_kernels_agree_where_hashes_collide(replicas: int) -> None:
    """Hashes that all fall on one place of the C kernel's table, which therefore sorts them."""
    inverse = pow(0x9E3779B97F4A7C15, -1, 1 << 64)
    link = make_link(5, packets=400, replicas=replicas, repeats=300)
    hashes = [np.array([(int(h) % 307 + 1) * inverse % (1 << 64) for h in own], np.uint64) for own in link.hashes]
    agree(hashes, link.times, [0] + [TOLERANCE] * (replicas - 1))


@both
@given(link=links)
def test_the_count_lies_between_the_largest_replica_s_and_the_truth(merge: Merge, link: Link) -> None:
    """Promise 3, burst by burst: a burst is what the clocks cannot tell apart."""
    merged = run(merge, link)
    numbers = link.bursts(REORDER[0] + 4 * link.jitter_ns)
    agreed = [next(link.ids[r][i] for r, i in enumerate(row) if i >= 0) for row in merged.place.tolist()]
    count = np.bincount(numbers[np.array(agreed, np.int64)], minlength=int(numbers.max()) + 1)
    union = np.bincount(numbers[np.array(sorted(link.union), np.int64)], minlength=len(count))
    assert (count >= link.most(numbers)).all()
    assert (count <= union).all()


@both
@given(link=links)
def test_each_replica_s_order_is_kept_where_all_packets_differ(merge: Merge, link: Link) -> None:
    """Promise 4."""
    if len(np.unique(link.hash)) == len(link.hash):
        merged = run(merge, link)
        for r in range(len(link.hashes)):
            places = merged.place[:, r]
            assert (np.diff(places[places >= 0]) > 0).all()


@both
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3]))
def test_without_repeats_it_finds_what_difflib_finds(merge: Merge, seed: int, loss: float) -> None:
    link = make_link(seed, packets=300, loss=loss)
    ours, reference = run(merge, link), run(align.merge_difflib, link)
    assert {tuple(row) for row in ours.place.tolist()} == {tuple(row) for row in reference.place.tolist()}
    assert len(ours.place) == len(link.union)


@both
def test_time_tells_repeats_apart(merge: Merge) -> None:
    assert simple(merge, [(7, 0)], [(7, 100)]) == [[0, -1], [-1, 0]]
    assert simple(merge, [(7, 0)], [(7, 40)]) == [[0, 0]]


@both
def test_order_tells_repeats_apart(merge: Merge) -> None:
    # 7 8 7 on the link; the second capture lost the first 7
    assert simple(merge, [(7, 0), (8, 5), (7, 10)], [(8, 3), (7, 4)]) == [[0, -1], [1, 0], [2, 1]]


@both
def test_the_larger_count_of_indistinguishable_packets_is_kept_and_marked(merge: Merge) -> None:
    hashes = [np.array([7] * 3, np.uint64), np.array([7] * 2, np.uint64)]
    times = [np.array([0, 1, 2]) * US, np.array([0, 1]) * US]
    merged = merge(hashes, times, [0, TOLERANCE], *REORDER)
    assert len(merged.place) == 3
    assert np.count_nonzero(merged.flags & Flag.AMBIGUOUS) == 1


@both
def test_a_flood_is_not_shifted_to_win_a_pair(merge: Merge) -> None:
    """Each capture lost another packet of a steady flood whose spacing lies within the tolerance."""
    flood = [(7, 250 * i) for i in range(40)]
    first, second = [p for i, p in enumerate(flood) if i != 10], [p for i, p in enumerate(flood) if i != 30]
    assert len(simple(merge, first, second, tolerance=400 * US)) == 40


@both
def test_reordered_packets_are_joined(merge: Merge) -> None:
    line = [(i, 60 * i) for i in range(20)]
    moved = [*line[1:6], (0, 300), *line[6:]]
    assert len(simple(merge, line, moved)) == 20


@both
def test_a_packet_that_comes_back_much_later_is_another_one(merge: Merge) -> None:
    line = [(i, 600 * i) for i in range(20)]
    assert len(simple(merge, line, [*line[1:6], (0, 3000), *line[6:]])) == 21


@both
def test_repeats_that_each_capture_lost_another_of_are_not_taken_for_reordered(merge: Merge) -> None:
    """A fifth of all packets is repeated 200 us later: loss, not reordering, parts some of the pairs."""
    rng = np.random.default_rng(3)
    link = [(i, 20 * i) for i in range(2000)]
    link = sorted([*link, *((h, t + 205) for h, t in link if h % 5 == 0)], key=lambda p: p[1])
    kept = [[p for p in link if rng.random() > 0.2] for _ in range(2)]
    union = len(set(kept[0]) | set(kept[1]))
    assert len(simple(merge, *kept)) >= 0.995 * union


@both
def test_contradictions_are_settled_by_time(merge: Merge) -> None:
    assert simple(merge, [(1, 0), (2, 10)], [(2, 9), (1, 12)]) == [[0, 1], [1, 0]]


@all_three
def test_empty_captures(merge: Merge) -> None:
    assert simple(merge, [], []) == []
    assert simple(merge, [], [(1, 0)]) == [[-1, 0]]


HOSTILE = {
    "equal": lambda n: np.zeros(n, np.uint64),
    "alternating": lambda n: (np.arange(n) % 2).astype(np.uint64),
    "a hundred values": lambda n: (np.arange(n) % 100).astype(np.uint64),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("tolerance", [TOLERANCE, 10**12])
def test_hostile_repeats_are_merged_whole(name: str, tolerance: int) -> None:
    """The window's limit, 65,536 packets: nothing quadratic ends within the test's time-out."""
    count = 65_536
    rng = np.random.default_rng(1)
    time = np.cumsum(rng.integers(0, 20 * US, count)).astype(np.int64)
    kept = [np.flatnonzero(rng.random(count) > 0.05) for _ in range(2)]
    hashes = [HOSTILE[name](count)[own] for own in kept]
    merged = _c(hashes, [time[own] for own in kept], [0, tolerance], *REORDER)
    assert max(map(len, hashes)) <= len(merged.place) <= len(np.union1d(*kept))


def test_a_flood_of_which_others_hold_little_is_merged_whole() -> None:
    """Seven captures, one has nearly all; a walk over all near each packet does not end within the test's time-out."""
    count = 262_144
    few = np.arange(3_200, count, 6_560)
    time = np.arange(count, dtype=np.int64)
    kept = [np.arange(count), *[few] * 6]
    merged = _c([np.zeros(len(own), np.uint64) for own in kept], [time[own] for own in kept], [TOLERANCE] * 7, *REORDER)
    assert len(merged.place) == count


def test_hashes_chosen_to_collide_are_merged_whole() -> None:
    """All fall on one place of the kernel's table; going past all others does not end within the test's time-out."""
    hashes = np.arange(1, 393_217, dtype=np.uint64) * np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
    time = np.arange(len(hashes), dtype=np.int64) * 20 * US
    merged = _c([hashes] * 2, [time] * 2, [0, TOLERANCE], *REORDER)
    assert np.array_equal(merged.place, np.column_stack([np.arange(len(hashes))] * 2))


def test_the_aligner_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert align.aligner("default") is align.merge
    with pytest.raises(UsageError, match="default and difflib"):
        align.aligner("best")
    monkeypatch.setenv("FTNIDS_IMPL", "python")
    assert kernels.chosen() is None


@pytest.mark.parametrize("merge", [_python, _c])
@pytest.mark.parametrize("replicas", [2, 3, 4, 7])
@given(
    seed=st.integers(0, 2**32),
    packets=st.integers(20, 150),
    gap=st.sampled_from([3, 15, 30, 60, 200]),
    loss=st.sampled_from([0.05, 0.2, 0.5]),
    ahead=st.integers(-3, 3),
)
@settings(max_examples=8)
def test_a_flood_that_one_capture_has_whole_comes_out_as_long_as_it_was(
    merge: Merge, replicas: int, seed: int, packets: int, gap: int, loss: float, ahead: int
) -> None:
    link = make_link(seed, packets=packets, replicas=replicas, loss=loss, repeats=1, gap_ns=gap * US)
    whole = seed % replicas
    rng = np.random.default_rng(seed)
    link.ids[whole] = np.arange(packets)
    link.hashes[whole] = link.hash
    link.times[whole] = np.maximum.accumulate(link.time_ns + rng.integers(0, 20 * US + 1, packets)) + ahead * US
    merged = run(merge, link)
    assert len(merged.place) == packets
    assert (merged.place[:, whole] >= 0).all()

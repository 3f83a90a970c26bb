"""A look at merged packets: both kernels see the same, and it is what is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids.core import aligner as kernels
from ftnids.sync import align
from ftnids.sync.survey import Survey, survey
from tests.sync.captures import US, Link, links, make_link

Look = Callable[..., Survey]
LENGTH = 4
REORDER = 500 * US
MASKS = st.integers(1, 7)  # who of three holds a packet


def _by(kernel: str) -> Look:
    def look(*given: Any) -> Survey:
        if kernels.built() is None and kernel == "c":
            pytest.skip("the C kernels are not built")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FTNIDS_IMPL", kernel)
            return survey(*given)

    return look


_c, _python = _by("c"), _by("python")
both = pytest.mark.parametrize("look", [_python, _c], ids=["python", "c"])


def arguments(link: Link, tolerance: int = 46 * US) -> tuple[Any, ...]:
    """What `survey` is given for the merged link; some packets of each capture have been consumed before."""
    tolerances = [tolerance + 20 * US * r for r in range(len(link.hashes))]
    merged = align.merge(link.hashes, link.corrected, tolerances, REORDER, 64)
    positions = [np.cumsum(1 + (np.arange(len(own)) % 7 == 3)) for own in link.hashes]
    return merged.place, merged.time_ns, link.hashes, link.corrected, positions, tolerances, REORDER, LENGTH


def table(*rows: tuple[int, int, int], tolerances: tuple[int, ...] = (46 * US,) * 3) -> tuple[Any, ...]:
    """The same for packets given as hash, time in us, and who holds them."""
    holds = np.array([[mask >> r & 1 for r in range(3)] for _, _, mask in rows], bool)
    place = np.where(holds, holds.cumsum(axis=0) - 1, -1)
    hashes, times = np.array([h for h, _, _ in rows], np.uint64), np.array([t * US for _, t, _ in rows], np.int64)
    own = [[column[held] for held in holds.T] for column in (hashes, times)]
    positions = [np.arange(len(part)) for part in own[0]]
    return place, times, *own, positions, tolerances, REORDER, LENGTH


def equal(a: Survey, b: Survey) -> None:
    """They are, to the bit."""
    for name in Survey.__slots__:
        left, right = getattr(a, name), getattr(b, name)
        assert np.array_equal(left, right) if name != "index" else all(map(np.array_equal, left, right)), name


@given(link=links)
def test_both_kernels_see_the_same(link: Link) -> None:
    given = arguments(link)
    if len(given[0]):
        equal(_python(*given), _c(*given))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 300), MASKS), min_size=1, max_size=60))
def test_both_kernels_see_the_same_in_floods(rows: list[tuple[int, int, int]]) -> None:
    told = ((h, t, mask) for (h, _, mask), t in zip(rows, sorted(t for _, t, _ in rows), strict=True))
    given = table(*told, tolerances=(10 * US, 46 * US, 150 * US))
    equal(_python(*given), _c(*given))


@both
@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_who_holds_what(look: Look, replicas: int) -> None:
    link = make_link(3, packets=500, replicas=replicas, loss=0.3)
    given = arguments(link)
    seen = look(*given)
    place = given[0]
    for r in range(replicas):
        rows = np.flatnonzero(seen.holders >> np.uint32(r) & 1)
        assert place[rows, r].tolist() == seen.index[r].tolist()
        assert link.hashes[r][seen.index[r]].tolist() == seen.hash[rows].tolist()
        half = seen.held(len(place) // 2)[r]
        assert half.tolist() == seen.index[r][: len(half)].tolist()
        assert len(half) == (place[: len(place) // 2, r] >= 0).sum()


@both
def test_an_anchor_needs_different_packets_in_a_row(look: Look) -> None:
    run = [(h, h, 7) for h in range(LENGTH)]
    assert look(*table(*run)).anchored == LENGTH
    assert look(*table(*run[1:])).anchored == 0
    assert look(*table(*run[:2], (1, 2, 7), (3, 3, 7))).anchored == 0
    assert look(*table(*run[:2], (9, 2, 3), *run[2:])).anchored == 0
    seen = look(*table(*run, (9, 9, 1), (8, 10, 1)))
    assert (seen.anchored, seen.widest, seen.behind) == (LENGTH, LENGTH, 2)


@both
def test_an_anchor_does_not_hold_while_a_copy_may_still_come(look: Look) -> None:
    run = [(h, 1_000 + h, 7) for h in range(LENGTH)]
    assert look(*table((9, 0, 1), *run)).anchored == LENGTH + 1
    seen = look(*table((9, 900, 1), *run))
    assert (seen.anchored, seen.behind) == (0, 0)


@both
def test_a_hole_in_the_positions_ends_a_run(look: Look) -> None:
    place, time, hashes, times, positions, *rest = table(*((h, h, 7) for h in range(LENGTH)))
    positions[1][2:] += 1
    assert look(place, time, hashes, times, positions, *rest).anchored == 0


@both
def test_equal_packets_are_parted_or_repeated(look: Look) -> None:
    assert look(*table((5, 0, 1), (5, 100, 6))).parted == 1
    assert look(*table((5, 0, 1), (5, 100, 6))).gap_ns == 100 * US
    assert look(*table((5, 0, 3), (5, 100, 6))).repeats == 1
    for near, far in ((0, 40), (0, 501)):  # within the tolerance; beyond the reorder window
        seen = look(*table((5, near, 1), (5, far, 6)))
        assert (seen.parted, seen.repeats, seen.gap_ns) == (0, 0, 0)


@both
def test_a_poor_clock_excuses_only_its_own_stamps(look: Look) -> None:
    poor = (46 * US, 46 * US, 400 * US)
    assert look(*table((5, 0, 1), (5, 100, 2), tolerances=poor)).parted == 1
    assert look(*table((5, 0, 1), (5, 100, 4), tolerances=poor)).parted == 0


@both
def test_stamps_of_one_packet_far_apart(look: Look) -> None:
    place, time, hashes, times, *rest = table((5, 0, 7), (6, 200, 7))
    times[2][1] += 60 * US
    assert look(place, time, hashes, times, *rest).spread_ns == 60 * US
    times[2][1] -= 30 * US
    assert look(place, time, hashes, times, *rest).spread_ns == 0


def test_what_the_kernel_is_not_made_for_is_refused() -> None:
    native = kernels.built()
    if native is None:
        pytest.skip("the C kernels are not built")
    nothing = np.empty(0, np.int64)
    with pytest.raises(ValueError, match="nothing was merged"):
        native.survey(np.empty((0, 2), np.int64), nothing, [], [], [], [], 0, 8)
    with pytest.raises(ValueError, match="17 captures"):
        native.survey(np.zeros((1, 17), np.int64), nothing, [], [], [], [], 0, 8)
    with pytest.raises(ValueError, match="knots"):
        native.correct(nothing, 0, 0, (0.0, 0.0), (0.0, 0.0), (np.empty(0), np.empty(0)))

"""Clocks: offset, drift and tolerance from shared packets, and what must not mislead them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids import limits
from ftnids.core import aligner as kernels
from ftnids.sync import clocks
from ftnids.sync.clocks import Clock, common
from ftnids.sync.messages import I64

US = 1_000
S = 1_000_000_000
START = 1_700_000_000 * S


def pairs(
    seed: int, count: int, span_ns: int, *, offset: int = 300 * US, ppm: float = 0, jitter: int = 20 * US
) -> tuple[I64, I64]:
    """Times of `count` packets by the member's clock, which is `offset` ahead and drifts, and the reference's."""
    rng = np.random.default_rng(seed)
    true = START + np.sort(rng.integers(0, span_ns, count))
    drift = np.rint((true - START) * ppm * 1e-6).astype(np.int64)
    member = true + offset + drift + rng.integers(0, jitter + 1, count)
    return np.maximum.accumulate(member), np.maximum.accumulate(true + rng.integers(0, jitter + 1, count))


@pytest.mark.parametrize("offset", [0, 300 * US, -7 * S, 400 * S])
def test_the_offset_is_found_and_the_tolerance_covers_the_jitter(offset: int) -> None:
    clock = Clock()
    member, reference = pairs(1, 1000, S, offset=offset)
    clock.learn(member, reference)
    assert abs(clock.offset_ns() + offset) < 5 * US
    assert (np.abs(clock.correct(member) - reference) <= clock.tolerance_ns()).all()
    assert clock.tolerance_ns() <= 2 * 25 * US + limits.TOLERANCE_FLOOR_NS


def test_drift_is_followed_within_a_window_and_beyond_it() -> None:
    clock = Clock()
    member, reference = pairs(2, 20_000, 100 * S, ppm=50, jitter=200 * US)
    clock.learn(member[:15_000], reference[:15_000])
    error = clock.correct(member) - reference
    assert abs(float(error[:15_000].mean())) < 10 * US
    assert abs(float(error[15_000:].mean())) < 40 * US
    assert (np.abs(error) <= clock.tolerance_ns(int(member[-1]))).all()


def test_learning_in_small_portions_comes_to_the_same() -> None:
    clock = Clock()
    member, reference = pairs(3, 4000, 4 * S, ppm=20)
    for at in range(0, 4000, 7):
        clock.learn(member[at : at + 7], reference[at : at + 7])
    assert (np.abs(clock.correct(member[-500:]) - reference[-500:]) <= clock.tolerance_ns()).all()
    assert clock.tolerance_ns() < 70 * US


def test_what_is_known_is_not_learnt_twice() -> None:
    clock = Clock()
    member, reference = pairs(4, 300, S)
    clock.learn(member, reference)
    before = clock.offset_ns(), clock.tolerance_ns()
    clock.learn(member, reference + 5 * US)
    assert (clock.offset_ns(), clock.tolerance_ns()) == before


def test_false_pairs_are_trimmed() -> None:
    clock = Clock()
    member, reference = pairs(5, 1000, S)
    false = np.random.default_rng(5).random(1000) < 0.08
    reference = np.where(false, reference + 3_000 * US, reference)
    clock.learn(member, reference)
    assert abs(clock.offset_ns() + 300 * US) < 5 * US
    assert clock.tolerance_ns() < 80 * US


def test_the_first_guess_survives_many_false_pairs() -> None:
    clock = Clock()
    member, reference = pairs(6, 300, S)
    rng = np.random.default_rng(6)
    lies = np.arange(300) % 3 > 0
    reference = np.where(lies, reference + rng.integers(-900 * S, 900 * S, 300), reference)
    clock.learn(member, reference)
    assert abs(clock.offset_ns() + 300 * US) < 30_000 * US


def test_strays_do_not_move_a_known_clock_but_a_step_does() -> None:
    clock = Clock()
    member, reference = pairs(7, 500, S)
    clock.learn(member, reference)
    later, there = member + 2 * S, reference + 2 * S + 10_000 * US
    clock.learn(later[:10], there[:10])
    assert abs(clock.offset_ns() + 300 * US) < 50 * US
    clock.learn(later[10:], there[10:])
    assert abs(clock.offset_ns() - 9_700 * US) < 50 * US


def test_the_tolerance_is_wide_at_first_and_grows_in_silence() -> None:
    clock = Clock()
    assert clock.tolerance_ns() == limits.MAX_TOLERANCE_NS
    member, reference = pairs(8, 500, S)
    clock.learn(member[:3], reference[:3])
    assert clock.tolerance_ns() >= limits.START_TOLERANCE_NS
    clock.learn(member[3:], reference[3:])
    now = int(member[-1])
    assert clock.tolerance_ns(now) < 60 * US
    assert clock.tolerance_ns(now + 10 * S) > clock.tolerance_ns(now) + 50 * US


def test_a_clock_that_was_learnt_late_errs_before_its_first_sample() -> None:
    clock = Clock()
    theirs = 10**9 + np.arange(100) * 1_000_000
    clock.learn(theirs, theirs + 5_000)
    known, before = clock.tolerance_ns(int(theirs[0])), clock.tolerance_ns(int(theirs[0]) - 400_000_000)
    assert before - known == 40_000  # two clocks of which nothing is known part by 100 ppm


def test_the_tolerance_covers_what_a_clock_did_in_a_pause() -> None:
    """Many samples, a pause, a few, a longer pause, the first few: those show how far the two have parted."""
    clock = Clock()
    bursts = [(0, 170), (80_000_000, 15), (560_000_000, 4)]
    theirs = np.concatenate([10**9 + at + np.arange(count) * 100_000 for at, count in bursts])
    ours = theirs + ((theirs - theirs[0]) * 60e-6).astype(np.int64)  # 60 ppm apart
    for part in np.split(np.arange(len(theirs)), [170, 185]):
        clock.learn(theirs[part], ours[part])
    error = int(abs(clock.correct(theirs[-1:])[0] - ours[-1]))
    assert 2 * error <= clock.tolerance_ns(int(theirs[-1])), (error, clock.tolerance_ns(int(theirs[-1])))


def test_a_seed_serves_until_packets_do_better() -> None:
    clock = Clock()
    clock.set_offset(-250 * US, 400 * US)
    assert clock.known
    assert clock.correct(np.array([START])).tolist() == [START - 250 * US]
    assert clock.tolerance_ns() == 400 * US
    member, reference = pairs(9, 500, S)
    clock.learn(member, reference)
    assert abs(clock.offset_ns() + 300 * US) < 5 * US
    assert clock.tolerance_ns() < 60 * US


@pytest.mark.parametrize("apart", [0, 1])
def test_a_line_is_not_drawn_through_one_burst(apart: int) -> None:
    """Most samples in one moment, and a few elsewhere that agree with nothing: there is no drift to tell."""
    clock = Clock()
    theirs = np.concatenate([START + np.arange(90) * apart, START + 2 * S + np.arange(10) * 50 * US])
    clock.learn(theirs, theirs + np.concatenate([np.full(90, 100 * US), np.arange(10) * 9 * US]))
    assert abs(clock.offset_ns(START) - 100 * US) <= clock.tolerance_ns(START)


def test_a_seed_grows_old() -> None:
    clock = Clock()
    clock.set_offset(-250 * US, 100 * US, at_ns=START)
    assert clock.tolerance_ns(START) == clock.tolerance_ns() == 100 * US
    assert clock.tolerance_ns(START + 2 * S) == 300 * US  # two clocks of which nothing is known part by 100 ppm
    assert clock.tolerance_ns(START + 3600 * S) == limits.MAX_TOLERANCE_NS
    member = START + 2 * S + np.arange(20) * US * 100
    clock.learn(member, member - 430 * US)
    assert clock.offset_ns() == -430 * US


def test_one_time_is_corrected_as_many_are() -> None:
    clock = Clock()
    member, reference = pairs(10, 3000, 3 * S, ppm=70)
    clock.learn(member, reference)
    times = np.sort(np.concatenate([member[::37], [member[0] - S, member[-1] + S, member[-1] + 100 * S]]))
    assert [clock.offset_ns(int(t)) for t in times] == (clock.correct(times) - times).tolist()


def test_corrected_times_never_decrease() -> None:
    clock = Clock()
    member, reference = pairs(10, 3000, 3 * S, ppm=-200)
    clock.learn(member, reference)
    assert (np.diff(clock.correct(member)) >= 0).all()


def test_only_hashes_unique_on_both_sides_are_common() -> None:
    ours, theirs = common(np.array([1, 2, 3, 2, 9], np.uint64), np.array([9, 3, 3, 1, 4], np.uint64))
    assert list(zip(ours.tolist(), theirs.tolist(), strict=True)) == [(0, 3), (4, 0)]


def test_a_flood_teaches_nothing() -> None:
    ours, theirs = common(np.full(500, 7, np.uint64), np.full(400, 7, np.uint64))
    assert len(ours) == len(theirs) == 0


def test_what_is_kept_and_looked_at_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLOCK_SAMPLES", 100)
    monkeypatch.setattr(limits, "CLOCK_SAMPLED", 1_000)
    clock = Clock()
    for first in range(0, 5_000, 500):
        times = np.arange(first, first + 500, dtype=np.int64) * 2_000_000
        clock.learn(times, times + 3_000)
        assert len(clock._t) <= 100
    assert clock.offset_ns() == 3_000
    hashes = np.random.default_rng(1).integers(0, 1 << 63, 10_000, np.uint64)
    left, right = common(hashes, hashes)
    assert (left == right).all()
    assert 500 < len(left) < 2_000


@given(
    st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=40, unique=True),
    st.floats(-2e12, 2e12),
    st.integers(0, 1_000),
)
def test_one_time_between_knots_is_as_numpy_has_it(times: list[float], at: float, seed: int) -> None:
    knots, values = sorted(times), np.random.default_rng(seed).normal(0, 1e6, len(times)).tolist()
    assert clocks._between(at, knots, values) == pytest.approx(float(np.interp(at, knots, values)), abs=1.0)


def test_a_clock_that_is_set_forgets_its_knots() -> None:
    clock = Clock()
    times = np.arange(0, 2_000_000_000, 1_000_000)
    clock.learn(times, times + 5_000)
    assert clock.offset_ns(10**9) == pytest.approx(5_000, abs=10)
    clock.set_offset(77, 1_000)
    assert clock.offset_ns(10**9) == 77
    clock.learn(times[:100], times[:100] + 80)
    assert clock.offset_ns(0) == pytest.approx(80, abs=10)


@pytest.mark.skipif(kernels.built() is None, reason="the C kernels are not built")
@given(
    st.integers(0, 1_000),
    st.sampled_from([10, 300, 3_000]),
    st.sampled_from([S // 10, 5 * S]),
    st.lists(st.integers(-20 * S, 20 * S), max_size=50),
)
def test_both_kernels_correct_alike(seed: int, count: int, span_ns: int, asked: list[int]) -> None:
    clock = Clock()
    member, reference = pairs(seed, count, span_ns, ppm=30)
    clock.learn(member, reference)
    times = np.sort(np.concatenate([np.array(asked, np.int64) + START, member[::7]]))
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for kernel in ("c", "python"):
            patch.setenv("FTNIDS_IMPL", kernel)
            found.append(clock.correct(times).tolist())
    assert found[0] == found[1]


def test_of_many_samples_a_few_are_kept_however_long_they_reach() -> None:
    clock = Clock()
    for first in range(10):
        member, reference = pairs(first, 20_000, S)
        clock.learn(member + first * S, reference + first * S)
    assert len(clock._t) < 4 * clocks.THIN_LEAVES
    assert np.ptp(clock._t) > 8 * S
    assert clock.known_before(member + 9 * S) == 20_000
    assert clock.known_before(member + 10 * S) == 0

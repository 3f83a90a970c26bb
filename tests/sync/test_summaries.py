"""Clusters become packets again: many in step at once, and each on its own, come to the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids.sync import summaries
from ftnids.sync.clocks import Clock
from ftnids.sync.messages import I64, U64
from ftnids.sync.pending import Stream

K = 8
GAP_NS = 10_000


def stream(offset_ns: int, *, known: bool) -> Stream:
    clock = Clock()
    if known:
        clock.set_offset(-offset_ns, 5_000)
    return Stream(0, clock)


def filled(hashes: U64, times: I64, lost: set[int], details: set[int], offset_ns: int, known: bool) -> Stream:
    """A member that lost some packets, and reports its clusters as one hash each, some of them in detail."""
    member = stream(offset_ns, known=known)
    keep = np.array([i not in lost for i in range(len(hashes))], bool)
    own, at = hashes[keep], times[keep] + offset_ns
    for number in range(len(own) // K):
        part = slice(number * K, (number + 1) * K)
        if number in details:
            member.add(number * K, own[part], at[part])
        else:
            sums = np.array([summaries.cluster_hash(own[part])], np.uint64)
            member.add_clusters(number * K, K, sums, at[part][:1], at[part][-1:])
    member.fold()
    return member


@pytest.mark.parametrize("known", [False, True])
@given(
    st.sets(st.integers(0, 159), max_size=4),
    st.sets(st.integers(0, 19), max_size=6),
    st.integers(-(10**9), 10**9),
    st.integers(0, 160),
)
def test_runs_in_step_are_answered_as_one_by_one(
    known: bool, lost: set[int], details: set[int], offset_ns: int, reported: int
) -> None:
    count = 160
    hashes = (np.arange(count).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    times = 10**15 + GAP_NS * np.arange(count)
    reference = stream(0, known=True)
    reference.add(0, hashes[:reported], times[:reported])
    reference.fold()
    reference.ended = True
    found = []
    for in_step in (summaries._in_step, lambda member, other: 0):
        member = filled(hashes, times, lost, details if known else set(), offset_ns, known)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(summaries, "_in_step", in_step)
            unknown = summaries.resolve(member, reference)
        found.append((member, [(summary.position, summary.count) for summary in unknown]))
    (fast, fast_unknown), (slow, slow_unknown) = found
    assert fast_unknown == slow_unknown
    for name in ("position", "hash", "measured"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), name)
    assert np.abs(fast.time_ns - slow.time_ns).max(initial=0) <= 1
    assert [len(part) for part in fast.behind] == [len(part) for part in slow.behind]

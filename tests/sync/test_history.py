"""Late copies of packets that were decided: who may claim which."""

from __future__ import annotations

import numpy as np

from ftnids.sync.history import History
from ftnids.sync.merge import Merger, Settings

US = 1_000
CUT = 1_000_000 * US


def decided(count: int, apart_ns: int, holders: int) -> History:
    history = History()
    times = CUT - np.arange(count, 0, -1) * apart_ns
    history.append(np.full(count, 7, np.uint64), times, np.full(count, holders, np.uint32), holders)
    return history


def claims(history: History, times: np.ndarray[tuple[int], np.dtype[np.int64]], holders: int, within: int) -> list[int]:
    count = len(times)
    return history.claim(np.full(count, 7, np.uint64), times, np.full(count, holders, np.uint32), CUT, within)


def test_each_decided_packet_takes_a_members_copy_once() -> None:
    history = decided(2, 10 * US, holders=1)
    late = history.time_ns.repeat(2)
    assert claims(history, late, 2, 30 * US) == [0, 1, -1, -1]
    assert claims(history, late, 1, 30 * US) == [-1] * 4  # its holder has no other copy of it
    assert claims(history, late, 4, 30 * US) == [0, 1, -1, -1]


def test_a_flood_that_is_a_little_ahead_is_claimed_whole() -> None:
    """Nearest first, the copies that are ahead of all decided ones would come out again."""
    history = decided(20, 10 * US, holders=1)
    assert claims(history, history.time_ns + 35 * US, 2, 40 * US) == list(range(20))


def test_all_live_members_may_bring_what_one_that_is_gone_had() -> None:
    merger = Merger([1, 2], 1, Settings())
    hashes, times = np.arange(1, 101, dtype=np.uint64), 10**9 + np.arange(100) * 100 * US
    merger.resume((hashes[:50], times[:50], np.full(50, 1, np.uint32)), int(times[49]), 0)
    for member in (1, 2):
        merger.set_offset(member, 0, 20 * US)
        merger.add(member, 0, hashes[40:], times[40:])
        merger.watermark(member, 0, end=True)
    settled = []
    while (block := merger.decide()) is not None:
        settled.append(block)
    assert np.concatenate([block.hash for block in settled]).tolist() == hashes[50:].tolist()
    assert [sum(len(block.skipped[m]) for block in settled) for m in (1, 2)] == [10, 10]


def test_a_new_coordinator_knows_how_far_its_clock_may_be_from_the_one_before() -> None:
    """It came by a round trip's offset, then leads alone: by its own, what was decided would come out again."""
    hashes, times = np.arange(1, 101, dtype=np.uint64), 10**9 + np.arange(100) * 1_000 * US
    for tolerance, again in ((0, 10), (500 * US, 0)):
        merger = Merger([1], 1, Settings())
        merger.resume((hashes[:50], times[:50], np.full(50, 1, np.uint32)), int(times[49]), 0, tolerance)
        merger.add(1, 0, hashes[40:], times[40:] + 300 * US)
        merger.watermark(1, 0, end=True)
        block = merger.decide()
        assert block is not None
        assert len(block.hash) == 50 + again

"""Injected faults are decided by seed and index: the same in both cores, however packets are batched."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids.capture import CaptureThread
from ftnids.core import RandomDrop
from ftnids.errors import CaptureError
from tests.core.helpers import Core, some_packets, write_pcap

PACKETS = 3000


@given(
    loss=st.floats(0, 1),
    burst=st.floats(1, 100),
    seed=st.integers(0, 2**64 - 1),
    cuts=st.lists(st.integers(0, 500), max_size=8),
)
def test_decisions_do_not_depend_on_batches(loss: float, burst: float, seed: int, cuts: list[int]) -> None:
    whole = RandomDrop(loss, burst, seed).decide(sum(cuts))
    drop = RandomDrop(loss, burst, seed)
    parts = [drop.decide(n) for n in cuts]
    assert np.array_equal(np.concatenate([np.empty(0, bool), *parts]), whole)


@pytest.mark.parametrize(("loss", "burst"), [(0.0, 1), (0.01, 1), (0.2, 1), (0.05, 50), (0.5, 3), (1.0, 1)])
def test_captured_is_what_is_not_dropped(core: Core, tmp_path: Path, seed: int, loss: float, burst: float) -> None:
    path = write_pcap(tmp_path / "x.pcap", some_packets(PACKETS, seed, 100), nano=True)
    everything = core.read(path)
    source, ring = core.file(path), core.ring(slots=4096)
    source.set_drop(RandomDrop(loss, burst, seed))
    try:
        while source.run(ring, 777, 0) >= 0:
            pass
        kept = np.flatnonzero(~RandomDrop(loss, burst, seed).decide(PACKETS))
        assert ring.times(0, ring.head).tolist() == [everything[n][0] for n in kept]
        assert (source.captured, source.injected_drops) == (len(kept), PACKETS - len(kept))
        assert ring.watermark_ns == 2**63 - 1
    finally:
        source.close()
        ring.close(unlink=True)


def test_a_source_goes_on_in_another_ring_with_losses_from_their_beginning(
    core: Core, tmp_path: Path, seed: int
) -> None:
    """As after a rejoin: the next thread counts what it captures, not what was before."""
    path = write_pcap(tmp_path / "x.pcap", some_packets(PACKETS, seed, 100), nano=True)
    everything = core.read(path)
    source, first, second = core.file(path), core.ring(slots=4096), core.ring(slots=4096)
    try:
        source.set_drop(RandomDrop(0.3, 5, seed))
        source.run(first, 100, 0)
        taken = source.captured + source.injected_drops
        source.set_drop(RandomDrop(0.3, 5, seed))
        thread = CaptureThread(source, second)
        thread.start()
        thread.join()
        kept = np.flatnonzero(~RandomDrop(0.3, 5, seed).decide(PACKETS - taken))
        assert second.times(0, second.head).tolist() == [everything[taken + n][0] for n in kept]
        assert (thread.captured, thread.injected_drops) == (len(kept), PACKETS - taken - len(kept))
    finally:
        source.close()
        for ring in (first, second):
            ring.close(unlink=True)


@pytest.mark.parametrize(("loss", "burst"), [(0.01, 1), (0.2, 1), (0.5, 1), (0.05, 50), (0.2, 10)])
def test_share_and_runs(seed: int, loss: float, burst: float) -> None:
    """Within five standard errors of what was asked for; a run of a random walk that long is no accident."""
    n = 400_000
    drop = RandomDrop(loss, burst, seed).decide(n)
    runs = [sum(1 for _ in group) for lost, group in itertools.groupby(drop.tolist()) if lost]
    mean_run = max(burst, 1 / (1 - loss))
    assert abs(drop.mean() - loss) < 5 * (loss * (1 - loss) * 2 * mean_run / n) ** 0.5
    assert abs(np.mean(runs) - mean_run) < 5 * mean_run / len(runs) ** 0.5


def test_seeds_differ() -> None:
    decisions = [RandomDrop(0.5, 1, seed).decide(64) for seed in range(20)]
    assert len({tuple(one.tolist()) for one in decisions}) == 20


@pytest.mark.parametrize(("loss", "burst"), [(-0.1, 1), (1.1, 1), (float("nan"), 1), (0.5, 0.5), (0.5, float("inf"))])
def test_bad_settings_are_refused(loss: float, burst: float) -> None:
    with pytest.raises(CaptureError, match=r"capture\.drop\."):
        RandomDrop(loss, burst)


def test_clock_error(core: Core, tmp_path: Path, seed: int) -> None:
    packets = some_packets(500, seed, 60)
    path = write_pcap(tmp_path / "x.pcap", packets, nano=True)
    true = np.array([packet.time_ns for packet in packets])
    offset = np.array([one[0] for one in core.read(path, clock_offset_ns=-300_000)])
    assert np.array_equal(offset, true - 300_000)
    drifted = np.array([one[0] for one in core.read(path, drift_ppm=50)])
    assert np.abs(drifted - true - (true - true[0]) * 50e-6).max() <= 1
    late = np.array([one[0] for one in core.read(path, jitter_ns=20_000, seed=seed)])
    assert (np.diff(late) >= 0).all()
    assert ((late - true >= 0) & (late - true <= 20_000)).all()
    assert len(set((late - true).tolist())) > 400
    assert late.tolist() != [one[0] for one in core.read(path, jitter_ns=20_000, seed=seed + 1)]


def test_clock_error_is_the_same_in_both(tmp_path: Path, seed: int) -> None:
    path = write_pcap(tmp_path / "x.pcap", some_packets(500, seed, 60), nano=True)
    faults = {"clock_offset_ns": 12_345, "drift_ppm": -33.3, "jitter_ns": 200_000, "seed": seed}
    assert Core("c").read(path, **faults) == Core("python").read(path, **faults)

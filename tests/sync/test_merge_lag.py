"""The merger while one member lags: what it does for a packet stays bounded, and nothing waits for an anchor alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ftnids import limits
from ftnids.sync import align
from ftnids.sync.merge import Merger, Settings
from tests.sync.captures import START, US, Link, make_link

MS = 1_000_000


def counted(monkeypatch: pytest.MonkeyPatch, made: Merger) -> list[int]:
    """The packets of each alignment that the merger asks for, as they come."""
    sizes: list[int] = []
    whole: Callable[..., align.Merged] = made._align

    def looked(*arguments: object) -> align.Merged:
        sizes.append(sum(map(len, arguments[0])))  # type: ignore[call-overload]
        return whole(*arguments)

    monkeypatch.setattr(made, "_align", looked)
    return sizes


def run(link: Link, made: Merger, lag_ns: int) -> int:
    """Report every 2 ms, the last member `lag_ns` late; how many packets came out meanwhile."""
    at = [0] * len(link.ids)
    out = 0
    for now in range(START, int(link.time_ns[-1]), 2 * MS):
        for member, times in enumerate(link.times):
            until = now - lag_ns * (member == len(at) - 1)
            last = int(np.searchsorted(times, until, side="right"))
            made.add(member, at[member], link.hashes[member][at[member] : last], times[at[member] : last])
            made.watermark(member, until)
            at[member] = last
        while (block := made.decide()) is not None:
            out += len(block.hash)
    return out


@pytest.mark.parametrize("repeats", [0, 1, 100])
def test_a_member_that_lags_costs_a_few_looks_at_each_packet(monkeypatch: pytest.MonkeyPatch, repeats: int) -> None:
    link = make_link(1, packets=15_000, loss=0.05, repeats=repeats, gap_ns=20 * US)
    made = Merger([0, 1], 0, Settings())
    made.set_offset(1, 0, 50 * US)
    sizes = counted(monkeypatch, made)
    out = run(link, made, 200 * MS)
    settled = int(np.searchsorted(link.time_ns, int(link.time_ns[-1]) - 205 * MS))
    assert out > 0.9 * settled, "what lies before the horizon comes out as it does without a lag"
    assert sum(sizes) < 12 * len(np.concatenate(link.ids))


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_what_is_pending_beyond_a_window_is_settled_without_news(loss: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the streams nothing comes any more that could make the merger look again."""
    monkeypatch.setattr(limits, "MAX_WINDOW", 500)
    link = make_link(1, packets=5_000, loss=loss)
    merger = Merger((0, 1), 0, Settings())
    for member in (0, 1):
        merger.add(member, 0, link.hashes[member], link.times[member])
        merger.watermark(member, int(link.time_ns[-1]) + 10**9, end=True)
    settled = 0
    while (block := merger.decide()) is not None:
        settled += len(block.hash)
    assert settled == len(link.union)
    assert [merger.pending(member) for member in (0, 1)] == [0, 0]

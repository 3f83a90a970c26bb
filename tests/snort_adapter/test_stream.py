"""What a stream hands out ahead is committed only if nothing has changed since it was begun."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ftnids.core import Ring
from ftnids.core.reader import Mode, Reader

from .hosts import DAQ, HERE, Host, build, running
from .test_daq import Stream


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    sources = [HERE / "stream_host.c", DAQ / "stream.c", DAQ / "checkpoint.c"]
    yield from running(build(tmp_path, "stream_host", sources))


@pytest.fixture
def ring(seed: int) -> Iterator[tuple[Ring, Reader]]:
    """A ring all of whose packets are stable."""
    stream = Stream(100, seed)
    ring = stream.ring
    stream.reader.close()
    ring.set_stable(100)
    reader = Reader.create(ring, start=100, mode=Mode.FORK, span=64)
    yield ring, reader
    reader.close()
    stream.close()


def test_what_changed_between_two_packets_of_a_batch_is_not_taken(ring: tuple[Ring, Reader], host: Host) -> None:
    """The replica looks before the batch is reported, finds that nothing wrong was taken, and says so at once."""
    agreed, reader = ring
    refs, times, _ = agreed.agreed_entries(1, 4)
    assert host.say("open", agreed.name) == "open"
    host.say("begin")
    assert host.say("next") == "empty"  # it forks
    assert agreed.publish_ahead(refs[:2], times[:2] + 1_000_000) == 2
    host.say("begin")
    assert [host.say("next"), host.say("next")] == ["100", "101"]
    agreed.publish_agreed(100, refs[[1, 0]], times[:2] + 1_000_000, np.zeros(2, np.uint8))  # the other way round
    assert reader.report().taken == 100
    reader.good(agreed.epoch)
    agreed.set_stable(102)
    assert agreed.publish_ahead(refs[2:], times[2:] + 1_000_000) == 1
    assert host.say("next") == "empty"
    assert host.say("commit") == "not"
    assert reader.report().taken == 100
    host.say("begin")
    assert [host.say("next"), host.say("next"), host.say("commit")] == ["100", "101", "taken"]
    host.say("close")

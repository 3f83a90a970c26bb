"""Sinks: files hold the agreed stream and nothing else, each sink at its own pace."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids.errors import FeedError
from ftnids.feed import Hashes, PcapFile, Sink
from ftnids.feed.lines import hash_lines
from ftnids.feed.ring import agreed_hashes

from .conftest import Bench
from .fake_ring import FakeRing, read_pcap


@given(
    first=st.integers(0, 10**7),
    rows=st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 10**17)), max_size=50),
)
def test_lines_are_what_formatting_them_one_by_one_gives(first: int, rows: list[tuple[int, int]]) -> None:
    hashes = np.array([row[0] for row in rows], np.uint64)
    times = np.array([row[1] for row in rows], np.int64)
    expected = "".join(f"{first + n} {h:016x} {t}\n" for n, (h, t) in enumerate(rows))
    assert hash_lines(first, hashes, times) == expected.encode()


def test_hashes_come_from_both_arenas_and_void_is_zero(bench: Bench) -> None:
    refs = bench.ring.refs[100:200].copy()
    refs[7] = -1
    expected = bench.ring.all_hashes[100:200].copy()
    expected[7] = 0
    assert np.array_equal(agreed_hashes(bench.ring, refs), expected)


def test_files_hold_the_stream(bench: Bench) -> None:
    pcap, text = bench.folder / "agreed.pcap", bench.folder / "hashes.txt"
    hashes = Hashes(bench.ring, text)
    bench.add(PcapFile(bench.ring, pcap), hashes)
    bench.feed.start()
    for seq in range(0, bench.ring.agreed, 333):
        bench.ring.stabilise(seq)
    bench.finish()
    assert read_pcap(pcap) == bench.ring.packets
    rows = enumerate(zip(bench.ring.all_hashes, bench.ring.packets, strict=True))
    lines = "".join(f"{seq} {int(one):016x} {packet.time_us}\n" for seq, (one, packet) in rows)
    assert text.read_text() == lines
    assert hashes.stream_sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert bench.ring.fed == bench.ring.agreed
    assert {path.stat().st_mode & 0o777 for path in (pcap, text)} == {0o600}


def test_feed_without_sinks_frees_what_is_stable(bench: Bench) -> None:
    bench.feed.start()
    bench.finish()
    assert bench.ring.fed == bench.ring.agreed


class Stuck(Sink):
    """Takes one batch, then waits to be let go."""

    name = "stuck"

    def __init__(self, ring: FakeRing) -> None:
        super().__init__(ring)
        self.go = threading.Event()
        self.took = threading.Event()

    def _take(self, first: int, last: int) -> int:
        if first:
            self.took.set()
            self.go.wait()
        return last


def test_slow_sink_holds_back_the_ring_and_nobody_else(bench: Bench) -> None:
    stuck, pcap = Stuck(bench.ring), PcapFile(bench.ring, bench.folder / "agreed.pcap")
    bench.add(stuck, pcap)
    bench.feed.start()
    bench.ring.stabilise(bench.ring.agreed, end=True)
    assert pcap.join(60)
    assert stuck.took.wait(60)
    assert bench.ring.fed == stuck.position < pcap.position == bench.ring.agreed
    stuck.go.set()
    assert bench.feed.join(60)
    assert bench.ring.fed == bench.ring.agreed


def test_failed_sink_holds_back_nothing(bench: Bench) -> None:
    class Full(Sink):
        name = "full"

        def _take(self, first: int, last: int) -> int:
            raise OSError(28, "No space left on device")

    bench.add(Full(bench.ring), PcapFile(bench.ring, bench.folder / "agreed.pcap"))
    bench.feed.start()
    bench.finish()
    assert [str(error) for error in bench.feed.errors] == ["full: No space left on device"]
    assert bench.ring.fed == bench.ring.agreed
    assert read_pcap(bench.folder / "agreed.pcap") == bench.ring.packets


def test_stop_ends_sinks_where_they_are(bench: Bench) -> None:
    sink = PcapFile(bench.ring, bench.folder / "agreed.pcap")
    bench.add(sink)
    bench.feed.start()
    bench.feed.stop()
    assert sink.ended
    assert sink.position == 0


def test_file_that_cannot_be_written_is_one_line(bench: Bench) -> None:
    with pytest.raises(FeedError, match=r"cannot write .*No such file or directory; check log_dir"):
        PcapFile(bench.ring, bench.folder / "missing" / "agreed.pcap")


def test_file_that_others_could_read_no_longer_can(bench: Bench) -> None:
    path: Path = bench.folder / "hashes.txt"
    path.write_text("old")
    path.chmod(0o644)
    bench.add(Hashes(bench.ring, path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == 0

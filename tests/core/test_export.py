"""Exported packets are a classic capture file that says what was agreed, whatever the descriptor does."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from ftnids.core import pcap_header
from ftnids.core.ring import Ring
from ftnids.errors import RingError
from tests.core.helpers import SLOTS, Core, batch_of, contents, some_packets, write_pcap

COUNT = 900
START_US = 1_700_000_000_999_990


@pytest.fixture
def stream(core: Core, ring: Ring, tmp_path: Path, seed: int) -> Ring:
    """900 stable packets in reverse capture order, one a us."""
    source = core.file(write_pcap(tmp_path / "in.pcap", some_packets(COUNT, seed, 700), nano=True))
    source.run(ring, SLOTS, 0)
    source.close()
    refs = np.arange(COUNT, dtype=np.int64)[::-1]
    ring.publish_agreed(0, refs, START_US + np.arange(COUNT), np.zeros(COUNT, np.uint8))
    ring.set_stable(COUNT)
    return ring


def records(ring: Ring, first: int = 0, last: int = COUNT) -> bytes:
    """What the records of seqs [first, last) must be."""
    frames = [one[1] for one in contents(ring, 0, COUNT)][::-1]
    return b"".join(
        struct.pack("=IIII", *divmod(START_US + n, 10**6), len(frames[n]), len(frames[n])) + frames[n]
        for n in range(first, last)
    )


def test_file_reads_back(core: Core, stream: Ring, tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    with path.open("wb", buffering=0) as out:
        out.write(pcap_header(1, 65535))
        assert stream.export_pcap(out.fileno(), 0, 300) == 300
        assert stream.export_pcap(out.fileno(), 300, 300) == 300
        assert stream.export_pcap(out.fileno(), 300, COUNT) == COUNT
    assert path.read_bytes() == pcap_header(1, 65535) + records(stream)
    assert [one[0] for one in core.read(path)] == [(START_US + n) * 1000 for n in range(COUNT)]


def test_cut_and_empty_and_void(ring: Ring, tmp_path: Path) -> None:
    refs = ring.store_recovered(batch_of([(b"cut", 999), (b"", 60), (b"whole", 5)]))
    order = np.array([refs[0], -1, refs[1], -1, refs[2], -1])
    ring.publish_agreed(0, order, np.arange(6), np.array([0, 8, 0, 8, 1, 8], np.uint8))
    ring.set_stable(6)
    with (tmp_path / "out").open("wb") as out:
        assert ring.export_pcap(out.fileno(), 0, 6) == 6
    expected = [(0, 3, 999, b"cut"), (2, 0, 60, b""), (4, 5, 5, b"whole")]
    assert (tmp_path / "out").read_bytes() == b"".join(struct.pack("=IIII", 0, *one[:3]) + one[3] for one in expected)


def test_only_stable_packets_leave(stream: Ring) -> None:
    stream.publish_agreed(COUNT, np.array([0]), np.array([0]), np.zeros(1, np.uint8))
    stream.fed = 10
    with Path(os.devnull).open("wb") as out:
        for first, last in ((0, 20), (20, COUNT + 1), (30, 20)):
            with pytest.raises(RingError, match="cannot be exported"):
                stream.export_pcap(out.fileno(), first, last)


def test_slow_reader_gets_everything(stream: Ring) -> None:
    """A pipe takes a part of a batch at a time; whoever writes waits."""
    reader, writer = os.pipe()
    got = bytearray()

    def read() -> None:
        while data := os.read(reader, 777):
            got.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        assert stream.export_pcap(writer, 0, COUNT) == COUNT
    finally:
        os.close(writer)
        thread.join()
        os.close(reader)
    assert got == records(stream)


def test_non_blocking_reader_gets_whole_records(stream: Ring) -> None:
    """A full descriptor ends the export between two records, and it goes on from there."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    got, seq, turns = bytearray(), 0, 0
    done = threading.Event()

    def drain_sometimes() -> None:
        """Take the rest of a record that did not fit; without this the export waits inside it."""
        while not done.wait(0.002):
            read_all()

    lock = threading.Lock()

    def read_all() -> None:
        with lock:
            try:
                while data := os.read(reader, 1 << 20):
                    got.extend(data)
            except BlockingIOError:
                pass

    thread = threading.Thread(target=drain_sometimes)
    thread.start()
    try:
        while seq < COUNT:
            after = stream.export_pcap(writer, seq, COUNT)
            assert after >= seq
            seq, turns = after, turns + 1
    finally:
        done.set()
        thread.join()
    read_all()
    os.close(reader)
    os.close(writer)
    assert got == records(stream)


def test_reader_that_is_gone(stream: Ring) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        stream.export_pcap(writer, 0, COUNT)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        stream.export_pcap(writer, 0, COUNT)


def test_full_disk(stream: Ring) -> None:
    with Path("/dev/full").open("wb") as out, pytest.raises(OSError, match="No space left"):
        stream.export_pcap(out.fileno(), 0, COUNT)

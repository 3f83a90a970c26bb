"""A writer and a reader in two processes, at full speed over a small ring: nobody sees a half-written slot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ftnids.core.ring import Ring
from tests.core.helpers import Core, frames_of, reference_hash, some_packets, write_pcap

ROOT = Path(__file__).parents[2]
PACKETS = 3000


@pytest.fixture(params=["c", "python"])
def writing(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> Iterator[tuple[str, list[bytes], int]]:
    """A writer at work: (ring name, the frames of its file, how often it writes them)."""
    packets = some_packets(PACKETS, seed, 1514)
    path = write_pcap(tmp_path / "x.pcap", packets, nano=True)
    name, rounds = f"writer-{os.getpid()}", 10 if request.param == "c" else 1
    command = [sys.executable, "-m", "tests.core.writer", request.param, name, str(path), str(rounds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            yield name, [packet.data for packet in packets], rounds
            assert writer.wait(30) == 0
        finally:
            writer.kill()


def test_reader_sees_whole_packets_in_order(core: Core, writing: tuple[str, list[bytes], int]) -> None:
    name, frames, rounds = writing
    ring: Ring = core.Ring.attach(name, readonly=False)
    try:
        seq, total = 0, len(frames) * rounds
        while seq < total:
            stable = ring.wait_stable(seq, 20)
            assert stable > seq, "the writer is stuck"
            refs, _, _ = ring.agreed_entries(seq, stable)
            batch = ring.gather(refs)
            got = frames_of(batch)
            assert got == [frames[n % len(frames)] for n in range(seq, stable)]
            assert batch.hash[:3].tolist() == [reference_hash(frame, len(frame)) for frame in got[:3]]
            captured = ring.head
            assert len(np.asarray(ring.hashes(captured, captured))) == 0
            ring.fed = seq = stable
        assert ring.wait_stable(seq, 20) == total
        assert ring.ended
    finally:
        ring.close()


def test_read_only_reader_waits_on_a_futex(core: Core, ring: Ring) -> None:
    """A reader that may not write, in another process, is woken by each change of `stable`."""
    code = (
        "import sys; from tests.core.helpers import Core\n"
        "ring = Core(sys.argv[1]).Ring.attach(sys.argv[2])\n"
        "print('ready', flush=True)\n"
        "seq = 0\n"
        "while not (ring.ended and seq == ring.agreed):\n"
        "    seq = ring.wait_stable(seq, 20)\n"
        "print(seq, flush=True)\n"
    )
    command = [sys.executable, "-c", code, core.native.IMPL, ring.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as reader:
        try:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            for seq in range(0, 100, 10):
                ring.publish_agreed(seq, np.zeros(10, np.int64), np.zeros(10, np.int64), np.zeros(10, np.uint8))
                ring.set_stable(seq + 10)
            ring.set_end()
            assert reader.stdout.readline() == "100\n"
        finally:
            reader.kill()

"""Snort on the ring: as fast as on a file, and set back within milliseconds.

*baseline* of the first row: `snort -r` on the same packets, its start (measured on one packet) taken off; each turn
measures both, one after the other.  A rollback is forced by a guess that lacks a packet: from the decision that says
so to the first packet that the restored Snort takes again.  Without Snort 3 or its DAQ module nothing is measured.

options: --packets N (300000), --turns N (5), --rollbacks N (50), --quick 100,000 packets, 3 turns, 20 rollbacks
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from bench.__main__ import SKIPPED
from bench._progress import progress
from bench._results import Results, Row
from bench._traces import imix_bytes, write_imix
from ftnids.core import Capture, Ring
from ftnids.errors import FeedError
from ftnids.feed import DaqIds
from snort_adapter.launchers import IdsLauncher, launcher

GOAL: Final = ">= 0.9"  # of `snort -r`
ROLLBACK_MS: Final = "<= 5"  # median, Snort of 45 MB
GUESS: Final = 200  # packets read ahead before each rollback
LOOK_S: Final = 0.0001


@contextmanager
def filled(trace: Path, packets: int, size: int) -> Iterator[Ring]:
    """A ring with the whole trace in it, and nothing agreed."""
    capture = Capture.file(str(trace), snaplen=65535, bpf="")
    slots = 1 << (packets - 1).bit_length()
    ring = Ring.create(
        f"bench-{os.getpid()}",
        slots=slots,
        arena_bytes=size + 64 * packets + (1 << 20),
        recovered_slots=1024,
        recovered_bytes=1 << 20,
        agreed_slots=slots,
        linktype=capture.linktype,
        snaplen=capture.snaplen,
        seed=7,
    )
    try:
        while capture.run(ring, 65_536, 100) >= 0:
            pass
        yield ring
    finally:
        capture.close()
        ring.close(unlink=True)


@contextmanager
def reading(ring: Ring, snort: IdsLauncher, folder: Path, *, ahead: bool = False) -> Iterator[DaqIds]:
    """A Snort that waits for packets of `ring`."""
    supervisor = DaqIds(ring, snort, folder, ahead=ahead)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        supervisor.join()


def agree(ring: Ring, first: int, last: int) -> None:
    """Packets of positions [first, last) are agreed, and stable."""
    refs, flags = np.arange(first, last, dtype=np.int64), np.zeros(last - first, np.uint8)
    ring.publish_agreed(first, refs, ring.times(first, last) // 1000, flags)
    ring.set_stable(last)


def on_the_ring(ring: Ring, snort: IdsLauncher, folder: Path) -> float:
    """Seconds that Snort takes for all packets of the ring."""
    with reading(ring, snort, folder) as supervisor:
        began = time.perf_counter()
        agree(ring, 0, ring.head)
        while supervisor.position < ring.head:
            time.sleep(LOOK_S)
        return time.perf_counter() - began


def on_a_file(snort: IdsLauncher, trace: Path, folder: Path) -> float:
    """Seconds of `snort -r`, its start among them; batches as on the ring."""
    snort.prepare(folder)
    command = [*snort.command(trace, folder), "--daq-batch-size", "64"]
    began = time.perf_counter()
    subprocess.run(command, env={**os.environ, **snort.environment()}, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def rollbacks(ring: Ring, snort: IdsLauncher, folder: Path, count: int) -> tuple[list[float], int]:
    """Milliseconds from a decision against what was read to the first packet that is read again; bytes of memory."""
    found = []
    with reading(ring, snort, folder, ahead=True) as supervisor:
        reader = supervisor._reader
        assert reader is not None
        for first in range(0, count * GUESS, GUESS):
            last = first + GUESS
            guess = np.delete(np.arange(first, last, dtype=np.int64), GUESS // 2)
            ring.publish_ahead(guess, ring.times(first, last)[guess - first] // 1000)
            while (report := reader.report()).taken < first + len(guess):
                time.sleep(LOOK_S)
            began = time.perf_counter()
            agree(ring, first, last)
            while (now := reader.report()).pid == report.pid or now.taken <= first:
                time.sleep(LOOK_S)
            found.append((time.perf_counter() - began) * 1e3)
            while supervisor.position < last:
                time.sleep(LOOK_S)
        assert supervisor.rollbacks == count, "not each guess was set back"
        memory = psutil.Process(reader.report().pid).memory_info().rss
    return found, memory


def main(arguments: list[str]) -> int:
    """Print the table and write snort.json; 0 when the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m bench snort", description=__doc__)
    parser.add_argument("--packets", type=int, default=300_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rollbacks", type=int, default=50)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    few = (100_000, 3, 20)
    packets, turns, count = few if options.quick else (options.packets, options.turns, options.rollbacks)
    try:
        snort = launcher("snort")
    except FeedError as error:
        print(f"skipped: {error}")
        return SKIPPED
    if reason := snort.ring_fault():
        print(f"skipped: {reason}")
        return SKIPPED
    results = Results("snort", arguments, f"generated, {packets:,} packets, IMIX; Snort {snort.version}")
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        folder = Path(name)
        trace, one = folder / "imix.pcap", folder / "one.pcap"
        write_imix(trace, packets)
        write_imix(one, 1)
        pairs = []
        for turn in progress(range(turns)):
            start = on_a_file(snort, one, folder / f"start-{turn}")
            plain = on_a_file(snort, trace, folder / f"file-{turn}") - start
            with filled(trace, packets, imix_bytes(packets)) as ring:
                pairs.append((packets / on_the_ring(ring, snort, folder / f"ring-{turn}"), packets / plain))
        with filled(trace, packets, imix_bytes(packets)) as ring:
            back, _ = rollbacks(ring, snort, folder / "ahead", count)
    results.heading()
    ring_rate, file_rate = sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
    results.add(Row("through the ring", ring_rate, "packets/s", file_rate, GOAL))
    results.add(Row("rollback by fork, median", statistics.median(back), "ms", goal=ROLLBACK_MS))
    results.add(Row("rollback by fork, longest", max(back), "ms"))
    return results.finish()

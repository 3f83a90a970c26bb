"""How fast packets get into the ring: one core, file to ring with hash, against libpcap alone and against memory alone.

The file lies in memory (/dev/shm); the three programs take turns, and the medians are compared.  *libpcap alone* is a
callback that only counts; *memory alone* is memcpy and XXH3-64 of the same frames, the least that has to be done.

options: --packets N (1000000), --turns N (7), --quick 200,000 packets, 3 turns
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from bench._results import Results, Row
from bench._traces import write_imix, write_small
from bench.align import SHARED
from ftnids import limits
from ftnids.core import Capture, Ring

NATIVE: Final = Path(__file__).resolve().parent / "native" / "baseline.c"
GOAL: Final = ">= 0.6"  # of libpcap's own rate
SLOTS: Final = 1 << 16


def build(folder: Path) -> Path:
    """Compile the baselines as the core is compiled."""
    program = folder / "baseline"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-Wall", "-Wextra", "-Werror"]
    avx2 = ["-mavx2"] if " avx2 " in Path("/proc/cpuinfo").read_text() else []
    subprocess.run(["cc", *flags, *avx2, str(NATIVE), "-o", str(program), "-lpcap"], check=True)
    return program


def baseline(program: Path, what: str, trace: Path) -> float:
    """Seconds that the baseline takes."""
    done = subprocess.run([program, what, trace], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[2])


def ingest(trace: Path) -> tuple[int, int, float]:
    """Packets, bytes and seconds of file to ring; what is in the ring is freed at once."""
    capture = Capture.file(str(trace), snaplen=limits.MAX_SNAPLEN, bpf="")
    ring = Ring.create(
        f"bench-{os.getpid()}",
        slots=SLOTS,
        arena_bytes=1 << 26,
        recovered_slots=1_024,
        recovered_bytes=1 << 20,
        agreed_slots=1_024,
        linktype=capture.linktype,
        snaplen=limits.MAX_SNAPLEN,
        seed=42,
    )
    try:
        began = time.perf_counter()
        while capture.run(ring, SLOTS // 4, 1_000) >= 0:
            ring.free_captured(ring.head)
        seconds = time.perf_counter() - began
        assert capture.captured == ring.head
        return ring.head, trace.stat().st_size - 24 - 16 * ring.head, seconds
    finally:
        ring.close(unlink=True)
        capture.close()


def measure(results: Results, name: str, trace: Path, program: Path, turns: int) -> None:
    """The rows of one trace."""
    ours, counting, copying = [], [], []
    packets = size = 0
    for _ in range(turns):
        counting.append(baseline(program, "count", trace))
        packets, size, seconds = ingest(trace)
        ours.append(seconds)
        copying.append(baseline(program, "copy", trace))
    rate, pcap, memory = (packets / statistics.median(times) for times in (ours, counting, copying))
    results.add(Row(f"{name}: file to ring with hash", rate, "packets/s", pcap, GOAL))
    results.add(Row(f"{name}: the same, against memory alone", rate, "packets/s", memory))
    results.add(Row(f"{name}: the same", rate * size / packets * 8 / 1e9, "Gbit/s"))


def main(arguments: list[str]) -> int:
    """Print the table and write ingest.json; 0 when the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m bench ingest", description=__doc__)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    packets, turns = (200_000, 3) if options.quick else (options.packets, options.turns)
    results = Results("ingest", arguments, f"generated, {packets:,} packets")
    results.heading()
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        folder = Path(name)
        program = build(folder)
        traces = {"64 bytes": folder / "small.pcap", "IMIX": folder / "imix.pcap"}
        write_small(traces["64 bytes"], packets)
        write_imix(traces["IMIX"], packets)
        real = SHARED / "pcaps" / "real-mix.pcap"
        if real.exists():
            traces["real"] = folder / "real.pcap"
            traces["real"].write_bytes(real.read_bytes())
        for title, trace in traces.items():
            measure(results, title, trace, program, turns)
    return results.finish()

"""Alerts that get lost or are made up: a set against one sensor (paper, sections 5.1 and 5.5).

The lab replays one capture file flat out to N replicas that each lose a share of it, with a real Suricata each. Their
agreed streams must be equal, byte by byte of `hashes.txt`. *missing*, *spurious*: the set's alerts against those of a
Suricata that is given all that any replica captured, in true order (`--reference`). *one sensor*: a lossy one on its
own against one that loses nothing, by signature and flow. Uses the real trace of the folder `shared` where it is (or
FTNIDS_SHARED), else the lab's generated traffic.

options: --quick 5 % only
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.__main__ import SKIPPED
from bench._progress import progress
from bench._results import Results, Row
from bench.align import ROOT, SHARED
from ftnids import limits
from ftnids.alerts.identity import flow_key, signature_key
from ftnids.alerts.readers import Record
from ftnids.core import Capture, RandomDrop, Ring, pcap_header
from ftnids.lab.reference import alerts_of
from snort_adapter.launchers import launcher

CASES: Final = [(0.0005, 2), (0.01, 2), (0.05, 2), (0.05, 3), (0.2, 2), (0.2, 3), (0.5, 3)]  # loss, N
QUICK: Final = [(0.05, 2)]
CLEAN: Final = 0.05  # up to this loss nothing may be missing or made up
CHUNK: Final = 8_192  # packets


def lab(out: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the lab without namespaces, flat out; its exit status and summary."""
    command = [sys.executable, "-m", "ftnids", "lab", "--no-netns", "--topspeed", "-o", str(out), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, check=False)
    return done.returncode, json.loads(done.stdout)


def lossy(source: str, loss: float, seed: int, path: Path) -> None:
    """What one sensor that loses `loss` captures of `source`, as a capture file."""
    capture = Capture.file(source, snaplen=limits.MAX_SNAPLEN, bpf="")
    capture.set_drop(RandomDrop(loss, 1.0, seed))
    ring = Ring.create(
        "bench",
        slots=4 * CHUNK,
        arena_bytes=1 << 28,
        recovered_slots=1_024,
        recovered_bytes=1 << 20,
        agreed_slots=4 * CHUNK,
        linktype=capture.linktype,
        snaplen=limits.MAX_SNAPLEN,
        seed=0,
    )
    try:
        with path.open("wb", buffering=0) as out:
            out.write(pcap_header(capture.linktype, limits.MAX_SNAPLEN))
            while capture.run(ring, CHUNK, 1_000) >= 0:
                first, head = ring.tail, ring.head
                ring.publish_agreed(
                    first, np.arange(first, head), ring.times(first, head) // 1_000, np.zeros(head - first, np.uint8)
                )
                ring.set_stable(head)
                ring.fed = ring.export_pcap(out.fileno(), first, head)
                ring.free_captured(head)
    finally:
        ring.close(unlink=True)
        capture.close()


def single(source: str, loss: float, whole: list[Record], folder: Path) -> tuple[int, int]:
    """Alerts that one lossy sensor misses and makes up, by signature and flow, against one that loses nothing."""
    path = folder / "single.pcap"
    lossy(source, loss, 1, path)
    own, all_of_them = (
        Counter((*signature_key(r), *flow_key(r)) for r in records)
        for records in (alerts_of(launcher("suricata"), path, folder / "single"), whole)
    )
    return (all_of_them - own).total(), (own - all_of_them).total()


def add(results: Results, loss: float, n: int, trace: list[str], whole: list[Record], folder: Path) -> None:
    """The rows of one loss and one N: the set, and one lossy sensor on its own."""
    what = f"loss {100 * loss:g} %, N = {n}"
    options = ("--ids", "suricata", "--reference", "--loss", str(loss), "-n", str(n), "--seed", "1")
    status, summary = lab(folder / "lab", *options, *trace)
    differences = summary["alert_differences"]
    unexplained = sum(difference["cause"] == "unexplained" for difference in differences)
    streams = len({replica["stream_sha256"] for replica in summary["replicas"]})
    goal = "== 0" if loss <= CLEAN else None
    results.add(Row(f"{what}: runs that failed", int(status != 0), "runs", goal="== 0"))
    results.add(Row(f"{what}: different agreed streams", streams - 1, "replicas", goal="== 0"))
    results.add(Row(f"{what}: alerts of the set", summary["alerts_out"], "alerts"))
    results.add(Row(f"{what}: missing", summary["alerts_missing"], "alerts", goal=goal))
    results.add(Row(f"{what}: spurious", summary["alerts_spurious"], "alerts", goal=goal))
    results.add(Row(f"{what}: missing or spurious without an explanation", unexplained, "alerts", goal="== 0"))
    if trace and n == 2:
        missing, spurious = single(trace[1], loss, whole, folder)
        results.add(Row(f"loss {100 * loss:g} %, one sensor: missing", missing, "alerts"))
        results.add(Row(f"loss {100 * loss:g} %, one sensor: spurious", spurious, "alerts"))


def main(arguments: list[str]) -> int:
    """Print the table and write alerts.json; 0 when streams are equal, and no alert is lost or made up at up to 5 %."""
    parser = argparse.ArgumentParser(prog="python -m bench alerts", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(arguments).quick
    if shutil.which("suricata") is None:
        print("skipped: needs Suricata")
        return SKIPPED
    real = SHARED / "pcaps" / "real-mix.pcap"
    trace = ["--pcap", str(real)] if real.exists() else []
    results = Results("alerts", arguments, "real, 64,906 packets" if trace else "generated by the lab")
    results.heading()
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-") as name:
        folder = Path(name)
        whole = alerts_of(launcher("suricata"), real, folder / "whole") if trace else []
        for loss, n in progress(QUICK if quick else CASES):
            add(results, loss, n, trace, whole, folder)
    return results.finish()

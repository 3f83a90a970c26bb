"""Agreement and alerts of a whole set in the lab (paper, sections 5.1 and 5.5).

The lab replays one capture file to N replicas that each lose a share of it, `--no-netns --topspeed`.  First table: is
every replica's agreed stream the same, to the byte of `hashes.txt`?  Second table: the set's alerts against those of a
Suricata that is given everything that any replica captured, beside one lossy sensor on its own against one that loses
nothing.  Uses the real trace of the folder `shared` where it is (or FTNIDS_SHARED), else the lab's generated traffic.

options: --quick fewer losses, two replicas
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.align import ROOT, SHARED
from ftnids import limits
from ftnids.alerts.identity import flow_key, signature_key
from ftnids.alerts.readers import Record
from ftnids.core import Capture, RandomDrop, Ring, pcap_header
from ftnids.lab.reference import alerts_of
from snort_adapter.launchers import launcher

LOSSES: Final = (0.0005, 0.005, 0.05, 0.2, 0.5)
ALERT_LOSSES: Final = (0.01, 0.05, 0.2)
CHUNK: Final = 8_192  # packets


def lab(out: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the lab without namespaces, flat out; its exit status and summary."""
    command = [sys.executable, "-m", "ftnids", "lab", "--no-netns", "--topspeed", "-o", str(out), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, check=False)
    return done.returncode, json.loads(done.stdout)


def agreement(trace: list[str], losses: tuple[float, ...], sizes: tuple[int, ...], folder: Path) -> bool:
    """The first table; whether all streams were equal."""
    print("| loss each | replicas | captured | recovered | agreed | ambiguous | streams |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    equal = True
    for loss in losses:
        for n in sizes:
            status, summary = lab(folder / "lab", "--ids", "none", "--loss", str(loss), "-n", str(n), *trace)
            replicas = summary["replicas"]
            same = status == 0 and len({r["stream_sha256"] for r in replicas}) == 1
            equal = equal and same
            captured, recovered = (", ".join(f"{r[key]:,}" for r in replicas) for key in ("captured", "recovered"))
            agreed, ambiguous = replicas[0]["agreed"], replicas[0]["ambiguous"]
            verdict = "equal" if same else "**UNEQUAL**"
            print(f"| {loss:.2%} | {n} | {captured} | {recovered} | {agreed:,} | {ambiguous} | {verdict} |", flush=True)
    return equal


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


def alerts(trace: list[str], losses: tuple[float, ...], folder: Path) -> bool:
    """The second table; whether the set missed and made up nothing, or could say why."""
    whole = alerts_of(launcher("suricata"), Path(trace[1]), folder / "whole") if trace else []
    print("\n| loss each | set: alerts | missing | spurious | unexplained | one sensor: missing | spurious |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    met = True
    for loss in losses:
        options = ("--ids", "suricata", "--reference", "--loss", str(loss))
        status, summary = lab(folder / "lab", *options, *trace)
        differences = summary["alert_differences"]
        unexplained = sum(d["cause"] == "unexplained" for d in differences)
        clean = not differences or loss > 0.05
        met = met and status == 0 and unexplained == 0 and clean
        alone = single(trace[1], loss, whole, folder) if trace else ("", "")
        print(
            f"| {loss:.0%} | {summary['alerts_out']:,} | {summary['alerts_missing']} | {summary['alerts_spurious']} | "
            f"{unexplained} | {alone[0]} | {alone[1]} |",
            flush=True,
        )
    return met


def main(arguments: list[str]) -> int:
    """Print both tables; 0 when streams are equal, and no alert is lost or made up at up to 5 % loss."""
    parser = argparse.ArgumentParser(prog="python -m bench lab", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(arguments).quick
    real = SHARED / "pcaps" / "real-mix.pcap"
    trace = ["--pcap", str(real)] if real.exists() else []
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-") as name:
        folder = Path(name)
        equal = agreement(trace, LOSSES[2:4] if quick else LOSSES, (2,) if quick else (2, 3), folder)
        met = alerts(trace, ALERT_LOSSES[:2] if quick else ALERT_LOSSES, folder)
    return 0 if equal and met else 1

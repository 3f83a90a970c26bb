"""What the sync link carries: bytes per captured and per recovered packet, and the least that theory allows.

Two replicas read the same generated packets at 100,000 packets/s. *sync*: bytes of messages, per packet that each of
the members captured. *without agreed times*: the same less the times in decisions. *interface*: bytes that passed the
loopback interface, so with ZeroMQ, CURVE, TCP and IP, and all acknowledgements. *per recovered packet*: what is sent
more than without a loss, for each packet recovered; the packet's own bytes are in it. *baseline*: sending every hash,
8 bytes. The minimum is the entropy of which packets were lost: -p log2 p - (1 - p) log2 (1 - p) bits a packet, at
loss p.

options: --seconds S of traffic (10), --quick 3 s, losses 0 and 1 %
"""

from __future__ import annotations

import argparse
import tempfile
from math import log2
from pathlib import Path
from typing import Final

from bench._progress import progress
from bench._results import Results, Row
from bench._sets import Outcome, Setup, run
from bench._traces import write_small

SIZE: Final = 64
RATE: Final = 100_000  # packets/s
LOSSES: Final = (0.0, 0.0005, 0.01, 0.05)
SLOTS: Final = 1 << 18
HASH: Final = 8  # bytes
GOALS: Final = "<= 0.5", "<= 3"  # bytes without and with agreed times, at loss 0


def least(loss: float) -> float:
    """Bytes per packet that tell which ones were lost."""
    return sum(-p * log2(p) for p in (loss, 1 - loss) if p) / 8


def add(results: Results, loss: float, outcome: Outcome, clean: Outcome) -> None:
    """The rows of one loss."""
    what = f"loss {100 * loss:g} %"
    captured = outcome.total("captured")
    sync, times = outcome.total("sent"), outcome.total("time_bytes")
    goals = GOALS if loss == 0 else (None, None)
    results.add(Row(f"{what}: sync without agreed times", (sync - times) / captured, "bytes/packet", goal=goals[0]))
    results.add(Row(f"{what}: sync", sync / captured, "bytes/packet", goal=goals[1]))
    results.add(Row(f"{what}: sync, against every hash", sync / captured, "bytes/packet", float(HASH)))
    results.add(Row(f"{what}: interface", outcome.wire / captured, "bytes/packet"))
    results.add(Row(f"{what}: least, by theory", least(loss), "bytes/packet"))
    if recovered := outcome.total("recovered"):
        more = sync - clean.total("sent") / clean.total("captured") * captured
        results.add(Row(f"{what}: per recovered packet of {SIZE} bytes", more / recovered, "bytes"))
    results.add(Row(f"{what}: lost at a full ring", outcome.total("ring_drops"), "packets", goal="== 0"))


def main(arguments: list[str]) -> int:
    """Print the table and write wire-cost.json; 0 when the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m bench wire-cost", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    seconds, losses = (3, (0.0, 0.01)) if options.quick else (options.seconds, LOSSES)
    packets = RATE * seconds
    results = Results("wire-cost", arguments, f"generated, {packets:,} packets of {SIZE} bytes at {RATE:,}/s")
    results.heading()
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        folder = Path(name)
        trace = folder / "small.pcap"
        write_small(trace, packets)
        clean = None
        for loss in progress(losses):
            outcome = run(Setup(trace, packets, SIZE * packets, loss=loss, pps=RATE, slots=SLOTS), folder)
            clean = clean or outcome
            add(results, loss, outcome, clean)
    return results.finish()

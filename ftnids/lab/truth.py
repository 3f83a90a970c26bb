"""What the replicas captured together, in true order.

A replica drops by a generator that depends on its seed and the packet's number alone, after capture.  So the
lab knows, without asking the replicas, which packets of the source each one kept: the source is the file that
they read or, with a hub, what the lossless tap wrote.  The union of what was kept is what the set can know at best.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ftnids.core import RandomDrop, pcap_header
from ftnids.lab import scan
from ftnids.lab.verify import Stream


@dataclass(frozen=True)
class Union:
    """The union of the replicas' capture streams."""

    stream: Stream
    holders: NDArray[np.uint32]  # bit i: replica i captured it
    source_packets: int
    captured: list[int]  # packets that each replica must have captured


def union(source: Path, drops: Sequence[RandomDrop], snaplen: int, seed: int, out: Path) -> Union:
    """Write to the pcap file `out` the packets of `source` that not all of `drops` drop, in file order."""
    bits = np.left_shift(np.uint32(1), np.arange(len(drops), dtype=np.uint32))
    hashes, times, holders = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.uint32)]
    total, captured, seq = 0, np.zeros(len(drops), np.int64), 0
    with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=0) as file:
        for batch in scan.batches(source, snaplen, seed):
            if not total:
                file.write(pcap_header(batch.ring.linktype, snaplen))
            count = batch.last - batch.first
            kept = ~np.stack([np.asarray(drop.decide(count), bool) for drop in drops])
            total, captured = total + count, captured + kept.sum(axis=1)
            held = (kept * bits[:, None]).sum(axis=0, dtype=np.uint32)
            some = np.flatnonzero(held)
            holders.append(held[some])
            hashes.append(np.array(batch.ring.hashes(batch.first, batch.last))[some])
            times.append(np.array(batch.ring.times(batch.first, batch.last))[some] // 1_000)
            seq = _append(batch, some, times[-1], seq, file.fileno())
    stream = Stream(np.concatenate(hashes), np.concatenate(times))
    return Union(stream, np.concatenate(holders), total, captured.tolist())


def _append(batch: scan.Batch, some: NDArray[np.intp], time_us: NDArray[np.int64], seq: int, fd: int) -> int:
    """Append packets of the batch to a pcap file by way of the ring's agreed index; the next seq."""
    ring, end = batch.ring, seq + len(some)
    ring.publish_agreed(seq, batch.first + some.astype(np.int64), time_us, np.zeros(len(some), np.uint8))
    ring.set_stable(end)
    while seq < end:
        seq = ring.export_pcap(fd, seq, end)
    ring.fed = end
    return end

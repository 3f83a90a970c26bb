"""What the replicas captured together, in true order.

A replica drops by a generator that depends on its seed and the packet's number alone, after capture.  So the
lab knows, without asking the replicas, which packets of the source each one kept: the source is the file that
they read or, with a hub, what the lossless tap wrote.  The union of what was kept is what the set can know at best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ftnids.core import RandomDrop, pcap_header
from ftnids.lab import scan
from ftnids.lab.verify import Stream
from ftnids.lab.writing import private, writing

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
Choose = Callable[[U64], U32]  # hashes of the source's next packets -> bit i set where replica i captured the packet


@dataclass(frozen=True)
class Union:
    """The union of the replicas' capture streams."""

    stream: Stream
    holders: U32  # bit i: replica i captured it
    source_packets: int
    captured: list[int]  # packets that each replica captured


def by_drops(drops: Sequence[RandomDrop]) -> Choose:
    """Each replica captured what its generator does not drop."""
    bits = np.left_shift(np.uint32(1), np.arange(len(drops), dtype=np.uint32))

    def choose(hashes: U64) -> U32:
        kept = ~np.stack([np.asarray(drop.decide(len(hashes)), bool) for drop in drops])
        held: U32 = (kept * bits[:, None]).sum(axis=0, dtype=np.uint32)
        return held

    return choose


def by_hash(agreed: Stream, replicas: int) -> Choose:
    """Somebody captured what the agreed stream holds: of equal packets the first, as many as it holds."""
    values, counts = np.unique(agreed.hash, return_counts=True)
    left = dict(zip(values.tolist(), counts.tolist(), strict=True))

    def choose(hashes: U64) -> U32:
        held = np.zeros(len(hashes), np.uint32)
        for number, packet_hash in enumerate(hashes.tolist()):
            if left.get(packet_hash, 0):
                left[packet_hash] -= 1
                held[number] = (1 << replicas) - 1
        return held

    return choose


def union(source: Path, choose: Choose, replicas: int, snaplen: int, seed: int, out: Path) -> Union:
    """Write to the pcap file `out` the packets of `source` that at least one replica captured, in file order."""
    hashes, times, holders = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, np.uint32)]
    total, captured, seq = 0, np.zeros(replicas, np.int64), 0
    with writing(out), private(out) as file:
        for batch in scan.batches(source, snaplen, seed):
            if not total:
                file.write(pcap_header(batch.ring.linktype, snaplen))
                file.flush()  # the core writes to the same descriptor
            here = np.array(batch.ring.hashes(batch.first, batch.last))
            held = choose(here)
            total += len(here)
            captured += [np.count_nonzero(held & (1 << number)) for number in range(replicas)]
            some = np.flatnonzero(held)
            holders.append(held[some])
            hashes.append(here[some])
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

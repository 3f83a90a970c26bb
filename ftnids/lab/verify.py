"""Are the replicas' streams equal?  Found out from the files themselves, not from what the replicas say.

* `hashes.txt` of all replicas: equal line by line; the first difference is named.
* `agreed.pcap` of each replica: read and hashed again, packet by packet equal to its own `hashes.txt` in
  number, hash (which covers bytes and wire length) and time.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ftnids.errors import FtnidsError
from ftnids.lab import scan


@dataclass(frozen=True)
class Stream:
    """A sequence of packets: uint64[m] packet hashes and int64[m] times in whole microseconds."""

    hash: NDArray[np.uint64]
    time_us: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.hash)


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_hashes(path: Path) -> Stream:
    """A `hashes.txt`: seq, hash in hexadecimal and time in us per line, seq counting from 0.

    FtnidsError naming the line that is something else.
    """
    hashes, times = [], []
    with path.open(encoding="ascii", errors="replace") as file:
        for number, line in enumerate(file):
            try:
                seq, packet_hash, time_us = line.split()
                if int(seq) != number:
                    raise ValueError
                hashes.append(int(packet_hash, 16))
                times.append(int(time_us))
            except ValueError:
                where = f"{path} line {number + 1}"
                raise FtnidsError(f"{where}: not `{number} hash time`: {line.strip()[:80]!r}") from None
    return Stream(np.array(hashes, np.uint64), np.array(times, np.int64))


def read_pcap(path: Path, snaplen: int, seed: int) -> Stream:
    """A capture file, hashed with `seed`."""
    hashes, times = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for batch in scan.batches(path, snaplen, seed):
        hashes.append(np.array(batch.ring.hashes(batch.first, batch.last)))
        times.append(np.array(batch.ring.times(batch.first, batch.last)) // 1_000)
    return Stream(np.concatenate(hashes), np.concatenate(times))


def first_difference(paths: Sequence[Path]) -> str:
    """Where the first file and another first differ, in words; "" when all are equal."""
    for other in paths[1:]:
        if sha256(paths[0]) == sha256(other):
            continue
        with paths[0].open("rb") as left, other.open("rb") as right:
            for number, (here, there) in enumerate(itertools.zip_longest(left, right, fillvalue=b"(end)"), 1):
                if here != there:
                    texts = " against ".join(repr(line.decode(errors="replace").strip()) for line in (here, there))
                    return f"{paths[0]} and {other} differ, first in line {number}: {texts}"
    return ""


def pcap_difference(directory: Path, snaplen: int, seed: int) -> str:
    """How a replica's `agreed.pcap` differs from its `hashes.txt`, in words; "" when they hold the same."""
    stated = read_hashes(directory / "hashes.txt")
    path = directory / "agreed.pcap"
    found = read_pcap(path, snaplen, seed)
    if len(found) != len(stated):
        return f"{path} holds {len(found)} packets, hashes.txt {len(stated)} lines"
    differ = np.flatnonzero((found.hash != stated.hash) | (found.time_us != stated.time_us))
    return f"{path} differs from hashes.txt, first in packet {differ[0]}" if len(differ) else ""


def differences(directories: Sequence[Path], snaplen: int, seed: int) -> list[str]:
    """All that is unequal between the replicas whose files are in `directories`, in words; [] when nothing is."""
    wanted = [directory / name for directory in directories for name in ("hashes.txt", "agreed.pcap")]
    missing = [f"{path} is missing" for path in wanted if not path.is_file()]
    if missing:
        return missing
    found = [first_difference([directory / "hashes.txt" for directory in directories])]
    try:
        found += [pcap_difference(directory, snaplen, seed) for directory in directories]
    except FtnidsError as error:
        found.append(str(error))
    return [one for one in found if one]

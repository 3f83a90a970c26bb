"""A replica in miniature for the tests: `python -m tests.core.writer IMPLEMENTATION NAME FILE ROUNDS`.

Captures a file over and over into a small ring, publishes each packet as agreed and stable as fast as the reader feeds,
and puts every third packet in as a recovered one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from ftnids.core.ring import Ring
from tests.core.helpers import Core

BATCH = 64


def publish(ring: Ring, first: int, last: int) -> None:
    """Agree on positions [first, last), every third one replaced by a recovered copy."""
    refs = np.arange(first, last, dtype=np.int64)
    third = refs % 3 == 0
    refs[third] = ring.store_recovered(ring.gather(refs[third]))
    assert (refs >= 0).all()
    ring.publish_agreed(ring.agreed, refs, np.asarray(ring.times(first, last)) // 1000, np.zeros(len(refs), np.uint8))
    ring.set_stable(ring.agreed)


def free(ring: Ring) -> None:
    """Free what has been fed: positions and seqs run alike here."""
    fed = ring.fed
    ring.free_captured(fed)
    ring.free_recovered((fed + 2) // 3)


def main(implementation: str, name: str, path: str, rounds: str) -> None:
    """Write until the file was captured `rounds` times and all is fed."""
    core = Core(implementation)
    ring = core.ring(name)
    print("ready", flush=True)
    for _ in range(int(rounds)):
        source = core.file(Path(path))
        while True:
            free(ring)
            first = ring.head
            if ring.agreed - ring.fed > ring.agreed_slots - BATCH:
                time.sleep(0.0001)
                continue
            if source.run(ring, BATCH, 1) < 0:
                break
            publish(ring, first, ring.head)
        source.close()
    ring.set_end()
    while ring.fed < ring.agreed:
        time.sleep(0.001)
    ring.close(unlink=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

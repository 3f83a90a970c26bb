"""One message of each kind, with something in every field, for the vectors in `golden/`.

`python -m tests.peers.samples VERSION` prints the vectors of a version.  Those of a version that has been released
are never written again: a later encoder is held to them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from ftnids.peers import wire
from ftnids.sync import messages as m
from tests.older import newest

ID: Final = bytes(range(8))
GOLDEN: Final = Path(__file__).parent / "golden"
VIEW: Final = m.View(lineage=0x0102030405060708, number=300, coordinator=1, incarnation=99)
NEXT: Final = m.View(lineage=0x0102030405060708, number=301, coordinator=2, incarnation=1 << 63)
COMMON: Final[dict[str, Any]] = {"sender": 1, "incarnation": 0xA1B2C3D4E5F60718, "view": VIEW}
START_NS: Final = 1_700_000_000_000_000_000


def _array(values: list[int], dtype: Any = np.int64) -> Any:
    return np.array(values, dtype)


def _decision() -> m.Decision:
    return m.Decision(
        **COMMON,
        number=5,
        first_seq=1000,
        members=7,
        time_us=_array([START_NS // 1000 + step for step in (0, 20, 20, 300, 301, 70_000)]),
        holders=_array([7, 7, 5, 7, 3, 7], np.uint32),
        flags=_array([0, 0, 1, 0, 2, 0], np.uint8),
        hash=_array([1 << 60, 12345], np.uint64),
        places={0: _array([50, 51, 52, 53, 54, 55]), 1: _array([9, 10, 11, 12, 13]), 2: _array([70, 71, 72, 74, 75])},
        skipped={2: _array([73])},
        offset_ns={0: 0, 1: -250_000, 2: 100},
        tolerance_ns={0: 0, 1: 12_000, 2: 9_000},
        cut_ns=START_NS,
        ends=True,
        ambiguous=1,
        late=2,
        rounds=40,
        dirty_rounds=3,
        desync_level=4,
        max_desync=64,
    )


def _handover() -> list[m.Message]:
    return [
        m.Ask(**COMMON, transfer=1 << 63, seq=1006, facts=b'{"ids":"suricata 7"}'),
        m.Offer(**COMMON, transfer=1 << 63, manifest=b'{"seq":1007}'),
        m.Chunk(**COMMON, transfer=1 << 63, number=300, data=bytes(range(20))),
        m.Taken(**COMMON, transfer=1 << 63, chunks=301),
        m.Refuse(**COMMON, transfer=1 << 63, again=True, reason="busy"),
    ]


def _coming_and_going(version: int) -> list[m.Message]:
    hashes, times = _array([1, 2, 1 << 63, 4], np.uint64), START_NS + 1000 * np.arange(4)
    return [
        m.Propose(**COMMON, proposed=NEXT, members=5, number=6, log=[_decision()]),
        m.Promise(
            **COMMON, proposed=NEXT, base=VIEW, number=4, log=[_decision()], missing=_array([1002]), consumed=60,
            holes=_array([62, 65]),
        ),
        m.Install(
            **COMMON, installed=NEXT, members=5, first_seq=1006, number=6, start={0: 56, 2: 76},
            void=_array([1003]), incarnations={0: 7, 2: 8}, cut_ns=START_NS, time_us=START_NS // 1000,
            offset_ns={0: -5, 2: 9}, tolerance_ns={0: 100, 2: 200}, hash=hashes[:2],
            decided_us=_array([3, 4]), holders=_array([5, 1], np.uint32), protocol=version,
        ),
        m.Join(
            **COMMON, digest=bytes(range(16)), config="sync.k = 56\nsync.l = 8", ready=True, position=77,
            offset_ns=-8, tolerance_ns=9_000, ids="suricata 7", software="" if version == 1 else "0.1.0",
        ),
        m.History(
            **COMMON, hash=hashes, time_ns=times, position=8, cut_ns=START_NS, digest=bytes(range(16)),
            config="sync.k = 56", refused="no",
        ),
        m.Leave(**COMMON, reason="stopped"),
    ]  # fmt: skip


def samples(version: int) -> list[m.Message]:
    """The messages as far as `version` can say them, in the order of the vectors."""
    hashes, times = _array([1, 2, 1 << 63, 4], np.uint64), START_NS + 1000 * np.arange(4)
    header: dict[str, Any] = {"position": 100, "start": 90, "watermark_ns": START_NS, "sent_ns": START_NS + 5}
    return [
        m.Report(**COMMON, **header, hash=hashes, time_ns=times),
        m.Report(**COMMON, **header, hash=hashes, time_ns=times + _array([0, 1, 2, 70_000]), end=True),
        m.Report(**COMMON, **header, k=56, cluster=hashes, first_ns=times, last_ns=times + 500),
        _decision(),
        m.Bytes(
            **COMMON, seq=_array([1002, 1004]), hash=hashes[:2], caplen=_array([5, 3], np.uint32),
            wirelen=_array([5, 9000], np.uint32), data=b"helloabc",
        ),
        m.Ack(**COMMON, acked=1006, stable=1000, decisions=5, reported={0: 60, 2: 75}),
        m.Nack(**COMMON, first=3, last=500),
        m.Fetch(**COMMON, seq=_array([1002, 1004, 1005, 900])),
        m.Fetch(**COMMON, position=56, count=112),
        m.Heartbeat(
            **COMMON, members=7, hears=5, state=2, promised=301, late=4, fill=999, pinned=500, load=1,
            watermark_ns=START_NS, sent_ns=START_NS, echo_ns=START_NS - 4, held_ns=3, speaks=version,
        ),
        *_coming_and_going(version),
        m.Alert(**COMMON, number=2, acked=1, fed=1006, final=True, mute=True, records=b'[{"ftnids":{"id":"00"}}]'),
        m.Status(**COMMON, snapshot=b'{"name":"r1","state":"running"}'),
        *(_handover() if version > 1 else []),
    ]  # fmt: skip


def vectors(version: int) -> str:
    """A line for each sample: its kind, and its bytes as a replica writes them whose newest version this is."""
    with newest(version):
        coded = [(message, wire.encode(message, ID, version)) for message in samples(version)]
    return "".join(f"{type(message).__name__} {data.hex()}\n" for message, data in coded)


if __name__ == "__main__":
    print(vectors(int(sys.argv[1])), end="")

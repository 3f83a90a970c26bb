"""The seed corpora: small sound inputs of every kind, made by the project's own code.

Each target starts from what it should accept, so that a fuzzer need not guess magic numbers, checksums and keys.
`write(target, folder)` lays them down as files; the same call gives the same bytes on every machine.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from ftnids.alerts.readers import eve_time
from ftnids.core import layout
from ftnids.core.layout import Description, StorePlace
from ftnids.peers import wire
from ftnids.status.roster import Member, SetView
from ftnids.status.snapshot import Alert, Snapshot
from ftnids.sync import messages as m
from fuzz.wire import CLUSTER

VIEW: Final = m.View(lineage=7, number=3, coordinator=1, incarnation=99)
COMMON: Final[dict[str, Any]] = {"sender": 1, "incarnation": 99, "view": VIEW}
START_NS: Final = 1_700_000_000_000_000_000
FRAME: Final = bytes(range(12)) + b"\x08\x00\x45\x00\x00\x28" + bytes(34)


# -- wire -------------------------------------------------------------------------------------------------
def _numbers(values: list[int], dtype: Any = np.int64) -> Any:
    return np.array(values, dtype)


def _decision() -> m.Decision:
    return m.Decision(
        **COMMON,
        number=5,
        first_seq=1000,
        members=7,
        time_us=_numbers([START_NS // 1000 + 20 * i for i in range(6)]),
        holders=_numbers([7, 7, 5, 7, 3, 7], np.uint32),
        flags=_numbers([0, 0, m.Flag.AMBIGUOUS, 0, m.Flag.LATE, 0], np.uint8),
        hash=_numbers([1 << 60, 12345], np.uint64),
        places={0: np.arange(50, 56), 1: _numbers([9, 10, 11, 12, 13]), 2: _numbers([70, 71, 72, 74, 75])},
        skipped={2: _numbers([73])},
        offset_ns={0: 0, 1: -250_000, 2: 100},
        tolerance_ns={0: 0, 1: 12_000, 2: 9_000},
        cut_ns=START_NS,
        ambiguous=1,
        late=1,
        rounds=40,
        dirty_rounds=3,
    )


def _messages() -> list[m.Message]:
    hashes, times = _numbers([1, 2, 1 << 63, 4], np.uint64), START_NS + 1000 * np.arange(4)
    ends = times + 500
    return [
        m.Report(**COMMON, position=100, hash=hashes, time_ns=times, watermark_ns=START_NS, sent_ns=START_NS),
        m.Report(**COMMON, position=100, k=56, cluster=hashes, first_ns=times, last_ns=ends, watermark_ns=-1),
        _decision(),
        m.Bytes(
            **COMMON,
            seq=_numbers([1002, 1004]),
            hash=hashes[:2],
            caplen=_numbers([len(FRAME), 3], np.uint32),
            wirelen=_numbers([len(FRAME), 9000], np.uint32),
            data=FRAME + b"abc",
        ),
        m.Ack(**COMMON, acked=1006, stable=1000, decisions=5, reported={0: 60, 2: 75}),
        m.Nack(**COMMON, first=3, last=5),
        m.Fetch(**COMMON, seq=_numbers([1002, 1004, 1005])),
        m.Fetch(**COMMON, position=56, count=112),
        m.Heartbeat(**COMMON, members=7, hears=5, state=2, promised=3, watermark_ns=START_NS, sent_ns=START_NS),
        m.Propose(**COMMON, proposed=VIEW, members=5, number=5, log=[_decision()]),
        m.Promise(**COMMON, proposed=VIEW, base=VIEW, number=4, log=[_decision()], missing=_numbers([1002])),
        m.Install(**COMMON, installed=VIEW, members=5, first_seq=1006, number=6, start={0: 56}, protocol=2),
        m.Join(**COMMON, digest=bytes(16), config="sync.k = 56", position=-1, ids="suricata 7", software="0.1.0"),
        m.History(**COMMON, hash=hashes, time_ns=times, position=8, digest=bytes(16), config="k = 56", refused="no"),
        m.Alert(**COMMON, number=2, acked=1, fed=1006, records=b'[{"ftnids":{"id":"00"}}]'),
        m.Status(**COMMON, snapshot=b"{}"),
        m.Leave(**COMMON, reason="stopped"),
    ]


def _transfer() -> list[m.Message]:
    """What replicas say for the state of an IDS."""
    return [
        m.Ask(**COMMON, transfer=1 << 63, seq=1006, facts=b'{"ids": "suricata 7.0.10"}'),
        m.Offer(**COMMON, transfer=1 << 63, manifest=b'{"format": 1}'),
        m.Chunk(**COMMON, transfer=1 << 63, number=3, data=b"piece"),
        m.Taken(**COMMON, transfer=1 << 63, chunks=3),
        m.Refuse(**COMMON, transfer=1 << 63, again=True, reason="busy"),
    ]


def _wire() -> Iterator[bytes]:
    later = (m.Install, m.Ask, m.Offer, m.Chunk, m.Taken, m.Refuse)  # of version 2
    for message in [*_messages(), *_transfer()]:
        yield wire.encode(message, CLUSTER)
        if not isinstance(message, later):
            yield wire.encode(message, CLUSTER, wire.oldest())
    yield wire.encode(m.Install(**COMMON, installed=VIEW, members=5, start={0: 56}), CLUSTER, wire.oldest())


# -- capture files ----------------------------------------------------------------------------------------
def pcap(packets: int = 4, *, order: str = "<", nano: bool = True, linktype: int = 1) -> bytes:
    """A classic capture file."""
    data = struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 262_144, linktype)
    for n in range(packets):
        frame = FRAME + bytes(n)
        data += struct.pack(order + "IIII", START_NS // 10**9 + n, 1000 * n, len(frame), len(frame) + n) + frame
    return data


def pcapng(*, order: str = "<") -> bytes:
    """A pcapng file with two interfaces, options, and packets in all three kinds of blocks."""

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        length = struct.pack(order + "I", 12 + len(body))
        return struct.pack(order + "I", kind) + length + body + length

    def interface(options: bytes) -> bytes:
        return block(1, struct.pack(order + "HHI", 1, 0, 262_144) + options + struct.pack(order + "HH", 0, 0))

    packet = struct.pack(order + "IIII", 370, 5, len(FRAME), len(FRAME)) + FRAME
    data = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    data += interface(struct.pack(order + "HH", 9, 1) + b"\x09\0\0\0")
    data += interface(struct.pack(order + "HHq", 14, 8, 3))
    data += block(6, struct.pack(order + "I", 0) + packet) + block(2, struct.pack(order + "HH", 1, 0) + packet)
    return data + block(5, bytes(12)) + block(3, struct.pack(order + "I", len(FRAME)) + FRAME)


def _captures() -> Iterator[bytes]:
    for how in range(16):  # the first byte of an input says how it is read
        whole = pcapng(order="<>"[how % 2]) if how % 4 < 2 else pcap(order="<>"[how % 2], nano=how < 8)
        yield bytes([how]) + whole
    yield b"\0" + pcap(2)[:-7]
    yield b"\0" + pcap(2) + b"\xff" * 40
    yield b"\0" + pcap(1, linktype=101)


# -- segments ----------------------------------------------------------------------------------------------
def _segments() -> Iterator[bytes]:
    """Descriptions in `attach.c`'s form, with a few frames in the captured store."""
    store = StorePlace(64, 4 * layout.PAGE)
    sound = Description(linktype=1, snaplen=1000, seed=7, captured=store, recovered=store, agreed_slots=64).place()
    packed, all_fixed = sound.pack(), 7

    def patch(at: int, value: int, size: int = 8) -> bytes:
        return at.to_bytes(3, "little") + bytes([size]) + value.to_bytes(size, "little")

    fill = patch(layout.CAPTURED + layout.HEAD, 3) + patch(layout.AGREED, 3) + patch(layout.STABLE, 3)
    fill += b"".join(patch(sound.captured.at + 8 * n, 64 * n) for n in range(3))
    fill += b"".join(patch(sound.captured.caplen + 4 * n, 60, 4) for n in range(3))
    fill += b"".join(patch(sound.agreed_ref + 8 * n, n) for n in range(3))
    lie = patch(layout.STABLE, (1 << 63) - 1) + patch(layout.CAPTURED + layout.HEAD, (1 << 64) - 1)
    far = patch(sound.captured.at, (1 << 64) - 8) + patch(sound.captured.caplen, 0xFFFFFFFF, 4)
    void = b"".join(patch(sound.agreed_flags + 8 * n, 0x0808080808080808) for n in range(8))
    units = (sound.total_bytes // 512).to_bytes(2, "little")
    for fix in (0, all_fixed):
        for scribbles in (b"", fill, fill + lie, fill + far, void + lie):
            yield bytes([fix]) + units + packed + scribbles
    yield bytes([0, 1, 0]) + packed
    yield bytes([all_fixed, 0, 0]) + packed


# -- captures to merge ---------------------------------------------------------------------------------------
def _mixtures() -> Iterator[bytes]:
    """Packets in `merge.c`'s form: different traffic, all equal, alternating pairs, floods."""
    draw = random.Random(1)
    kinds: list[Callable[[int], int]] = [
        lambda n: draw.randrange(64),
        lambda n: 5,
        lambda n: n // 2 % 2,
        lambda n: n % 64,
    ]
    for setting in (0x01, 0x1D, 0x65, 0x7E):
        for kind in kinds:
            packets = (
                bytes([draw.randrange(4) | kind(n) << 2, draw.randrange(128), draw.randrange(256)]) for n in range(120)
            )
            yield bytes([setting]) + b"".join(packets)


# -- IDS logs ------------------------------------------------------------------------------------------------
def _logs() -> Iterator[bytes]:
    """One line of each kind, after the byte that says whose log it is."""
    base: dict[str, Any] = {
        "timestamp": eve_time(START_NS // 1000),
        "src_ip": "192.0.2.1",
        "src_port": 1024,
        "proto": "TCP",
    }
    base |= {"dest_ip": "2001:db8::1", "dest_port": 80, "flow_id": 7, "pcap_cnt": 31}
    alert = {"gid": 1, "signature_id": 2, "rev": 3, "signature": "x", "category": "y", "severity": 3}
    flow = {"pkt_src": "stream (flow timeout)", "flow": {"start": base["timestamp"]}, "tx_id": 0}
    snort = {"seconds": 1_700_000_000, "timestamp": "11/14-22:13:20.236159", "pkt_num": 31, "proto": "TCP", "gid": 1}
    snort |= {"sid": 2, "rev": 3, "msg": "x", "src_addr": "192.0.2.1", "src_port": 5, "dst_addr": "192.0.2.2"}
    eve = [{**base, "event_type": "alert", "alert": alert}, {**base, "event_type": "alert", "alert": alert, **flow}]
    eve.append({**base, "event_type": "dns", "dns": {"answers": [{"rrname": "a"}]}})
    for which, records in ((0, eve), (1, [snort])):
        for record in records:
            yield bytes([which]) + json.dumps(record).encode() + b"\n"
    yield b"\0" + b"\n".join(json.dumps(record).encode() for record in eve * 2)


# -- what replicas say of themselves --------------------------------------------------------------------------
def _statuses() -> Iterator[bytes]:
    """A record with something in every field, one with nothing, and views of sets that hold them."""
    alert: Alert = {"time": eve_time(START_NS // 1000), "id": "00", "status": "provisional", "signature": "x"}
    alert |= {"severity": 1, "seq": 7, "from": "192.0.2.1:5", "to": "192.0.2.2:80", "replicas": "a,b", "sid": "1:2:3"}
    numbers = {"slots": 1024, "slots_used": 5, "arena_bytes": 1 << 20, "arena_used": 900}
    speaks = {"oldest": 1, "newest": 2, "view": 2}
    full = Snapshot("a", "running", "why", 7, "host", "office", 1.0, 2.0, "0.1.0", speaks, "c")
    full.view, full.coordinator, full.members = {"lineage": 5, "number": 2, "incarnation": 1}, "a", ["a", "b"]
    full.counters |= {"captured": 1000, "lost": 2, "delay_p99_ms": 7.5}
    full.set, full.seq, full.ring, full.peers = {"alerts_out": 3}, {"stable": 9}, numbers, {"connects": 1}
    full.outputs = {"alerts.output": {"delivered": 3, "waiting_bytes": 9}}
    full.delay = {"le_ms": [0.32, 0.64], "counts": [1, 2, 3], "sum_ms": [4.5]}
    full.ids = {"name": "suricata", "mode": "optimistic", "state": "down", "lag": 4, "deaths": 2}
    full.alerts, full.warnings, full.viewers, full.source = [alert], ["it rains"], {"viewers": 1}, "eth1"
    for record in (full, Snapshot("b", "waiting")):
        yield record.json()
        yield SetView("office", "a", 9.0, (Member("a", 0.5, record), Member("b"))).json()


CORPORA: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "wire": _wire,
    "records": _logs,
    "status": _statuses,
    "pcap_twin": _captures,
    "attach_twin": _segments,
    "pcap": _captures,
    "attach": _segments,
    "merge": _mixtures,
}


def write(target: str, folder: Path) -> list[Path]:
    """Lay the corpus of `target` down in `folder`; the files, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, data in enumerate(CORPORA[target]()):
        paths.append(folder / f"seed-{number:02}")
        paths[-1].write_bytes(data)
    return paths

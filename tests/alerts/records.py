"""Alert records for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftnids.alerts.identity import END_OF_FLOW
from ftnids.alerts.readers import Record, eve_time

START_US = 1_700_000_000_000_000


def alert(sid: int = 1, *, packet: int | None = None, time_us: int = START_US, flow: int = 0, **extra: Any) -> Record:
    """A raw alert on flow number `flow`; `packet` is its pcap_cnt."""
    record: Record = {
        "timestamp": eve_time(time_us),
        "event_type": "alert",
        "src_ip": "192.0.2.1",
        "src_port": 1024 + flow,
        "dest_ip": "198.51.100.2",
        "dest_port": 80,
        "proto": "TCP",
        "alert": {"gid": 1, "signature_id": sid, "rev": 1, "signature": "x", "category": "y", "severity": 3},
        **extra,
    }
    if packet is not None:
        record["pcap_cnt"] = packet
    return record


def end_of_flow(sid: int = 1, *, flow: int = 0, tx_id: int = 0, time_us: int = START_US) -> Record:
    """An alert that Suricata raises when it gives flow number `flow` up, stamped with whatever time that is."""
    start = {"start": eve_time(START_US + flow), "pkts_toserver": 3}
    return alert(sid, time_us=time_us, flow=flow, pkt_src=END_OF_FLOW, tx_id=tx_id) | {"flow": start}


def identified(alert_id: str, *, seq: int | None = 0, cold: bool = False) -> Record:
    """An alert as a replica sends it."""
    record = alert()
    record["ftnids"] = {"id": alert_id, "view": 1, "seq": seq, "replicas": ["a"], "status": "confirmed"}
    if cold:
        record["ftnids"]["cold"] = True
    return record


def ids_in(path: Path) -> list[str]:
    """The ids in a JSON lines output, but for lines that are cut."""
    ids = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            ids.append(json.loads(line)["ftnids"]["id"])
        except ValueError:
            continue
    return ids

"""Readers of IDS logs: each line becomes one EVE-compatible record.

A record is a dict as Suricata's EVE JSON has it: `timestamp`, `event_type`, `src_ip`, `src_port`,
`dest_ip`, `dest_port`, `proto`, `alert` {`gid`, `signature_id`, `rev`, `signature`, `category`,
`severity`, `action`} and, where the IDS tells it, `pcap_cnt`, the 1-based number of the packet in
what the IDS was fed.  Numbers that only mean something inside one IDS process are left out, so
that the same event reads the same on every replica.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ftnids.alerts.follow import LineFollower
from ftnids.limits import MAX_ALERT_BYTES, MAX_RECORD_DEPTH

Record = dict[str, Any]

# fmt: off
MAIN_FIELDS: Final = (
    "timestamp", "event_type", "src_ip", "src_port", "dest_ip", "dest_port", "proto", "icmp_type", "icmp_code", "alert",
    "app_proto", "direction", "flow", "pcap_cnt", "pkt_src", "tx_id", "community_id", "vlan",
)
# fmt: on
TEXTS: Final = ("src_ip", "dest_ip", "proto", "pkt_src")
NUMBERS: Final = ("src_port", "dest_port", "icmp_type", "icmp_code", "pcap_cnt", "tx_id")
SIGNATURE: Final = ("gid", "signature_id", "rev")
NUMBER_LIMIT: Final = 1 << 62
PROCESS_LOCAL: Final = ("flow_id", "parent_id", "pcap_filename", "in_iface", "host")


class AlertReader(abc.ABC):
    """The records of one growing log; what is no record is skipped and counted in `invalid`.

    A record of more than MAX_ALERT_BYTES (Suricata writes out whole transactions) keeps its MAIN_FIELDS only and
    counts as `trimmed`.
    """

    def __init__(self, path: Path) -> None:
        self.lines = LineFollower(path)
        self.invalid = 0
        self.trimmed = 0

    def poll(self, *, final: bool = False) -> list[Record]:
        """New records, oldest first; `final` when the IDS has ended.  Never blocks."""
        records = []
        for line in self.lines.poll(final=final):
            try:
                records.append(self.record(line))
                self.trimmed += len(line) > MAX_ALERT_BYTES
            except UNREADABLE:
                self.invalid += 1
        return records

    def record(self, line: bytes) -> Record:
        """What one line says; one of UNREADABLE where it is no record."""
        fields = json.loads(line)
        _check_depth(line, fields)
        if len(line) > MAX_ALERT_BYTES:
            fields = {key: fields[key] for key in MAIN_FIELDS if key in fields}
        return self._record(fields)

    def close(self) -> None:
        self.lines.close()

    @abc.abstractmethod
    def _record(self, fields: Mapping[str, Any]) -> Record:
        """One line's fields as an EVE record; any of UNREADABLE when they are none."""


class EveReader(AlertReader):
    """Suricata's eve.json."""

    def _record(self, fields: Mapping[str, Any]) -> Record:
        record = {key: value for key, value in fields.items() if key not in PROCESS_LOCAL}
        timestamp_us(record)
        if record["event_type"] == "alert":
            _check_alert(record)
        return record


class SnortJsonReader(AlertReader):
    """Snort 3's alert_json, with the fields that the shipped snort.lua asks for."""

    def _record(self, fields: Mapping[str, Any]) -> Record:
        record: Record = {
            "timestamp": _snort_time(fields),
            "event_type": "alert",
            "pcap_cnt": int(fields["pkt_num"]),
            "proto": str(fields["proto"]),
        }
        for key, snort_key, kind in _SNORT_FLOW:
            if snort_key in fields:
                record[key] = kind(fields[snort_key])
        record["alert"] = {
            "action": str(fields.get("action", "allow")),
            "gid": int(fields["gid"]),
            "signature_id": int(fields["sid"]),
            "rev": int(fields["rev"]),
            "signature": str(fields["msg"]),
            "category": str(fields.get("class", "none")),
            "severity": int(fields.get("priority", 3)),
        }
        _check_alert(record)
        return record


_SNORT_FLOW: Final = (
    ("src_ip", "src_addr", str),
    ("src_port", "src_port", int),
    ("dest_ip", "dst_addr", str),
    ("dest_port", "dst_port", int),
    ("icmp_type", "icmp_type", int),
    ("icmp_code", "icmp_code", int),
    ("pkt_gen", "pkt_gen", str),
)


# What reading a line may raise: no JSON, no fields of a record, numbers that are none or have no end.
UNREADABLE: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError, OSError)


def _check_alert(record: Record) -> None:
    """What identity and outputs rely on: texts are texts, numbers numbers of 62 bits.  One of UNREADABLE otherwise."""
    alert = record["alert"]
    numbers = [alert[key] for key in SIGNATURE] + [alert.get("severity", 3)]
    numbers += [record[key] for key in NUMBERS if key in record]
    if not all(-NUMBER_LIMIT < int(number) < NUMBER_LIMIT for number in numbers):
        raise ValueError("a number out of range")
    texts = [alert.get("signature", ""), *(record[key] for key in TEXTS if key in record)]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text is none")
    if not isinstance(record.get("flow", {}).get("start", ""), str):
        raise TypeError("the start of a flow is no text")


def _check_depth(line: bytes, value: object) -> None:
    """ValueError for a record nested deeper than MAX_RECORD_DEPTH: what is written out of it could not be made."""
    if line.count(b"[") + line.count(b"{") <= MAX_RECORD_DEPTH:
        return
    level = [value]
    for _ in range(MAX_RECORD_DEPTH):
        inner: list[object] = []
        for one in level:
            inner += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        if not inner:
            return
        level = inner
    raise ValueError("nested too deeply")


def timestamp_us(record: Mapping[str, Any]) -> int:
    """A record's EVE timestamp in whole microseconds since the epoch; ValueError when it is none."""
    since = datetime.fromisoformat(record["timestamp"]) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def eve_time(time_us: int) -> str:
    """Whole microseconds since the epoch as an EVE timestamp in UTC."""
    seconds, micros = divmod(time_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}+0000"


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _snort_time(fields: Mapping[str, Any]) -> str:
    """Snort writes whole seconds in one field and the fraction at the end of another."""
    micros = str(fields["timestamp"]).rsplit(".", 1)[1]
    return eve_time(int(fields["seconds"]) * 1_000_000 + int(micros.ljust(6, "0")[:6]))

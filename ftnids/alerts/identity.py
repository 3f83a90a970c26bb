"""The id of an alert: the same on every replica, and the same again after the IDS was restarted.

The id is a hash over what all replicas see alike: the signature, the two ends of the flow, and the
place in the agreed stream.  The place is the best of

* the agreed seq of the packet, where the IDS numbers it (Suricata's `pcap_cnt`, Snort's `pkt_num`);
* for an alert that an IDS raises when it gives a flow up, the agreed time of the flow's first
  packet: when and in which order an IDS gives flows up depends on its threads, and Suricata
  stamps such alerts with whatever time it has just reached;
* the agreed time of the packet (Suricata does not number what it takes out of tunnels and fragments).

Alerts that are equal in all of this are told apart by their ordinal.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ftnids.alerts.readers import Record, timestamp_us
from ftnids.limits import ALERT_TABLE, COLD_S

ID_BYTES: Final = 12
END_OF_FLOW: Final = "stream (flow timeout)"  # pkt_src of what Suricata makes up when it gives a flow up

Key = tuple[Any, ...]


def flow_key(record: Mapping[str, Any]) -> Key:
    """Protocol and the two ends, in an order that does not depend on who an IDS took for the client."""
    source = (str(record.get("src_ip", "")), int(record.get("src_port", record.get("icmp_type", -1))))
    target = (str(record.get("dest_ip", "")), int(record.get("dest_port", record.get("icmp_code", -1))))
    first, second = sorted((source, target))
    return (str(record.get("proto", "")), *first, *second)


def signature_key(record: Mapping[str, Any]) -> Key:
    """(gid, sid, rev) of an alert record."""
    alert = record["alert"]
    return int(alert["gid"]), int(alert["signature_id"]), int(alert["rev"])


class Identifier:
    """Gives the alerts of one run of one IDS process their ids, in the order in which it raised them.

    `base_seq` is the agreed seq of the first packet that this run was fed, `base_us` its agreed time, `voids` are
    the seqs behind it that were decided void, so that it was fed nothing for them.
    A run that starts in the middle of the stream is *cold* for COLD_S of agreed time: it has no memory
    of the flows before, and its alerts are marked so.
    """

    def __init__(
        self, member: str, base_seq: int = 0, base_us: int = 0, view: int = 0, voids: Sequence[int] = ()
    ) -> None:
        self.member = member
        self.base_seq = base_seq
        self.base_us = base_us
        self.view = view  # number of the view in force, kept up to date by the replica
        self._voids = voids  # rising; may grow while the run goes on
        self._seen: OrderedDict[Key, int] = OrderedDict()

    def identify(self, record: Record) -> Record:
        """The alert record with its `ftnids` part; `seq` is None where the IDS does not number the packet."""
        seq, key = self._named(record)
        return self._identified(record, seq, key, self._ordinal(key))

    def guess(self, record: Record, ahead: Mapping[Key, int]) -> tuple[Record, Key]:
        """As `identify` will say of a record further on, and what it counts by: `ahead` of it stand so many that are
        equal, and not identified yet.  Nothing is remembered."""
        seq, key = self._named(record)
        return self._identified(record, seq, key, self._seen.get(key, -1) + 1 + ahead.get(key, 0)), key

    def _named(self, record: Record) -> tuple[int | None, Key]:
        seq = self._seq(int(record["pcap_cnt"])) if "pcap_cnt" in record else None
        return seq, (*signature_key(record), *flow_key(record), *self._place(record, seq))

    def _identified(self, record: Record, seq: int | None, key: Key, ordinal: int) -> Record:
        digest = hashlib.blake2b(json.dumps([*key, ordinal]).encode(), digest_size=ID_BYTES)
        identity: Record = {
            "id": digest.hexdigest(),
            "view": self.view,
            "seq": seq,
            "replicas": [self.member],
            "status": "confirmed",
        }
        if self._cold(record):
            identity["cold"] = True
        return {**record, "ftnids": identity}

    def _seq(self, number: int) -> int:
        """The seq of the `number`-th packet that this run was fed, from 1; void seqs gave it none."""
        first = self.base_seq + number - 1
        voids = bisect.bisect_right(range(len(self._voids)), first, key=lambda i: self._voids[i] - i)
        return first + voids

    def _cold(self, record: Mapping[str, Any]) -> bool:
        return self.base_seq > 0 and timestamp_us(record) - self.base_us < COLD_S * 1_000_000

    @staticmethod
    def _place(record: Mapping[str, Any], seq: int | None) -> Key:
        if seq is not None:
            return "seq", seq
        if record.get("pkt_src") == END_OF_FLOW and "start" in record.get("flow", {}):
            return "flow", record["flow"]["start"], record.get("tx_id", -1)
        return "time", timestamp_us(record)

    def _ordinal(self, key: Key) -> int:
        ordinal = self._seen.pop(key, -1) + 1
        self._seen[key] = ordinal
        if len(self._seen) > ALERT_TABLE:
            self._seen.popitem(last=False)
        return ordinal

"""Why an alert of the set differs from the reference: found from where the agreed stream differs from the truth.

The truth is the union of what the replicas captured, in true order.  A packet stands out when the agreed
stream has it in another place, not at all, or once more than the truth.  Excused are

* *ambiguous*: neither order nor time could tell.  A packet too many or too few has a byte-identical twin
  within the tolerance; packets that changed places were captured within the tolerance of each other;
* *late*: it was appended after its time was decided, so that its agreed time lies behind its capture time.

All else is *unexplained*.  An alert takes the cause of the packets that stand out between the two ends of its flow
(an IDS judges a packet by all that came before it in the flow); with none there, it is unexplained.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ftnids.lab import scan
from ftnids.lab.verify import Stream

AMBIGUOUS: Final = "ambiguous"
LATE: Final = "late"
UNEXPLAINED: Final = "unexplained"
WORST_FIRST: Final = (UNEXPLAINED, LATE, AMBIGUOUS)

I64 = NDArray[np.int64]
Ends = tuple[tuple[str, int], tuple[str, int]]  # (address, port or -1) of the two ends, sorted

VLAN_TAGS: Final = (0x8100, 0x88A8)
LINK_ETHERNET: Final = 1
LINK_RAW: Final = (12, 14, 101)
LINK_COOKED: Final = 113
WITH_PORTS: Final = (socket.IPPROTO_TCP, socket.IPPROTO_UDP, 132)  # 132: SCTP


@dataclass(frozen=True)
class Oddities:
    """Packets that stand out: `cause` by index into the true stream, and by seq of the agreed stream."""

    by_place: dict[int, str]
    by_seq: dict[int, str]
    missing: int
    extra: int
    displaced: int


def occurrences(hashes: NDArray[np.uint64]) -> I64:
    """How many equal hashes stand before each (int64[n])."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(hashes) else np.empty(0, np.int64)
    runs = np.diff(np.r_[first, len(hashes)])
    ranks = np.empty(len(hashes), np.int64)
    ranks[order] = np.arange(len(hashes)) - np.repeat(first, runs)
    return ranks


def matched(truth: Stream, agreed: Stream) -> I64:
    """For each agreed packet its place in the truth, -1 where it has none: the n-th of equals is the n-th (int64[m])."""
    places = np.full(len(agreed), -1, np.int64)
    if not len(truth) or not len(agreed):
        return places
    keys = [np.rec.fromarrays([one.hash, occurrences(one.hash)], names="hash,rank") for one in (truth, agreed)]
    _, in_truth, in_agreed = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    places[in_agreed] = in_truth
    return places


def find(truth: Stream, agreed: Stream, tolerance_us: int) -> Oddities:
    """All agreed and true packets that stand out, each with its cause."""
    places = matched(truth, agreed)
    present = np.flatnonzero(places >= 0)
    extra = np.flatnonzero(places < 0)
    missing = np.setdiff1d(np.arange(len(truth)), places[present])
    by_place: dict[int, str] = {}
    by_seq: dict[int, str] = {}
    for place in missing.tolist():
        by_place[place] = AMBIGUOUS if _has_twin(truth, truth.hash[place], truth.time_us[place], place, tolerance_us) else UNEXPLAINED
    shift = int(np.median(agreed.time_us[present] - truth.time_us[places[present]])) if len(present) else 0
    for seq in extra.tolist():
        time_us = agreed.time_us[seq] - shift
        by_seq[seq] = AMBIGUOUS if _has_twin(truth, agreed.hash[seq], time_us, -1, tolerance_us) else UNEXPLAINED
    displaced = _displaced(truth, agreed, places, present, shift, tolerance_us)
    by_seq |= displaced
    by_place |= {int(places[seq]): cause for seq, cause in displaced.items()}
    return Oddities(by_place, by_seq, len(missing), len(extra), len(displaced))


def _has_twin(truth: Stream, packet_hash: np.uint64, time_us: np.int64, itself: int, tolerance_us: int) -> bool:
    near = np.abs(truth.time_us - time_us) <= tolerance_us
    twins = np.flatnonzero(near & (truth.hash == packet_hash))
    return bool((twins != itself).any())


def _displaced(
    truth: Stream, agreed: Stream, places: I64, present: I64, shift: int, tolerance_us: int
) -> dict[int, str]:
    """The agreed packets that stand on the wrong side of another, by seq, with their cause."""
    order = places[present]
    if not len(order):
        return {}
    highest_before = np.maximum.accumulate(order)
    lowest_after = np.minimum.accumulate(order[::-1])[::-1]
    delay = agreed.time_us[present] - truth.time_us[order] - shift
    # Capture times in the truth never decrease, so the furthest place is the furthest time.
    apart = np.maximum(
        truth.time_us[highest_before] - truth.time_us[order], truth.time_us[order] - truth.time_us[lowest_after]
    )
    late = delay > tolerance_us
    overtaken = np.maximum.accumulate(np.where(late, np.arange(len(order)), -1)[::-1])[::-1]
    causes = {}
    for at in np.flatnonzero((highest_before > order) | (lowest_after < order)).tolist():
        if apart[at] <= tolerance_us:
            cause = AMBIGUOUS
        elif late[at] or (overtaken[at] > at and highest_before[at] == order[at]):
            cause = LATE  # itself, or it only went ahead of one that was
        else:
            cause = UNEXPLAINED
        causes[int(present[at])] = cause
    return causes


# -- flows -----------------------------------------------------------------------------------------


def ends_of(frame: bytes, linktype: int) -> Ends | None:
    """The two ends of the packet in a frame; ports -1 where it has none to read; None when it is no IP."""
    try:
        kind, at = _network(frame, linktype)
        if kind == 0x0800:
            size, protocol = (frame[at] & 15) * 4, frame[at + 9]
            source, target = (socket.inet_ntop(socket.AF_INET, frame[at + n : at + n + 4]) for n in (12, 16))
            fragment = struct.unpack_from(">H", frame, at + 6)[0] & 0x3FFF
        elif kind == 0x86DD:
            size, protocol, fragment = 40, frame[at + 6], 0
            source, target = (socket.inet_ntop(socket.AF_INET6, frame[at + n : at + n + 16]) for n in (8, 24))
        else:
            return None
        ports = struct.unpack_from(">HH", frame, at + size) if protocol in WITH_PORTS and not fragment else (-1, -1)
    except (IndexError, ValueError, struct.error):  # cut short
        return None
    return _sorted((source, ports[0]), (target, ports[1]))


def _network(frame: bytes, linktype: int) -> tuple[int, int]:
    """(EtherType, offset of the network header)."""
    if linktype in LINK_RAW:
        return {4: 0x0800, 6: 0x86DD}.get(frame[0] >> 4, 0), 0
    at = {LINK_ETHERNET: 12, LINK_COOKED: 14}[linktype] if linktype in (LINK_ETHERNET, LINK_COOKED) else len(frame)
    while True:
        kind = struct.unpack_from(">H", frame, at)[0]
        if kind not in VLAN_TAGS:
            return kind, at + 2
        at += 4


def _sorted(one: tuple[str, int], other: tuple[str, int]) -> Ends:
    return (one, other) if one <= other else (other, one)


def ends_of_alert(alert: Mapping[str, Any]) -> Iterator[Ends]:
    """The ends that an alert record names: its own, and those of the tunnel around it."""
    for record in (alert, alert.get("tunnel", {})):
        if "src_ip" in record and "dest_ip" in record:
            addresses = [_normal(str(record[key])) for key in ("src_ip", "dest_ip")]
            ports = [int(record.get(key, -1)) for key in ("src_port", "dest_port")]
            yield _sorted((addresses[0], ports[0]), (addresses[1], ports[1]))


def _normal(address: str) -> str:
    """An address as `inet_ntop` writes it; Suricata writes IPv6 in full."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, address))


class Causes:
    """The causes of differing alerts of one run."""

    def __init__(self, oddities: Oddities, union_pcap: Path, truth: Stream, agreed: Stream, snaplen: int) -> None:
        self._oddities = oddities
        self._by_ends: dict[Ends, set[str]] = {}
        by_hash: dict[int, set[str]] = {}
        for place, cause in oddities.by_place.items():
            by_hash.setdefault(int(truth.hash[place]), set()).add(cause)
        for seq, cause in oddities.by_seq.items():
            by_hash.setdefault(int(agreed.hash[seq]), set()).add(cause)
        if by_hash:
            self._read_ends(union_pcap, truth, by_hash, snaplen)

    def _read_ends(self, path: Path, truth: Stream, by_hash: dict[int, set[str]], snaplen: int) -> None:
        wanted = np.isin(truth.hash, np.array(list(by_hash), np.uint64))
        for batch in scan.batches(path, snaplen, 0):
            here = batch.first + np.flatnonzero(wanted[batch.first : batch.last])
            packets = batch.ring.gather(here.astype(np.int64))
            at = 0
            for place, length in zip(here.tolist(), packets.caplen.tolist(), strict=True):
                ends = ends_of(packets.data[at : at + length], batch.ring.linktype)
                at += length
                if ends is not None:
                    self._by_ends.setdefault(ends, set()).update(by_hash[int(truth.hash[place])])

    def of(self, alert: Mapping[str, Any], place: int | None, seq: int | None) -> str:
        """The cause of a differing alert, whose packet is number `place` of the truth or `seq` of the agreed stream."""
        found = set()
        if place is not None and place in self._oddities.by_place:
            found.add(self._oddities.by_place[place])
        if seq is not None and seq in self._oddities.by_seq:
            found.add(self._oddities.by_seq[seq])
        for ends in ends_of_alert(alert):
            for other, causes in self._by_ends.items():
                if _meet(ends, other):
                    found |= causes
        return next((cause for cause in WORST_FIRST if cause in found), UNEXPLAINED)


def _meet(one: Ends, other: Ends) -> bool:
    """Whether two packets' ends are of one flow; of a fragment or a tunnel only the addresses are known."""
    if one == other:
        return True
    unknown = -1 in (one[0][1], other[0][1])
    return unknown and sorted(address for address, _ in one) == sorted(address for address, _ in other)

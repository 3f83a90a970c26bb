"""Why an alert of the set differs from the reference: found from where the agreed stream differs from the truth.

The truth is the union of what the replicas captured, in true order.  A packet stands out when the agreed
stream has it in another place, not at all, or once more than the truth.  Excused are

* *ambiguous*: neither order nor time could tell.  A packet that is missing has a byte-identical twin within the
  reorder window; of one too many, two replicas' stamps of one packet may have been that far apart; packets that
  changed places were captured closer to each other than clocks can tell;
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
REFERENCE: Final = "reference"  # the name of the IDS over the truth, as of a replica
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
    """For each agreed packet its place in the truth (int64[m]), -1: none.

    Equals are matched in order; where the two streams hold different numbers of them, those closest in time.
    """
    places = np.full(len(agreed), -1, np.int64)
    _, numbers = np.unique(np.concatenate([truth.hash, agreed.hash]), return_inverse=True)
    ranks = np.concatenate([occurrences(truth.hash), occurrences(agreed.hash)])
    keys = numbers.astype(np.int64) * (len(numbers) + 1) + ranks
    _, in_truth, in_agreed = np.intersect1d(
        keys[: len(truth)], keys[len(truth) :], assume_unique=True, return_indices=True
    )
    places[in_agreed] = in_truth
    unequal = np.concatenate([np.delete(truth.hash, in_truth), np.delete(agreed.hash, in_agreed)])
    for packet_hash in np.unique(unequal):
        these, those = np.flatnonzero(agreed.hash == packet_hash), np.flatnonzero(truth.hash == packet_hash)
        places[these] = -1
        if len(these) <= len(those):
            places[these] = those[nearest(agreed.time_us[these], truth.time_us[those])]
        else:
            places[these[nearest(truth.time_us[those], agreed.time_us[these])]] = those
    return places


def nearest(few: I64, many: I64) -> I64:
    """For each of n times in `few` the index of one in `many`, in order, with the least sum of distances (int64[n]).

    Both are sorted, and `many` is not the shorter one.  Takes n * surplus steps.
    """
    surplus = len(many) - len(few)
    costs = np.zeros((len(few) + 1, surplus + 1), np.int64)  # [i, j]: of the first i, the last of them at most at i + j
    for number, time in enumerate(few):
        distance = np.abs(many[number : number + surplus + 1] - time)
        costs[number + 1] = np.minimum.accumulate(costs[number] + distance)
    chosen, at = np.empty(len(few), np.int64), surplus
    for number in range(len(few) - 1, -1, -1):
        at = int(np.searchsorted(-costs[number + 1, : at + 1], -costs[number + 1, at]))
        chosen[number] = number + at
    return chosen


@dataclass(frozen=True)
class Excuse:
    """What excuses a packet that stands out."""

    clocks_us: int  # the order of packets closer than this cannot be told
    repeats_us: int  # a packet and its repeat closer than this may be one packet that was reordered
    stamps_us: int  # two stamps of one packet may be this far apart, so that it came out twice
    late: bool  # the replicas counted late packets


def find(truth: Stream, agreed: Stream, excuse: Excuse) -> Oddities:
    """All agreed and true packets that stand out, each with its cause."""
    places = matched(truth, agreed)
    present = np.flatnonzero(places >= 0)
    extra = np.flatnonzero(places < 0)
    missing = np.setdiff1d(np.arange(len(truth)), places[present])
    by_place: dict[int, str] = {}
    by_seq: dict[int, str] = {}
    for place in missing.tolist():
        by_place[place] = _of_twins(truth, truth.hash[place], truth.time_us[place], place, excuse.repeats_us)
    shift = int(np.median(agreed.time_us[present] - truth.time_us[places[present]])) if len(present) else 0
    for seq in extra.tolist():
        time_us = agreed.time_us[seq] - shift
        by_seq[seq] = _of_twins(truth, agreed.hash[seq], time_us, -1, excuse.stamps_us)
    delay = agreed.time_us[present] - truth.time_us[places[present]] - shift
    displaced = _displaced(truth, places[present], delay, present, excuse.clocks_us)
    if not excuse.late:  # then a packet that stands behind its time is no late one
        displaced = {seq: UNEXPLAINED if cause == LATE else cause for seq, cause in displaced.items()}
    by_seq |= displaced
    by_place |= {int(places[seq]): cause for seq, cause in displaced.items()}
    return Oddities(by_place, by_seq, len(missing), len(extra), len(displaced))


def _of_twins(truth: Stream, packet_hash: np.uint64, time_us: np.int64, itself: int, within_us: int) -> str:
    """The cause of a packet too many or too few: ambiguous if the truth has another like it near."""
    first, last = np.searchsorted(truth.time_us, (time_us - within_us, time_us + within_us + 1))
    twins = first + np.flatnonzero(truth.hash[first:last] == packet_hash)
    return AMBIGUOUS if (twins != itself).any() else UNEXPLAINED


def _displaced(truth: Stream, order: I64, delay: I64, present: I64, within_us: int) -> dict[int, str]:
    """The agreed packets that stand on the wrong side of another, by seq, with their cause.

    `order` holds the true places of the agreed packets `present`, in agreed order, `delay` how far their agreed time
    lies behind their capture time, in us (all int64[m]).
    """
    late = (delay > within_us) & (_apart(truth, order) >= 0)
    causes = {int(seq): LATE for seq in present[late]}
    on_time = ~late
    apart = _apart(truth, order[on_time])
    for seq, distance in zip(present[on_time].tolist(), apart.tolist(), strict=True):
        if distance >= 0:
            causes[seq] = AMBIGUOUS if distance <= within_us else UNEXPLAINED
    return causes


def _apart(truth: Stream, order: I64) -> I64:
    """For each packet, how far in time the furthest one is that it changed places with; -1 for none (int64[n], us)."""
    if not len(order):
        return order
    highest_before = np.maximum.accumulate(order)
    lowest_after = np.minimum.accumulate(order[::-1])[::-1]
    # Times in the truth never decrease, so the furthest place is the furthest time.
    times = truth.time_us
    apart = np.maximum(times[highest_before] - times[order], times[order] - times[lowest_after])
    return np.where((highest_before > order) | (lowest_after < order), apart, -1)


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

    def of(self, alert: Mapping[str, Any]) -> str:
        """The cause of a differing alert of the set or of the reference (identified records)."""
        identity, found = alert["ftnids"], set()
        odd = self._oddities.by_place if identity["replicas"] == [REFERENCE] else self._oddities.by_seq
        if identity["seq"] in odd:
            found.add(odd[identity["seq"]])
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

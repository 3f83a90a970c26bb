"""Why an alert differs: streams that are wrong in one known way each."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftnids.lab import causes, generate, verify
from ftnids.lab.causes import AMBIGUOUS, LATE, REFERENCE, UNEXPLAINED, Excuse, Oddities
from ftnids.lab.verify import Stream

CLOCKS_US, REPEATS_US, STAMPS_US = 10, 50, 20


def stream(*packets: tuple[int, int]) -> Stream:
    """A stream of (hash, time in us)."""
    return Stream(np.array([p[0] for p in packets], np.uint64), np.array([p[1] for p in packets], np.int64))


TRUTH = stream((1, 0), (2, 100), (3, 105), (9, 200), (9, 204), (4, 1000), (9, 5000))


def find(*agreed: tuple[int, int], late: bool = True) -> Oddities:
    return causes.find(TRUTH, stream(*agreed), Excuse(CLOCKS_US, REPEATS_US, STAMPS_US, late))


def test_equal() -> None:
    odd = find(*zip(TRUTH.hash.tolist(), TRUTH.time_us.tolist(), strict=True))
    assert odd == Oddities({}, {}, 0, 0, 0)


def test_one_clock_ahead_is_no_difference() -> None:
    assert find(*((h, t + 700) for h, t in zip(TRUTH.hash.tolist(), TRUTH.time_us.tolist(), strict=True))).by_seq == {}


def test_neighbours_changed_places() -> None:
    odd = find((1, 0), (3, 100), (2, 105), (9, 200), (9, 204), (4, 1000), (9, 5000))
    assert odd.by_seq == {1: AMBIGUOUS, 2: AMBIGUOUS}
    assert odd.by_place == {1: AMBIGUOUS, 2: AMBIGUOUS}


def test_packets_far_apart_changed_places() -> None:
    odd = find((2, 100), (1, 100), (3, 105), (9, 200), (9, 204), (4, 1000), (9, 5000), late=False)
    assert odd.by_seq == {1: UNEXPLAINED}  # agreed time never decreases, so it is the second that is not in its place
    assert odd.displaced == 1


def test_a_late_packet() -> None:
    agreed = ((2, 100), (3, 105), (9, 200), (9, 204), (4, 1000), (1, 1000), (9, 5000))
    assert find(*agreed).by_seq == {5: LATE}  # those that it should have led stand where they should
    assert find(*agreed, late=False).by_seq == {5: UNEXPLAINED}


def test_twins_fused() -> None:
    odd = find((1, 0), (2, 100), (3, 105), (9, 202), (4, 1000), (9, 5000))
    assert (odd.missing, odd.displaced) == (1, 0)
    assert set(odd.by_place.values()) == {AMBIGUOUS}


def test_a_repeat_lost() -> None:
    odd = find((1, 0), (2, 100), (3, 105), (9, 200), (9, 204), (4, 1000))
    assert odd.by_place == {6: UNEXPLAINED}  # its equals are far away


@given(st.lists(st.integers(0, 50), max_size=6), st.lists(st.integers(0, 50), max_size=8))
def test_nearest_has_the_least_sum(few: list[int], many: list[int]) -> None:
    few, many = sorted(few), sorted([*many, *few])
    chosen = causes.nearest(np.array(few, np.int64), np.array(many, np.int64))
    assert (np.diff(chosen) > 0).all()
    assert sum(abs(many[at] - time) for at, time in zip(chosen.tolist(), few, strict=True)) == 0


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.lists(st.integers(0, 30), max_size=4))
def test_nearest_against_all_ways(few: list[int], more: list[int]) -> None:
    many = sorted([*more, *(time + 7 for time in few)])
    few = sorted(few)
    chosen = causes.nearest(np.array(few, np.int64), np.array(many, np.int64))

    def total(way: Iterable[int]) -> int:
        return sum(abs(many[at] - time) for at, time in zip(way, few, strict=True))

    assert total(chosen.tolist()) == min(map(total, itertools.combinations(range(len(many)), len(few))))


def test_a_packet_twice() -> None:
    odd = find((1, 0), (2, 100), (3, 105), (9, 200), (9, 204), (4, 1000), (4, 1000), (9, 5000))
    assert odd.extra == 1
    assert odd.by_seq == {6: AMBIGUOUS}


def test_a_packet_twice_with_stamps_apart() -> None:
    assert find((1, 0), (2, 80), (2, 100), (3, 105), (9, 200), (9, 204), (4, 1000), (9, 5000)).by_seq == {1: AMBIGUOUS}
    assert find((1, 0), (2, 79), (2, 100), (3, 105), (9, 200), (9, 204), (4, 1000), (9, 5000)).by_seq == {
        1: UNEXPLAINED
    }


def test_a_packet_lost_and_one_made_up() -> None:
    odd = find((1, 0), (3, 105), (9, 200), (9, 204), (4, 1000), (7, 3000), (9, 5000))
    assert odd.by_place == {1: UNEXPLAINED}
    assert odd.by_seq == {5: UNEXPLAINED}


def test_nothing() -> None:
    empty, strict = stream(), Excuse(0, 0, 0, late=False)
    assert causes.find(empty, empty, strict) == Oddities({}, {}, 0, 0, 0)
    assert causes.find(TRUTH, empty, strict).missing == len(TRUTH)
    assert causes.find(empty, TRUTH, strict).extra == len(TRUTH)


# -- flows -----------------------------------------------------------------------------------------

CLIENT, SERVER = "10.84.1.7", "10.84.0.2"
DATAGRAM = generate.datagram(CLIENT, 5353, SERVER, 53, 1, b"question")
ENDS = ((SERVER, 53), (CLIENT, 5353))


def test_ends_of_frames() -> None:
    assert causes.ends_of(DATAGRAM, 1) == ENDS
    tagged = DATAGRAM[:12] + b"\x81\x00\x00\x05" + DATAGRAM[12:]
    assert causes.ends_of(tagged, 1) == ENDS
    assert causes.ends_of(DATAGRAM[14:], 101) == ENDS
    assert causes.ends_of(bytes(14) + DATAGRAM[12:], 113) == ENDS
    fragment = DATAGRAM[:20] + b"\x20\x00" + DATAGRAM[22:]
    assert causes.ends_of(fragment, 1) == ((SERVER, -1), (CLIENT, -1))


def test_ends_of_ipv6() -> None:
    ends = [socket.inet_pton(socket.AF_INET6, address) for address in ("2001:db8::2", "2001:db8::1")]
    packet = struct.pack(">IHBB", 6 << 28, 8, 17, 64) + ends[0] + ends[1] + struct.pack(">HHHH", 9, 7, 8, 0)
    assert causes.ends_of(bytes(12) + b"\x86\xdd" + packet, 1) == (("2001:db8::1", 7), ("2001:db8::2", 9))


@pytest.mark.parametrize("size", range(len(DATAGRAM)))
def test_a_frame_cut_short_has_no_ends_or_the_right_ones(size: int) -> None:
    assert causes.ends_of(DATAGRAM[:size], 1) in (None, ENDS)


def alert(member: str, seq: int | None, source: tuple[str, int], target: tuple[str, int]) -> dict[str, Any]:
    return {
        "src_ip": source[0],
        "src_port": source[1],
        "dest_ip": target[0],
        "dest_port": target[1],
        "ftnids": {"replicas": [member], "seq": seq},
    }


def test_an_alert_takes_the_cause_of_its_flow(tmp_path: Path) -> None:
    """The 1st packet of the generated file is lost from the agreed stream, and it has a twin."""
    path = tmp_path / "union.pcap"
    generate.write(path, seed=1, connections=3, lookups=3, seconds=0.1)
    truth = verify.read_pcap(path, 65_535, 0)
    agreed = Stream(truth.hash[1:], truth.time_us[1:])
    odd = Oddities({0: AMBIGUOUS}, {}, 1, 0, 0)
    found = causes.Causes(odd, path, truth, agreed, 65_535)
    (ends,) = found._by_ends
    assert found.of(alert("r0", 500, *ends)) == AMBIGUOUS
    assert found.of(alert("r0", 500, ends[1], ends[0])) == AMBIGUOUS
    assert found.of(alert(REFERENCE, 0, ("1.1.1.1", 1), ("2.2.2.2", 2))) == AMBIGUOUS  # the packet itself
    assert found.of(alert("r0", 0, ("1.1.1.1", 1), ("2.2.2.2", 2))) == UNEXPLAINED
    assert found.of(alert("r0", 500, ends[0], ("2.2.2.2", 2))) == UNEXPLAINED
    tunnelled = alert("r0", None, ("1.1.1.1", 1), ("2.2.2.2", 2)) | {
        "tunnel": {"src_ip": ends[0][0], "dest_ip": ends[1][0], "proto": "GRE"}
    }
    assert found.of(tunnelled) == AMBIGUOUS


def test_the_worst_cause_wins() -> None:
    assert causes.WORST_FIRST == (UNEXPLAINED, LATE, AMBIGUOUS)

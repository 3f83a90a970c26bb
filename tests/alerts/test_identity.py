"""The id of an alert is the same on every replica and after a restart, and different for different alerts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ftnids.alerts.identity import Identifier, flow_key
from ftnids.alerts.readers import Record
from ftnids.limits import COLD_S

from .records import START_US, alert, end_of_flow

packet_alerts = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(0, 2)), max_size=40)
flow_alerts = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, 2)), max_size=40)


def ids(records: list[Record], **run: Any) -> list[str]:
    identifier = Identifier("a", **run)
    return [identifier.identify(record)["ftnids"]["id"] for record in records]


@given(packet_alerts)
def test_alerts_of_one_packet_are_told_apart(specs: list[tuple[int, int, int]]) -> None:
    """The same rule may fire twice on one packet: both alerts leave the set."""
    records = [alert(sid, packet=packet, flow=flow) for sid, packet, flow in sorted(specs, key=lambda s: s[1])]
    got = ids(records)
    assert len(set(got)) == len(records)
    assert got == ids(records)


@given(packet_alerts, flow_alerts, st.randoms(use_true_random=False))
def test_order_and_stamp_of_end_of_flow_alerts_do_not_matter(
    packets: list[tuple[int, int, int]], flows: list[tuple[int, int, int]], random: Any
) -> None:
    """Suricata gives flows up in the order of a secret hash, at a time that its threads agree on."""
    by_packet = [alert(sid, packet=packet, flow=flow) for sid, packet, flow in sorted(packets, key=lambda s: s[1])]
    here = [end_of_flow(sid, flow=flow, tx_id=tx, time_us=START_US + 5) for sid, flow, tx in flows]
    there = [
        end_of_flow(sid, flow=flow, tx_id=tx, time_us=START_US + random.randrange(10**9)) for sid, flow, tx in flows
    ]
    random.shuffle(there)
    mixed = list(by_packet)
    for record in there:
        mixed.insert(random.randint(0, len(mixed)), record)
    assert Counter(ids(by_packet + here)) == Counter(ids(mixed))
    assert len(set(ids(mixed))) == len(mixed)


def test_restarted_ids_counts_packets_anew_and_ids_stay() -> None:
    whole = [alert(7, packet=n) for n in range(1, 200)]
    rest = [alert(7, packet=n - 120) for n in range(121, 200)]
    assert ids(rest, base_seq=120) == ids(whole)[120:]


def test_packet_without_number_goes_by_its_time() -> None:
    one, other = alert(7, time_us=START_US), alert(7, time_us=START_US + 1)
    assert ids([one]) != ids([other])
    assert ids([one, one])[0] != ids([one, one])[1]


def test_seq_is_the_agreed_one() -> None:
    record = Identifier("a", base_seq=100).identify(alert(packet=3))
    assert record["ftnids"]["seq"] == 102
    assert Identifier("a").identify(alert())["ftnids"]["seq"] is None


def test_void_seqs_gave_the_ids_no_packet() -> None:
    """A replica that joined behind the void and one that was there before give an alert the same id."""
    voids = [100, 103, 104]
    fed = [seq for seq in range(100, 110) if seq not in voids]
    identifier = Identifier("a", base_seq=100, voids=voids)
    assert [identifier.identify(alert(packet=n))["ftnids"]["seq"] for n in range(1, len(fed) + 1)] == fed
    here, there = alert(7, packet=fed.index(108) + 1), alert(7, packet=3)
    assert ids([here], base_seq=100, voids=voids) == ids([there], base_seq=106)


def test_direction_of_a_flow_does_not_matter() -> None:
    there = alert()
    back = {**there, "src_ip": there["dest_ip"], "src_port": 80, "dest_ip": there["src_ip"], "dest_port": 1024}
    assert flow_key(there) == flow_key(back)
    assert flow_key(there) != flow_key(alert(flow=1))


def test_icmp_flows_differ_by_type_and_code() -> None:
    def echo(kind: int) -> Record:
        record = alert(icmp_type=kind, icmp_code=0, proto="ICMP")
        del record["src_port"], record["dest_port"]
        return record

    assert flow_key(echo(8)) != flow_key(echo(3))


def test_restarted_ids_is_cold_for_a_while() -> None:
    run = Identifier("a", base_seq=10, base_us=START_US)
    assert run.identify(alert(packet=1))["ftnids"]["cold"]
    assert "cold" not in run.identify(alert(packet=3, time_us=START_US + COLD_S * 1_000_000))["ftnids"]
    assert "cold" not in Identifier("a").identify(alert(packet=1))["ftnids"]

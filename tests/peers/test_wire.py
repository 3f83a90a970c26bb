"""The wire format: what goes in comes out, and nothing but WireError comes out of anything else."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftnids import limits
from ftnids.errors import WireError
from ftnids.peers import wire
from ftnids.sync.messages import (
    KINDS,
    Ack,
    Bytes,
    Decision,
    Fetch,
    Heartbeat,
    Install,
    Join,
    Kind,
    Propose,
    Report,
    View,
)
from tests.older import newest
from tests.peers.samples import GOLDEN, samples, vectors
from tests.peers.strategies import MESSAGES, array, same

ID = bytes(range(8))
VIEW = View(7, 3, 1, 99)
DOC = Path(__file__).parents[2] / "docs" / "wire.md"
kinds = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)


def decodes_or_refuses(data: bytes) -> None:
    """Decode `data`; whatever is accepted must be a message that can be encoded again."""
    try:
        message = wire.decode(data, ID)
    except WireError:
        return
    wire.encode(message, ID)


@kinds
@settings(max_examples=30)
@given(data=st.data())
def test_round_trip(kind: Kind, data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    coded = wire.encode(message, ID)
    assert same(message, wire.decode(coded, ID))
    assert same(message, wire.decode(memoryview(coded), ID))


@kinds
@settings(max_examples=30)
@given(data=st.data())
def test_round_trip_in_the_version_before(kind: Kind, data: st.DataObject) -> None:
    """What is new arrives as its default, both where the sender is an older replica and where the receiver is."""
    message = data.draw(MESSAGES[kind])
    if isinstance(message, Install):
        message.protocol = 1
    elif isinstance(message, Join):
        message.software = ""
    if kind not in wire.VERSIONS[1]:
        with pytest.raises(WireError, match=f"protocol 1 has no {kind.name}"):
            wire.encode(message, ID, 1)
        return
    coded = wire.encode(message, ID, 1)
    assert same(message, wire.decode(coded, ID))
    if isinstance(message, Heartbeat):
        message.speaks = 1
    with newest(1):
        assert same(message, wire.decode(coded, ID))
        coded = wire.encode(message, ID, 1)
    assert same(message, wire.decode(coded, ID))


@kinds
@settings(max_examples=30)
@given(data=st.data())
def test_mutations_are_refused_or_harmless(kind: Kind, data: st.DataObject) -> None:
    coded = bytearray(wire.encode(data.draw(MESSAGES[kind]), ID))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(coded) - 1))
        coded[place] = data.draw(st.integers(0, 255))
    decodes_or_refuses(bytes(coded))


@kinds
@settings(max_examples=20)
@given(data=st.data())
def test_cut_and_extended_messages_are_refused(kind: Kind, data: st.DataObject) -> None:
    coded = wire.encode(data.draw(MESSAGES[kind]), ID)
    with pytest.raises(WireError):
        wire.decode(coded[: data.draw(st.integers(0, len(coded) - 1))], ID)
    with pytest.raises(WireError):
        wire.decode(coded + data.draw(st.binary(min_size=1, max_size=20)), ID)


@kinds
@settings(max_examples=50)
@given(body=st.binary(max_size=200))
def test_random_bytes(kind: Kind, body: bytes) -> None:
    decodes_or_refuses(body)
    decodes_or_refuses(prefix(kind) + body)
    decodes_or_refuses(prefix(kind) + common() + body)


def prefix(kind: Kind, version: int = wire.PROTOCOL, newest: int = wire.PROTOCOL, cluster: bytes = ID) -> bytes:
    return wire.MAGIC + bytes((version, newest)) + cluster + bytes((kind,))


def common() -> bytes:
    return bytes(1) + bytes(8) + bytes(8) + bytes(1) + bytes(1) + bytes(8)


def test_prefix_is_what_the_page_says() -> None:
    coded = wire.encode(Ack(0, 0, View()), ID)
    assert coded[: wire.PREFIX] == prefix(Kind.ACK)
    assert coded[wire.PREFIX : wire.PREFIX + 27] == common()


@pytest.mark.parametrize("version", sorted(wire.VERSIONS))
def test_the_bytes_of_a_version_never_change(version: int) -> None:
    """The vectors were written when the version was the newest."""
    kept = (GOLDEN / f"version-{version}.txt").read_text()
    assert vectors(version) == kept
    for line, message in zip(kept.splitlines(), samples(version), strict=True):
        assert same(wire.decode(bytes.fromhex(line.split()[1]), ID), message)


def test_a_view_of_the_new_version_is_not_told_in_the_old_one() -> None:
    """The receiver would take another version for the view's than the other members."""
    install = Install(0, 0, VIEW, VIEW, members=3, protocol=2)
    with pytest.raises(WireError, match="against the rule: the view's protocol is 1"):
        wire.encode(install, ID, 1)
    install.protocol = 0
    refused(install, "the view's `protocol` is 1 or 2")
    install.protocol = 3
    refused(install, "not in 0 to 2")


def test_other_clusters_and_other_versions_are_told_apart() -> None:
    with pytest.raises(wire.ForeignClusterError, match="another cluster"):
        wire.decode(prefix(Kind.ACK, cluster=bytes(8)) + common(), ID)
    with pytest.raises(WireError, match="is in protocol 2, and says that its sender speaks 0 at most"):
        wire.decode(prefix(Kind.ACK, newest=0) + common(), ID)
    with pytest.raises(WireError, match="unknown kind 99"):
        wire.decode(prefix(99) + common(), ID)  # type: ignore[arg-type]
    with pytest.raises(WireError, match="no ftnids message"):
        wire.decode(b"GET / HTTP/1.1\r\n\r\n", ID)


WHO_MUST_CHANGE: dict[tuple[int, int, int], str] = {  # mine, the message's, its sender's newest
    (2, 9, 10): "speaks protocol 9-10, this replica 1-2: upgrade this replica, first to a release that speaks 9",
    (2, 3, 4): "speaks protocol 3-4, this replica 1-2: upgrade this replica, first to a release that speaks 3",
    (2, 255, 255): "speaks protocol 254-255, this replica 1-2: upgrade this replica, first to one that speaks 254",
    (2, 3, 3): "speaks protocol 2-3, this replica 1-2: it has not heard that yet",
    (2, 0, 0): "speaks protocol 0, this replica 1-2: upgrade that member, first to a release that speaks 1",
    (1, 2, 3): "speaks protocol 2-3, this replica 1: upgrade this replica, first to a release that speaks 2",
    (3, 1, 1): "speaks protocol 1, this replica 2-3: upgrade that member, first to a release that speaks 2",
    (3, 1, 2): "speaks protocol 1-2, this replica 2-3: it has not heard that yet",
}


@pytest.mark.parametrize(("mine", "version", "newest_there"), WHO_MUST_CHANGE)
def test_a_version_that_is_not_spoken_is_named_with_what_to_do(mine: int, version: int, newest_there: int) -> None:
    said = WHO_MUST_CHANGE[mine, version, newest_there]
    with newest(mine), pytest.raises(wire.ProtocolVersionError) as raised:
        wire.decode(prefix(Kind.ACK, version, newest_there) + common(), ID)
    assert str(raised.value).startswith(said.replace("to one that", "to a release that"))
    assert (raised.value.version, raised.value.newest) == (version, newest_there)
    assert raised.value.lasts == ("has not heard" not in said)


def test_a_heartbeat_says_in_every_version_what_its_sender_speaks() -> None:
    for version in wire.VERSIONS:
        coded = bytearray(wire.encode(Heartbeat(1, 2, VIEW), ID, version))
        assert (coded[wire.VERSION_AT], wire.newest_of(bytes(coded))) == (version, wire.PROTOCOL)
        for claimed in (version, 2, 3, 255):
            coded[wire.NEWEST_AT] = claimed
            beat = wire.decode(bytes(coded), ID)
            assert isinstance(beat, Heartbeat)
            assert beat.speaks == min(claimed, wire.PROTOCOL)


def refused(message: Any, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        wire.encode(message, ID)


def test_what_cannot_travel_is_refused_at_the_sender() -> None:
    refused(Ack(16, 0, VIEW), "not in 0 to 15")
    refused(Ack(0, 0, VIEW, reported={16: 0}), "members")
    refused(Ack(0, 0, VIEW, acked=-1), "not in 0 to")
    refused(Report(0, 0, VIEW, hash=array([1, 2], np.uint64), time_ns=array([2, 1], np.int64)), "times decrease")
    refused(Report(0, 0, VIEW, hash=array([1], np.uint64)), "time_ns has 0 elements, not 1")
    refused(Report(0, 0, VIEW, hash=np.zeros(limits.MAX_REPORT_PACKETS + 1, np.uint64)), "not in 0 to")
    one, two = array([1], np.uint64), array([5, 6], np.int64)
    both = Report(0, 0, VIEW, k=2, hash=one, time_ns=two[:1], cluster=one, first_ns=two[:1], last_ns=two[1:])
    refused(both, "pushed .* or summarised")
    refused(Fetch(0, 0, VIEW, seq=array([3, -1], np.int64)), "seq out of range")
    refused(Bytes(0, 0, VIEW, seq=array([1], np.int64), hash=one, caplen=array([3], np.uint32),
                  wirelen=array([3], np.uint32), data=b"ab"), "data has 2 bytes, not 3")  # fmt: skip
    decision = decided(4, members=3)
    decision.places[0] = decision.places[0][:-1]
    refused(decision, "places of member 0: 3, not 4")


def decided(size: int, members: int, first: int = 1_000_000, step_us: int = 20) -> Decision:
    who = [m for m in range(limits.MAX_MEMBERS) if members >> m & 1]
    rng = np.random.default_rng(1)
    return Decision(
        0,
        1,
        VIEW,
        number=1000,
        first_seq=first,
        time_us=1_600_000_000_000_000 + np.cumsum(rng.exponential(step_us, size).astype(np.int64)),
        holders=np.full(size, members, np.uint32),
        flags=np.zeros(size, np.uint8),
        members=members,
        places={m: np.arange(first + m, first + m + size) for m in who},
        offset_ns=dict.fromkeys(who, 300_000),
        tolerance_ns=dict.fromkeys(who, 50_000),
        cut_ns=1_600_000_000_000_000_000,
    )


def test_a_clean_decision_costs_about_a_byte_a_packet() -> None:
    """Agreed times at 50,000 packets/s; positions, holders and flags cost nothing where nothing is lost."""
    size = len(wire.encode(decided(1000, members=0b111), ID))
    assert 1000 < size < 1150


def test_losses_cost_their_hashes_and_little_more() -> None:
    decision = decided(1000, members=0b11)
    lost = np.arange(7, 1000, 100)
    decision.holders[lost] = 0b01
    decision.hash = np.arange(len(lost)).astype(np.uint64)
    decision.places[1] = np.arange(50, 50 + 1000 - len(lost))
    decision.places[0] = np.delete(np.arange(2000), np.arange(300, 1300))
    clean = len(wire.encode(decided(1000, members=0b11), ID))
    assert len(wire.encode(decision, ID)) - clean < len(lost) * (8 + 2) + 20


def test_a_report_of_a_microsecond_capture_travels_in_microseconds() -> None:
    steps = np.random.default_rng(2).integers(1, 200, 500)
    time_ns = (1_600_000_000_000_000 + np.cumsum(steps)) * 1000
    report = Report(0, 1, VIEW, hash=np.zeros(500, np.uint64), time_ns=time_ns)
    assert len(wire.encode(report, ID)) < 500 * 9 + 100


def test_a_small_message_cannot_unfold_to_a_large_one() -> None:
    """65,536 decisions of 65,536 packets each would be a few megabytes on the wire and terabytes in memory."""
    flat = decided(limits.MAX_DECISION_PACKETS, members=1)
    flat.time_us[:] = 5
    bomb = Propose(0, 0, VIEW, log=[flat] * 60)
    coded = wire.encode(bomb, ID)
    assert len(coded) < 20_000
    with pytest.raises(WireError, match="unfolds"):
        wire.decode(coded, ID)


def test_largest_messages_pass() -> None:
    size = limits.MAX_REPORT_PACKETS
    report = Report(0, 0, VIEW, hash=np.arange(size).astype(np.uint64), time_ns=np.arange(size) * 3)
    assert same(report, wire.decode(wire.encode(report, ID), ID))
    decision = decided(limits.MAX_DECISION_PACKETS, members=(1 << limits.MAX_MEMBERS) - 1)
    assert same(decision, wire.decode(wire.encode(decision, ID), ID))


def test_oversized_is_refused_before_it_is_read() -> None:
    with pytest.raises(WireError, match="over the limit"):
        wire.decode(bytes(limits.MAX_MESSAGE_BYTES + 1), ID)


def test_decoded_arrays_are_writable_and_own_their_memory() -> None:
    coded = wire.encode(decided(3, members=1), ID)
    decision = wire.decode(memoryview(bytearray(coded)), ID)
    assert isinstance(decision, Decision)
    decision.time_us += 1
    decision.places[0][:] = 0


def test_numpy_numbers_travel_as_numbers() -> None:
    beat = Heartbeat(0, 0, VIEW, members=np.uint32(3), sent_ns=np.int64(-(1 << 62)))  # type: ignore[arg-type]
    assert wire.decode(wire.encode(beat, ID), ID) == Heartbeat(0, 0, VIEW, members=3, speaks=2, sent_ns=-(1 << 62))


def test_the_page_shows_the_tables() -> None:
    """docs/wire.md carries `describe()` between its markers; `python -m ftnids.peers.wire` prints it."""
    shown = re.search(r"<!-- tables -->\n(.*)<!-- end -->", DOC.read_text(), re.DOTALL)
    assert shown is not None
    assert shown.group(1) == wire.describe()


@kinds
def test_every_field_of_every_record_is_on_the_wire(kind: Kind) -> None:
    """A field that a table forgets would arrive as its default, unnoticed."""
    rows = " ".join(wire._rows(wire.COMMON + wire.VERSIONS[wire.PROTOCOL][kind]))
    assert not [field.name for field in dataclasses.fields(KINDS[kind]) if f"`{field.name}`" not in rows]

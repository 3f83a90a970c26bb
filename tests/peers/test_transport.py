"""The transport, over loopback: what arrives, what is dropped and counted, and who is let in."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq

from ftnids import limits
from ftnids.errors import PeerError
from ftnids.peers import wire
from ftnids.peers.keys import Keys, derived
from ftnids.peers.link import SILENCE_MS
from ftnids.peers.transport import Transport
from ftnids.sync.messages import Ack, Bytes, Kind, Message, Status, View

ID = b"cluster1"
SECRET = bytes(32)
MEMBER_1 = derived(SECRET, 2, 1)  # of two
VIEW = View(1, 1, 0, 1)
PATIENCE_S = 10.0  # for what must happen in the end; nothing here asserts how soon


def ack(sender: int, acked: int = 0) -> Ack:
    return Ack(sender, 1, VIEW, acked=acked)


def free_addresses(count: int, host: str = "127.0.0.1") -> list[str]:
    """Addresses that nothing listened at a moment ago."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(family, socket.SOCK_STREAM)) for _ in range(count)]
        for one in sockets:
            one.bind((host, 0))
        ports = [one.getsockname()[1] for one in sockets]
    shown = f"[{host}]" if ":" in host else host
    return [f"tcp://{shown}:{port}" for port in ports]


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def curve(count: int) -> list[Keys]:
    """Keys of their own for `count` members."""
    pairs = [zmq.curve_keypair() for _ in range(count)]
    return [Keys(secret, tuple((public,) for public, _ in pairs)) for _, secret in pairs]


def transport(me: int, addresses: list[str], keys: Keys | None = None) -> Transport:
    """The transport of member `me`; its keys come from the secret unless it is given some."""
    return Transport(me, addresses, cluster_id=ID, keys=keys or derived(SECRET, len(addresses), me))


def until(done: Callable[[], bool], *transports: Transport) -> list[Message]:
    """Let `transports` work until `done`; returns what they received."""
    messages: list[Message] = []
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, [dict(transport.counters) for transport in transports]
        for transport in transports:
            messages += transport.receive(0.005)
    return messages


def received(transport: Transport, count: int) -> Callable[[], bool]:
    return lambda: transport.counters["messages_received"] == count


def meet(*transports: Transport) -> None:
    """Let all find all."""
    count = len(transports)
    pairs = [(one, other) for one in range(count) for other in range(count) if one != other]
    until(lambda: all(transports[one].connected(other) for one, other in pairs), *transports)


@pytest.fixture
def made() -> Iterator[list[Transport]]:
    transports: list[Transport] = []
    yield transports
    for transport in transports:
        transport.close()


@pytest.fixture(params=["derived", "own"])
def three(request: pytest.FixtureRequest, made: list[Transport]) -> list[Transport]:
    addresses = free_addresses(3)
    pairs = curve(3) if request.param == "own" else [derived(SECRET, 3, m) for m in range(3)]
    made += [Transport(m, addresses, cluster_id=ID, keys=pairs[m], names="abc") for m in range(3)]
    meet(*made)
    return made


@contextlib.contextmanager
def bare(address: str, me: Keys | None) -> Iterator[zmq.Socket[bytes]]:
    """A bare socket connected to `address` of member 0, as whom `me` has the keys of."""
    context = zmq.Context()
    push = context.socket(zmq.PUSH)
    push.linger = 0
    if me is not None:
        push.curve_secretkey, push.curve_publickey = me.secret, zmq.curve_public(me.secret)
        push.curve_serverkey = me.members[0][0]
    push.connect(address)
    try:
        yield push
    finally:
        context.destroy(linger=0)


def test_all_hear_all(three: list[Transport]) -> None:
    for one in range(3):
        assert three[one].send_to(range(3), ack(one, acked=10 + one)) == 2
    heard = until(lambda: all(t.counters["messages_received"] == 2 for t in three), *three)
    assert sorted(m.acked for m in heard if isinstance(m, Ack)) == [10, 10, 11, 11, 12, 12]
    sent = len(wire.encode(ack(0), ID))
    assert all(t.counters["bytes_sent"] == t.counters["bytes_received"] == 2 * sent for t in three)
    assert all(t.counters["messages_sent"] == 2 for t in three)


def test_a_large_message_arrives_whole(three: list[Transport]) -> None:
    data = np.random.default_rng(1).bytes(200_000)
    size = np.array([len(data)], np.uint32)
    sent = Bytes(0, 1, VIEW, seq=np.array([5]), hash=np.array([6], np.uint64), caplen=size, wirelen=size, data=data)
    assert three[0].send(2, sent)
    (heard,) = until(lambda: three[2].counters["messages_received"] == 1, *three)
    assert isinstance(heard, Bytes)
    assert heard.data == data


def test_order_is_kept_and_batches_are_bounded(three: list[Transport]) -> None:
    count = 2 * limits.RECEIVE_BATCH + 5
    assert all(three[0].send(1, ack(0, acked=n)) for n in range(count))
    heard: list[Message] = []
    while len(heard) < count:
        batch = three[1].receive(PATIENCE_S)
        assert len(batch) <= limits.RECEIVE_BATCH
        heard += batch
    assert [m.acked for m in heard if isinstance(m, Ack)] == list(range(count))


def test_a_peer_that_is_not_there_costs_nothing(made: list[Transport]) -> None:
    made.append(transport(0, free_addresses(2)))
    assert not made[0].send(1, ack(0))
    assert made[0].counters["dropped_unconnected"] == 1


def test_a_restarted_peer_gets_new_messages_and_no_old_ones(made: list[Transport]) -> None:
    addresses = free_addresses(2)
    made += [transport(m, addresses) for m in range(2)]
    meet(*made)
    made.pop().close()
    until(lambda: not made[0].connected(1), made[0])
    assert not made[0].send(1, ack(0, acked=1))
    made.append(transport(1, addresses))
    meet(*made)
    assert made[0].send(1, ack(0, acked=2))
    assert made[1].send(0, ack(1, acked=3))
    heard = until(lambda: all(t.counters["messages_received"] for t in made), *made)
    assert sorted(m.acked for m in heard if isinstance(m, Ack)) == [2, 3]
    assert made[0].counters["disconnects"] == 1
    assert made[0].counters["connects"] == 2


def test_tcp_gives_up_silent_connections_and_zeromq_does_not(three: list[Transport]) -> None:
    """libzmq aborts where a PING is answered to a peer that is gone: docs/decisions/0060-tcp-gives-up.md."""
    for transport in three:
        for link in transport._links.values():
            assert link.socket.get(zmq.HEARTBEAT_IVL) == 0
            assert link.socket.get(zmq.TCP_MAXRT) == SILENCE_MS
        assert transport._inbox.get(zmq.TCP_KEEPALIVE) == 1


def test_a_stuck_peer_fills_its_own_queue_only(monkeypatch: pytest.MonkeyPatch, made: list[Transport]) -> None:
    """Member 1 reads nothing: sends to it fail in the end, sends to member 2 go on."""
    monkeypatch.setattr(limits, "SEND_QUEUE_MESSAGES", 4)
    monkeypatch.setattr(limits, "RECEIVE_QUEUE_MESSAGES", 4)
    addresses = free_addresses(3)
    made += [transport(m, addresses) for m in range(3)]
    meet(*made)
    status = Status(0, 1, VIEW, snapshot=bytes(60_000))
    until(lambda: not made[0].send(1, status), made[0])
    assert made[0].counters["dropped_full"] == 1
    assert made[0].send(2, ack(0, acked=7))
    assert until(lambda: made[2].counters["messages_received"] == 1, made[2]) == [ack(0, acked=7)]


def test_large_messages_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch, made: list[Transport]) -> None:
    monkeypatch.setattr(limits, "SEND_QUEUE_BYTES", 3 << 20)
    monkeypatch.setattr(limits, "RECEIVE_QUEUE_MESSAGES", 2)
    addresses = free_addresses(2)
    made += [transport(m, addresses) for m in range(2)]
    meet(*made)
    large = Status(0, 1, VIEW, snapshot=bytes(limits.MAX_STATUS_BYTES))
    until(lambda: not made[0].send(1, large), made[0])
    assert made[0].counters["dropped_full"] == 1
    sent = made[0].counters["messages_sent"]
    until(lambda: made[1].counters["messages_received"] == sent, *made)
    assert made[0].send(1, large)


def test_an_unsendable_message_is_counted(three: list[Transport]) -> None:
    assert not three[0].send(1, ack(0, acked=-1))
    assert three[0].counters["dropped_unsendable"] == 1


def test_clean_leave_delivers_what_is_queued(monkeypatch: pytest.MonkeyPatch, made: list[Transport]) -> None:
    """More is queued than the peer's side takes before it begins to read."""
    monkeypatch.setattr(limits, "RECEIVE_QUEUE_MESSAGES", 2)
    addresses = free_addresses(2)
    made += [transport(m, addresses) for m in range(2)]
    meet(*made)
    large = Status(0, 1, VIEW, snapshot=bytes(limits.MAX_STATUS_BYTES))
    count = 40
    assert all(made[0].send(1, large) for _ in range(count))
    closer = threading.Thread(target=made.pop(0).close, args=(PATIENCE_S,))
    closer.start()
    until(received(made[0], count), made[0])
    closer.join()


def test_wake_interrupts_receive(made: list[Transport]) -> None:
    made.append(transport(0, free_addresses(2)))
    waker = threading.Thread(target=made[0].wake)
    waker.start()
    assert made[0].receive(PATIENCE_S * 100) == []  # without `wake` this test would never end
    waker.join()


def test_wake_after_close_writes_nowhere(made: list[Transport]) -> None:
    """A signal may come then; the number of the closed event file may be another file's."""
    one = transport(0, free_addresses(2))
    one.close()
    one.wake()


def test_ipv6(made: list[Transport]) -> None:
    try:
        addresses = free_addresses(2, "::1")
    except OSError:
        pytest.skip("this host has no IPv6 loopback")
    made += [transport(m, addresses) for m in range(2)]
    meet(*made)
    assert made[0].send(1, ack(0))
    assert until(lambda: made[1].counters["messages_received"] == 1, *made) == [ack(0)]


def test_the_newest_common_version_is_spoken(made: list[Transport]) -> None:
    """A peer of which nothing is known is spoken to in the older version; once heard, in what it speaks."""
    addresses = free_addresses(2)
    with zmq.Context() as context, context.socket(zmq.PULL) as peer, bare(addresses[0], MEMBER_1) as push:
        peer.curve_server, peer.curve_secretkey = True, MEMBER_1.secret
        peer.bind(addresses[1])
        made.append(transport(0, addresses))
        until(lambda: made[0].connected(1), made[0])
        message, versions = ack(0), []
        for newest in (2, 1, 3):
            assert made[0].send(1, message)
            versions.append(peer.recv()[wire.VERSION_AT])
            heard = bytearray(wire.encode(ack(1), ID, 1))
            heard[wire.NEWEST_AT] = newest
            push.send(heard)
            until(received(made[0], len(versions)), made[0])
        assert made[0].send(1, message)
        versions.append(peer.recv()[wire.VERSION_AT])
    assert versions == [1, 2, 1, 2]


def test_a_peer_that_comes_back_is_spoken_to_in_the_older_version_again(made: list[Transport]) -> None:
    """It may have been rolled back."""
    addresses = free_addresses(2)
    made += [transport(m, addresses) for m in range(2)]
    meet(*made)
    assert made[1].send(0, ack(1))
    until(received(made[0], 1), *made)
    assert made[0]._links[1].version == wire.PROTOCOL
    made.pop().close()
    until(lambda: not made[0].connected(1), made[0])
    assert made[0]._links[1].version == wire.oldest()


def test_a_member_whose_versions_do_not_meet_is_in_the_warnings_until_it_is_understood(made: list[Transport]) -> None:
    addresses = free_addresses(2)
    made.append(transport(0, addresses))
    with bare(addresses[0], MEMBER_1) as push:
        passing = bytearray(wire.encode(ack(1), ID))
        passing[wire.VERSION_AT] = passing[wire.NEWEST_AT] = wire.PROTOCOL + 1
        push.send(passing)
        until(lambda: made[0].counters["dropped_version"] == 1, made[0])
        assert made[0].warnings == []
        push.send(GARBAGE["dropped_version"][0])
        until(lambda: made[0].counters["dropped_version"] == 2, made[0])
        (warning,) = made[0].warnings
        assert warning.startswith("1 speaks protocol 8-9, this replica 1-2: upgrade this replica")
        push.send(wire.encode(ack(1), ID))
        until(received(made[0], 1), made[0])
        assert made[0].warnings == []


# -- what is not accepted ---------------------------------------------------------------------------


GARBAGE: dict[str, list[bytes]] = {
    "dropped_malformed": [b"", b"hello", wire.encode(ack(1), ID)[:-1], wire.encode(ack(1), ID) + b"x"],
    "dropped_oversized": [bytes(limits.MAX_MESSAGE_BYTES + 1)],
    "dropped_foreign": [wire.encode(ack(1), b"cluster2")],
    "dropped_version": [wire.MAGIC + b"\x09\x09" + ID + bytes((Kind.ACK, 1))],
    "dropped_spoofed": [wire.encode(ack(0), ID), wire.encode(ack(2), ID)],
}


@pytest.mark.parametrize("counter", GARBAGE)
def test_what_is_not_accepted_is_dropped_and_counted(counter: str, made: list[Transport]) -> None:
    addresses = free_addresses(2)
    made.append(transport(0, addresses))
    with bare(addresses[0], MEMBER_1) as push:
        for data in GARBAGE[counter]:
            push.send(data)
        assert until(lambda: made[0].counters[counter] == len(GARBAGE[counter]), made[0]) == []
        push.send_multipart([wire.encode(ack(1), ID), b"more"])
        push.send(wire.encode(ack(1), ID))
        assert until(lambda: made[0].counters["messages_received"] == 1, made[0]) == [ack(1)]
    drops = {name: count for name, count in made[0].counters.items() if name.startswith("dropped") and count}
    expected = {counter: len(GARBAGE[counter])}
    expected["dropped_malformed"] = expected.get("dropped_malformed", 0) + 1
    assert drops == expected


def test_the_log_says_what_to_do_once(made: list[Transport], capsys: pytest.CaptureFixture[str]) -> None:
    addresses = free_addresses(2)
    made.append(transport(0, addresses))
    with bare(addresses[0], MEMBER_1) as push:
        for _ in range(25):
            push.send(GARBAGE["dropped_version"][0])
            push.send(GARBAGE["dropped_foreign"][0])
        until(lambda: made[0].counters["dropped_version"] + made[0].counters["dropped_foreign"] == 50, made[0])
    shown = capsys.readouterr().err
    assert (
        shown.count("speaks protocol 8-9, this replica 1-2: upgrade this replica, first to a release that speaks 8")
        == 1
    )
    assert shown.count("belongs to another cluster: compare cluster.name and the secret") == 1
    assert f"peer='1 {addresses[1]}'" in shown


def test_a_member_cannot_speak_for_another(made: list[Transport]) -> None:
    addresses, pairs = free_addresses(3), curve(3)
    made.append(transport(0, addresses, pairs[0]))
    with bare(addresses[0], pairs[2]) as push:
        push.send(wire.encode(ack(1), ID))
        push.send(wire.encode(ack(2), ID))
        assert until(received(made[0], 1), made[0]) == [ack(2)]
    assert made[0].counters["dropped_spoofed"] == 1


def test_a_member_that_sends_too_much_of_it_is_shut_out(
    monkeypatch: pytest.MonkeyPatch, made: list[Transport], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "BAD_MESSAGES_A_SECOND", 0)
    addresses = free_addresses(3)
    made += [transport(m, addresses) for m in range(2)]
    until(lambda: made[0].connected(1) and made[1].connected(0), *made)
    with bare(addresses[0], derived(SECRET, 3, 2)) as push:
        for _ in range(10 * limits.BAD_MESSAGES):
            push.send(GARBAGE["dropped_version"][0])
        until(lambda: made[0].counters["shut_out"] == 1, made[0])
        until(lambda: made[0].counters["rejected_handshakes"] >= 1, made[0])  # it comes back, and is not let in
        assert made[0].counters["connections_cut"] == 1
        assert made[1].send(0, ack(1))  # nobody else is
        assert until(received(made[0], 1), *made) == [ack(1)]
    assert made[0].counters["rejected_keys"] == 0
    assert capsys.readouterr().err.count("peer_shut_out") == 1


# -- who is not let in --------------------------------------------------------------------------------


def strangers() -> dict[str, Keys | None]:
    """Keys with which nobody may come to a member 0 that has the derived keys of two."""
    own, members = derived(SECRET, 2, 0), derived(SECRET, 2, 1).members
    return {
        "rejected_keys: another key": Keys(curve(1)[0].secret, members),
        "rejected_keys: the server's own": own,
        "rejected_handshakes: none": None,
        "rejected_handshakes: another secret's": derived(b"1" * 32, 2, 1),
    }


@pytest.mark.parametrize("who", strangers())
def test_a_stranger_is_refused(who: str, made: list[Transport]) -> None:
    addresses, counter = free_addresses(2), who.partition(":")[0]
    made.append(transport(0, addresses))
    with bare(addresses[0], strangers()[who]) as push, contextlib.suppress(zmq.Again):
        push.send(wire.encode(ack(1), ID), zmq.NOBLOCK)
        assert until(lambda: made[0].counters[counter] >= 1, made[0]) == []
    assert made[0].counters["messages_received"] == made[0].counters["dropped_malformed"] == 0


STRAY: dict[str, bytes] = {
    "random": np.random.default_rng(1).bytes(1000),
    "zmtp 1": b"\x01\x00" + b"\x06\x00hello",  # an anonymous sender, then a frame
    "a greeting without a key": b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48),
    "a long command": b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(47) + b"\x06" + (1 << 62).to_bytes(8),
}


@pytest.mark.parametrize("what", STRAY)
def test_stray_bytes_end_their_connection_and_nothing_else(what: str, made: list[Transport]) -> None:
    addresses = free_addresses(2)
    made += [transport(m, addresses) for m in range(2)]
    meet(*made)
    with socket.create_connection(("127.0.0.1", port_of(addresses[0]))) as stray:
        stray.sendall(STRAY[what])
        until(lambda: made[0].counters["rejected_handshakes"] == 1, *made)
    assert made[1].send(0, ack(1))
    assert until(received(made[0], 1), *made) == [ack(1)]
    assert made[0].counters["disconnects"] == 0


def test_a_stranger_that_says_nothing_is_hung_up_on(made: list[Transport]) -> None:
    addresses = free_addresses(2)
    made.append(transport(0, addresses))
    with socket.create_connection(("127.0.0.1", port_of(addresses[0]))):
        until(lambda: made[0].counters["rejected_handshakes"] == 1, made[0])


def test_a_server_with_another_key_gets_nothing(made: list[Transport]) -> None:
    """Who answers at member 1's address must prove to be member 1."""
    addresses, pairs, others = free_addresses(2), curve(2), curve(2)
    made.append(transport(0, addresses, pairs[0]))
    made.append(transport(1, addresses, others[1]))
    until(lambda: made[1].counters["rejected_handshakes"] + made[1].counters["rejected_keys"] > 0, *made)
    assert not made[0].send(1, ack(0))
    assert not made[0].connected(1)


# -- set-up errors --------------------------------------------------------------------------------


def refused(reason: str, addresses: list[str], pair: Keys | None = None) -> None:
    with pytest.raises(PeerError, match=reason) as raised:
        transport(0, addresses, pair)
    assert "\n" not in str(raised.value)


def test_set_up_errors_are_one_clear_line(made: list[Transport]) -> None:
    addresses = free_addresses(2)
    made.append(transport(0, addresses))
    refused(f"{addresses[0]} is in use", addresses)
    refused("is not loopback: peers need CURVE", ["tcp://127.0.0.1:5701", "tcp://192.0.2.1:5701"])
    refused("is not loopback: peers need CURVE", ["tcp://0.0.0.0:5701", "tcp://127.0.0.1:5701"])
    refused("is no address of this host", ["tcp://192.0.2.1:5701", "tcp://192.0.2.2:5701"], curve(2)[0])
    refused("cannot be connected to", [addresses[1], "tcp://0.0.0.0:5701"], curve(2)[0])
    refused("is no address: write tcp://HOST:PORT", ["127.0.0.1:5701", addresses[1]])
    refused("port 70000 is not in 1 to 65535", ["tcp://127.0.0.1:70000", addresses[1]])

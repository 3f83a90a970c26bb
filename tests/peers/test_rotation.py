"""Keys change while messages flow: nobody is missed for long, and what is withdrawn lets nobody in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest
import zmq

from ftnids.errors import PeerError
from ftnids.peers import wire
from ftnids.peers.keys import Keys, derived
from ftnids.peers.transport import Transport
from tests.peers.test_transport import ID, SECRET, ack, bare, free_addresses, meet, received, transport, until

Pair = tuple[bytes, bytes]  # public, secret


class Set:
    """Three transports, and the keys that each is configured with."""

    def __init__(self, count: int = 3) -> None:
        self.addresses = free_addresses(count)
        self.pairs: list[Pair] = [zmq.curve_keypair() for _ in range(count)]
        self.accepted: list[list[bytes]] = [[public] for public, _ in self.pairs]
        self.transports = [
            Transport(m, self.addresses, cluster_id=ID, keys=self.keys(m), names="abc") for m in range(count)
        ]

    def keys(self, member: int) -> Keys:
        """What the files of `member` hold now."""
        return Keys(self.pairs[member][1], tuple(tuple(keys) for keys in self.accepted))

    def renew(self, *members: int) -> None:
        """A signal to `members` to read their files again."""
        for member in members:
            self.transports[member].renew(self.keys(member))
            assert not self.transports[member].renew(self.keys(member)), "the same again"

    def talk(self, number: int) -> None:
        """Everybody tells everybody `number`, as often as it takes."""
        heard: set[tuple[int, int]] = set()
        deadline = time.monotonic() + 10
        while len(heard) < len(self.transports) * (len(self.transports) - 1):
            assert time.monotonic() < deadline, (number, sorted(heard))
            for me, one in enumerate(self.transports):
                one.send_to(range(len(self.transports)), ack(me, acked=number))
                messages = one.receive(0.002)
                heard |= {(message.sender, me) for message in messages if message == ack(message.sender, acked=number)}


@pytest.fixture
def made() -> Iterator[Set]:
    whole = Set()
    meet(*whole.transports)
    yield whole
    for one in whole.transports:
        one.close()


def everybody(but: int | None = None) -> Sequence[int]:
    return [member for member in range(3) if member != but]


def test_keys_change_one_by_one_while_messages_flow(made: Set) -> None:
    """The procedure of docs/security.md, for each replica in turn."""
    number = 0
    for member in range(3):
        old, new = made.pairs[member], zmq.curve_keypair()
        made.accepted[member] = [new[0], old[0]]  # everybody accepts both
        made.renew(*everybody())
        made.talk(number := number + 1)
        made.pairs[member] = new  # the replica takes the new one
        made.renew(member)
        made.talk(number := number + 1)
        made.accepted[member] = [new[0]]  # nobody accepts the old one any more
        made.renew(*everybody())
        made.talk(number := number + 1)
    counters = [one.counters for one in made.transports]
    assert not any(one["rejected_keys"] or one["dropped_spoofed"] or one["shut_out"] for one in counters), counters


def test_a_replica_that_restarts_half_way_is_found_with_either_key(made: Set) -> None:
    old, new = made.pairs[1], zmq.curve_keypair()
    made.accepted[1] = [new[0], old[0]]
    made.renew(0, 2)
    for pair in (old, new, old):
        made.transports[1].close()
        made.pairs[1] = pair
        made.transports[1] = Transport(1, made.addresses, cluster_id=ID, keys=made.keys(1), names="abc")
        made.talk(int.from_bytes(pair[1][:4]))


def test_a_replica_that_took_its_new_key_too_early_is_let_in_once_it_is_known(made: Set) -> None:
    new = zmq.curve_keypair()
    made.pairs[1] = new
    before, made.accepted[1] = made.accepted[1], [new[0]]
    made.renew(1)
    until(lambda: all(made.transports[other].counters["rejected_keys"] >= 2 for other in (0, 2)), *made.transports)
    made.accepted[1] = [new[0], *before]
    made.renew(0, 2)
    made.talk(1)


def test_a_withdrawn_key_ends_the_connections_that_stand(made: Set) -> None:
    """A stolen replica is thrown out: the others get a key for it that nobody has."""
    made.accepted[2] = [zmq.curve_keypair()[0]]
    made.renew(0, 1)
    stolen = made.transports[2]
    stolen.send(0, ack(2))
    until(lambda: made.transports[0].counters["dropped_unwelcome"] == 1, *made.transports)
    until(lambda: made.transports[0].counters["rejected_keys"] >= 1, *made.transports)  # it tries again, in vain
    until(lambda: not stolen.connected(0) and not stolen.send(0, ack(2)), *made.transports)
    assert made.transports[0].counters["messages_received"] == 0
    assert made.transports[0].connected(1)
    until(lambda: not made.transports[0].connected(2), *made.transports)  # and hears nothing either
    assert made.transports[1].send(0, ack(1))
    assert until(received(made.transports[0], 1), *made.transports) == [ack(1)]


def test_the_old_key_does_nothing_afterwards(made: Set) -> None:
    stolen = made.pairs[1]
    made.pairs[1] = zmq.curve_keypair()
    made.accepted[1] = [made.pairs[1][0]]
    made.renew(*everybody())
    made.talk(1)
    with bare(made.addresses[0], Keys(stolen[1], made.keys(0).members)) as push:
        push.send(wire.encode(ack(1, acked=77), ID))
        heard = until(lambda: made.transports[0].counters["rejected_keys"] >= 1, *made.transports)
    assert ack(1, acked=77) not in heard


def test_keys_from_the_secret_stay_on_loopback() -> None:
    addresses = ["tcp://127.0.0.1:5701", "tcp://192.0.2.1:5701"]
    with pytest.raises(PeerError, match="is not loopback: peers need CURVE"):
        transport(0, addresses, derived(SECRET, 2, 0))

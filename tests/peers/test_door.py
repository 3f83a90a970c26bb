"""The door: what the kernel drops, what is cut, and who is told apart."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
from collections.abc import Iterator

import pytest

from ftnids import limits
from ftnids.errors import PeerError
from ftnids.peers import syn_filter
from ftnids.peers.addresses import parse
from ftnids.peers.budget import Budget
from ftnids.peers.door import Door

HERE = "tcp://127.0.0.1:{}"


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as held:
        held.bind((host, 0))
        return int(held.getsockname()[1])


@pytest.fixture
def door() -> Iterator[Door]:
    address = parse(HERE.format(free_port()))
    made = Door(address, [parse(HERE.format(1))])
    yield made
    made.close()


@contextlib.contextmanager
def came_in(door: Door, host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection to `door`: the far end, and the near end as a library would hold it."""
    with socket.socket(fileno=door.listener()) as listener:
        far = socket.create_connection(listener.getsockname()[:2], source_address=(host, 0))
        select.select([listener], [], [], 10)
        near, _ = listener.accept()
    with far, near:
        yield far, near


def refused(address: tuple[str, int], source: str) -> bool:
    """Whether a connection request gets no answer."""
    with socket.socket() as knocking:
        knocking.settimeout(0.2)  # over loopback, where an answer comes at once
        knocking.bind((source, 0))
        try:
            knocking.connect(address)
        except TimeoutError:
            return True
        return False


def test_a_budget_fills_up_again() -> None:
    budget = Budget(rate=2, burst=3)
    assert [budget.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.take(10.5), budget.take(10.5)] == [True, False]
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("drop_hosts", [False, True])
@pytest.mark.parametrize("drop_others", [False, True])
def test_the_kernel_drops_whom_the_filter_names(drop_hosts: bool, drop_others: bool) -> None:
    """Members at 127.0.0.2 and elsewhere, another host at 127.0.0.3; what stands goes on."""
    names = ("192.0.2.1", "127.0.0.2", "2001:db8::1", "2001:db8:0:1::2")
    with socket.create_server(("0.0.0.0", 0)) as listener:
        address = ("127.0.0.1", int(listener.getsockname()[1]))
        with socket.create_connection(address) as far, listener.accept()[0] as near:
            hosts = [ipaddress.ip_address(name) for name in names]
            syn_filter.attach(listener, syn_filter.program(hosts, drop_hosts=drop_hosts, drop_others=drop_others))
            assert [refused(address, host) for host in ("127.0.0.2", "127.0.0.3")] == [drop_hosts, drop_others]
            far.sendall(b"still here")
            assert near.recv(100) == b"still here"
        syn_filter.detach(listener)
        assert not refused(address, "127.0.0.2")


def test_the_filter_tells_ipv6_hosts_apart() -> None:
    """The last word of an address counts as the first does."""
    try:
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError:
        pytest.skip("this host has no IPv6")
    with listener:
        port = int(listener.getsockname()[1])
        for members, dropped in ((["::2", "::1"], True), (["::2", "1::1", "0:0:1::1"], False)):
            hosts = [ipaddress.ip_address(name) for name in members]
            syn_filter.attach(listener, syn_filter.program(hosts, drop_hosts=True, drop_others=False))
            with socket.socket(socket.AF_INET6) as knocking:
                knocking.settimeout(0.2)
                with pytest.raises(TimeoutError) if dropped else contextlib.nullcontext():
                    knocking.connect(("::1", port))
            assert not refused(("127.0.0.1", port), "127.0.0.1")


def test_who_knocks_without_end_finds_the_door_closed_for_a_while(
    monkeypatch: pytest.MonkeyPatch, door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "MAX_STRANGERS", 1_000)
    for count in range(limits.KNOCKS + 1):
        assert not door.closed, count
        with came_in(door) as (far, near):
            address = far.getpeername()
            door.accepted(near.fileno(), 1.0)
            assert door.gone(near.fileno())
    assert door.closed
    assert door.closings == 1
    assert refused(address, "127.0.0.1")
    door.look(1.0 + limits.DOOR_CLOSED_S / 2)
    assert refused(address, "127.0.0.1")
    door.look(1.0 + limits.DOOR_CLOSED_S)
    assert not refused(address, "127.0.0.1")
    assert capsys.readouterr().err.count("peers_door_closed") == 1


def test_strangers_do_not_keep_members_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off loopback; members' hosts are known by their addresses."""
    monkeypatch.setattr(limits, "MAX_STRANGERS", 1_000)
    monkeypatch.setattr("ftnids.peers.door._hosts", lambda members: [ipaddress.ip_address("127.0.0.2")])
    door = Door(parse(HERE.format(free_port())), [])
    with contextlib.closing(door):
        for _ in range(limits.KNOCKS + 1):
            with came_in(door) as (far, near):
                address = far.getpeername()
                door.accepted(near.fileno(), 1.0)
                door.gone(near.fileno())
        assert refused(address, "127.0.0.1")
        assert not refused(address, "127.0.0.2")


def test_strangers_beyond_the_limit_are_cut(monkeypatch: pytest.MonkeyPatch, door: Door) -> None:
    monkeypatch.setattr(limits, "MAX_STRANGERS", 2)
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(came_in(door)) for _ in range(4)]
        for number, (_, near) in enumerate(ends):
            door.accepted(near.fileno(), 1.0)
            if number == 1:
                door.is_members(near.fileno(), 1)
        for far, _ in ends[:3]:
            far.setblocking(False)
            with pytest.raises(BlockingIOError):
                far.recv(1)
        with pytest.raises(ConnectionResetError):
            ends[3][0].recv(1)
    assert door.cuts == 1


def test_a_stranger_that_says_nothing_does_not_stay(monkeypatch: pytest.MonkeyPatch, door: Door) -> None:
    """And one whose end nobody told of does not count for ever."""
    monkeypatch.setattr(limits, "MAX_STRANGERS", 2)
    with came_in(door) as (_, near):
        untold = near.fileno()
        door.accepted(untold, 1.0)
    with came_in(door) as (silent, near), came_in(door) as (later, near_later):
        door.accepted(near.fileno(), 1.0)
        door.accepted(near_later.fileno(), 1.1 + limits.STRANGER_S)
        with pytest.raises(ConnectionResetError):
            silent.recv(1)
        later.setblocking(False)
        with pytest.raises(BlockingIOError):
            later.recv(1)


def test_a_member_that_comes_again_and_again_loses_its_oldest_connection(door: Door) -> None:
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(came_in(door)) for _ in range(limits.CONNECTIONS_A_MEMBER + 1)]
        for _, near in ends:
            door.accepted(near.fileno(), 1.0)
            door.is_members(near.fileno(), 1)
            door.is_members(near.fileno(), 1)
        with pytest.raises(ConnectionResetError):
            ends[0][0].recv(1)
        door.cut_member(1)
        for far, _ in ends[1:]:
            with pytest.raises(ConnectionResetError):
                far.recv(1)
    assert door.cuts == len(ends)


def test_what_is_no_connection_to_the_door_is_never_cut(door: Door) -> None:
    """The number of a connection that is gone may be another thing's by now."""
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        far = stack.enter_context(socket.create_connection(other.getsockname()))
        near = stack.enter_context(other.accept()[0])
        for fd in (-1, other.fileno(), near.fileno()):
            door.cut(fd)
        far.sendall(b"alive")
        assert near.recv(10) == b"alive"
    assert door.cuts == 0


def test_an_address_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        address = parse(HERE.format(held.getsockname()[1]))
        with pytest.raises(PeerError, match="is in use: stop the program that listens there"):
            Door(address, [])

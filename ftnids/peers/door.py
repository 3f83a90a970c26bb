"""The door: the socket that listens for peers, and how often somebody may knock.

Theory of operation

Whoever reaches the port can connect.  Without a member's key he comes no further, but each try costs the thread that
carries all messages a handshake (a millisecond), and the main loop some events: a few thousand tries a second from one
process would leave the set no time.  So tries are counted as they are accepted, against a budget (KNOCKS,
KNOCKS_A_SECOND).  When it is used up the door closes for DOOR_CLOSED_S: the kernel drops further connection
requests (`syn_filter.py`) and they cost this replica nothing.  Connections that stand do not notice.

There are two budgets, one for the hosts of members and one for all others, so that a stranger's host cannot keep
members out.  On one host (all addresses loopback) they cannot be told apart: while somebody there knocks without
end, a member that lost its connection has to find the door open.

A connection is a stranger's until a member's message has come over it.  No more than MAX_STRANGERS stay, and a
member has at most CONNECTIONS_A_MEMBER: so what unread messages can hold is bounded.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterable
from typing import Final

from ftnids import limits, log
from ftnids.errors import PeerError
from ftnids.peers import syn_filter
from ftnids.peers.addresses import Address
from ftnids.peers.budget import Budget

_REASONS: Final = {
    errno.EADDRINUSE: "is in use: stop the program that listens there, or change the address in cluster.member",
    errno.EADDRNOTAVAIL: "is no address of this host: correct replica.name or the address in cluster.member",
    errno.EACCES: "may not be bound by this user: choose a port from 1024 on",
}


class Door:
    """The listening socket at this replica's address."""

    def __init__(self, address: Address, members: Iterable[Address]) -> None:
        """Listen at `address`; `members` are the others' addresses.  PeerError if that cannot be."""
        self._socket = _listen(address)
        self._port = address.port
        self._hosts = frozenset(_hosts(members))
        self._budgets = {of: Budget(limits.KNOCKS_A_SECOND, limits.KNOCKS) for of in (True, False)}
        self._closed: dict[bool, float] = {}  # members' hosts or not -> when to open again
        self._strangers: dict[int, float] = {}  # accepted, and no member's yet, and when; oldest first
        self._members: dict[int, list[int]] = {}  # member -> connections, oldest first
        self._log, self._limiter = log.get("peers"), log.Limiter()
        self.closings = self.cuts = 0

    def listener(self) -> int:
        """A file descriptor of the listening socket, for a library to own."""
        return os.dup(self._socket.fileno())

    def accepted(self, fd: int, now_s: float) -> None:
        """Somebody came in as `fd`."""
        self._strangers.pop(fd, None)
        for old in [old for old, since in self._strangers.items() if now_s - since > limits.STRANGER_S]:
            self.cut(old)  # or its end was not told: there may be more to tell than is listened to
        self._strangers[fd] = now_s
        host = self._peer(fd)
        known = host in self._hosts
        if not self._budgets[known].take(now_s) and known not in self._closed:
            self._shut(known, now_s, str(host or "a host that is gone again"))
        if len(self._strangers) > limits.MAX_STRANGERS:
            self.cut(fd)

    def is_members(self, fd: int, member: int) -> None:
        """A message of `member` came over `fd`."""
        mine = self._members.setdefault(member, [])
        if fd in mine:
            return
        for others in self._members.values():  # the number was somebody else's before
            if fd in others:
                others.remove(fd)
        self._strangers.pop(fd, None)
        mine.append(fd)
        if len(mine) > limits.CONNECTIONS_A_MEMBER:
            self.cut(mine[0])

    def gone(self, fd: int) -> bool:
        """The connection `fd` is closed; whether it was a stranger's to the end."""
        for connections in self._members.values():
            if fd in connections:
                connections.remove(fd)
        return self._strangers.pop(fd, None) is not None

    def forget(self) -> None:
        """All connections are closed."""
        self._strangers.clear()
        self._members.clear()

    def cut(self, fd: int) -> None:
        """End the connection `fd` now; whoever it is has to knock again."""
        self.gone(fd)
        with contextlib.suppress(OSError):  # it is gone already
            if self._peer(fd) is not None:
                syn_filter.reset(fd)
                self.cuts += 1

    def cut_member(self, member: int) -> None:
        """End all connections of `member`."""
        for fd in list(self._members.get(member, ())):
            self.cut(fd)

    def look(self, now_s: float) -> None:
        """Open again what has been closed for long enough."""
        due = [known for known, until in self._closed.items() if now_s >= until]
        for known in due:
            del self._closed[known]
        if due:
            self._apply()

    @property
    def closed(self) -> bool:
        """Whether somebody's requests are dropped now."""
        return bool(self._closed)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def _shut(self, known: bool, now_s: float, host: str) -> None:
        self._closed[known] = now_s + limits.DOOR_CLOSED_S
        self.closings += 1
        self._apply()
        whom = "hosts of members" if known else "hosts that are no member's" if self._hosts else "this host"
        self._limiter.log(
            self._log,
            "warning",
            f"closed {known}",
            "peers_door_closed",
            peer=host,
            whom=whom,
            closings=self.closings,
            hint="it connects without end: stop it; connections that stand are not touched",
        )

    def _apply(self) -> None:
        """Tell the kernel whose connection requests to drop."""
        try:
            if self._closed:
                hosts = sorted(self._hosts, key=str)
                drop = {"drop_hosts": True in self._closed, "drop_others": False in self._closed}
                syn_filter.attach(self._socket, syn_filter.program(hosts, **drop))
            else:
                syn_filter.detach(self._socket)
        except OSError as error:  # the replica works on, less well protected
            self._limiter.log(self._log, "error", "filter", "peers_door_stuck", reason=error.strerror)

    def _peer(self, fd: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host at the other end of `fd`; None when it is no connection to this door (any more)."""
        try:
            with socket.socket(fileno=os.dup(fd)) as connection:
                if connection.getsockname()[1] != self._port:
                    return None
                host = ipaddress.ip_address(str(connection.getpeername()[0]).partition("%")[0])
        except (OSError, ValueError, IndexError, TypeError):
            return None
        mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
        return mapped or host


def _listen(address: Address) -> socket.socket:
    """A socket that listens at `address`.  PeerError if there can be none."""
    resolved = address.resolved()
    six = ":" in resolved.host
    listener = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.RECEIVE_BUFFER_BYTES)
        if six:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not resolved.wildcard))
        listener.setblocking(False)
        listener.bind((resolved.host, resolved.port))
        listener.listen(limits.CONNECTIONS)
    except OSError as error:
        listener.close()
        reason = _REASONS.get(error.errno or 0, f"cannot be bound: {error.strerror}")
        raise PeerError(f"{address.endpoint} {reason}") from None
    return listener


def _hosts(members: Iterable[Address]) -> Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Where members are, but on this host, where anybody may be; names as they resolve now."""
    for member in members:
        with contextlib.suppress(PeerError):
            host = member.resolved().numeric
            if host is not None and not host.is_loopback:
                yield host

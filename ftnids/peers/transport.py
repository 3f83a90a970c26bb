"""Messages between replicas, over ZeroMQ.

Theory of operation

Each replica binds one PULL socket at its own address and connects one PUSH socket to each peer, so that a pair of
replicas has two connections, one a direction.  PUSH and PULL rather than DEALER and ROUTER: a message is one
frame with no routing identity to forge or strip, nothing can be sent back by mistake, and every peer has a queue
of its own at the sender, whose limit is that peer's affair alone.

The protocol above resends what makes no progress, so the transport never waits and keeps nothing for the absent:

* `send` either queues a message or drops and counts it.  A queue exists only while the peer is connected
  (ZMQ_IMMEDIATE) and ends with the connection.  What TCP had taken by then may still arrive, late.
* Connections are retried every 20 ms, backing off to 500 ms, so that a restarted peer is heard at once.
* TCP gives up a connection on which nothing is acknowledged for 1.5 s.  That does not decide who is alive (the
  engine's heartbeats do, five times as fast); it cuts short TCP's retransmission back-off, which would delay the
  first message after a partition by many seconds.  ZeroMQ's own heartbeats would do it, too, but they can
  abort the process (docs/decisions/0060-tcp-gives-up.md).

Both ends always prove who they are (CURVE): a client goes on only with the peer's public key, a server lets in only
members' keys (`zap.py`), and a message whose sender is not the member of its connection is dropped.  A set on
loopback may do without keys of its own; then they come from the cluster's secret (`keys.py`).

Who is no member costs the set next to nothing (`door.py`), and neither does a member that sends what cannot be
accepted: a few messages a second are counted and said, beyond that its connections end and it is shut out for a
while.  `renew` changes keys while messages flow.

A transport belongs to one thread; only `wake` may be called from others.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from ftnids import limits, log
from ftnids.errors import PeerError, WireError
from ftnids.peers import wire
from ftnids.peers.addresses import Address, parse
from ftnids.peers.budget import Budget
from ftnids.peers.door import Door
from ftnids.peers.keys import Keys
from ftnids.peers.link import Link, Socket, set_common
from ftnids.peers.zap import Gatekeeper
from ftnids.sync.messages import Message

COUNTERS: Final = (
    "messages_sent",
    "messages_received",
    "bytes_sent",
    "bytes_received",
    "dropped_full",  # not sent: the peer's queue is full
    "dropped_unconnected",  # not sent: the peer is not there
    "dropped_unsendable",  # not sent: over a limit of the wire format
    "dropped_malformed",  # received and not understood
    "dropped_oversized",  # received and too long
    "dropped_foreign",  # received from another cluster
    "dropped_version",  # received in a protocol version that is not spoken here
    "dropped_spoofed",  # received from a member that it does not come from
    "dropped_unwelcome",  # received from a member that is shut out, or with a key that is withdrawn
    "rejected_keys",  # connections with a key that is no member's
    "rejected_handshakes",  # connections that ended before a member had spoken on them
    "connects",
    "disconnects",
    "connections_cut",  # ended here: strangers beyond the limit, members that sent too much of what is dropped
    "shut_out",  # times that a member was shut out for a while
    "door_closed",  # times that further connection requests were not taken for a while
)

_WATCHED_INBOX: Final = zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED


class _DroppedError(Exception):
    """A message that is not accepted: the end of its counter's name, and the reason."""

    def __init__(self, why: str, reason: str) -> None:
        super().__init__(reason)
        self.why = why


class Transport:
    """Sends messages to the peers and hands out those that come from them."""

    def __init__(
        self,
        me: int,
        addresses: Sequence[str],
        *,
        cluster_id: bytes,
        keys: Keys,
        names: Sequence[str] | None = None,
    ) -> None:
        """Bind at `addresses[me]` and connect to all others; `names` are the members' names, for the log.

        PeerError if an address is malformed, in use or not this host's, or needs keys of its replica's own.
        """
        self._counters: dict[str, int] = Counter(dict.fromkeys(COUNTERS, 0))
        self._me, self._cluster_id, self._keys = me, cluster_id, keys
        self.waited_s = 0.0  # how long `receive` has waited, ever
        self._names = list(names) if names else [str(member) for member in range(len(addresses))]
        self._log, self._limiter = log.get("peers"), log.Limiter()
        self._last: tuple[Message, int, bytes] | None = None  # encoded last: a message often goes to all
        self._apart: dict[int, tuple[str, float]] = {}  # members that speak no version that is spoken here: why, when
        self._bad = [Budget(limits.BAD_MESSAGES_A_SECOND, limits.BAD_MESSAGES) for _ in addresses]
        self._addresses = [parse(address) for address in addresses]
        _check_exposure(me, self._addresses, keys)
        self._door = Door(self._addresses[me], [a for member, a in enumerate(self._addresses) if member != me])
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._watched = -1  # of others, that `receive` returns for, too
        self._context: zmq.Context[Socket] = zmq.Context(1)
        self._links: dict[int, Link] = {}
        try:
            self._gatekeeper = Gatekeeper(self._context, keys.members, me)
            self._inbox, self._inbox_monitor = self._listen()
            for member in range(len(addresses)):
                if member != me:
                    self._links[member] = self._link(member)
        except BaseException:
            self._context.destroy(linger=0)
            self._door.close()
            os.close(self._wakeup)
            raise
        self._poller = zmq.Poller()
        for source in (self._wakeup, self._gatekeeper.socket, self._inbox, self._inbox_monitor):
            self._poller.register(source, zmq.POLLIN)
        for link in self._links.values():
            self._poller.register(link.monitor, zmq.POLLIN)

    @property
    def counters(self) -> dict[str, int]:
        """What has happened so far, by the names in COUNTERS."""
        now = dict(self._counters)
        now["connects"] += sum(link.connects for link in self._links.values())
        now["disconnects"] += sum(link.disconnects for link in self._links.values())
        now["connections_cut"], now["door_closed"] = self._door.cuts, self._door.closings
        return now

    def send(self, member: int, message: Message) -> bool:
        """Queue `message` for `member`; it must not be changed any more.  Never waits.

        False: not queued, for the reason that the counters say.
        """
        link = self._links[member]
        try:
            data = self._encoded(message, link.version)
        except WireError as error:
            if not link.connected:  # it is written as for the oldest version until the peer has spoken
                self._counters["dropped_unconnected"] += 1
                return False
            self._counters["dropped_unsendable"] += 1
            kind = type(message).__name__
            self._limiter.log(self._log, "error", f"unsendable {kind}", "unsendable", kind=kind, reason=str(error))
            return False
        if not link.send(data):
            self._counters["dropped_full" if link.connected else "dropped_unconnected"] += 1
            if link.connected:
                hint = (
                    "it reads too slowly, or is gone: look at its load and the network; what is dropped is sent again"
                )
                self._limiter.log(
                    self._log, "warning", f"full {link.name}", "peer_queue_full", peer=link.name, hint=hint
                )
            return False
        self._counters["messages_sent"] += 1
        self._counters["bytes_sent"] += len(data)
        return True

    def send_to(self, members: Iterable[int], message: Message) -> int:
        """Queue `message` for each of `members` but this replica; returns for how many it was."""
        return sum(self.send(member, message) for member in members if member != self._me)

    def receive(self, timeout_s: float) -> list[Message]:
        """The messages that are there, at most a batch; waits up to `timeout_s` for something to happen.

        May return early with nothing: after `wake`, or when a peer came or went.  What strangers do is no reason.
        """
        now = time.monotonic()
        until = now + timeout_s
        while True:
            before = now
            ready = dict(self._poller.poll(max(0, math.ceil((until - now) * 1000))))
            now = time.monotonic()
            self.waited_s += now - before
            if self._look_after(ready) or self._inbox in ready or now >= until:
                return self._drain() if self._inbox in ready else []

    @property
    def warnings(self) -> list[str]:
        """A line for each member that was heard lately in no version of the protocol that is spoken here."""
        since = time.monotonic() - limits.SHUT_OUT_S - limits.LOG_REPEAT_S
        return [f"{self._names[member]} {why}" for member, (why, at) in sorted(self._apart.items()) if at > since]

    def connected(self, member: int) -> bool:
        """Whether the way to `member` was open when `receive` looked last."""
        return self._links[member].connected

    def speaks(self, member: int) -> int:
        """The newest protocol version that `member` is known to speak, of those that are spoken here."""
        return self._links[member].version

    def wake(self) -> None:
        """Let `receive` return; may be called from any thread, and does nothing once closed."""
        if not self._context.closed:
            os.eventfd_write(self._wakeup, 1)

    def watch(self, fd: int) -> None:
        """Let `receive` return when `fd` is readable, too, from now on; -1: none."""
        if fd >= 0:
            self._watched = fd
            self._poller.register(fd, zmq.POLLIN)

    def renew(self, keys: Keys) -> bool:
        """Go on with other keys: this replica's own, its peers', or both; whether any is another one.

        A connection with a key that is a member's no more ends with the next message over it, which is dropped.  A
        new key of this replica's own costs the messages that are on their way; what makes no progress is sent again.
        """
        _check_exposure(self._me, self._addresses, keys)
        before, self._keys = self._keys, keys
        self._gatekeeper.admit(keys.members)
        if keys.secret != before.secret:
            self._close_inbox()
            self._door.forget()
            self._inbox, self._inbox_monitor = self._listen()
            self._poller.register(self._inbox, zmq.POLLIN)
            self._poller.register(self._inbox_monitor, zmq.POLLIN)
        for member, link in self._links.items():
            if keys.secret != before.secret:
                self._replace(member, link)
            else:
                link.expect(keys.members[member])
        return keys != before

    def close(self, flush_s: float = 0.0) -> None:
        """Close all connections; what is queued gets `flush_s` to go out."""
        if self._context.closed:
            return
        self._close_inbox()
        self._gatekeeper.socket.close()
        for link in self._links.values():
            link.close(math.ceil(flush_s * 1000))
        self._context.term()
        self._door.close()
        os.close(self._wakeup)

    # -- receiving -----------------------------------------------------------------------------------

    def _drain(self) -> list[Message]:
        """What is in the inbox, at most a batch."""
        messages: list[Message] = []
        size, now = 0, time.monotonic()
        for _ in range(limits.RECEIVE_BATCH):
            try:
                frame = self._inbox.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            size += len(frame)
            parts = 1
            last = frame
            while last.more:
                last = self._inbox.recv(copy=False)
                size, parts = size + len(last), parts + 1
            if (member := self._origin(frame, now)) is None:
                continue
            try:
                messages.append(self._accept(frame, parts, member))
            except _DroppedError as dropped:
                self._count_dropped(member, dropped.why, str(dropped))
            if size > limits.RECEIVE_BATCH_BYTES:
                break
        self._counters["bytes_received"] += size
        self._counters["messages_received"] += len(messages)
        return messages

    def _origin(self, frame: zmq.Frame, now_s: float) -> int | None:
        """The member whose connection brought `frame`; None: it is welcome no more, and the connection ends."""
        fd = int(frame.get(zmq.SRCFD))
        member = self._gatekeeper.member(str(frame.get("User-Id")), now_s)
        if member is None:
            self._counters["dropped_unwelcome"] += 1
            self._door.cut(fd)
        else:
            self._door.is_members(fd, member)
        return member

    def _accept(self, frame: zmq.Frame, parts: int, member: int) -> Message:
        """The message in `frame`, the first of `parts`, which came from `member`; or _DroppedError."""
        data = frame.buffer
        if parts > 1:
            raise _DroppedError("malformed", f"{parts} frames")
        if len(data) > limits.MAX_MESSAGE_BYTES:
            raise _DroppedError("oversized", f"{len(data)} bytes")
        try:
            message = wire.decode(data, self._cluster_id)
        except wire.ForeignClusterError as error:
            raise _DroppedError("foreign", f"{error}: compare cluster.name and the secret") from None
        except wire.ProtocolVersionError as error:
            if error.lasts:
                self._apart[member] = str(error), time.monotonic()
            raise _DroppedError("version", str(error)) from None
        except WireError as error:
            raise _DroppedError("malformed", str(error)) from None
        if message.sender != member:
            raise _DroppedError("spoofed", f"says that it is member {message.sender}: compare cluster.member")
        self._links[member].version = wire.newest_of(data)
        self._apart.pop(member, None)
        return message

    def _count_dropped(self, member: int, why: str, reason: str) -> None:
        """Count a message that is not accepted, and say so now and then; of too many, end the connection."""
        self._counters[f"dropped_{why}"] += 1
        peer = f"{self._names[member]} {self._addresses[member].endpoint}"
        self._limiter.log(self._log, "warning", f"{why} {peer}", f"dropped_{why}", peer=peer, reason=reason)
        now = time.monotonic()
        if self._bad[member].take(now):
            return
        self._counters["shut_out"] += 1
        self._gatekeeper.shut_out(member, now + limits.SHUT_OUT_S)
        self._door.cut_member(member)
        facts = {"peer": peer, "seconds": limits.SHUT_OUT_S, "reason": reason}
        self._limiter.log(self._log, "warning", f"out {peer}", "peer_shut_out", **facts)

    # -- connections ---------------------------------------------------------------------------------

    def _look_after(self, ready: dict[Socket | int, int]) -> bool:
        """Everything that is ready but messages; whether the caller may want to know."""
        now = time.monotonic()
        news = False
        if self._wakeup in ready:
            os.eventfd_read(self._wakeup)
            news = True
        news = news or self._watched in ready
        if self._inbox_monitor in ready:
            self._watch_inbox(now)
        if self._gatekeeper.socket in ready:
            self._gatekeeper.answer(now, self._refused)
        self._door.look(now)
        for link in self._links.values():
            if link.monitor in ready:
                link.watch()
                news = True
        return news

    def _refused(self, address: str, key: str) -> None:
        self._counters["rejected_keys"] += 1
        hint = "the key is no member's: compare public_key in cluster.member"
        self._limiter.log(self._log, "warning", f"key {address}", "peer_refused", peer=address, key=key, hint=hint)

    def _watch_inbox(self, now_s: float) -> None:
        """Follow who comes in and goes."""
        for _ in range(limits.PEER_EVENTS):
            if not self._inbox_monitor.poll(0):
                return
            message = recv_monitor_message(self._inbox_monitor, zmq.NOBLOCK)
            event = message["event"]
            if event == zmq.Event.ACCEPTED:
                self._door.accepted(message["value"], now_s)
            elif self._door.gone(message["value"]):
                self._counters["rejected_handshakes"] += 1

    def _listen(self) -> tuple[Socket, Socket]:
        """The socket that all peers send to, bound, and its monitor."""
        address = self._addresses[self._me].resolved()
        inbox = self._context.socket(zmq.PULL)
        set_common(inbox, address)
        inbox.rcvhwm = limits.RECEIVE_QUEUE_MESSAGES
        # More than the limit, so that what is a little too long is counted here; libzmq closes the connection beyond.
        inbox.maxmsgsize = limits.MAX_MESSAGE_BYTES + limits.LARGE_MESSAGE
        inbox.curve_server = True
        inbox.curve_secretkey = self._keys.secret
        inbox.setsockopt(zmq.USE_FD, self._door.listener())
        monitor = inbox.get_monitor_socket(_WATCHED_INBOX)
        inbox.bind(address.endpoint)
        return inbox, monitor

    def _close_inbox(self) -> None:
        self._inbox.disable_monitor()
        for socket in (self._inbox, self._inbox_monitor):
            if socket in self._poller:
                self._poller.unregister(socket)
            socket.close(linger=0)

    def _link(self, member: int) -> Link:
        """A way to `member`, with the keys of now."""
        address, accepted = self._addresses[member], self._keys.members[member]
        return Link(self._context, self._names[member], address, self._keys.secret, accepted)

    def _replace(self, member: int, old: Link) -> None:
        """A new way to `member` in place of one with an older key of this replica's."""
        self._poller.unregister(old.monitor)
        old.close(linger_ms=math.ceil(limits.RENEW_LINGER_S * 1000))
        new = self._links[member] = self._link(member)
        new.version, new.connects, new.disconnects = old.version, old.connects, old.disconnects + old.connected
        self._poller.register(new.monitor, zmq.POLLIN)

    def _encoded(self, message: Message, version: int) -> bytes:
        """`message` as bytes; encoded once where it goes to several peers."""
        if self._last is None or self._last[0] is not message or self._last[1] != version:
            self._last = (message, version, wire.encode(message, self._cluster_id, version))
        return self._last[2]


def _check_exposure(me: int, addresses: Sequence[Address], keys: Keys) -> None:
    """PeerError unless keys of the replicas' own protect what leaves this host, and every peer can be reached."""
    for member, address in enumerate(addresses):
        if keys.derived and not address.loopback:
            raise PeerError(
                f"{address.endpoint} is not loopback: peers need CURVE there; run ftnids keygen, "
                "set cluster.key_file and every member's public_key"
            )
        if member != me and address.wildcard:
            raise PeerError(
                f"{address.endpoint} cannot be connected to: give member {member + 1} an address of its own"
            )

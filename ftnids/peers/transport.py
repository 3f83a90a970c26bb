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
* ZeroMQ's own heartbeats close a connection that has gone silent.  They do not decide who is alive (the engine's
  heartbeats do that, five times as fast); they cut short TCP's retransmission back-off, which would
  delay the first message after a partition by seconds.

With keys, both ends prove who they are (CURVE): a client goes on only with the peer's public key, a server
lets in only members' keys (`zap.py`), and a message whose sender is not the member of its connection is dropped.
Without keys, all addresses must be loopback, and a sender is believed if it is another member.

A transport belongs to one thread; only `wake` may be called from others.
"""

from __future__ import annotations

import errno
import math
import os
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from ftnids import limits, log
from ftnids.errors import PeerError, WireError
from ftnids.peers import wire
from ftnids.peers.addresses import Address, parse
from ftnids.peers.keys import Keys
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
    "rejected_keys",  # connections with a key that is no member's
    "rejected_handshakes",  # connections that failed otherwise
    "connects",
    "disconnects",
)

_RECONNECT_MS: Final = 20
_RECONNECT_MAX_MS: Final = 500
_CONNECT_MS: Final = 1_000  # of one attempt to connect, and of one handshake
_SILENCE_MS: Final = 1_500  # without an answer to a ZeroMQ heartbeat the connection is closed
_HEARTBEAT_MS: Final = 500
_WATCHED: Final = (
    zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_AUTH
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.DISCONNECTED
)

_Socket = zmq.Socket[bytes]


class _DroppedError(Exception):
    """A message that is not accepted: the end of its counter's name, and the reason."""

    def __init__(self, why: str, reason: str) -> None:
        super().__init__(reason)
        self.why = why


class _Link:
    """The way to one peer: its socket, and what is known of it."""

    def __init__(self, context: zmq.Context[_Socket], name: str, address: Address, keys: Keys | None, peer: int):
        self.name, self.address = name, address
        self.connected = False
        self.version = wire.oldest()  # until the peer says what it speaks
        self._large: deque[tuple[zmq.MessageTracker, int]] = deque()  # sent without a copy, and their bytes
        self._large_bytes = 0
        self.socket = context.socket(zmq.PUSH)
        _set_common(self.socket, address)
        self.socket.immediate = True
        self.socket.sndhwm = limits.SEND_QUEUE_MESSAGES
        self.socket.copy_threshold = limits.LARGE_MESSAGE
        self.socket.reconnect_ivl = _RECONNECT_MS
        self.socket.reconnect_ivl_max = _RECONNECT_MAX_MS
        self.socket.connect_timeout = _CONNECT_MS
        self.socket.heartbeat_ivl = _HEARTBEAT_MS
        self.socket.heartbeat_timeout = _SILENCE_MS
        self.socket.heartbeat_ttl = _SILENCE_MS + _HEARTBEAT_MS
        if keys is not None:
            self.socket.curve_secretkey = keys.secret
            self.socket.curve_publickey = zmq.curve_public(keys.secret)
            self.socket.curve_serverkey = keys.members[peer]
        self.monitor = self.socket.get_monitor_socket(_WATCHED)
        self.socket.connect(address.endpoint)

    def send(self, data: bytes) -> bool:
        """Queue `data`; False if there is no room or no connection."""
        if len(data) < limits.LARGE_MESSAGE:
            try:
                self.socket.send(data, zmq.NOBLOCK)
            except zmq.Again:
                return False
            return True
        while self._large and self._large[0][0].done:
            self._large_bytes -= self._large.popleft()[1]
        if self._large_bytes + len(data) > limits.SEND_QUEUE_BYTES:
            return False
        try:
            tracker = self.socket.send(data, zmq.NOBLOCK, copy=False, track=True)
        except zmq.Again:
            return False
        self._large.append((tracker, len(data)))
        self._large_bytes += len(data)
        return True

    def close(self, linger_ms: int) -> None:
        """Close, waiting in `Context.term` for what is queued for at most `linger_ms`."""
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=linger_ms)


class Transport:
    """Sends messages to the peers and hands out those that come from them."""

    def __init__(
        self,
        me: int,
        addresses: Sequence[str],
        *,
        cluster_id: bytes,
        keys: Keys | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Bind at `addresses[me]` and connect to all others; `names` are the members' names, for the log.

        PeerError if an address is malformed, in use or not this host's, or needs keys that are not given.
        """
        self.counters: dict[str, int] = Counter(dict.fromkeys(COUNTERS, 0))
        self._me, self._cluster_id, self._secured = me, cluster_id, keys is not None
        self._log, self._limiter = log.get("peers"), log.Limiter()
        self._last: tuple[Message, int, bytes] | None = None  # encoded last: a message often goes to all
        parsed = [parse(address) for address in addresses]
        _check_exposure(me, parsed, keys)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._context: zmq.Context[_Socket] = zmq.Context(1)
        self._gatekeeper: Gatekeeper | None = None
        self._links: dict[int, _Link] = {}
        try:
            self._gatekeeper = Gatekeeper(self._context, keys.members, me) if keys else None
            self._inbox = _listen(self._context, parsed[me], keys)
            for member, address in enumerate(parsed):
                if member != me:
                    name = names[member] if names else str(member)
                    self._links[member] = _Link(self._context, name, address, keys, member)
        except BaseException:
            self._context.destroy(linger=0)
            os.close(self._wakeup)
            raise
        self._inbox_monitor = self._inbox.get_monitor_socket(_WATCHED)
        self._poller = zmq.Poller()
        monitors = [link.monitor for link in self._links.values()]
        gate = [self._gatekeeper.socket] if self._gatekeeper else []
        for source in (self._wakeup, self._inbox, self._inbox_monitor, *monitors, *gate):
            self._poller.register(source, zmq.POLLIN)

    def send(self, member: int, message: Message) -> bool:
        """Queue `message` for `member`; it must not be changed any more.  Never waits.

        False: not queued, for the reason that the counters say.
        """
        link = self._links[member]
        try:
            data = self._encoded(message, link.version)
        except WireError as error:
            self.counters["dropped_unsendable"] += 1
            kind = type(message).__name__
            self._limiter.log(self._log, "error", f"unsendable {kind}", "unsendable", kind=kind, reason=str(error))
            return False
        if not link.send(data):
            self.counters["dropped_full" if link.connected else "dropped_unconnected"] += 1
            return False
        self.counters["messages_sent"] += 1
        self.counters["bytes_sent"] += len(data)
        return True

    def send_to(self, members: Iterable[int], message: Message) -> int:
        """Queue `message` for each of `members` but this replica; returns for how many it was."""
        return sum(self.send(member, message) for member in members if member != self._me)

    def receive(self, timeout_s: float) -> list[Message]:
        """The messages that are there, at most a batch; waits up to `timeout_s` for something to happen.

        May return early with nothing: after `wake`, or when a peer came or went.
        """
        ready = dict(self._poller.poll(max(0, math.ceil(timeout_s * 1000))))
        if self._wakeup in ready:
            os.eventfd_read(self._wakeup)
        if self._gatekeeper is not None and self._gatekeeper.socket in ready:
            self._gatekeeper.answer(self._refused)
        if self._inbox_monitor in ready:
            self._watch_inbox()
        for link in self._links.values():
            if link.monitor in ready:
                self._watch(link)
        return self._drain() if self._inbox in ready else []

    def connected(self, member: int) -> bool:
        """Whether the way to `member` was open when `receive` looked last."""
        return self._links[member].connected

    def wake(self) -> None:
        """Let `receive` return; may be called from any thread."""
        os.eventfd_write(self._wakeup, 1)

    def close(self, flush_s: float = 0.0) -> None:
        """Close all connections; what is queued gets `flush_s` to go out."""
        if self._context.closed:
            return
        self._inbox.disable_monitor()
        self._inbox_monitor.close(linger=0)
        self._inbox.close(linger=0)
        if self._gatekeeper is not None:
            self._gatekeeper.socket.close()
        for link in self._links.values():
            link.close(math.ceil(flush_s * 1000))
        self._context.term()
        os.close(self._wakeup)

    # -- receiving -----------------------------------------------------------------------------------

    def _drain(self) -> list[Message]:
        """What is in the inbox, at most a batch."""
        messages: list[Message] = []
        size = 0
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
            try:
                messages.append(self._accept(frame, parts))
            except _DroppedError as dropped:
                self._count_dropped(frame, dropped.why, str(dropped))
            if size > limits.RECEIVE_BATCH_BYTES:
                break
        self.counters["bytes_received"] += size
        self.counters["messages_received"] += len(messages)
        return messages

    def _accept(self, frame: zmq.Frame, parts: int) -> Message:
        """The message in `frame`, the first of `parts`; or _DroppedError."""
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
            link = self._links.get(error.sender)
            who = f"{link.name} {link.address.endpoint}" if link else f"member {error.sender}"
            raise _DroppedError("version", f"{who} {error}") from None
        except WireError as error:
            raise _DroppedError("malformed", str(error)) from None
        link = self._links.get(message.sender)
        if link is None or (self._secured and frame.get("User-Id") != str(message.sender)):
            raise _DroppedError("spoofed", f"says that it is member {message.sender}: compare cluster.member")
        link.version = wire.newest_of(data)
        return message

    def _count_dropped(self, frame: zmq.Frame, why: str, reason: str) -> None:
        """Count a message that is not accepted, and say so now and then."""
        self.counters[f"dropped_{why}"] += 1
        peer = self._origin(frame)
        self._limiter.log(self._log, "warning", f"{why} {peer}", f"dropped_{why}", peer=peer, reason=reason)

    def _origin(self, frame: zmq.Frame) -> str:
        """Where a message comes from, as well as can be told."""
        if self._secured:
            link = self._links[int(frame.get("User-Id"))]
            return f"{link.name} {link.address.endpoint}"
        try:
            return str(frame.get("Peer-Address"))
        except zmq.ZMQError:  # libzmq keeps none for who speaks ZMTP 1 or 2, as stray bytes may happen to
            return "a stranger"

    # -- connections ---------------------------------------------------------------------------------

    def _refused(self, address: str, key: str) -> None:
        self.counters["rejected_keys"] += 1
        hint = "the key is no member's: compare public_key in cluster.member"
        self._limiter.log(self._log, "warning", f"key {address}", "peer_refused", peer=address, key=key, hint=hint)

    def _watch_inbox(self) -> None:
        """Count the connections to this replica that failed before a key was seen."""
        event = recv_monitor_message(self._inbox_monitor, zmq.NOBLOCK)["event"]
        if event in (zmq.Event.HANDSHAKE_FAILED_PROTOCOL, zmq.Event.HANDSHAKE_FAILED_NO_DETAIL):
            self.counters["rejected_handshakes"] += 1

    def _watch(self, link: _Link) -> None:
        """Follow the state of the connection to a peer."""
        event = recv_monitor_message(link.monitor, zmq.NOBLOCK)["event"]
        facts = {"peer": link.name, "address": link.address.endpoint}
        if event == zmq.Event.HANDSHAKE_SUCCEEDED:
            link.connected = True
            self.counters["connects"] += 1
            self._log.info("peer_connected", **facts)
        elif event == zmq.Event.DISCONNECTED:
            self.counters["disconnects"] += link.connected
            if link.connected:
                self._log.info("peer_disconnected", **facts)
            link.connected = False
        else:
            hint = "it refuses this replica's key or has another one: compare public_key in cluster.member on both"
            self._limiter.log(
                self._log, "warning", f"handshake {link.name}", "peer_handshake_failed", **facts, hint=hint
            )

    def _encoded(self, message: Message, version: int) -> bytes:
        """`message` as bytes; encoded once where it goes to several peers."""
        if self._last is None or self._last[0] is not message or self._last[1] != version:
            self._last = (message, version, wire.encode(message, self._cluster_id, version))
        return self._last[2]


def _check_exposure(me: int, addresses: Sequence[Address], keys: Keys | None) -> None:
    """PeerError unless everything that leaves this host is encrypted and every peer can be reached."""
    for member, address in enumerate(addresses):
        if keys is None and not address.loopback:
            raise PeerError(
                f"{address.endpoint} is not loopback: peers need CURVE there; run ftnids keygen, "
                "set cluster.key_file and every member's public_key"
            )
        if member != me and address.wildcard:
            raise PeerError(
                f"{address.endpoint} cannot be connected to: give member {member + 1} an address of its own"
            )


def _listen(context: zmq.Context[_Socket], address: Address, keys: Keys | None) -> _Socket:
    """The socket that all peers send to, bound.  PeerError if it cannot be."""
    inbox = context.socket(zmq.PULL)
    _set_common(inbox, address)
    inbox.rcvhwm = limits.RECEIVE_QUEUE_MESSAGES
    inbox.backlog = limits.CONNECTIONS
    # Twice the limit, so that what is a little too long is counted here; libzmq closes the connection beyond.
    inbox.maxmsgsize = 2 * limits.MAX_MESSAGE_BYTES
    if keys is not None:
        inbox.curve_server = True
        inbox.curve_secretkey = keys.secret
    try:
        inbox.bind(address.resolved().endpoint)
    except zmq.ZMQError as error:
        reasons = {
            errno.EADDRINUSE: "is in use: stop the program that listens there, or change the address in cluster.member",
            errno.EADDRNOTAVAIL: "is no address of this host: correct replica.name or the address in cluster.member",
            errno.ENODEV: "is no address of this host: correct replica.name or the address in cluster.member",
            errno.EACCES: "may not be bound by this user: choose a port from 1024 on",
        }
        reason = reasons.get(error.errno or 0, f"cannot be bound: {error.strerror}")
        raise PeerError(f"{address.endpoint} {reason}") from None
    return inbox


def _set_common(socket: _Socket, address: Address) -> None:
    """What both kinds of socket have in common."""
    socket.linger = 0
    socket.ipv6 = address.numeric is None or address.numeric.version == 6
    socket.handshake_ivl = _CONNECT_MS

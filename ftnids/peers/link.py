"""The way to one peer: a PUSH socket that connects, and connects again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from ftnids import limits, log
from ftnids.peers import wire
from ftnids.peers.addresses import Address

RECONNECT_MS: Final = 20
RECONNECT_MAX_MS: Final = 500
CONNECT_MS: Final = 1_000  # of one attempt to connect, and of one handshake
SILENCE_MS: Final = 1_500  # what was sent and is not acknowledged by the peer's kernel for so long ends the connection
KEEPALIVE_S: Final = 2  # the same at the end that only receives: probed after so long, given up after three more
WATCHED: Final = (
    zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_AUTH
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.DISCONNECTED
)
PATIENCE_S: Final = 2.0  # handshakes fail for so long before it is said: a peer that starts or stops fails some, too
PAUSE_S: Final = 5.0  # between two failures, and they are not of one row; attempts follow each other faster
HINT: Final = (
    "it refuses this replica's key, or has another one, or it is still starting: "
    "compare public_key in cluster.member, and see its log"
)

Socket = zmq.Socket[bytes]


class Link:
    """Sends to one peer; `connected` is what `watch` saw last.

    The peer may have several public keys, while it changes them: they are tried in turn, the first one first.
    """

    def __init__(
        self, context: zmq.Context[Socket], name: str, address: Address, secret: bytes, server_keys: Sequence[bytes]
    ) -> None:
        self.name, self.address = name, address
        self.connected = False
        self.version = wire.oldest()  # until the peer says what it speaks
        self.connects = self.disconnects = 0
        self._facts = {"peer": name, "address": address.endpoint}
        self._log, self._limiter = log.get("peers"), log.Limiter()
        self._large: deque[tuple[zmq.MessageTracker, int]] = deque()  # sent without a copy, and their bytes
        self._large_bytes = 0
        self._keys, self._key = list(server_keys), 0
        self._failing = (0.0, 0.0)  # a row of failed handshakes: when the first one was, and the last
        self.socket = context.socket(zmq.PUSH)
        set_common(self.socket, address)
        self.socket.immediate = True
        self.socket.sndhwm = limits.SEND_QUEUE_MESSAGES
        self.socket.copy_threshold = limits.LARGE_MESSAGE
        self.socket.reconnect_ivl = RECONNECT_MS
        self.socket.reconnect_ivl_max = RECONNECT_MAX_MS
        self.socket.connect_timeout = CONNECT_MS
        self.socket.setsockopt(zmq.TCP_MAXRT, SILENCE_MS)
        self.socket.curve_secretkey = secret
        self.socket.curve_publickey = zmq.curve_public(secret)
        self.socket.curve_serverkey = self._keys[0]
        self.monitor = self.socket.get_monitor_socket(WATCHED)
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

    def watch(self) -> None:
        """Take in what happened to the connection."""
        for _ in range(limits.PEER_EVENTS):
            if not self.monitor.poll(0):
                return
            event = recv_monitor_message(self.monitor, zmq.NOBLOCK)["event"]
            if event == zmq.Event.HANDSHAKE_SUCCEEDED:
                self.connected = True
                self._failing = (0.0, 0.0)
                self.connects += 1
                self._log.info("peer_connected", **self._facts)
            elif event == zmq.Event.DISCONNECTED and self.connected:
                self.connected = False
                self.version = wire.oldest()  # who comes back may be an older process of that member
                self.disconnects += 1
                self._log.info("peer_disconnected", **self._facts)
                self._try_key(0)
            elif event != zmq.Event.DISCONNECTED:
                self._failed(time.monotonic())
                self._try_key(self._key + 1)

    def expect(self, server_keys: Sequence[bytes]) -> None:
        """From now on the peer has one of `server_keys`; a connection with a key that is no more among them ends."""
        if list(server_keys) == self._keys:
            return
        now = self._keys[self._key]
        self._keys = list(server_keys)
        if now in self._keys:
            self._key = self._keys.index(now)  # the others are tried when the connection ends
        else:
            self._key = -1
            self._try_key(0)

    def close(self, linger_ms: int) -> None:
        """Close; what is queued goes out within `linger_ms`, for which `Context.term` waits."""
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=linger_ms)

    def _failed(self, now_s: float) -> None:
        """A handshake has failed; say so when the peer has not let this replica in for a while."""
        first, last = self._failing
        if first == 0.0 or now_s - last > PAUSE_S:
            first = now_s
        self._failing = (first, now_s)
        if now_s - first >= PATIENCE_S:
            self._limiter.log(self._log, "warning", "handshake", "peer_handshake_failed", **self._facts, hint=HINT)

    def _try_key(self, number: int) -> None:
        """Connect anew with another of the peer's keys, if it has another."""
        number %= len(self._keys)
        if number == self._key:
            return
        self._key = number
        self.socket.disconnect(self.address.endpoint)
        self.socket.curve_serverkey = self._keys[number]
        self.socket.connect(self.address.endpoint)


def set_common(socket: Socket, address: Address) -> None:
    """What sockets of both directions have in common."""
    socket.linger = 0
    socket.ipv6 = address.numeric is None or address.numeric.version == 6
    socket.handshake_ivl = CONNECT_MS
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = KEEPALIVE_S
    socket.tcp_keepalive_intvl = 1
    socket.tcp_keepalive_cnt = 3

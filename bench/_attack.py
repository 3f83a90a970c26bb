"""Hostile programs: `python -m bench._attack KIND HOST PORT`, at full speed until it is killed.

On standard input comes what it knows, as JSON: `secret` and `public`, its keys, `server`, the public key of the
attacked, and `cluster`, the cluster's id in hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Final

import zmq

OPEN: Final = 64  # connections at a time
MAGIC, REST = b"ftni\x09\x09", b"\x07\x02" + bytes(60)  # of a heartbeat of member 2 in protocol version 9


def idle(known: dict[str, str], host: str, port: int) -> None:
    """As busy as the others, and connects to nobody."""
    while True:
        os.urandom(4096)


def random_bytes(known: dict[str, str], host: str, port: int) -> None:
    """Connections without end, each sent random bytes."""
    connections: deque[socket.socket] = deque()
    data = os.urandom(4096)
    while True:
        connections.append(socket.socket())
        connections[-1].setblocking(False)
        connections[-1].connect_ex((host, port))
        for connection in (connections[0], connections[len(connections) // 2], connections[-1]):
            with contextlib.suppress(OSError):
                connection.send(data)
        if len(connections) >= OPEN:
            connections.popleft().close()


def client(context: zmq.Context[zmq.Socket[bytes]], known: dict[str, str], host: str, port: int) -> zmq.Socket[bytes]:
    """A ZeroMQ socket with the known keys, that connects again at once."""
    made = context.socket(zmq.PUSH)
    made.linger = 0
    made.immediate = True
    made.reconnect_ivl = 1
    made.curve_secretkey, made.curve_publickey = known["secret"].encode(), known["public"].encode()
    made.curve_serverkey = known["server"].encode()
    made.connect(f"tcp://{host}:{port}")
    return made


def wrong_key(known: dict[str, str], host: str, port: int) -> None:
    """Handshakes without end, with a key that is no member's."""
    context = zmq.Context(1)
    clients: deque[zmq.Socket[bytes]] = deque()
    while True:
        clients.append(client(context, known, host, port))
        if len(clients) >= OPEN:
            clients.popleft().close()


def wrong_version(known: dict[str, str], host: str, port: int) -> None:
    """A member's key, and messages of a protocol version that nobody speaks."""
    push = client(zmq.Context(1), known, host, port)
    message = MAGIC + bytes.fromhex(known["cluster"]) + REST
    while True:
        if push.poll(10, zmq.POLLOUT):
            with contextlib.suppress(zmq.Again):
                for _ in range(100):
                    push.send(message, zmq.NOBLOCK)


KINDS: Final[dict[str, Callable[[dict[str, str], str, int], None]]] = {
    "idle": idle,
    "random bytes": random_bytes,
    "wrong key": wrong_key,
    "wrong version": wrong_version,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](json.loads(sys.stdin.readline()), sys.argv[2], int(sys.argv[3]))

"""The real programs behind the hub: `python -m ftnids.lab.programs serve|answer|browse|resolve ...`.

Each is a process of its own in a namespace of the lab and speaks through the kernel's TCP and UDP.  Only
the standard library is imported, so that they start quickly.  Servers print `ready` once they listen.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import http.server
import random
import socket
import socketserver
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from ftnids.lab import workload

HTTP_PORT: Final = 80
DNS_PORT: Final = 53
TIMEOUT_S: Final = 5.0

Item = TypeVar("Item")


class Pages(http.server.SimpleHTTPRequestHandler):
    """The standard library's file server; the access log is left out."""

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """An HTTP server that does not ask DNS for its own name, which would be traffic that nobody meant."""

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


def serve(address: str, directory: str) -> None:
    """An HTTP server for the files below `directory`."""
    Server.allow_reuse_address = True
    with Server((address, HTTP_PORT), functools.partial(Pages, directory=directory)) as server:
        print("ready", flush=True)
        server.serve_forever()


def question(number: int, name: str) -> bytes:
    """A DNS query for the A record of `name`."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)


def answer_to(query: bytes) -> bytes:
    """The answer to `query`: one A record, 192.0.2.1, which is set aside for documentation."""
    record = struct.pack(">HHHIH4s", 0xC00C, 1, 1, 60, 4, socket.inet_aton("192.0.2.1"))
    return query[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0) + query[12:] + record


def answer(address: str) -> None:
    """A DNS server that knows one answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, DNS_PORT))
        print("ready", flush=True)
        while True:
            query, client = server.recvfrom(512)
            if len(query) > 16:
                server.sendto(answer_to(query), client)


def paced(items: Sequence[Item], seconds: float, seed: int) -> Iterator[Item]:
    """The items, spread over about `seconds` at random intervals, as many clients would ask."""
    rng = random.Random(f"pace {seed}")
    begin, due = time.monotonic(), 0.0
    for item in items:
        due += rng.expovariate(len(items) / seconds)
        time.sleep(max(0.0, begin + due - time.monotonic()))
        yield item


def browse(address: str, count: int, seconds: float, seed: int, attack_share: float) -> None:
    """An HTTP client: a connection for each request, as crawlers and scanners do."""
    for request in paced(workload.requests(seed, count, attack_share), seconds, seed):
        connection = http.client.HTTPConnection(address, HTTP_PORT, timeout=TIMEOUT_S)
        connection.request("GET", request.path, headers=request.headers)
        connection.getresponse().read()
        connection.close()


def resolve(address: str, count: int, seconds: float, seed: int) -> None:
    """A DNS client; a socket for each query, so that ports differ."""
    for number, name in enumerate(paced(workload.names(seed, count), seconds, seed)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(TIMEOUT_S)
            client.connect((address, DNS_PORT))
            client.send(question(number & 0xFFFF, name))
            client.recv(512)


def main() -> None:
    """The command line of this module's process."""
    parser = argparse.ArgumentParser(prog="ftnids.lab.programs")
    parser.add_argument("program", choices=("serve", "answer", "browse", "resolve"))
    parser.add_argument("address")
    parser.add_argument("--directory", default=".")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attack-share", type=float, default=0.3)
    asked = parser.parse_args()
    if asked.program == "serve":
        serve(asked.address, asked.directory)
    elif asked.program == "answer":
        answer(asked.address)
    elif asked.program == "browse":
        browse(asked.address, asked.count, asked.seconds, asked.seed, asked.attack_share)
    else:
        resolve(asked.address, asked.count, asked.seconds, asked.seed)


if __name__ == "__main__":
    main()

"""A capture file made from nothing: TCP handshakes, HTTP with attacks, DNS.  For labs without root and without a trace.

The same requests as the programs on the hub make, in real segments with valid checksums, interleaved as
many clients would, with what makes real traffic hard to align: retransmitted segments and repeated DNS
queries, byte for byte the same as before.
"""

from __future__ import annotations

import heapq
import random
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ftnids.lab import workload
from ftnids.lab.programs import DNS_PORT, HTTP_PORT, answer_to, question
from ftnids.lab.writing import private, writing

EPOCH_US: Final = 1_700_000_000_000_000  # the first packet's time; fixed, so that a seed gives one file
SNAPLEN: Final = 65_535
MSS: Final = 1_460
SYN, FIN, ACK, PUSH = 0x02, 0x01, 0x10, 0x08
SERVER: Final = "10.84.0.2"
RETRANSMITTED: Final = 0.01  # of data segments
ROUND_TRIP_US: Final = (80, 400)

Timed = tuple[int, bytes]  # time in us after the first packet, frame


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def mac(address: str) -> bytes:
    """A locally administered MAC address for an IPv4 address."""
    return b"\x02\x00" + socket.inet_aton(address)


def frame(source: str, target: str, protocol: int, number: int, payload: bytes) -> bytes:
    """An Ethernet frame with an IPv4 packet; `number` is its IP identification."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), number & 0xFFFF, 0x4000, 64, protocol, 0)
    head = head[:10] + struct.pack(">H", checksum(head + ends)) + ends
    return mac(target) + mac(source) + b"\x08\x00" + head + payload


def with_checksum(source: str, target: str, protocol: int, segment: bytes, at: int) -> bytes:
    """A TCP or UDP segment with its checksum, over the pseudo header, put in at offset `at`."""
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack(">BBH", 0, protocol, len(segment))
    return segment[:at] + struct.pack(">H", checksum(pseudo + segment) or 0xFFFF) + segment[at + 2 :]


@dataclass
class End:
    """One end of a TCP connection."""

    address: str
    port: int
    sequence: int
    number: int  # the next IP identification


def segment(sender: End, receiver: End, flags: int, data: bytes = b"") -> bytes:
    """The next TCP segment from `sender`, which is moved on past it."""
    options = b"\x02\x04" + struct.pack(">H", MSS) if flags & SYN else b""
    acknowledged = receiver.sequence if flags & ACK else 0
    offset = (20 + len(options)) << 10
    head = struct.pack(
        ">HHIIHHHH", sender.port, receiver.port, sender.sequence, acknowledged, offset | flags, 64_240, 0, 0
    )
    body = with_checksum(sender.address, receiver.address, socket.IPPROTO_TCP, head + options + data, 16)
    sender.sequence = (sender.sequence + len(data) + bool(flags & (SYN | FIN))) & 0xFFFFFFFF
    sender.number += 1
    return frame(sender.address, receiver.address, socket.IPPROTO_TCP, sender.number, body)


def response_to(request: workload.Request) -> bytes:
    """What the server answers."""
    path = request.path.partition("?")[0]
    found = path in workload.PAGES and path != "/missing.html"
    body = workload.page(path) if found else b"no such page\n"
    status = "200 OK" if found else "404 Not Found"
    lines = (f"HTTP/1.1 {status}", "Server: lab", f"Content-Length: {len(body)}", "Connection: close", "", "")
    return "\r\n".join(lines).encode() + body


def connection(start_us: int, client: str, port: int, request: workload.Request, rng: random.Random) -> Iterator[Timed]:
    """All packets of one HTTP connection, in time order but for retransmissions."""
    here = End(client, port, rng.getrandbits(32), rng.getrandbits(15))
    there = End(SERVER, HTTP_PORT, rng.getrandbits(32), rng.getrandbits(15))
    half, now = rng.randint(*ROUND_TRIP_US) // 2, start_us
    lines = [f"GET {request.path} HTTP/1.1", f"Host: {SERVER}", *(f"{k}: {v}" for k, v in request.headers.items())]

    def sent(sender: End, receiver: End, flags: int, data: bytes, after_us: int) -> Iterator[Timed]:
        nonlocal now
        now += after_us
        packet = segment(sender, receiver, flags, data)
        yield now, packet
        if data and rng.random() < RETRANSMITTED:
            yield now + rng.randint(20_000, 60_000), packet

    yield from sent(here, there, SYN, b"", 0)
    yield from sent(there, here, SYN | ACK, b"", half)
    yield from sent(here, there, ACK, b"", half)
    yield from sent(here, there, ACK | PUSH, "\r\n".join([*lines, "", ""]).encode(), rng.randint(10, 60))
    yield from sent(there, here, ACK, b"", half)
    answer = response_to(request)
    for at in range(0, len(answer), MSS):
        last = at + MSS >= len(answer)
        yield from sent(there, here, ACK | PUSH if last else ACK, answer[at : at + MSS], rng.randint(2, 40))
        if last or (at // MSS) % 2:
            yield from sent(here, there, ACK, b"", half)
    yield from sent(there, here, FIN | ACK, b"", rng.randint(5, 50))
    yield from sent(here, there, FIN | ACK, b"", half)
    yield from sent(there, here, ACK, b"", half)


def spanning(number: int, start_us: int, end_us: int) -> Iterator[Timed]:
    """An attack whose request comes in two segments, with all the time between them in which a replica may join."""
    here = End(f"10.84.3.{1 + number % 250}", 10_000 + number, 1_000 * number, number)
    there = End(SERVER, HTTP_PORT, 5_000 * number, number)
    first, second = b"GET /cgi-bin/view?file=../../../../et", f"c/passwd&n={number} HTTP/1.1\r\nHost: {SERVER}\r\n\r\n"
    yield start_us, segment(here, there, SYN)
    yield start_us + 100, segment(there, here, SYN | ACK)
    yield start_us + 200, segment(here, there, ACK)
    yield start_us + 300, segment(here, there, ACK | PUSH, first)
    yield start_us + 400, segment(there, here, ACK)
    yield end_us, segment(here, there, ACK | PUSH, second.encode())
    yield end_us + 100, segment(there, here, ACK | PUSH, response_to(workload.Request("/missing.html")))
    yield end_us + 200, segment(here, there, ACK)
    yield end_us + 300, segment(there, here, FIN | ACK)
    yield end_us + 400, segment(here, there, FIN | ACK)
    yield end_us + 500, segment(there, here, ACK)


def datagram(source: str, source_port: int, target: str, target_port: int, number: int, data: bytes) -> bytes:
    """A UDP packet in its frame."""
    head = struct.pack(">HHHH", source_port, target_port, 8 + len(data), 0)
    body = with_checksum(source, target, socket.IPPROTO_UDP, head + data, 6)
    return frame(source, target, socket.IPPROTO_UDP, number, body)


def lookup(start_us: int, client: str, port: int, number: int, name: str, rng: random.Random) -> Iterator[Timed]:
    """A DNS query and its answer; now and then the client asks again, byte for byte the same."""
    query = question(number & 0xFFFF, name)
    asked = datagram(client, port, SERVER, DNS_PORT, 0, query)
    answered = datagram(SERVER, DNS_PORT, client, port, 0, answer_to(query))
    delay = rng.randint(*ROUND_TRIP_US)
    yield from ((start_us, asked), (start_us + delay, answered))
    if rng.random() < 0.05:
        yield from ((start_us + 30_000, asked), (start_us + 30_000 + delay, answered))


def packets(
    seed: int, connections: int, lookups: int, seconds: float, more: Iterable[Iterable[Timed]] = ()
) -> Iterator[Timed]:
    """The whole traffic in time order, spread over `seconds`, and `more` flows, each in time order."""
    rng = random.Random(f"generate {seed}")
    flows: list[Iterable[Timed]] = list(more)
    for number, request in enumerate(workload.requests(seed, connections, attack_share=0.15)):
        client, start = f"10.84.1.{rng.randint(1, 250)}", int(rng.random() * seconds * 1e6)
        flows.append(sorted(connection(start, client, 20_000 + number % 40_000, request, rng)))
    for number, name in enumerate(workload.names(seed, lookups)):
        client, start = f"10.84.1.{rng.randint(1, 250)}", int(rng.random() * seconds * 1e6)
        flows.append(sorted(lookup(start, client, 20_000 + number % 40_000, number, name, rng)))
    return heapq.merge(*flows)


def write(
    path: Path,
    seed: int,
    connections: int = 400,
    lookups: int = 300,
    seconds: float = 5.0,
    more: Iterable[Iterable[Timed]] = (),
) -> int:
    """Write the capture file (classic pcap, microseconds, Ethernet) by `seed`; the number of packets."""
    count = 0
    with writing(path), private(path) as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAPLEN, 1))
        for time_us, packet in packets(seed, connections, lookups, seconds, more):
            whole, micros = divmod(EPOCH_US + time_us, 1_000_000)
            out.write(struct.pack("<IIII", whole, micros, len(packet), len(packet)) + packet)
            count += 1
    return count

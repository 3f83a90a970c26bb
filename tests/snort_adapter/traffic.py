"""Small captures made by hand: TCP conversations and datagrams in Ethernet frames."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from ftnids.core import pcap_header

CLIENT, SERVER = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 2])
ETHERNET = 1
FIN, SYN, PSH, ACK = 1, 2, 8, 16


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    words: tuple[int, ...] = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(protocol: int, source: bytes, target: bytes, segment: bytes, check_at: int) -> bytes:
    """An Ethernet frame with an IPv4 packet; the segment's checksum goes to its byte `check_at`."""
    pseudo = source + target + struct.pack("!BBH", 0, protocol, len(segment))
    segment = segment[:check_at] + struct.pack("!H", checksum(pseudo + segment)) + segment[check_at + 2 :]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, protocol, 0) + source + target
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return bytes(6) + bytes(5) + b"\1" + b"\x08\x00" + head + segment


def datagram(port: int, payload: bytes) -> bytes:
    """A UDP datagram from the client to `port` of the server."""
    return frame(17, CLIENT, SERVER, struct.pack("!HHHH", 5353, port, 8 + len(payload), 0) + payload, 6)


def conversation(client_port: int, request: bytes, answer: bytes) -> list[bytes]:
    """One TCP connection to port 80, from SYN to FIN, with a request and an answer."""
    sent = {True: 1000, False: 5000}
    frames = []

    def send(by_client: bool, flags: int, payload: bytes = b"") -> None:
        ports = (client_port, 80) if by_client else (80, client_port)
        ends = (CLIENT, SERVER) if by_client else (SERVER, CLIENT)
        numbers = sent[by_client], sent[not by_client] if flags & ACK else 0
        segment = struct.pack("!HHIIBBHHH", *ports, *numbers, 0x50, flags, 65535, 0, 0) + payload
        frames.append(frame(6, *ends, segment, 16))
        sent[by_client] += len(payload) + bool(flags & (SYN | FIN))

    send(True, SYN)
    send(False, SYN | ACK)
    send(True, ACK)
    send(True, PSH | ACK, request)
    send(False, ACK)
    send(False, PSH | ACK, answer)
    send(True, ACK)
    send(True, FIN | ACK)
    send(False, FIN | ACK)
    send(True, ACK)
    return frames


def get(target: str, agent: str = "tests") -> bytes:
    """An HTTP request."""
    return f"GET {target} HTTP/1.1\r\nHost: www.example.test\r\nUser-Agent: {agent}\r\n\r\n".encode()


def dns_query(name: str) -> bytes:
    """A query for the address of `name`."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def write_pcap(path: Path, frames: Sequence[bytes]) -> None:
    """A capture file with the frames a millisecond apart."""
    with path.open("wb") as file:
        file.write(pcap_header(ETHERNET, 65535))
        for number, data in enumerate(frames):
            file.write(struct.pack("<IIII", 1_700_000_000, 1000 * number, len(data), len(data)) + data)

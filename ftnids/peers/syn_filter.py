"""Whose connection requests the kernel drops: a socket filter on a listening socket.

Theory of operation

A filter in classic BPF (`SO_ATTACH_FILTER`) needs no privilege and belongs to one socket.  On a listening socket it
sees each segment, the connection request (SYN) first, and what it refuses is dropped before the kernel makes
anything of it: the sender gets no answer and asks again after a second, then two, then four.  Connections inherit
the filter of the socket that accepted them; they are never asked, as all but connection requests pass.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable
from typing import Final

Host = ipaddress.IPv4Address | ipaddress.IPv6Address
Instruction = tuple[int, int, int, int]  # struct sock_filter: code, jump if true, jump if false, constant

SO_ATTACH_FILTER: Final = 26
SO_DETACH_FILTER: Final = 27
LOAD_BYTE: Final = 0x30  # BPF_LD | BPF_B | BPF_ABS
LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND: Final = 0x54
SHIFT_RIGHT: Final = 0x74
JUMP_EQUAL: Final = 0x15
RETURN: Final = 0x06
NETWORK: Final = 0xFFF00000  # SKF_NET_OFF: from here on offsets count from the IP header, not from the TCP header
FLAGS_AT: Final = 13  # in the TCP header
SYN, ACK = 0x02, 0x10
SOURCE4_AT, SOURCE6_AT = 12, 8  # in the IP header
PASS, DROP = 0xFFFFFFFF, 0


def program(hosts: Iterable[Host], *, drop_hosts: bool, drop_others: bool) -> list[Instruction]:
    """The filter that drops the connection requests of `hosts`, of all others, or of both."""
    known, others = (DROP if drop_hosts else PASS), (DROP if drop_others else PASS)
    four: list[Instruction] = []
    six: list[Instruction] = []
    for host in hosts:
        if isinstance(host, ipaddress.IPv4Address):
            four += [(LOAD_WORD, 0, 0, NETWORK + SOURCE4_AT), (JUMP_EQUAL, 0, 1, int(host)), (RETURN, 0, 0, known)]
        else:
            for number, word in enumerate(struct.unpack("!4I", host.packed)):
                # a word that differs: on behind this address, over the words that are left and the return
                six += [(LOAD_WORD, 0, 0, NETWORK + SOURCE6_AT + 4 * number), (JUMP_EQUAL, 0, 7 - 2 * number, word)]
            six += [(RETURN, 0, 0, known)]
    return [
        (LOAD_BYTE, 0, 0, FLAGS_AT),
        (AND, 0, 0, SYN | ACK),
        (JUMP_EQUAL, 1, 0, SYN),
        (RETURN, 0, 0, PASS),
        (LOAD_BYTE, 0, 0, NETWORK),
        (SHIFT_RIGHT, 0, 0, 4),
        (JUMP_EQUAL, 0, len(four) + 1, 4),
        *four,
        (RETURN, 0, 0, others),
        *six,
        (RETURN, 0, 0, others),
    ]


def attach(listener: socket.socket, instructions: list[Instruction]) -> None:
    """Filter what comes to `listener`.  OSError where the kernel refuses."""
    code = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    held = ctypes.create_string_buffer(code)
    fprog = struct.pack("@HP", len(instructions), ctypes.addressof(held))  # struct sock_fprog
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)


def detach(listener: socket.socket) -> None:
    """Let everything come again."""
    listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def reset(fd: int) -> None:
    """End the TCP connection `fd` at once: the peer gets a reset, what lies unread is gone; the owner has to close it.

    This is what `connect` to no address family does, and the only way to end a connection that a library owns.
    OSError where it is no connection (any more).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(fd, struct.pack("@H14x", socket.AF_UNSPEC), 16):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

"""What would make replicas on one link see different frames, looked at before capturing."""

from __future__ import annotations

import array
import contextlib
import fcntl
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

SIOCETHTOOL: Final = 0x8946
ETHTOOL_GGRO: Final = 0x2B
ETHTOOL_GFLAGS: Final = 0x25
FLAG_RX_VLAN: Final = 1 << 8
FLAG_LRO: Final = 1 << 15
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True)
class Fault:
    """One thing to put right: what is so, and the command that cures it."""

    what: str
    cure: str


def preflight(interface: str) -> list[Fault]:
    """What is wrong with a capture interface; empty when it hands on frames as they were and sends none of its own."""
    return [*_offloads(interface), *_chatter(interface)]


def _offloads(interface: str) -> list[Fault]:
    flags = _ethtool(interface, ETHTOOL_GFLAGS)
    found = {
        "gro": (_ethtool(interface, ETHTOOL_GGRO) != 0, "generic receive offload merges frames"),
        "lro": (flags & FLAG_LRO != 0, "large receive offload merges frames"),
        "rxvlan": (flags & FLAG_RX_VLAN != 0, "receive VLAN offload takes tags off frames"),
    }
    return [Fault(what, f"ethtool -K {interface} {name} off") for name, (on, what) in found.items() if on]


def _ethtool(interface: str, command: int) -> int:
    """The value of one ethtool query; 0 where the driver has no such thing."""
    value = array.array("I", [command, 0])
    request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
        return value[1]
    return 0


def _chatter(interface: str) -> list[Fault]:
    addresses = [one.address for one in psutil.net_if_addrs().get(interface, []) if one.family in FAMILIES]
    faults = []
    if addresses:
        what = f"it has an address ({', '.join(addresses)}), and answers on the captured link"
        faults.append(Fault(what, f"ip address flush dev {interface}"))
    setting = Path("/proc/sys/net/ipv6/conf") / interface / "disable_ipv6"
    if setting.exists() and setting.read_text().strip() == "0":
        what = "it has IPv6, and sends router solicitations on the captured link"
        faults.append(Fault(what, f"echo 1 > {setting}"))
    return faults

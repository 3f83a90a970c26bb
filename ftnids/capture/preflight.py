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

from ftnids import limits
from ftnids.errors import CaptureError

SIOCETHTOOL: Final = 0x8946
ETHTOOL_GGRO: Final = 0x2B
ETHTOOL_GFLAGS: Final = 0x25
ETHTOOL_GTSO: Final = 0x1E
ETHTOOL_GUFO: Final = 0x21
ETHTOOL_GGSO: Final = 0x23
FLAG_RX_VLAN: Final = 1 << 8
FLAG_LRO: Final = 1 << 15
LINK_HEADER: Final = 18  # Ethernet with a VLAN tag, as libpcap reckons
SLOT_HEADER: Final = 80  # what the kernel puts before a frame in the buffer, about
IFF_LOOPBACK: Final = 8
ARPHRD_ETHER: Final = 1
LINKTYPES: Final = {ARPHRD_ETHER: 1, 772: 1, 65534: 101}  # loopback is Ethernet to libpcap, a tunnel raw IP
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True)
class Fault:
    """One thing to put right: what is so, and the command that cures it."""

    what: str
    cure: str


def preflight(interface: str) -> list[Fault]:
    """What is wrong with a capture interface; empty when it hands on frames as they were and sends none of its own."""
    if _is_loopback(interface):  # it cannot be cured
        cure = "for a trial it serves; else name the interface of a tap or a SPAN port"
        return [Fault("it is the loopback interface, on which this host talks to itself", cure)]
    return [*_offloads(interface), *_chatter(interface)]


def kernel_buffer(interface: str, snaplen: int, buffer_bytes: int) -> list[Fault]:
    """Whether the kernel's buffer holds too few packets to bridge a pause of the capture thread.

    In immediate mode each packet takes a slot of full length: snaplen, or the MTU where no offload makes longer frames.
    """
    statistics = psutil.net_if_stats().get(interface)
    queries = (ETHTOOL_GTSO, ETHTOOL_GUFO, ETHTOOL_GGSO, ETHTOOL_GGRO)
    offloaded = any(_ethtool(interface, query) for query in queries) or _ethtool(interface, ETHTOOL_GFLAGS) & FLAG_LRO
    longest = snaplen if offloaded or statistics is None else min(snaplen, statistics.mtu + LINK_HEADER)
    packets = buffer_bytes // (longest + SLOT_HEADER)
    if packets >= limits.KERNEL_PACKETS:
        return []
    needed = limits.KERNEL_PACKETS * (longest + SLOT_HEADER) // (1 << 20) + 1
    off = f"ethtool -K {interface} tso off gso off gro off, or "
    off = off if offloaded and not _is_loopback(interface) else ""
    what = f"its kernel buffer holds only {packets} packets"
    return [Fault(what, f"{off}a smaller capture.snaplen, or capture.buffer_mb = {needed}")]


def _is_loopback(interface: str) -> bool:
    try:
        return bool(int(Path("/sys/class/net", interface, "flags").read_text(), 16) & IFF_LOOPBACK)
    except OSError:
        return False


def filter_fault(interface: str, bpf: str) -> str:
    """Why an interface does not take a capture filter; empty where it does, and where its link type is not known."""
    try:
        hardware = int(Path("/sys/class/net", interface, "type").read_text())
    except OSError:
        hardware = ARPHRD_ETHER  # it is not there
    if not bpf or hardware not in LINKTYPES:
        return ""
    from ftnids.core.pure.source import compile_filter  # whatever captures; without an open source only it can

    try:
        compile_filter(LINKTYPES[hardware], bpf)
    except CaptureError as error:
        return str(error)
    return ""


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

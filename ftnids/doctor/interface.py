"""The capture interface: it is up, and what the capture room itself looks at when a replica starts."""

from __future__ import annotations

import array
import contextlib
import fcntl
import re
import socket
import struct
from pathlib import Path
from typing import Final

from ftnids.config import Capture
from ftnids.doctor.finding import Finding, fail, ok, warn
from ftnids.errors import FtnidsError

SYS: Final = Path("/sys/class/net")
IFF_UP: Final = 1
IFF_PROMISC: Final = 0x100
SIOCETHTOOL: Final = 0x8946
ETHTOOL_GRINGPARAM: Final = 0x10
_WHY_PROMISCUOUS: Final = "what a tap or a SPAN port mirrors goes to other hosts"
_WHY_QUEUE: Final = "what comes while the kernel is busy elsewhere waits there; the card drops the rest, uncounted here"
_WHY_THERE: Final = "the replica captures there"
_WHY_UP: Final = "nothing comes in while it is down"
_WHY_CLEAN: Final = (
    "all replicas must see the same frames: none merged or stripped, and none that a replica itself sends"
)
_WHY_BUFFER: Final = "what comes while the capture thread waits for a CPU must fit, or the kernel drops it"


def examine(interface: str, settings: Capture) -> list[Finding]:
    """All findings about a capture interface, to be captured on with `settings`."""
    if not re.fullmatch(r"[^/\s]{1,15}", interface) or not (SYS / interface).exists():
        if not SYS.is_dir():
            do = "mount -t sysfs sysfs /sys (a container has it by itself)"
            return [fail("interface", f"{SYS} is not there, which tells of interfaces", _WHY_THERE, do)]
        there = ", ".join(sorted(path.name for path in SYS.iterdir()))
        return [fail("interface", f"there is no interface {interface}", _WHY_THERE, f"name one of {there}")]
    return [up(interface), promiscuous(interface, settings), *queue(interface), *frames(interface, settings)]


def promiscuous(interface: str, settings: Capture) -> Finding:
    """Whether frames to other hosts come in."""
    flags = int((SYS / interface / "flags").read_text(), 16)
    if settings.promiscuous or flags & IFF_PROMISC:
        return ok("promiscuous", f"{interface} is promiscuous, or will be while a replica captures", _WHY_PROMISCUOUS)
    do = f"set capture.promiscuous = true, or ip link set {interface} promisc on"
    return warn("promiscuous", f"{interface} takes only frames to this host", _WHY_PROMISCUOUS, do)


def queue(interface: str) -> list[Finding]:
    """Whether the card's own receive queue is as long as it can be; nothing where the driver has none."""
    longest, length = receive_queue(interface)
    if not longest:
        return []
    if length >= longest:
        return [ok("queue", f"{interface} has a receive queue of {length} frames, its longest", _WHY_QUEUE)]
    what = f"{interface} has a receive queue of {length} frames, of {longest} that it could have"
    return [warn("queue", what, _WHY_QUEUE, f"ethtool -G {interface} rx {longest}")]


def receive_queue(interface: str) -> tuple[int, int]:
    """(longest, current) length of the card's receive queue in frames; (0, 0) where the driver does not tell."""
    value = array.array("I", [ETHTOOL_GRINGPARAM, *[0] * 8])
    request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
        return value[1], value[5]
    return 0, 0


def frames(interface: str, settings: Capture) -> list[Finding]:
    """Whether it hands on frames as they were, sends none of its own, and has a kernel buffer of some depth."""
    try:
        from ftnids.capture import kernel_buffer, preflight  # needs the core, whose absence is a finding of its own
    except (ImportError, FtnidsError) as error:
        return [warn("frames", f"{interface} cannot be examined: {error}", _WHY_CLEAN, "make build")]
    changed = [warn("frames", f"{interface}: {one.what}", _WHY_CLEAN, one.cure) for one in preflight(interface)]
    clean = ok("frames", f"{interface} has no offloads that change frames, no address, no IPv6", _WHY_CLEAN)
    faults = kernel_buffer(interface, settings.snaplen, settings.buffer_mb << 20)
    shallow = [warn("buffer", f"{interface}: {one.what}", _WHY_BUFFER, one.cure) for one in faults]
    deep = ok("buffer", f"capture.buffer_mb = {settings.buffer_mb} is enough", _WHY_BUFFER)
    return [*(changed or [clean]), *(shallow or [deep])]


def up(interface: str) -> Finding:
    """Whether it is up, and has a carrier."""
    if not int((SYS / interface / "flags").read_text(), 16) & IFF_UP:
        return fail("interface", f"{interface} is down", _WHY_UP, f"ip link set {interface} up")
    if (SYS / interface / "operstate").read_text().strip() in ("down", "lowerlayerdown"):
        return warn("interface", f"{interface} is up and has no carrier", _WHY_UP, "plug the tap or SPAN port in")
    return ok("interface", f"{interface} is up", _WHY_UP)

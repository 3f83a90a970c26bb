"""The capture interface: it is up, hands frames on as they were, and sends nothing of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ftnids.doctor.finding import Finding, fail, ok, warn
from ftnids.errors import FtnidsError

SYS: Final = Path("/sys/class/net")
IFF_UP: Final = 1
_WHY_UP: Final = "nothing comes in while it is down"
_WHY_CLEAN: Final = (
    "all replicas must see the same frames: none merged or stripped, and none that a replica itself sends"
)


def examine(interface: str) -> list[Finding]:
    """All findings about a capture interface."""
    if not re.fullmatch(r"[^/\s]{1,15}", interface) or not (SYS / interface).exists():
        there = ", ".join(sorted(path.name for path in SYS.iterdir()))
        return [fail("interface", f"there is no interface {interface}", _WHY_UP, f"name one of {there}")]
    return [up(interface), *frames(interface)]


def frames(interface: str) -> list[Finding]:
    """Whether it hands on frames as they were, and sends none of its own."""
    try:
        from ftnids.capture import preflight  # needs the core, whose absence is a finding of its own
    except (ImportError, FtnidsError) as error:
        return [warn("frames", f"{interface} cannot be examined: {error}", _WHY_CLEAN, "make build")]
    faults = [warn("frames", f"{interface}: {fault.what}", _WHY_CLEAN, fault.cure) for fault in preflight(interface)]
    clean = ok("frames", f"{interface} has no offloads that change frames, no address, no IPv6", _WHY_CLEAN)
    return faults or [clean]


def up(interface: str) -> Finding:
    """Whether it is up, and has a carrier."""
    if not int((SYS / interface / "flags").read_text(), 16) & IFF_UP:
        return fail("interface", f"{interface} is down", _WHY_UP, f"ip link set {interface} up")
    if (SYS / interface / "operstate").read_text().strip() in ("down", "lowerlayerdown"):
        return warn("interface", f"{interface} is up and has no carrier", _WHY_UP, "plug the tap or SPAN port in")
    return ok("interface", f"{interface} is up", _WHY_UP)

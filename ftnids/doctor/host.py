"""The host: capabilities of this process, shared memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from ftnids.config import Config, Ring
from ftnids.doctor.finding import Finding, fail, grade, ok

SHM: Final = Path("/dev/shm")
STATUS: Final = Path("/proc/self/status")
INDEX_BYTES: Final = 81  # per slot: captured and recovered 32 each, agreed 17
CAPABILITIES: Final = {
    "CAP_NET_RAW": (13, "capturing from an interface"),
    "CAP_NET_ADMIN": (12, "promiscuous mode, and the lab's network namespaces"),
    "CAP_SYS_ADMIN": (21, "the lab's network namespaces, and CRIU"),
    "CAP_CHECKPOINT_RESTORE": (40, "CRIU without CAP_SYS_ADMIN"),
}


def capabilities(*, capturing: bool, status: Path = STATUS) -> list[Finding]:
    """What this process may do; CAP_NET_RAW is needed where it is to capture."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status.read_text(), re.MULTILINE)
    held = int(match[1], 16) if match else 0
    findings = []
    for name, (bit, why) in CAPABILITIES.items():
        if held >> bit & 1:
            findings.append(ok(name.lower(), f"{name} is held", why))
            continue
        needed = capturing and name == "CAP_NET_RAW"
        do = f"run as root, or with AmbientCapabilities={name} in the systemd unit"
        findings.append(grade(name.lower(), needed=needed, what=f"{name} is not held", why=why, do=do))
    return findings


def shared_memory(config: Config | None, shm: Path = SHM) -> Finding:
    """Whether the ring, as configured or by default, fits into shared memory."""
    ring = config.ring if config else Ring()
    slots = 1 << (ring.slots - 1).bit_length()  # as the ring rounds them
    needed = ring.arena_bytes + ring.recovered_bytes + slots * INDEX_BYTES
    why = f"the ring takes {_mb(needed)} MB of it, all when the replica starts"
    try:
        free = os.statvfs(shm)
    except OSError as error:
        return fail("shm", f"{shm}: {error.strerror}", why, f"mount -t tmpfs tmpfs {shm}")
    available = free.f_bavail * free.f_frsize
    what = f"{shm} has {_mb(available)} MB free"
    if available >= needed:
        return ok("shm", what, why)
    used = (free.f_blocks - free.f_bavail) * free.f_frsize
    do = f"mount -o remount,size={_mb(used + needed) + 1}m {shm}, or lower ring.slots, ring.arena_mb, ring.recovered_mb"
    return grade("shm", needed=config is not None, what=what, why=why, do=do)


def _mb(size: int) -> int:
    return size >> 20

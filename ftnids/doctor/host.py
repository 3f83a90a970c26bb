"""The host: capabilities of this process, shared memory and its pages, the clock, the kernel's buffers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from pathlib import Path
from typing import Final

from ftnids.config import Config, Ring
from ftnids.doctor.finding import Finding, fail, grade, ok, warn
from ftnids.limits import RECEIVE_BUFFER_BYTES

SHM: Final = Path("/dev/shm")
STATUS: Final = Path("/proc/self/status")
MOUNTS: Final = Path("/proc/self/mounts")
SHMEM_HUGE: Final = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
SYS_NET: Final = Path("/proc/sys/net/core")
HUGE_PAGE: Final = 2 << 20
HUGE_GAIN: Final = 1 << 30  # a ring from which on they are worth a warning
STA_UNSYNC: Final = 0x40
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
    held = 0  # by its ring, or by what a killed replica left and the next one replaces
    if config is not None:
        with contextlib.suppress(OSError):
            held = (shm / f"ftnids-{config.ring_name}").lstat().st_blocks * 512
    available = free.f_bavail * free.f_frsize + held
    what = f"{shm} has {_mb(available)} MB free" + (", its ring's own among them" if held else "")
    if available >= needed:
        return ok("shm", what, why)
    used = (free.f_blocks - free.f_bavail) * free.f_frsize - held
    do = f"mount -o remount,size={_mb(used + needed) + 1}m {shm}, or lower ring.slots, ring.arena_mb, ring.recovered_mb"
    return grade("shm", needed=config is not None, what=what, why=why, do=do)


def huge_pages(config: Config | None, mounts: Path = MOUNTS, setting: Path = SHMEM_HUGE) -> Finding:
    """Whether the ring gets huge pages."""
    ring = config.ring if config else Ring()
    size = ring.arena_bytes + ring.recovered_bytes
    why = f"a ring of {_mb(size)} MB is {size // HUGE_PAGE} huge pages or {size >> 12} small ones, each looked up anew"
    try:
        options = [line.split()[3] for line in mounts.read_text().splitlines() if line.split()[1:2] == [str(SHM)]][-1:]
        match = re.search(r"\[(\w+)\]", setting.read_text())
    except (OSError, IndexError):
        options, match = [], None
    if match is None:
        return ok("hugepages", "this kernel has no huge pages for shared memory", why)
    mounted = re.search(r"huge=(\w+)", options[0]) if options else None
    chosen = mounted[1] if mounted else "never"
    if match[1] == "force" or (chosen in ("always", "within_size") and match[1] != "deny"):
        return ok("hugepages", f"{SHM} gives huge pages", why)
    what = f"{SHM} gives no huge pages"
    if size < HUGE_GAIN:
        return ok("hugepages", f"{what}; a ring of this size does without", why)
    return warn("hugepages", what, why, f"mount -o remount,huge=within_size {SHM}, before the replica starts")


def clock() -> Finding:
    """Whether something keeps the clock in step."""
    why = "alerts carry this clock's time while this replica coordinates; the set measures the members' offsets itself"
    unsynchronised, error_us = _kernel_clock()
    if error_us < 0:
        return ok("clock", "the kernel does not tell how its clock is kept", why)
    if unsynchronised:
        do = "apt install chrony, or systemctl enable --now systemd-timesyncd"
        return warn("clock", "nothing keeps this host's clock in step (the kernel says: not synchronised)", why, do)
    return ok("clock", f"the clock is synchronised, to {error_us} us at the worst", why)


def _kernel_clock() -> tuple[bool, int]:
    """(whether the kernel counts its clock as not synchronised, the largest error in us; -1 where it does not tell)."""
    libc, state = ctypes.CDLL(None), (ctypes.c_long * 26)()  # struct timex begins: modes, offset, freq, maxerror, ...
    if not hasattr(libc, "adjtimex"):
        return False, -1
    if libc.adjtimex(ctypes.byref(state)) < 0:
        return False, -1
    status = ctypes.c_int.from_address(ctypes.addressof(state) + 5 * ctypes.sizeof(ctypes.c_long)).value
    return bool(status & STA_UNSYNC), int(state[3])


def socket_buffers(core: Path = SYS_NET) -> Finding:
    """Whether sockets between replicas get the buffers that they ask for."""
    why = "a burst between replicas waits there; where it does not fit, it waits for the sender to try again"
    small = []
    for name in ("rmem_max", "wmem_max"):
        try:
            allowed = int((core / name).read_text())
        except (OSError, ValueError):
            continue
        if allowed < RECEIVE_BUFFER_BYTES:
            small.append((name, allowed))
    if not small:
        return ok("sockets", f"sockets may have buffers of {RECEIVE_BUFFER_BYTES >> 10} kB", why)
    what = ", ".join(f"net.core.{name} is {allowed}" for name, allowed in small)
    do = "; ".join(f"sysctl -w net.core.{name}={RECEIVE_BUFFER_BYTES}" for name, _ in small)
    return warn("sockets", what, why, do)


def _mb(size: int) -> int:
    return size >> 20

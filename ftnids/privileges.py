"""Who a replica is once it has opened what only root may open.

Theory of operation

Root, or CAP_NET_RAW, is needed once: to open the capture interface.  The capture stays open through a rejoin, so
nothing has to be opened again, and what is left after `drop` is a process of an ordinary user without any capability,
but for the few that a setting asks for (`needed`).  It can never get them back: they leave the bounding set, too, and
no_new_privs holds for it and for everything that it starts, the IDS first of all.

Users and groups belong to a process, capabilities to each of its threads.  So `drop` comes before any thread is
started; what a change of the user takes from one thread the kernel and the C library take from all.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

from ftnids import log
from ftnids.config import Config, make_directories
from ftnids.errors import ConfigError

CAPABILITIES: Final = {
    "CAP_NET_BIND_SERVICE": 10,
}
LAST: Final = Path("/proc/sys/kernel/cap_last_cap")
FIRST_FREE_PORT: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
CAPABILITY_VERSION: Final = 0x20080522  # of <linux/capability.h>: two words of 32 bits each
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


def needed(config: Config) -> dict[str, str]:
    """The capabilities that a replica keeps, each with the reason."""
    kept = {}
    port = config.cluster.member[config.me].parsed.port
    if port < int(FIRST_FREE_PORT.read_text()):
        kept["CAP_NET_BIND_SERVICE"] = f"a rejoin listens at port {port} again"
    return kept


def account(config: Config) -> tuple[int, int] | None:
    """User and group id that a replica is to have; None when it stays who it is.  ConfigError if there is no such."""
    name, group = config.replica.user, config.replica.group
    if not name:
        if group:
            raise ConfigError(f'replica.group = "{group}": goes with replica.user; set both or neither')
        return None
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f'replica.user = "{name}": there is no such user; make it with useradd --system') from None
    try:
        return user.pw_uid, grp.getgrnam(group).gr_gid if group else user.pw_gid
    except KeyError:
        raise ConfigError(
            f'replica.group = "{group}": there is no such group; make it with groupadd --system'
        ) from None


def reachable(config: Config) -> tuple[int, int] | None:
    """`account`, and a ConfigError, too, where this process cannot become that user."""
    ids = account(config)
    if ids is not None and os.geteuid() not in (0, ids[0]):
        who = pwd.getpwuid(os.geteuid()).pw_name
        raise ConfigError(
            f'replica.user = "{config.replica.user}": only root can become another user, and this is {who}; '
            "start as root, or remove the setting"
        )
    return ids


def prepare(config: Config) -> None:
    """Make the replica's directories where they are missing, for the user who will write them.

    ConfigError when one cannot be made, or when nobody can become that user.
    """
    ids = reachable(config)
    missing = [path for path in (config.replica.log_dir, config.replica.run_dir) if not path.exists()]
    make_directories(config.replica)
    for path in missing:
        if ids is not None and os.geteuid() == 0:
            os.chown(path, *ids)


def drop(config: Config) -> None:
    """Become the configured user and give up every capability but the needed ones.  Before threads are started.

    Root stays root where no user is configured, which is said.  ConfigError when the user may not write its
    directories or the kernel refuses.
    """
    ids = account(config)
    mask = sum(1 << CAPABILITIES[name] for name in needed(config))
    try:
        if os.geteuid() == 0:
            if ids is None:
                hint = "set replica.user: an intruder into the replica or its IDS would be root"
                log.get("privileges").warning("runs_as_root", hint=hint)
                return
            if ids[0] != 0:
                _become(config.replica.user, *ids, mask)
        if os.geteuid() != 0:
            _limit(mask)
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
        _prctl(PR_SET_DUMPABLE, 0)  # or the IDS, which is the same user, could trace this process; no core with keys
    except OSError as error:
        raise ConfigError(f"replica.user: privileges cannot be given up: {error.strerror}") from None
    make_directories(config.replica)  # may this user write them?
    check_interpreter(config)
    held = sorted(name for name, bit in CAPABILITIES.items() if held_capabilities() >> bit & 1)
    log.get("privileges").info("privileges_dropped", user=pwd.getpwuid(os.geteuid()).pw_name, kept=held)


def become(config: Config) -> None:
    """Be the configured user where this process is root, without any capability: to see what that user can do."""
    ids = account(config)
    if os.geteuid() == 0 and ids is not None and ids[0] != 0:
        _become(config.replica.user, *ids, 0)


def check_interpreter(config: Config) -> None:
    """ConfigError where this process's user may not run what starts the IDS."""
    if config.feed.ids != "none" and not os.access(sys.executable, os.X_OK):
        raise _cannot_run(config)


def check_users_interpreter(config: Config) -> None:
    """The same for the configured user, as whom a process of root does not go on."""
    ids = account(config)
    if os.geteuid() != 0 or ids is None:
        check_interpreter(config)
    elif config.feed.ids != "none":
        groups = os.getgrouplist(config.replica.user, ids[1])
        asked = ["/usr/bin/test", "-x", sys.executable]
        if subprocess.run(asked, user=ids[0], group=ids[1], extra_groups=groups, check=False).returncode:
            raise _cannot_run(config)


def held_capabilities(status: Path = Path("/proc/self/status")) -> int:
    """The capabilities that a process may use, as a mask."""
    lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
    return int(lines["CapPrm"], 16)


def _cannot_run(config: Config) -> ConfigError:
    return ConfigError(
        f'replica.user = "{config.replica.user}": may not run {sys.executable}, which starts the IDS; '
        "install ftnids where that user can read it"
    )


def _become(name: str, uid: int, gid: int, mask: int) -> None:
    """Be another user, in all threads; in this one the capabilities of `mask` stay permitted."""
    for bit in range(int(LAST.read_text()) + 1):
        if not mask >> bit & 1:
            _prctl(PR_CAPBSET_DROP, bit)
    _prctl(PR_SET_KEEPCAPS, int(mask != 0))
    os.initgroups(name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _limit(mask: int) -> None:
    """Hold no capability beyond `mask`, and hand none on to what is started."""
    libc = ctypes.CDLL(None, use_errno=True)
    mask &= held_capabilities()
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    data = struct.pack("=6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable, twice
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

"""The capture interface: it is up, hands frames on as they were, and sends nothing of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from ftnids.doctor.finding import Finding, fail, ok, warn

SYS: Final = Path("/sys/class/net")
PROC: Final = Path("/proc/sys/net/ipv6/conf")
IFF_UP: Final = 1
COMMAND_S: Final = 10.0
OFFLOADS: Final = {  # what `ethtool -k` calls it: what `ethtool -K` does
    "generic-receive-offload": "gro",
    "large-receive-offload": "lro",
    "rx-vlan-offload": "rxvlan",
}
_WHY_UP: Final = "nothing comes in while it is down"
_WHY_OFFLOADS: Final = "merged or stripped frames differ from replica to replica, and equal packets are not found"
_WHY_QUIET: Final = "what a replica sends on the captured link, the others capture: it must have no address and no IPv6"


def examine(interface: str) -> list[Finding]:
    """All findings about a capture interface."""
    if not re.fullmatch(r"[^/\s]{1,15}", interface) or not (SYS / interface).exists():
        there = ", ".join(sorted(path.name for path in SYS.iterdir()))
        return [fail("interface", f"there is no interface {interface}", _WHY_UP, f"name one of {there}")]
    return [up(interface), offloads(interface), addresses(interface), ipv6(interface)]


def up(interface: str) -> Finding:
    """Whether it is up, and has a carrier."""
    if not int((SYS / interface / "flags").read_text(), 16) & IFF_UP:
        return fail("interface", f"{interface} is down", _WHY_UP, f"ip link set {interface} up")
    if (SYS / interface / "operstate").read_text().strip() in ("down", "lowerlayerdown"):
        return warn("interface", f"{interface} is up and has no carrier", _WHY_UP, "plug the tap or SPAN port in")
    return ok("interface", f"{interface} is up", _WHY_UP)


def offloads(interface: str) -> Finding:
    """Whether the driver or the kernel merges frames or takes VLAN tags off."""
    if (shown := _run("ethtool", "-k", interface)) is None:
        do = f"apt install ethtool, then ethtool -K {interface} {' '.join(f'{name} off' for name in OFFLOADS.values())}"
        return warn("offloads", f"the offloads of {interface} cannot be read", _WHY_OFFLOADS, do)
    on = [short for name, short in OFFLOADS.items() if re.search(rf"^\s*{name}: on(?! \[fixed\])", shown, re.MULTILINE)]
    if not on:
        return ok("offloads", f"{interface} merges and strips no frames", _WHY_OFFLOADS)
    do = f"ethtool -K {interface} {' '.join(f'{name} off' for name in on)}"
    return warn("offloads", f"{interface} has {', '.join(on)} on", _WHY_OFFLOADS, do)


def addresses(interface: str) -> Finding:
    """Whether it has an IP address."""
    if (shown := _run("ip", "-j", "address", "show", "dev", interface)) is None:
        do = f"apt install iproute2, then ip address flush dev {interface}"
        return warn("addresses", f"the addresses of {interface} cannot be read", _WHY_QUIET, do)
    found = [f"{one['local']}/{one['prefixlen']}" for link in json.loads(shown) for one in link.get("addr_info", [])]
    if not found:
        return ok("addresses", f"{interface} has no address", _WHY_QUIET)
    do = f"ip address flush dev {interface}"
    return warn("addresses", f"{interface} has {', '.join(found)}", _WHY_QUIET, do)


def ipv6(interface: str) -> Finding:
    """Whether IPv6 is on: it sends router solicitations and the like even without an address from us."""
    setting = PROC / interface / "disable_ipv6"
    if not setting.exists() or setting.read_text().strip() == "1":
        return ok("ipv6", f"{interface} has no IPv6", _WHY_QUIET)
    name = interface.replace(".", "/")  # sysctl swaps dots and slashes
    do = f"sysctl -w net.ipv6.conf.{name}.disable_ipv6=1"
    return warn("ipv6", f"{interface} has IPv6 on", _WHY_QUIET, do)


def _run(program: str, *arguments: str) -> str | None:
    """What a program prints; None where it is missing or fails."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        return None
    try:
        done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

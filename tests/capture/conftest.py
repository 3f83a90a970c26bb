"""A veth pair in a network namespace of the test's own; every test runs over both implementations."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import pytest

from ftnids.core import capture, ring
from ftnids.lab import netns
from tests.core.helpers import IMPLEMENTATIONS, Core

OUTSIDE: Final = "out0"  # frames are sent here ...
INSIDE: Final = "cap0"  # ... and captured here


class Wire:
    """Two ends of a link that nobody else is on."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def ip(self, command: str) -> None:
        """Run an `ip` command in the namespace."""
        subprocess.run(["ip", "-n", self.namespace, *command.split()], check=True, capture_output=True)

    def wait_until_up(self) -> None:
        """Until both ends carry frames: the kernel gets a new link ready on its own time."""
        while True:
            shown = subprocess.run(["ip", "-n", self.namespace, "-j", "link"], check=True, capture_output=True)
            states = {link["ifname"]: link["operstate"] for link in json.loads(shown.stdout)}
            if states[OUTSIDE] == states[INSIDE] == "UP":
                return
            time.sleep(0.01)

    def send(self, frames: Iterable[bytes], interface: str = OUTSIDE) -> None:
        """Put frames on the link, from one end."""
        with netns.entered(self.namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
            out.bind((interface, 0))
            for frame in frames:
                out.send(frame)


@pytest.fixture(params=IMPLEMENTATIONS)
def core(request: pytest.FixtureRequest) -> Core:
    """Each implementation in turn."""
    return Core(request.param)


@pytest.fixture
def wire(needs_root: None) -> Iterator[Wire]:
    """A link without addresses, IPv6 or offloads."""
    wire = Wire(f"ftnids-wire-{os.getpid()}")
    subprocess.run(["ip", "netns", "add", wire.namespace], check=True)
    try:
        wire.ip(f"link add {OUTSIDE} type veth peer name {INSIDE}")
        subprocess.run(
            ["ip", "netns", "exec", wire.namespace, "sysctl", "-qw"]
            + [f"net.ipv6.conf.{one}.disable_ipv6=1" for one in ("all", "default", OUTSIDE, INSIDE)],
            check=True,
        )
        netns.switch_offloads_off(wire.namespace, (OUTSIDE, INSIDE))
        for end in (OUTSIDE, INSIDE):
            wire.ip(f"link set {end} up")
        wire.wait_until_up()
        yield wire
    finally:
        subprocess.run(["ip", "netns", "del", wire.namespace], check=True)


@pytest.fixture
def listen(core: Core, wire: Wire) -> Iterator[Callable[..., tuple[capture.Capture, ring.Ring]]]:
    """Opens live captures on the inner end, each with a ring."""
    opened: list[tuple[capture.Capture, ring.Ring]] = []

    def make(ring_changes: dict[str, Any] | None = None, **changes: object) -> tuple[capture.Capture, ring.Ring]:
        settings = {"snaplen": 65535, "promiscuous": True, "buffer_bytes": 8 << 20, "bpf": ""} | changes
        with netns.entered(wire.namespace):
            source = core.Capture.live(INSIDE, **settings)  # type: ignore[arg-type]
        opened.append((source, core.ring(snaplen=source.snaplen, **(ring_changes or {}))))
        return opened[-1]

    yield make
    for source, one in opened:
        source.close()
        one.close(unlink=True)

"""The set-ups of replicas/: their commands, run in network namespaces, show every sensor each frame once, unchanged."""

from __future__ import annotations

import re
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from ftnids.core import Capture, Ring
from ftnids.lab import leftovers, netns
from ftnids.lab.processes import wait_until
from tests import pages
from tests.pages import ROOT, Block

pytestmark = pytest.mark.needs_root

ETHERTYPE: Final = b"\x88\xb5"  # for experiments: nobody else speaks it
TAG: Final = b"\x81\x00\x00\x2a"  # VLAN 42
MIDDLE: Final = ("the hub", "the switch", "the copying machine")
EVERYWHERE: Final = ROOT / "docs/deployment.md"
ENDS: Final = {"hub": ("left", "right"), "span": ("left", "right"), "bond": ("left",), "vxlan": ("left",)}
DEVICES: Final = {"bond": "type bond mode broadcast", "vxlan": "type vxlan id 1 dstport 4789"}


def blocks(page: Path) -> list[Block]:
    return [block for block in pages.blocks() if block.page == page and block.role]


def interface(page: Path) -> str:
    """What the page's example of a configuration captures."""
    for block in pages.blocks("toml"):
        if block.page == page and (named := tomllib.loads(block.text).get("capture", {}).get("interface")):
            return str(named)
    return "eth1"


def frames(sender: str) -> list[bytes]:
    """Small, large and tagged frames, each with other contents."""
    addresses = b"\x02\x00\x00\x00\x00\xee" + b"\x02\x00\x00\x00\x00" + sender[:1].encode()
    return [
        addresses + tag + ETHERTYPE + (f"{sender} {at:04} ".encode() * 200)[:size]
        for at in range(20)
        for tag, size in ((b"", 46), (b"", 1500), (TAG, 800))
    ]


@dataclass
class Net:
    """Network namespaces and cables of one test; all are gone when `undo` is closed."""

    undo: ExitStack
    tag: str = field(default_factory=leftovers.tag)
    known: set[str] = field(default_factory=set)

    def full(self, name: str) -> str:
        if name not in self.known:
            self.known.add(name)
            self.undo.callback(leftovers.remove_namespace, f"{self.tag}-{name}")
            netns.run("ip", "netns", "add", f"{self.tag}-{name}")
            self.shell(name, "ip link set lo up; sysctl -q -w net.ipv6.conf.default.disable_ipv6=1")
        return f"{self.tag}-{name}"

    def shell(self, name: str, script: str) -> None:
        """Run `script` there as a reader would, ending at the first failure."""
        command = ["ip", "netns", "exec", self.full(name), "sh", "-eu", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"in {name}: {script}\n{done.stdout}{done.stderr}"

    def cable(self, name: str, end: str, other: str, other_end: str) -> None:
        there, here = self.full(other), self.full(name)
        netns.run("ip", "-n", here, "link", "add", end, "type", "veth", "peer", other_end, "netns", there)
        netns.run("ip", "-n", here, "link", "set", end, "up")
        netns.run("ip", "-n", there, "link", "set", other_end, "up")

    def need(self, kind: str) -> None:
        """Skip where the kernel cannot make such a device."""
        made = subprocess.run(
            ["ip", "-n", self.full("probe"), "link", "add", "probe", *DEVICES[kind].split()],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            pytest.skip(f"the kernel cannot make `{DEVICES[kind]}`: {made.stderr.strip()}")

    def send(self, name: str) -> None:
        with netns.entered(self.full(name)), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            link.bind(("eth0", 0))
            for frame in frames(name):
                link.send(frame)

    def sensor(self, name: str, interface: str) -> Sensor:
        with netns.entered(self.full(name)):
            capture = Capture.live(interface, snaplen=65535, promiscuous=True, buffer_bytes=1 << 22, bpf="")
        self.undo.callback(capture.close)
        ring = Ring.create(
            f"{leftovers.ring_tag()}-{name}",
            slots=1024,
            arena_bytes=1 << 22,
            recovered_slots=1024,
            recovered_bytes=1 << 20,
            agreed_slots=1024,
            linktype=capture.linktype,
            snaplen=65535,
            seed=1,
        )
        self.undo.callback(ring.close, unlink=True)
        return Sensor(capture, ring)


@dataclass
class Sensor:
    """A replica's capture, without the replica."""

    capture: Capture
    ring: Ring

    def seen(self) -> list[bytes]:
        """Our frames that it captured up to now, in its order."""
        self.capture.run(self.ring, 1000, 50)
        batch = self.ring.gather(np.arange(self.ring.tail, self.ring.head, dtype=np.int64))
        ends = np.cumsum(batch.caplen, dtype=np.int64).tolist()
        cut = [bytes(batch.data[end - size : end]) for end, size in zip(ends, batch.caplen.tolist(), strict=True)]
        return [frame for frame in cut if ETHERTYPE in (frame[12:14], frame[16:18])]


@pytest.fixture
def net() -> Iterator[Net]:
    if not Path("/proc/sys/net/ipv6").exists():
        pytest.skip("the kernel has no IPv6 to turn off")
    with ExitStack() as undo:
        yield Net(undo)


def connect(net: Net, kind: str) -> None:
    """The cables of one set-up: a link's ends, the machine in the middle, two sensors."""
    net.cable("left", "eth0", "middle", "eth0")
    net.cable("right", "eth0", "middle", "eth3")
    if kind != "vxlan":
        net.cable("middle", "eth1", "a", "eth1")
        net.cable("middle", "eth2", "b", "eth1")
        return
    net.shell("way", "ip link add way type bridge; ip link set way mtu 1600 up")
    for name, address in (("middle", "192.0.2.9"), ("a", "192.0.2.1"), ("b", "192.0.2.2")):
        net.cable("way", f"to-{name}", name, "eth1")
        net.shell("way", f"ip link set to-{name} mtu 1600 master way")
        net.shell(name, f"ip address add {address}/24 dev eth1")


def set_up(net: Net, kind: str) -> None:
    """Run the page's commands, each block on the machine that it names."""
    page = ROOT / f"replicas/{kind}/README.md"
    everywhere = [] if kind == "vxlan" else blocks(EVERYWHERE)
    for block in [*everywhere, *blocks(page)]:
        if block.role.startswith(MIDDLE):
            net.shell("middle", block.text)
        elif block.role == "each sensor" and "eth2" not in block.text:
            net.shell("a", block.text)
            net.shell("b", block.text)
        elif block.role in ("sensor a", "sensor b"):
            net.shell(block.role[-1], block.text)


def judged(net: Net, sensors: list[Sensor], ends: tuple[str, ...]) -> None:
    """Each end sends; every sensor sees every frame once and unchanged, those of one end in order."""
    for end in ends:
        net.send(end)
    count = sum(len(frames(end)) for end in ends)
    for sensor in sensors:
        wait_until(lambda sensor=sensor: len(sensor.seen()) >= count, 10.0, "that all frames are seen")  # type: ignore[misc]
        seen = sensor.seen()
        for end in ends:
            assert [frame for frame in seen if frame[11:12] == end[:1].encode()] == frames(end)
        assert len(seen) == count


@pytest.mark.parametrize("kind", list(ENDS))
def test_every_sensor_sees_every_frame_once(kind: str, net: Net) -> None:
    if kind in DEVICES:
        net.need(kind)
    connect(net, kind)
    set_up(net, kind)
    page = ROOT / f"replicas/{kind}/README.md"
    named = "eth1" if kind == "hub" else interface(page)  # the hub's example is for a tap with two outputs
    judged(net, [net.sensor(name, named) for name in ("a", "b")], ENDS[kind])


def test_a_tap_with_an_output_for_each_direction(net: Net) -> None:
    net.cable("left", "eth0", "a", "eth1")
    net.cable("right", "eth0", "a", "eth2")
    page = ROOT / "replicas/hub/README.md"
    for block in blocks(page):
        if block.role == "each sensor":
            net.shell("a", block.text)
    judged(net, [net.sensor("a", interface(page))], ("left", "right"))


def test_every_machine_that_a_page_names_is_known() -> None:
    """A block for a machine that no test has would never be run."""
    known = re.compile(r"each sensor|sensor [ab]|" + "|".join(MIDDLE))
    kinds = {path.parent.name for path in (ROOT / "replicas").glob("*/README.md")} - {"lab", "monitoring"}
    assert kinds >= set(ENDS)
    for block in pages.blocks():
        if block.role:
            assert known.match(block.role), f"{block.where}: {block.role}"
            assert block.page == EVERYWHERE or block.page.parent.name in ENDS, f"{block.where}: is run by nobody"

"""The lab's link and its sensors, in network namespaces.

    client ─┐                               ┌─ cap0, namespace r0 ── sync0 ─┐
    server ─┤  hub: what comes in at one    ├─ cap0, namespace r1 ── sync0 ─┤ bridge `sync`
    replay ─┘  port goes out at all others  └─ cap0, namespace tap          ┘

A port is a veth pair with one end in the namespace `hub`.  `tc` copies each frame that comes in from
a sender to every other sender and every sensor (`action mirred egress mirror`), as a hub does; a Linux
bridge would learn addresses and stop flooding.  With `link="bond"` the copies for the sensors go through
one bond in broadcast mode instead.  Sensors have no address and no IPv6 on `cap0` and send nothing.

Frames must be seen as on a wire: all offloads are off, so that none is merged, split or left without
its checksum.  The replicas talk over a bridge of their own.  Nothing is made in the host's own namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ftnids import limits
from ftnids.errors import FtnidsError, UsageError
from ftnids.lab import leftovers

CAPTURE: Final = "cap0"  # a sensor's end of its port
SYNC: Final = "sync0"  # a replica's end of the sync network
SENDER: Final = "eth0"  # a sender's end of its port
TAP: Final = "tap"
HUB: Final = "hub"
BOND: Final = "bond0"
WIRE_MTU: Final = 1500  # of senders that run real programs
PORT_MTU: Final = 65535  # the most that a veth takes; traces recorded with offloads hold frames far above 1500

SIOCETHTOOL: Final = 0x8946
CLONE_NEWNET: Final = 0x40000000
# ETHTOOL_S*: receive and transmit checksums, scatter-gather, TSO, GSO, GRO; and the flags (LRO, VLAN tags)
OFFLOADS: Final = {"rx": 0x15, "tx": 0x17, "sg": 0x19, "tso": 0x1F, "gso": 0x24, "gro": 0x2C, "flags": 0x26}


@dataclass(frozen=True)
class Sender:
    """A namespace that sends into the hub; without an address it replays frames, with one it runs programs."""

    name: str
    address: str = ""  # IPv4 address with prefix length

    @property
    def mtu(self) -> int:
        return WIRE_MTU if self.address else PORT_MTU


def run(*command: str) -> str:
    """Run a set-up command; its standard output.  FtnidsError with the command and its own words when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limits.LAB_COMMAND_SECONDS, check=False)
    except FileNotFoundError as error:
        raise UsageError(f"{command[0]} is not installed; the lab's hub needs it (apt install iproute2)") from error
    except subprocess.TimeoutExpired as error:
        raise FtnidsError(f"`{' '.join(command)}` took longer than {limits.LAB_COMMAND_SECONDS} s") from error
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[0]
        raise FtnidsError(f"`{' '.join(command)}` failed: {words}")
    return done.stdout


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """This thread is in network namespace `namespace`; sockets opened here stay in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as home, Path(f"/run/netns/{namespace}").open("rb") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter network namespace {namespace}")
        try:
            yield
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET):  # going on in the wrong namespace would do harm
                os.abort()


def switch_offloads_off(namespace: str, interfaces: Iterable[str]) -> None:
    """Have every frame cross `interfaces` as it is on a wire.  What a driver does not know it cannot do."""
    with entered(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for interface in interfaces:
            for command in OFFLOADS.values():
                value = ctypes.create_string_buffer(struct.pack("II", command, 0))
                request = struct.pack("16sP8x", interface.encode(), ctypes.addressof(value))
                with contextlib.suppress(OSError):
                    fcntl.ioctl(control, SIOCETHTOOL, request)


def has_bonding() -> bool:
    """Whether the running kernel has the bonding driver, built in or as a module that can be loaded."""
    if Path("/proc/net/bonding").exists() or Path("/sys/module/bonding").exists():
        return True
    modprobe = shutil.which("modprobe", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return modprobe is not None and subprocess.run([modprobe, "-q", "bonding"], check=False).returncode == 0


def check_host(link: str) -> None:
    """UsageError that says what is missing, when this user, host or kernel cannot have the lab's link."""
    if os.geteuid() != 0:
        raise UsageError("--netns makes network namespaces, which needs root; run as root or say --no-netns")
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            raise UsageError(f"--netns needs `{program}`, which is not installed: apt install iproute2")
    if link == "bond" and not has_bonding():
        raise UsageError("--link bond needs the kernel's bonding driver (CONFIG_BONDING): missing here; use --link hub")


def at_random(share: float) -> str:
    """Classic BPF, as `tc` takes it, that matches this share of all frames."""
    below = min(int(share * (1 << 32)), (1 << 32) - 1)
    ld_random, jge, ret = 0x20, 0x35, 0x06  # SKF_AD_OFF + SKF_AD_RANDOM is where the kernel keeps its dice
    return f"4,{ld_random} 0 0 {0xFFFFF000 + 56},{jge} 1 0 {below},{ret} 0 0 {0xFFFFFFFF},{ret} 0 0 0"


@dataclass
class Link:
    """The namespaces of one run.  A context manager: all of it is gone when the block is left, however it is left."""

    replicas: Sequence[str]
    senders: Sequence[Sender]
    kind: str = "hub"  # or "bond"
    _made: list[str] = field(default_factory=list)

    def namespace(self, name: str) -> str:
        """The full name of this run's namespace `name`."""
        return f"{leftovers.tag()}-{name}"

    def inside(self, name: str, *command: str) -> list[str]:
        """`command` as it runs in namespace `name`."""
        return ["ip", "netns", "exec", self.namespace(name), *command]

    def sync_address(self, name: str) -> str:
        """The address of replica `name` on the sync network."""
        return f"10.83.0.{self.replicas.index(name) + 1}"

    @property
    def sensors(self) -> list[str]:
        return [*self.replicas, TAP]

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Kill what still runs in the namespaces and remove them, with all that they hold."""
        while self._made:
            leftovers.remove_namespace(self._made[-1])
            self._made.pop()

    def drops(self) -> int:
        """Frames that the link itself lost, the other end's queue being full: 0, or the tap is not the whole truth.

        A veth counts these as its own `tx_dropped`.  (`rx_dropped` counts captured frames that no protocol wanted.)
        """
        ends = [(HUB, name) for name in self.sensors] + [(sender.name, SENDER) for sender in self.senders]
        return sum(int(self._in(name, f"cat /sys/class/net/{end}/statistics/tx_dropped")) for name, end in ends)

    # -- breaking the sync network -------------------------------------------------------------

    def cut(self, name: str) -> None:
        """Pull replica `name`'s plug out of the sync network."""
        self._in(HUB, f"ip link set sync-{name} down")

    def mend(self, name: str) -> None:
        """Put the plug back."""
        self._in(HUB, f"ip link set sync-{name} up")

    def lose(self, share: float) -> None:
        """From now on lose this share of the frames on the sync network, at random, on their way to each replica.

        By `netem` where the kernel has it, else by a filter that hands them to a veth which leads nowhere.
        """
        try:
            for name in self.replicas:
                self._in(HUB, f"tc qdisc add dev sync-{name} root netem loss {share:.4%}")
            return
        except FtnidsError as error:
            if "qdisc kind is unknown" not in str(error):
                raise
        self._in(HUB, "ip link add void type veth peer nowhere")
        self._in(HUB, "ip link set void up")
        self._in(HUB, "ip link set nowhere up")
        for name in self.replicas:
            self._in(HUB, f"tc qdisc add dev sync-{name} clsact")
            chosen = ["bytecode", at_random(share), "action", "mirred", "egress", "redirect", "dev", "void"]
            run(*self.inside(HUB, *f"tc filter add dev sync-{name} egress protocol all bpf".split(), *chosen))

    # -- making it ---------------------------------------------------------------------------

    def _in(self, name: str, command: str) -> str:
        return run(*self.inside(name, *command.split()))

    def _make(self) -> None:
        for name in (HUB, *(sender.name for sender in self.senders), *self.sensors):
            self._make_namespace(name)
        for sender in self.senders:
            self._make_port(sender.name, SENDER, sender.mtu)
        for sensor in self.sensors:
            self._make_port(sensor, CAPTURE, PORT_MTU)
        self._make_sync_network()
        self._connect()
        for sender in self.senders:
            if sender.address:
                self._in(sender.name, f"ip link set {SENDER} arp on")
                self._in(sender.name, f"ip address add {sender.address} dev {SENDER}")

    def _make_namespace(self, name: str) -> None:
        full = self.namespace(name)
        self._made.append(full)  # before it is made, so that a Ctrl-C in between leaves nothing
        run("ip", "netns", "add", full)
        # A new namespace speaks IPv6 on every interface that comes up, capture interfaces included.
        for which in ("all", "default"):
            switch = f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6"
            if Path(switch).exists():
                run(*self.inside(name, "sh", "-c", f"echo 1 > {switch}"))
        self._in(name, "ip link set lo up")

    def _make_port(self, name: str, interface: str, mtu: int) -> None:
        """A veth pair: `interface` in namespace `name`, the other end, called `name`, in the hub."""
        there = self.namespace(name)
        self._in(HUB, f"ip link add {name} mtu {PORT_MTU} type veth peer {interface} netns {there}")
        switch_offloads_off(self.namespace(HUB), [name])
        switch_offloads_off(there, [interface])
        self._in(name, f"ip link set {interface} mtu {mtu} arp off up")
        self._in(HUB, f"ip link set {name} arp off up")

    def _make_sync_network(self) -> None:
        self._in(HUB, "ip link add sync type bridge")
        self._in(HUB, "ip link set sync up")
        for name in self.replicas:
            self._in(HUB, f"ip link add sync-{name} type veth peer {SYNC} netns {self.namespace(name)}")
            self._in(HUB, f"ip link set sync-{name} master sync up")
            self._in(name, f"ip address add {self.sync_address(name)}/24 dev {SYNC}")
            self._in(name, f"ip link set {SYNC} up")

    def _connect(self) -> None:
        """Every frame that comes in from a sender goes out to all other senders and to all sensors."""
        if self.kind == "bond":
            self._in(HUB, f"ip link add {BOND} mtu {PORT_MTU} type bond mode broadcast miimon 100")
            for name in self.sensors:
                self._in(HUB, f"ip link set {name} down")  # only an interface that is down can join a bond
                self._in(HUB, f"ip link set {name} master {BOND}")
            self._in(HUB, f"ip link set {BOND} up")
        sensors = [BOND] if self.kind == "bond" else self.sensors
        for sender in self.senders:
            ports = [other.name for other in self.senders if other is not sender] + sensors
            mirrors = " ".join(f"action mirred egress mirror dev {port}" for port in ports)
            self._in(HUB, f"tc qdisc add dev {sender.name} ingress")
            self._in(HUB, f"tc filter add dev {sender.name} parent ffff: protocol all u32 match u32 0 0 {mirrors}")

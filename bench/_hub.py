"""The lab's hub for benches: replicas that capture live, a generator, and other programs at a sensor's port.

    with Hub(folder, trace, ids="suricata") as hub:
        hub.up(loss=0.01)                                # all replicas, without an IDS unless asked
        with hub.listening(tcpdump(hub)) as listener:    # at a port of its own
            with hub.sending(100_000) as traffic:
                before = hub.sample()
                time.sleep(2)
                used = hub.sample() - before
        hub.down()

Replicas talk over the lab's sync network, with CURVE, and write no alerts.  All runs on this machine, and the hub is
the kernel's work: its copies for each port, up to the buffers that the sensors map, are made while the *generator*
sends, and are charged to the generator's process.  Processor times of replicas, tcpdump and Suricata do not
hold them, as they do not hold a network card's interrupts on a sensor of its own.  What the replicas' own sync
traffic costs in the kernel is in theirs.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psutil

from ftnids.core import Ring
from ftnids.errors import FtnidsError
from ftnids.lab import netns, steady
from ftnids.lab.netns import CAPTURE, TAP
from ftnids.lab.options import Options
from ftnids.lab.processes import Child, wait_until
from ftnids.lab.stage import Stage
from ftnids.lab.traffic import Traffic
from snort_adapter.launchers import launcher

SNAPLEN: Final = 2_048  # the lab's ports take longer frames than a link does: a larger one would waste capture buffers
BUFFER_MB: Final = 64  # of each capture in the kernel, a replica's default
READY_S: Final = 20.0
QUIET_S: Final = 0.2  # without a new packet: all that was sent has arrived
END_S: Final = 15.0
DUMP: Final = Path(__file__).resolve().parent / "native" / "dump.c"
SURICATA: Final = """%YAML 1.1
---
include: {steady}
default-packet-size: {snaplen}
af-packet:
  - interface: {interface}
    threads: 1
    defrag: no
    use-mmap: yes
    tpacket-v3: yes
    block-size: 1048576
    ring-size: {slots}
    checksum-checks: no
"""


@dataclass(frozen=True)
class Sample:
    """Time, processor seconds of each process, and frames at each sensor's port; or what passed between two."""

    at: float
    cpu: dict[str, float]  # r0, `r0 ids`, generator, the listener's name
    frames: dict[str, int]  # r0, tap

    def __sub__(self, before: Sample) -> Sample:
        cpu = {name: used - before.cpu.get(name, 0.0) for name, used in self.cpu.items()}
        frames = {name: count - before.frames[name] for name, count in self.frames.items()}
        return Sample(self.at - before.at, cpu, frames)

    def ns(self, name: str) -> float:
        """Processor time of a process per frame of the link, in ns."""
        return self.cpu[name] / max(min(self.frames.values()), 1) * 1e9

    @property
    def rate(self) -> float:
        """Frames/s on the link."""
        return min(self.frames.values()) / self.at


@dataclass(frozen=True)
class Program:
    """One that listens at a sensor's port: its command, and what it prints when it does and when it has ended."""

    name: str
    command: list[str]
    ready: str
    packets: str  # patterns with the figure as a group
    drops: str


class Listener:
    """A running Program; its figures are there when it has ended."""

    def __init__(self, program: Program, child: Child) -> None:
        self.program, self.child = program, child
        self.packets = self.drops = 0

    def await_ready(self) -> None:
        """Wait until it captures.  FtnidsError when it ends instead."""

        def ready() -> bool:
            if self.child.status is not None:
                raise FtnidsError(f"{self.program.name} did not start: {self.child.last_words()}")
            return self.program.ready in self._said()

        wait_until(ready, READY_S, f"the start of {self.program.name}")

    def end(self) -> None:
        """Have it end, and read its figures."""
        self.child.signal(signal.SIGTERM)
        wait_until(lambda: self.child.status is not None, END_S, f"the end of {self.program.name}")
        self.packets, self.drops = self._figure(self.program.packets), self._figure(self.program.drops)

    def _figure(self, pattern: str) -> int:
        found = re.findall(pattern, self._said())
        if not found:
            raise FtnidsError(f"{self.program.name} says nothing of its drops: {self.child.last_words()}")
        return int(found[-1])

    def _said(self) -> str:
        return self.child.log.read_text(errors="replace")


class Hub(Stage):
    """A Stage with replicas that are started with other settings again and again, and traffic at any rate."""

    def __init__(
        self,
        out: Path,
        trace: Path,
        *,
        replicas: int = 2,
        ids: str = "none",
        adjust: Callable[[str, dict[str, Any]], None] = lambda name, tables: None,
    ) -> None:
        """`ids`: the one that `up` may be asked for; `adjust` changes the configuration of a replica in place."""

        def change(name: str, tables: dict[str, Any]) -> None:
            tables["capture"] |= {"snaplen": SNAPLEN, "buffer_mb": BUFFER_MB}
            tables["feed"] |= {"agreed_pcap": "", "hashes": ""}
            tables["alerts"] = {"output": "", "eve_output": ""}
            adjust(name, tables)

        super().__init__(Options(out=out, replicas=replicas, pcap=trace, ids=ids, netns=True), change)
        self.rings: dict[str, Ring] = {}
        self._sender: Traffic | None = None
        self._listener: Listener | None = None

    # -- the replicas --------------------------------------------------------------------------

    def up(self, *, loss: float = 0.0, ids: bool = False) -> None:
        """Start all replicas, and wait until they are one set."""
        for name in self.options.names:
            self.tables[name]["capture"]["drop"]["loss"] = loss
            self.tables[name]["feed"]["ids"] = self.options.ids if ids else "none"
            (self.places.replica(name) / "status.json").unlink(missing_ok=True)  # of the set before
        self.start(*self.options.names)
        self.together(*self.options.names)
        self.rings = {name: Ring.attach(self.ring(name)) for name in self.options.names}

    def down(self) -> None:
        """End all replicas, those by force that do not by themselves."""
        for ring in self.rings.values():
            ring.close()
        self.rings = {}
        for name in self.live:
            self.signal(name, signal.SIGTERM)
        with contextlib.suppress(FtnidsError):
            wait_until(lambda: all(self.replicas[one].child.status is not None for one in self.live), END_S, "")
        for name in self.live[:]:
            self.kill(name)

    def settled(self, since: float, seconds: float = READY_S) -> dict[str, dict[str, Any]]:
        """The status of each replica, written after `since` (seconds since the epoch)."""
        names = self.live
        wait_until(lambda: all(self.status(one)["time"] > since for one in names), seconds, "a status of each replica")
        return {name: self.status(name) for name in names}

    def await_quiet(self, seconds: float = END_S) -> float:
        """Wait until nothing more is captured, agreed or fed; since when, in seconds since the epoch."""
        deadline = time.monotonic() + seconds
        seen, since = self._progress(), time.time()
        while time.time() - since < QUIET_S and time.monotonic() < deadline:
            time.sleep(0.01)
            if (now := self._progress()) != seen:
                seen, since = now, time.time()
        return since

    def _progress(self) -> list[tuple[int, int, int]]:
        return [(ring.head, ring.stable, ring.fed) for ring in self.rings.values()]

    # -- the traffic ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def sending(self, pps: int, trace: Path | None = None) -> Iterator[Traffic]:
        """The trace goes over the hub at that many packets/s (0: as fast as it goes) while the block lasts.

        It flows when the block begins; when it is left, `sent` and `seconds` say what was sent, and how long it took.
        """
        options = replace(self.options, pcap=trace or self.options.pcap, pps=pps, topspeed=pps == 0)
        self._sender = Traffic(options, self.link, self.children, self.places.out / "traffic")
        before = self._frames()
        self._sender.prepare()
        self._sender.start()
        try:
            wait_until(lambda: self._frames() != before or self._sender_over(), READY_S, "the first packet")
            yield self._sender
        finally:
            sender, self._sender = self._sender, None
            sender.stop()
        wait_until(lambda: sender.over, READY_S, "the end of the traffic")
        report = sender.report()
        self.sent, self.seconds = int(report["sent"]), report["seconds"]

    def _sender_over(self) -> bool:
        return self._sender is None or self._sender.over

    # -- what else listens -----------------------------------------------------------------------

    @contextlib.contextmanager
    def listening(self, program: Program) -> Iterator[Listener]:
        """A program captures at the tap's port while the block lasts; then its figures are there."""
        log = self.places.out / f"{program.name}.log"
        log.unlink(missing_ok=True)
        child = self.children.start(program.name, self.link.inside(TAP, *program.command), log)
        self._listener = Listener(program, child)
        try:
            self._listener.await_ready()
            yield self._listener
            self._listener.end()
        finally:
            self._listener = None
            child.kill()

    # -- what it costs -----------------------------------------------------------------------------

    def sample(self) -> Sample:
        """The processes' times and the ports' frames, now."""
        pids = {name: self.pid(name) for name in self.live}
        if self._sender is not None:
            pids["generator"] = self._sender.pids[0]
        if self._listener is not None:
            pids[self._listener.program.name] = self._listener.child.process.pid
        frames, cpu = self._frames(), {name: processor_s(pid) for name, pid in pids.items()}
        at = time.monotonic()
        for name in self.live:  # an IDS is a child of its replica
            if children := psutil.Process(pids[name]).children(recursive=True):
                cpu[f"{name} ids"] = sum(processor_s(child.pid) for child in children)
        return Sample(at, cpu, frames)

    def _frames(self) -> dict[str, int]:
        """Frames that have come to each sensor's port, whether anybody captures there or not."""
        found = {}
        for name in self.link.sensors:
            with netns.entered(self.link.namespace(name)):
                lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
            found[name] = next(int(line.split()[2]) for line in lines if line.strip().startswith(f"{CAPTURE}:"))
        return found


def processor_s(pid: int) -> float:
    """Processor seconds of a process, user and system, of all its threads that live, by the scheduler's nanoseconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def tcpdump(hub: Hub) -> Program:
    """`tcpdump -w /dev/null` with the buffer of a replica; where it is missing, the same calls of libpcap in C."""
    patterns = r"(\d+) packets? captured", r"(\d+) packets? dropped by kernel"
    settings = str(SNAPLEN), str(BUFFER_MB << 10)
    if shutil.which("tcpdump"):
        options = ["-n", "-Z", "root", "-s", settings[0], "-B", settings[1], "-w", "/dev/null"]
        return Program("tcpdump", ["tcpdump", "-i", CAPTURE, *options], "listening on", *patterns)
    built = hub.places.out / "dump"
    if not built.exists():
        flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["cc", *flags, str(DUMP), "-o", str(built), "-lpcap"], check=True)
    return Program("pcap_dump", [str(built), CAPTURE, *settings], "listening on", *patterns)


def suricata(hub: Hub) -> Program:
    """Suricata alone on the interface: rules and settings of the replicas' IDS, one packet thread, their buffer."""
    folder = hub.places.out / "suricata"
    folder.mkdir(exist_ok=True)
    config = folder / "live.yaml"
    slots = (BUFFER_MB << 20) // SNAPLEN
    known = steady.ids_config("suricata", folder)
    config.write_text(SURICATA.format(steady=known, snaplen=SNAPLEN, interface=CAPTURE, slots=slots))
    ids = launcher("suricata", config=str(config))
    ids.prepare(folder)
    *command, _, _ = ids.command(Path(), folder)  # without `-r FILE`
    command += [f"--af-packet={CAPTURE}"]
    return Program("suricata", command, "Engine started", r"packets: (\d+), drops", r"drops: (\d+)")

"""The lab's hub for benches: replicas that capture live, a generator, and other programs at a sensor's port.

    with Hub(folder, trace, ids="suricata") as hub:
        hub.up(loss=0.01)                                # all replicas, without an IDS unless asked
        with hub.listening(tcpdump(hub)) as listener:    # at a port of its own
            step = hub.play(100_000, seconds=2.0)
        print(step.missing, step.used[0].ns("r0"), listener.drops)
        hub.down()

`play` knows by the replicas' drop generators what each should have captured, and by their rings what it did, what it
agreed on and what it fed.  `sending`, `sample` and `await_quiet` are its parts.

Replicas talk over the lab's sync network, with CURVE, and write no alerts.  All runs on this machine.  The hub is the
kernel's work: its copies for each port, up to the buffers that the sensors map, and waking them, are done while the
generator sends, and are charged to the generator's process.  Processor times of replicas, tcpdump and Suricata do not
hold them, as they do not hold a network card's interrupts on a sensor of its own.  What the replicas' own sync traffic
costs in the kernel is in theirs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from numpy.typing import NDArray

from ftnids.core import RandomDrop, Ring
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
WARM_S: Final = 0.5  # of traffic before it is measured
END_S: Final = 15.0
SEEN: Final = "captured", "injected_drops", "left_to_peers"
MAIN, ZEROMQ, CAPTURING = PARTS = "main loop", "ZeroMQ", "capture"  # of a replica's threads
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
    """Time, processor time of each process, and frames at each sensor's port; or what passed between two.

    Processes: `r0`, its threads as `r0 main loop`, `r0 ZeroMQ` and `r0 capture` (with the feed's), `r0 ids`,
    `generator`, and the listener by its program's name.
    """

    at: float
    cpu: dict[str, float]  # seconds, user and system
    wakes: dict[str, int]  # times that the scheduler put a thread on a core
    frames: dict[str, int]  # r0, tap

    def __sub__(self, before: Sample) -> Sample:
        cpu = {name: used - before.cpu.get(name, 0.0) for name, used in self.cpu.items()}
        wakes = {name: count - before.wakes.get(name, 0) for name, count in self.wakes.items()}
        frames = {name: count - before.frames[name] for name, count in self.frames.items()}
        return Sample(self.at - before.at, cpu, wakes, frames)

    def ns(self, name: str) -> float:
        """Processor time of a process per frame of the link, in ns."""
        return self.cpu[name] / max(min(self.frames.values()), 1) * 1e9

    def share(self, name: str) -> float:
        """Processor time of a process, as a share of a core."""
        return self.cpu[name] / self.at

    def wakes_s(self, name: str) -> float:
        """How often a second the scheduler put one of its threads on a core."""
        return self.wakes[name] / self.at

    @property
    def rate(self) -> float:
        """Frames/s on the link."""
        return min(self.frames.values()) / self.at


@dataclass(frozen=True)
class Step:
    """Traffic at one rate for a while, and what became of it."""

    sent: int
    used: list[Sample]  # in the time in which it flowed, by turns
    dropped: dict[str, int]  # by each replica's kernel or full ring
    missing: int  # packets that any replica captured and that are not in all agreed streams
    extra: int  # packets that are in one more often
    whole: bool  # whether the set held; else `dropped` is not known, and `missing` is the better replica's
    behind_s: float  # seconds of traffic that were not agreed on, and fed, when it ended

    @property
    def rate(self) -> float:
        """Packets/s on the link while it flowed."""
        return statistics.median(one.rate for one in self.used)


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
        realtime: bool = False,
        adjust: Callable[[str, dict[str, Any]], None] = lambda name, tables: None,
    ) -> None:
        """`ids`: the one that `up` may be asked for; `realtime`: the generator goes before all else, as a link does not
        wait for its sensors; `adjust` changes the configuration of a replica in place."""

        def change(name: str, tables: dict[str, Any]) -> None:
            tables["capture"] |= {"snaplen": SNAPLEN, "buffer_mb": BUFFER_MB}
            tables["feed"] |= {"agreed_pcap": "", "hashes": ""}
            tables["alerts"] = {"output": "", "eve_output": ""}
            adjust(name, tables)

        super().__init__(Options(out=out, replicas=replicas, pcap=trace, ids=ids, netns=True), change)
        self._realtime = realtime
        self.rings: dict[str, Ring] = {}
        self._views: dict[str, Any] = {}
        self._seen: dict[str, int] = {}  # packets that each replica's drop generator has decided on
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
        self._seen = dict.fromkeys(self.rings, 0)
        self._views = {name: self.status(name)["view"] for name in self.rings}

    def down(self, patience_s: float = END_S) -> None:
        """End all replicas, those by force that do not by themselves."""
        for ring in self.rings.values():
            ring.close()
        self.rings = {}
        for name in self.live:
            self.signal(name, signal.SIGTERM)
        with contextlib.suppress(FtnidsError):
            wait_until(lambda: all(self.replicas[one].child.status is not None for one in self.live), patience_s, "")
        for name in self.live[:]:
            self.kill(name)

    def whole(self) -> bool:
        """Whether the set is still the one that came `up`: nobody has ended, left or come back."""
        try:
            return {name: one["view"] for name, one in self.settled(time.time(), END_S).items()} == self._views
        except FtnidsError:
            return False

    def settled(self, since: float, seconds: float = READY_S) -> dict[str, dict[str, Any]]:
        """The status of each replica, written after `since` (seconds since the epoch)."""
        names = self.live

        def written() -> bool:
            return all(self._checked(name) and self.status(name)["time"] > since for name in names)

        wait_until(written, seconds, "a status of each replica")
        return {name: self.status(name) for name in names}

    def await_quiet(self, seconds: float = END_S) -> None:
        """Wait until nothing more is captured, agreed or fed."""
        deadline = time.monotonic() + seconds
        seen, since = self._progress(), time.monotonic()
        while since + QUIET_S > time.monotonic() < deadline:
            time.sleep(0.01)
            if (now := self._progress()) != seen:
                seen, since = now, time.monotonic()

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
        for pid in self._sender.pids if self._realtime else ():
            os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
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

    def play(self, pps: int, seconds: float, turns: int = 1, trace: Path | None = None) -> Step:
        """Send at a rate for a while, in turns that are measured one by one; wait until all is agreed on and fed."""
        before, sent_before = dict(zip(self.rings, self._progress(), strict=True)), self._frames()[TAP]
        used: list[Sample] = []
        with self.sending(pps, trace):
            time.sleep(WARM_S)
            for _ in range(turns):
                first = self.sample()
                time.sleep(seconds / turns)
                used.append(self.sample() - first)
            at_end = dict(zip(self.rings, self._progress(), strict=True))
            sent_at_end = self._frames()[TAP] - sent_before
        self.await_quiet()
        after = dict(zip(self.rings, self._progress(), strict=True))
        grown = {name: np.subtract(after[name], before[name]) for name in self.rings}
        kept = {name: self._kept(name) for name in self.rings}
        dropped = {name: int(kept[name].sum() - grown[name][0]) for name in self.rings}
        union = int(np.logical_or.reduce(list(kept.values())).sum()) if kept else 0
        rate = statistics.median(one.rate for one in used)
        fed = min((at_end[name][2] - before[name][2] for name in self.rings), default=0)
        behind_s = max(0.0, sent_at_end * union / max(self.sent, 1) - fed) / rate if kept else 0.0
        over = [int(stable) - union for _, stable, _ in grown.values()] or [0]
        whole = (not any(dropped.values()) and not any(over)) or self.whole()
        if not whole:  # a replica that came back has another ring
            return Step(self.sent, used, {}, max(0, -max(over)), 0, False, behind_s)
        if any(dropped.values()):  # drop generators do not see what a kernel drops
            status = self.settled(time.time())
            self._seen = {n: sum(int(one["counters"][key]) for key in SEEN) for n, one in status.items()}
        else:
            self._seen = {name: seen + self.sent for name, seen in self._seen.items()}
        return Step(self.sent, used, dropped, max(0, -min(over)), max(0, *over), True, behind_s)

    def _kept(self, name: str) -> NDArray[np.bool_]:
        """Of the packets that were just sent, those that a replica's drop generator lets it capture."""
        loss, seed = (self.tables[name]["capture"]["drop"][key] for key in ("loss", "seed"))
        decided = RandomDrop(loss, 1.0, seed).decide(self._seen[name] + self.sent)
        return ~np.asarray(decided[self._seen[name] :], bool)

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
        pids = {name: [self.pid(name)] for name in self.live}
        pids |= {f"{name} ids": _descendants(self.pid(name)) for name in self.live}
        if self._sender is not None:
            pids["generator"] = self._sender.pids
        if self._listener is not None:
            pids[self._listener.program.name] = [self._listener.child.process.pid]
        cpu: dict[str, float] = defaultdict(float)
        wakes: dict[str, int] = defaultdict(int)
        frames, at = self._frames(), time.monotonic()
        for name, numbers in pids.items():
            for role, seconds, count in (one for pid in numbers for one in threads(pid)):
                for key in {name, f"{name} {role}"} if name in self.live else {name}:
                    cpu[key] += seconds
                    wakes[key] += count
        return Sample(at, cpu, wakes, frames)

    def _frames(self) -> dict[str, int]:
        """Frames that have come to each sensor's port, whether anybody captures there or not."""
        found = {}
        for name in self.link.sensors:
            with netns.entered(self.link.namespace(name)):
                lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
            found[name] = next(int(line.split()[2]) for line in lines if line.strip().startswith(f"{CAPTURE}:"))
        return found


def _descendants(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def threads(pid: int) -> Iterator[tuple[str, float, int]]:
    """Role in a replica, processor seconds and times on a core of each thread of a process, by the scheduler."""
    with contextlib.suppress(OSError):  # the process or a thread ends meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            name = (task / "comm").read_text()
            role = MAIN if int(task.name) == pid else ZEROMQ if name.startswith("ZMQ") else CAPTURING
            ran_ns, _, count = (task / "schedstat").read_text().split()
            yield role, int(ran_ns) / 1e9, int(count)


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

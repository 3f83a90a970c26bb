"""What a hostile program that reaches the sync port at full speed costs the set.

Two replicas capture a link of 2,000 packets/s, each losing 5 % after capture, on one processor.  On the other one runs,
for some seconds each and in turn, a program that is busy and connects to nobody (idle), and attackers: random bytes on
ever new connections; handshakes with a key that is no member's; a member's key and a protocol version that nobody
speaks.  Once with keys of the replicas' own on a sync network, once on loopback with keys that come from the secret.

*agreed* is packets/s that became stable, the lesser of both replicas.  *delay* is the age of the newest stable packet,
looked at every few milliseconds: median and 99th percentile.  *CPU* is what both replicas used, in seconds a second.
*ratio* compares with the idle phases before and after.  Needs root (network namespaces).

options: --quick 0.5 s a phase; --seconds S a phase; --rounds N: each attack N times, and the median of its ratios
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import zmq

from bench.__main__ import SKIPPED
from bench._progress import progress
from bench._results import Results, Row
from bench._traces import write_imix
from ftnids.core import Ring
from ftnids.errors import FtnidsError
from ftnids.lab import leftovers, netns
from ftnids.lab.processes import Children, wait_until
from ftnids.lab.replicas import toml
from ftnids.peers import keys

RATE: Final = 2_000
LOSS: Final = 0.05
NAMES: Final = ("r0", "r1", "x")  # x is a member that is never there; the attackers have its key
PORT: Final = 5701
LOOK_S: Final = 0.004
STATUS_S: Final = 1.5  # more than the period of the replicas' status
FIGURES: Final = (  # what, of which attribute of a phase, unit, goal
    ("agreed", "agreed", "packets/s", ">= 0.9"),
    ("median delay", "delay_ms", "ms", "<= 1.1"),
    ("delay, p99", "delay_p99_ms", "ms", None),
    ("processor time of both replicas", "cpu", "cores", None),
)
GROWN_MB: Final = 16  # of memory, at most
ATTACKS: Final = ("random bytes", "wrong key", "wrong version")


@dataclass
class Phase:
    """What one phase showed."""

    kind: str
    agreed: float  # packets/s; at least 1, so that ratios stay numbers
    delay_ms: float
    delay_p99_ms: float
    cpu: float
    rss_mb: float  # of both replicas, at its end


class Bench:
    """One set under attack."""

    def __init__(self, folder: Path, link: netns.Link, children: Children, *, loopback: bool) -> None:
        self._folder, self._link, self._children, self._loopback = folder, link, children, loopback
        self._cpus = sorted(os.sched_getaffinity(0))
        self._public = keys.generate(folder, NAMES)
        self._cluster = f"{leftovers.ring_tag()}-{'loopback' if loopback else 'network'}"
        self._rings: list[Ring] = []
        self._views: list[int] = []
        self._processes: list[psutil.Process] = []

    def start(self) -> None:
        """The replicas and the traffic, on all processors but the last."""
        os.sched_setaffinity(0, self._cpus[:-1] or self._cpus)
        for number, name in enumerate(NAMES[:2]):
            path = self._folder / f"{name}.toml"
            path.write_text(toml(self._configuration(number)).lstrip())
            command = [sys.executable, "-m", "ftnids", "run", "-c", str(path)]
            log = self._folder / f"{name}.log"
            child = self._children.start(name, self._link.inside(self._where(number), *command), log)
            self._processes.append(psutil.Process(child.process.pid))
        trace = [sys.executable, "-m", "ftnids.lab.replay", netns.SENDER, str(self._folder.parent / "trace.pcap")]
        wait_until(lambda: self._states() == {"running"}, 60, "the start of both replicas")
        self._children.start("replay", self._link.inside("replay", *trace), self._folder / "replay.log")
        self._rings = [Ring.attach(f"{self._cluster}-{name}") for name in NAMES[:2]]
        wait_until(lambda: all(ring.stable > RATE for ring in self._rings), 60, "the first agreed packets")
        self._views = [self.status(number)["view"]["number"] for number in range(2)]

    def phase(self, kind: str, seconds: float) -> Phase:
        """One program at work for `seconds`."""
        with self._attacker(kind):
            begin = [ring.stable for ring in self._rings]
            cpu = self._cpu()
            ages: list[float] = []
            started = time.monotonic()
            while (now := time.monotonic()) - started < seconds:
                ages += [age for ring in self._rings if (age := _age_ms(ring)) is not None]
                time.sleep(LOOK_S)
            took = now - started
            agreed = max(1, min(ring.stable - first for ring, first in zip(self._rings, begin, strict=True))) / took
            used = (self._cpu() - cpu) / took
        rss = sum(process.memory_info().rss - process.memory_info().shared for process in self._processes) / 1e6
        median, high = np.percentile(ages, (50, 99))
        return Phase(kind, agreed, float(median), float(high), used, rss)

    def close(self) -> None:
        """Let go of the rings."""
        for ring in self._rings:
            ring.close()

    def status(self, number: int) -> dict[str, Any]:
        """The status of a replica; empty before there is one."""
        path = self._folder / f"log-{NAMES[number]}/status.json"
        status: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return status

    def view_changes(self) -> list[int]:
        """How often each replica's view has changed since `start`, by its last status."""
        return [self.status(number)["view"]["number"] - first for number, first in enumerate(self._views)]

    def _states(self) -> set[str]:
        return {self.status(number).get("state", "") for number in range(2)}

    def _cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)

    def _where(self, number: int) -> str:
        """The namespace of a replica: on loopback they share one."""
        return NAMES[0] if self._loopback else NAMES[number]

    def _address(self, number: int) -> tuple[str, int]:
        return ("127.0.0.1", PORT + number) if self._loopback else (self._link.sync_address(NAMES[number]), PORT)

    def _configuration(self, number: int) -> dict[str, Any]:
        members = [
            {"name": name, "address": "tcp://{}:{}".format(*self._address(place))} for place, name in enumerate(NAMES)
        ]
        cluster: dict[str, Any] = {"name": self._cluster, "secret_file": str(self._folder / "cluster.secret")}
        if not self._loopback:
            cluster["key_file"] = str(self._folder / f"{NAMES[number]}.key_secret")
            members = [{**member, "public_key": self._public[member["name"]]} for member in members]
        return {
            "replica": {
                "name": NAMES[number],
                "run_dir": str(self._folder / f"run-{NAMES[number]}"),
                "log_dir": str(self._folder / f"log-{NAMES[number]}"),
            },
            "cluster": {**cluster, "join_timeout_s": 2.0, "member": members},
            "capture": {"interface": netns.CAPTURE, "drop": {"loss": LOSS, "seed": number}},
            "ring": {"slots": 65536, "arena_mb": 64, "recovered_mb": 16},
        }

    @contextmanager
    def _attacker(self, kind: str) -> Iterator[None]:
        """The program, on the last processor."""
        host, port = self._address(0)
        inside = self._link.inside(NAMES[0] if self._loopback else NAMES[2])
        ordinary = [*inside, "chrt", "-o", "0"]  # whatever priority the set is measured with
        command = [*ordinary, "taskset", "-c", str(self._cpus[-1]), sys.executable, "-m", "bench._attack"]
        with subprocess.Popen([*command, kind, host, str(port)], stdin=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(self._known(kind)) + "\n")
                process.stdin.flush()
                time.sleep(0.5)
                yield
            finally:
                process.kill()

    def _known(self, kind: str) -> dict[str, str]:
        """What an attacker of member 0 knows."""
        secret = keys.load_secret(self._folder / "cluster.secret")
        if self._loopback:
            member = keys.derived(secret, len(NAMES), 2)
        else:
            accepted = [[self._public[name]] for name in NAMES]
            member = keys.load_keys(self._folder / "x.key_secret", accepted, 2)
        own = zmq.curve_keypair()[1] if kind == "wrong key" else member.secret
        pair = {"secret": own.decode(), "public": zmq.curve_public(own).decode()}
        cluster = keys.cluster_id(secret, self._cluster).hex()
        return {**pair, "server": member.members[0][0].decode(), "cluster": cluster}


def _age_ms(ring: Ring) -> float | None:
    """How long ago the newest stable packet was captured; None when it was overwritten while looked at."""
    seq = ring.stable - 1
    _, times, _ = ring.agreed_entries(seq, seq + 1)
    return time.time() * 1e3 - float(times[0]) / 1e3


def measure(folder: Path, seconds: float, rounds: int, *, loopback: bool) -> tuple[list[Phase], int]:
    """One set: its phases, and how many attacks changed the view, with which it ends."""
    folder.mkdir(mode=0o700)
    link = netns.Link(NAMES, [netns.Sender("replay")])
    with link, Children() as children:
        bench = Bench(folder, link, children, loopback=loopback)
        try:
            bench.start()
            phases = [bench.phase("idle", seconds)]
            for attack in progress(ATTACKS * rounds):
                if any(bench.view_changes()):
                    raise FtnidsError("the view changed while nobody attacked: this machine is too busy to judge")
                phases.append(bench.phase(attack, seconds))
                time.sleep(STATUS_S)
                if any(bench.view_changes()):
                    print(f"the view changed: {attack}", flush=True)
                    return phases[:-1], 1
                phases.append(bench.phase("idle", seconds))
            states = [bench.status(number) for number in range(2)]
        finally:
            bench.close()
    refused = {name: states[0]["peers"][name] for name in REFUSALS}
    print(f"counted by the attacked: {json.dumps(refused)}", file=sys.stderr)
    return phases, 0


REFUSALS: Final = (
    "rejected_keys",
    "rejected_handshakes",
    "dropped_version",
    "shut_out",
    "dropped_unwelcome",
    "connections_cut",
    "door_closed",
)


def add(results: Results, where: str, phases: list[Phase], changed: int) -> None:
    """The rows of one set: each attack against the idle phases before and after; medians of its rounds."""
    for attack in ATTACKS:
        places = [place for place, one in enumerate(phases) if one.kind == attack]
        if not places:
            continue
        for what, name, unit, goal in FIGURES:
            found = [getattr(phases[place], name) for place in places]
            around = [getattr(phases[place + step], name) for place in places for step in (-1, 1)]
            baseline = statistics.mean(around)
            results.add(Row(f"{where}, {attack}: {what}", statistics.median(found), unit, baseline, goal))
        grown = max(phases[place].rss_mb - phases[place - 1].rss_mb for place in places)
        results.add(Row(f"{where}, {attack}: memory grew", grown, "MB", goal=f"<= {GROWN_MB}"))
    idle = [one.delay_ms for one in phases if one.kind == "idle"]
    results.add(Row(f"{where}, idle: median delay, least", min(idle), "ms"))
    results.add(Row(f"{where}, idle: median delay, most", max(idle), "ms"))
    results.add(Row(f"{where}: view changes", changed, "attacks", goal="== 0"))


def main(arguments: list[str]) -> int:
    """Print the table and write hostile.json; 0 when no attack slowed the set by more than a tenth or made it grow."""
    parser = argparse.ArgumentParser(prog="python -m bench hostile", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S")
    parser.add_argument("--rounds", type=int, default=1, metavar="N")
    asked = parser.parse_args(arguments)
    seconds = 0.5 if asked.quick else asked.seconds
    if os.geteuid() != 0:
        print("skipped: needs root: replicas that capture, in network namespaces")
        return SKIPPED
    cpus = os.sched_getaffinity(0)
    results = Results("hostile", arguments, f"generated, IMIX, {RATE:,} packets/s, {seconds:g} s a phase")
    results.heading()
    try:
        with tempfile.TemporaryDirectory(prefix="ftnids-bench-") as name:
            folder = Path(name)
            phases = 1 + 2 * len(ATTACKS) * asked.rounds
            write_imix(folder / "trace.pcap", int(RATE * ((seconds + STATUS_S) * phases + 30)), rate=RATE)
            for loopback in (False, True):
                found, changed = measure(folder / f"{loopback}", seconds, asked.rounds, loopback=loopback)
                add(results, "loopback" if loopback else "network", found, changed)
    except FtnidsError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        os.sched_setaffinity(0, cpus)
    return results.finish()

"""What goes over the hub: a capture file replayed, or real programs talking to each other.

All that sends is bound to one CPU.  The kernel queues frames for delivery per CPU, so that all ports of
the hub then see all frames in one order, as on a wire; loss after capture is then all that tells the
replicas' streams apart, and the tap's order is the true one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ftnids import limits
from ftnids.errors import FtnidsError
from ftnids.lab import workload
from ftnids.lab.netns import CAPTURE, SENDER, TAP, Link, Sender
from ftnids.lab.options import Options
from ftnids.lab.processes import Child, Children
from ftnids.lab.writing import writing

REPLAY: Final = Sender("replay")
CLIENT: Final = Sender("client", "10.84.0.1/24")
SERVER: Final = Sender("server", "10.84.0.2/24")
SERVER_ADDRESS: Final = "10.84.0.2"
SECONDS: Final = 4.0  # that the programs take
BROWSED, ATTACKED, RESOLVED = 200, 100, 150  # requests of each client


def senders(options: Options) -> list[Sender]:
    """Who sends into the hub in this run."""
    return [REPLAY] if options.pcap else [CLIENT, SERVER]


def _pinned(*command: str) -> list[str]:
    cpu = max(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cpu), sys.executable, "-m", *command]


@dataclass
class Traffic:
    """The sending processes of one run.  Made with servers listening and nothing sent yet."""

    options: Options
    link: Link
    children: Children
    logs: Path  # directory for their logs
    _sending: list[Child] = field(default_factory=list)

    def prepare(self) -> None:
        """Start what only answers.  FtnidsError when a server does not come up."""
        self.logs.mkdir(exist_ok=True)
        if self.options.pcap:
            return
        site = self.logs / "site"
        for path in workload.PAGES:
            file = site / (path.lstrip("/") or "index.html")
            if path != "/missing.html":
                file.parent.mkdir(parents=True, exist_ok=True)
                with writing(file):
                    file.write_bytes(workload.page(path))
        for program, arguments in (("serve", ("--directory", str(site))), ("answer", ())):
            server = self._start(SERVER, program, SERVER_ADDRESS, *arguments)
            server.read_line(limits.LAB_READY_SECONDS)

    def start(self) -> None:
        """Start sending."""
        if self.options.pcap:
            rate = ("--pace", self.options.pace, "--pps", str(self.options.pps))
            command = _pinned("ftnids.lab.replay", SENDER, str(self.options.pcap.resolve()), *rate)
            log = self.logs / "replay.log"
            self._sending = [self.children.start("replay", self.link.inside(REPLAY.name, *command), log, talks=True)]
            return
        pace = ("--seconds", str(SECONDS), "--seed", str(self.options.seed))
        self._sending = [
            self._start(CLIENT, "browse", SERVER_ADDRESS, "--count", str(BROWSED), "--attack-share", "0", *pace),
            self._start(CLIENT, "browse", SERVER_ADDRESS, "--count", str(ATTACKED), "--attack-share", "1", *pace),
            self._start(CLIENT, "resolve", SERVER_ADDRESS, "--count", str(RESOLVED), *pace),
        ]

    def stop(self) -> None:
        """End a replay early."""
        for child in self._sending:
            child.signal(signal.SIGTERM)

    @property
    def pids(self) -> list[int]:
        """The processes that send."""
        return [child.process.pid for child in self._sending]

    @property
    def over(self) -> bool:
        """Whether all has been sent.  FtnidsError when a sender failed."""
        for child in self._sending:
            if child.status:
                raise FtnidsError(f"{child.name} failed: {child.last_words()} (log: {child.log})")
        return all(child.status == 0 for child in self._sending)

    def report(self) -> dict[str, float]:
        """Of a replay that is over: frames `sent`, frames `skipped` as too long, `seconds`; {} of programs."""
        if not self.options.pcap:
            return {}
        report: dict[str, float] = json.loads(self._sending[0].read_line(limits.LAB_STOP_SECONDS))
        return report

    def _start(self, sender: Sender, program: str, *arguments: str) -> Child:
        command = _pinned("ftnids.lab.programs", program, *arguments)
        log = self.logs / f"{program}.log"
        return self.children.start(program, self.link.inside(sender.name, *command), log, talks=True)


class Tap:
    """The lossless tap's process: knows all that went over the hub."""

    def __init__(
        self, link: Link, children: Children, path: Path, log: Path, snaplen: int = limits.MAX_SNAPLEN
    ) -> None:
        self.path = path
        command = [sys.executable, "-m", "ftnids.lab.tap", CAPTURE, str(path), "--snaplen", str(snaplen)]
        self._child = children.start("tap", link.inside(TAP, *command), log, talks=True)
        self._child.read_line(limits.LAB_READY_SECONDS)

    def stop(self) -> tuple[int, int]:
        """End it: frames captured, frames that it missed."""
        self._child.signal(signal.SIGTERM)
        report = json.loads(self._child.read_line(limits.LAB_STOP_SECONDS))
        return int(report["captured"]), int(report["dropped"])

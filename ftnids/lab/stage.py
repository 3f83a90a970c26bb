"""A set on the lab's link that the caller starts, breaks and mends by hand; for scenario tests and benches.

`lab.py` tells one story, in which nothing breaks.  Here the caller tells it: who starts when, who is killed,
whose plug is pulled.  What is left behind is judged by `lives.py`.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ftnids import limits
from ftnids.lab import leftovers
from ftnids.lab.netns import Link
from ftnids.lab.options import Options, prepare
from ftnids.lab.processes import Children, wait_until
from ftnids.lab.replicas import Places, Replica, configurations
from ftnids.lab.traffic import REPLAY, Tap, Traffic

DRAINED_S: Final = 0.5  # after the last frame was sent every sensor has it
TAP_PCAP: Final = "tap.pcap"

Adjust = Callable[[str, dict[str, Any]], None]  # a replica's name and its configuration, to be changed in place


def _as_it_is(name: str, tables: dict[str, Any]) -> None:
    """The lab's configuration serves."""


class Stage:
    """Link, replicas, traffic.  A context manager: nothing of it runs when the block is left.

    `options.pcap` is what will be sent.  Nothing is started yet; logs are JSON, so that `lives.py` can read them.
    """

    def __init__(self, options: Options, adjust: Adjust = _as_it_is) -> None:
        assert options.pcap is not None, "a stage replays a file"
        self.options = options
        self.replicas: dict[str, Replica] = {}
        self.tables: dict[str, dict[str, Any]] = {}  # each replica's configuration
        self.live: list[str] = []  # started, and neither killed nor told to stop
        self._adjust = adjust
        self._tap: Tap | None = None
        self.sent, self.seconds = 0, 0.0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            prepare(self.options.out)
            private = stack.enter_context(leftovers.private_directory())
            self.places = Places(self.options.out.resolve(), private, None)
            self.link = stack.enter_context(Link(self.options.names, [REPLAY], self.options.link))
            self.children = stack.enter_context(Children())
            for name, tables in configurations(self.options, self.places, self.link).items():
                tables["log"] = {"format": "json"}
                self._adjust(name, tables)
                self.tables[name] = tables
                self.replicas[name] = Replica(name, self.places.replica(name), tables)
            self.hash_seed = self.places.hash_seed
            self._traffic = Traffic(self.options, self.link, self.children, self.places.out / "traffic")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, at)

    @property
    def tap_pcap(self) -> Path:
        """All that went over the link."""
        return self.places.out / TAP_PCAP

    def ring(self, name: str) -> str:
        """The name of a replica's ring."""
        return f"{self.tables[name]['cluster']['name']}-{name}"

    # -- the replicas --------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Start replicas, one after the other, so that the first of a new set leads it."""
        for name in names:
            self._start(name)

    def _start(self, name: str) -> None:
        ring = Path(leftovers.SHARED_MEMORY, f"ftnids-{self.ring(name)}")

        def made() -> int:
            return ring.stat().st_ino if ring.exists() else 0

        before = made()  # by a life that was killed
        self.replicas[name].start(self.children, self.link)
        wait_until(
            lambda: self._checked(name) and made() not in (0, before), limits.LAB_READY_SECONDS, f"the start of {name}"
        )
        self.live.append(name)

    def begin(self) -> None:
        """Start all replicas, and the traffic when they are one set."""
        self.start(*self.options.names)
        self.together(*self.options.names)
        self.send()

    def together(self, *names: str, seconds: float = limits.LAB_READY_SECONDS) -> None:
        """Wait until these replicas are in one view, they and nobody else, and have their IDS up."""
        since = time.time()

        def joined() -> bool:
            states = [self.status(name) for name in names if self._checked(name)]
            fresh = all(state["time"] > since and state["state"] == "running" for state in states)
            return fresh and all(sorted(state["members"]) == sorted(names) for state in states)

        wait_until(joined, seconds, f"a view of {', '.join(names)} alone")

    def status(self, name: str) -> dict[str, Any]:
        """The last status of a replica."""
        return self.replicas[name].status()

    def pid(self, name: str) -> int:
        """The process of a replica."""
        return self.replicas[name].child.process.pid

    def signal(self, name: str, number: int) -> None:
        """Send a replica a signal."""
        self.replicas[name].child.signal(number)

    def kill(self, name: str) -> None:
        """Kill a replica with -9; its IDS dies with it, its ring stays behind."""
        self.live.remove(name)
        self.replicas[name].child.kill()

    def stop(self, *names: str) -> None:
        """Have replicas end in order."""
        for name in names:
            self.live.remove(name)
            self.signal(name, signal.SIGTERM)
        replicas = [self.replicas[name] for name in names]
        wait_until(
            lambda: all(replica.ended for replica in replicas),
            limits.LAB_STALL_SECONDS,
            f"the end of {', '.join(names)}",
        )

    def _checked(self, name: str) -> bool:
        self.replicas[name].check()
        return True

    # -- the traffic ---------------------------------------------------------------------------

    def send(self, *, tap: bool = True) -> None:
        """Let the traffic begin; the tap records it, unless its work would cost the replicas too much."""
        if tap:
            snaplen = max(tables["capture"]["snaplen"] for tables in self.tables.values())
            self._tap = Tap(self.link, self.children, self.tap_pcap, self.places.out / "tap.log", snaplen)
        self._traffic.prepare()
        self._traffic.start()

    def agree(self, packets: int, name: str) -> None:
        """Wait until replica `name` has agreed on that many more packets, by its status."""

        def agreed() -> int:
            self._checked(name)
            return int(self.status(name)["counters"]["agreed"])

        begun = agreed()
        wait_until(lambda: agreed() >= begun + packets, limits.LAB_STALL_SECONDS, f"{packets} more packets at {name}")

    @property
    def over(self) -> bool:
        """Whether all has been sent."""
        return self._traffic.over

    def finish(self, seconds: float = limits.LAB_STALL_SECONDS, *, early: bool = False) -> None:
        """Wait for the end of the traffic, or end it `early`, and then the replicas that live."""
        if early:
            self._traffic.stop()
        wait_until(lambda: self.over, seconds, "the end of the traffic")
        report = self._traffic.report()
        self.sent, self.seconds = int(report["sent"]), report["seconds"]
        since = time.time() + DRAINED_S
        wait_until(
            lambda: all(self._checked(name) and self.status(name)["time"] > since for name in self.live),
            limits.LAB_READY_SECONDS,
            "a status of each replica",
        )
        self.tap_missed = (self._tap.stop()[1] if self._tap else 0) + self.link.drops()
        self.stop(*self.live)

"""The replicas of a lab run: their configurations, their processes, and what their status says."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ftnids import limits
from ftnids.errors import FtnidsError
from ftnids.lab import leftovers, steady
from ftnids.lab.netns import CAPTURE, Link
from ftnids.lab.options import Options
from ftnids.lab.processes import POLL_S, Child, Children, wait_until
from ftnids.lab.progress import Watch, seen_by
from ftnids.lab.writing import private, writing
from ftnids.peers import keys
from ftnids.status.snapshot import Snapshot

SYNC_PORT: Final = 5701
SNAPLEN: Final = 65_535
SETTLED_S: Final = 2.2  # more than two status periods
PROGRESS: Final = ("captured", "injected_drops", "agreed", "alerts")  # counters that grow while a replica works


@dataclass(frozen=True)
class Places:
    """Where the files of a run are."""

    out: Path  # -o DIR, absolute
    private: Path  # removed at the end: keys, sockets, FIFOs
    source: Path | None  # the capture file that replicas read; None: live

    def replica(self, name: str) -> Path:
        """The folder of one replica, its log directory."""
        return self.out / name

    @property
    def secret(self) -> Path:
        return self.private / "cluster.secret"

    @property
    def hash_seed(self) -> int:
        """The seed that the replicas of this run hash with."""
        return keys.cluster_seed(keys.load_secret(self.secret))


def addresses(options: Options, link: Link | None) -> list[str]:
    """The replicas' addresses for each other: on the sync network, or on loopback with ports that are free now."""
    if link is not None:
        return [f"tcp://{link.sync_address(name)}:{SYNC_PORT}" for name in options.names]
    with ExitStack() as held:  # all at once, so that no port is given out twice
        sockets = [held.enter_context(socket.socket()) for _ in options.names]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"tcp://127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def make_secret(options: Options, places: Places) -> None:
    """The cluster's secret: by seed, so that a run on a file hashes alike each time; never for use outside the lab."""
    digest = hashlib.blake2b(
        str(options.seed).encode(), digest_size=keys.SECRET_BYTES, person=b"ftnids lab"
    ).hexdigest()
    with writing(places.secret), private(places.secret) as file:
        file.write(digest.encode() + b"\n")


def configurations(options: Options, places: Places, link: Link | None) -> dict[str, dict[str, Any]]:
    """The configuration of each replica by its name, as nested tables."""
    members: list[dict[str, Any]] = [
        {"name": name, "address": address}
        for name, address in zip(options.names, addresses(options, link), strict=True)
    ]
    cluster = {
        "name": leftovers.ring_tag(),  # two labs at once do not meet
        "secret_file": str(places.secret),
        "wait_for_all": True,
        "join_timeout_s": float(limits.LAB_READY_SECONDS),
    }
    make_secret(options, places)
    if link is not None:  # not on loopback: CURVE keys for this run alone
        public = keys.generate(places.private, options.names, secret=False)
        for member in members:
            member["public_key"] = public[member["name"]]
    return {
        name: _configuration(options, places, number, {**cluster, "member": members}, link is not None)
        for number, name in enumerate(options.names)
    }


def _configuration(
    options: Options, places: Places, number: int, cluster: dict[str, Any], live: bool
) -> dict[str, Any]:
    name = options.names[number]
    if live:
        cluster["key_file"] = str(places.private / f"{name}.key_secret")
        capture: dict[str, Any] = {"interface": CAPTURE}
    else:
        capture = {"file": str(places.source), "pace": options.pace, "pps": options.pps, "from_start": True}
    capture["snaplen"] = SNAPLEN
    capture["clock_offset_us"] = options.clock_offset_us * number
    capture["jitter_us"] = options.jitter_us
    capture["drop"] = {"loss": options.loss, "seed": options.drop_seed(number)}
    return {
        "replica": {"name": name, "run_dir": str(places.private / name), "log_dir": str(places.replica(name))},
        "cluster": cluster,
        "capture": capture,
        "feed": {
            "ids": options.ids,
            "mode": options.mode,
            "checkpoint": options.checkpoint,
            "speculate": "always",
            "ids_config": steady.ids_config(options.ids, places.out),
            "rules": [str(path.resolve()) for path in options.rules],
            "agreed_pcap": "agreed.pcap",
            "hashes": "hashes.txt",
        },
        "alerts": {"output": str(places.out / "alerts.jsonl"), "eve_output": str(places.out / "eve.jsonl")},
    }


def toml(tables: Mapping[str, Any], prefix: str = "") -> str:
    """Nested tables as TOML.  Strings, numbers, booleans, lists of those; a list of tables is an array of tables."""
    plain, nested = [], []
    for key, value in tables.items():
        if isinstance(value, Mapping):
            nested.append(f"\n[{prefix}{key}]\n" + toml(value, f"{prefix}{key}."))
        elif isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[0], Mapping):
            nested += [f"\n[[{prefix}{key}]]\n" + toml(one, f"{prefix}{key}.") for one in value]
        else:
            plain.append(f"{key} = {json.dumps(value)}\n")  # JSON's scalars and lists are TOML's as well
    return "".join(plain + nested)


class Replica:
    """One `ftnids run`."""

    def __init__(self, name: str, directory: Path, configuration: Mapping[str, Any]) -> None:
        self.name, self.directory = name, directory
        self.program: Sequence[str] = (sys.executable, "-m", "ftnids")  # a test has another release
        self._configuration = configuration
        self._child: Child | None = None

    def start(self, children: Children, link: Link | None) -> None:
        """Write the configuration and start the process; also one that has ended or died, once more."""
        self.directory.mkdir(exist_ok=True)
        Path(self._configuration["replica"]["run_dir"]).mkdir(mode=0o700, exist_ok=True)
        path = self.directory / "replica.toml"
        with writing(path):
            path.write_text(toml(self._configuration).lstrip())
        command = [*self.program, "run", "-c", str(path)]
        if link is not None:
            command = link.inside(self.name, *command)
        self._child = children.start(self.name, command, self.directory / "replica.log")

    @property
    def child(self) -> Child:
        assert self._child is not None, "not started"
        return self._child

    def status(self) -> dict[str, Any]:
        """Its last status snapshot; state `starting` before there is one."""
        try:
            status: dict[str, Any] = json.loads((self.directory / "status.json").read_bytes())
        except FileNotFoundError:
            return asdict(Snapshot(self.name, "starting"))
        return status

    def check(self) -> None:
        """FtnidsError with its reason when it has failed."""
        if self.child.status:
            reason = self.status().get("reason") or self.child.last_words()
            raise FtnidsError(f"replica {self.name} failed: {reason} (log: {self.child.log})")

    @property
    def ended(self) -> bool:
        self.check()
        return self.child.status == 0


class Set:
    """All replicas of a run."""

    def __init__(self, options: Options, places: Places, link: Link | None) -> None:
        self._link = link
        tables = configurations(options, places, link)
        self.replicas = [Replica(name, places.replica(name), tables[name]) for name in options.names]

    def start(self, children: Children) -> None:
        """Start every replica."""
        for replica in self.replicas:
            replica.start(children, self._link)

    def wait_running(self) -> None:
        """Wait until all are in one view, capture, and have their IDS up.  FtnidsError with the reason if not."""

        def running() -> bool:
            for replica in self.replicas:
                replica.check()
            return all(replica.status()["state"] in ("running", "ended") for replica in self.replicas)

        wait_until(running, limits.LAB_READY_SECONDS, "the start of all replicas")

    def wait_while(self, going: Callable[[], bool], seconds: float, watch: Watch) -> None:
        """Wait while `going()`; `watch` sees the replicas' status.

        FtnidsError when a replica fails, or when nothing that PROGRESS names moves for `seconds`.
        """
        seen: list[list[int]] = []
        since = time.monotonic()
        while going():
            for replica in self.replicas:
                replica.check()
            states = [replica.status() for replica in self.replicas]
            watch(states)
            work = [[state["counters"].get(name, 0) for name in PROGRESS] for state in states]
            if work != seen:
                seen, since = work, time.monotonic()
            elif time.monotonic() - since > seconds:
                raise FtnidsError(
                    f"no replica has made any progress for {seconds:.0f} s; {_where(self.replicas, states)}"
                )
            time.sleep(POLL_S)

    def settle(self, watch: Watch) -> None:
        """Wait until no more packets reach the replicas: their status, written once a second, stands still."""
        seen, since = -1, time.monotonic()
        deadline = since + limits.LAB_SETTLE_SECONDS
        while time.monotonic() < min(deadline, since + SETTLED_S):
            states = [replica.status() for replica in self.replicas]
            watch(states)
            reached = sum(map(seen_by, states))
            if reached != seen:
                seen, since = reached, time.monotonic()
            time.sleep(POLL_S)

    @property
    def ended(self) -> bool:
        return all(replica.ended for replica in self.replicas)

    def stop(self) -> None:
        """Ask each to stop capturing; they then decide and feed what they have, and end."""
        for replica in self.replicas:
            replica.child.signal(signal.SIGTERM)


def _where(replicas: Sequence[Replica], states: Sequence[dict[str, Any]]) -> str:
    words = []
    for replica, state in zip(replicas, states, strict=True):
        counters = state["counters"]
        numbers = f"captured {counters['captured']}, agreed {counters['agreed']}"
        words.append(f"{replica.name}: {state['state']}, {numbers}")
    return "; ".join(words)

"""Sets of replicas on loopback for the benches: each a process of its own, all on CURVE with keys from one secret."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ftnids.sync.messages import U64

ROOT: Final = Path(__file__).resolve().parent.parent
SPARE_MB: Final = 32
SLOT: Final = 32  # bytes that a packet may take in the ring besides its own
END_S: Final = 60  # after its last word a replica takes no longer to end
CONFIG: Final = """
[replica]
name = "r{me}"
run_dir = "{folder}/r{me}"
log_dir = "{folder}/r{me}"
[cluster]
name = "{cluster}"
secret_file = "{folder}/secret"
wait_for_all = true
join_timeout_s = 60
{members}
[capture]
file = "{trace}"
pace = "topspeed"
pps = {pps}
from_start = true
snaplen = 2048
[capture.drop]
loss = {loss}
seed = {seed}
[ring]
slots = {slots}
arena_mb = {arena_mb}
recovered_mb = {recovered_mb}
[sync]
k = {k}
[alerts]
output = ""
eve_output = ""
"""


@dataclass(frozen=True)
class Setup:
    """A set, and what it is given."""

    trace: Path
    packets: int
    size: int  # bytes of all frames
    loss: float = 0.0
    replicas: int = 2
    k: int = 56
    pps: int = 0  # 0: as fast as it goes
    slots: int = 0  # of the ring; 0: as many as packets, all of which are there before the replicas begin
    seed: int = 1

    @property
    def preload(self) -> bool:
        """Whether all packets are in the ring before the replicas begin."""
        return not self.slots


@dataclass(frozen=True)
class Outcome:
    """What one run of a set came to; the slowest replica counts."""

    told: list[dict[str, Any]]  # by each replica, at its end
    ingest: float  # packets/s that the slowest replica put into its ring, alone on a core
    wire: int  # bytes that passed the loopback interface meanwhile, whoever sent them
    captured: list[U64]  # hashes, by replica; where preloaded
    agreed: list[U64]

    @property
    def packets(self) -> int:
        """How many were agreed on."""
        return int(self.told[0]["agreed"])

    @property
    def rate(self) -> float:
        """Agreed packets/s."""
        return self.packets / max(float(one["seconds"]) for one in self.told)

    @property
    def cpu_ns(self) -> float:
        """Processor time of one replica for an agreed packet, their mean, in ns."""
        return self.total("cpu") / len(self.told) / self.packets * 1e9

    def total(self, what: str) -> float:
        """The sum of one figure over all replicas."""
        return float(sum(one[what] for one in self.told))

    @property
    def union(self) -> U64:
        """The hashes that any replica captured, sorted."""
        return np.unique(np.concatenate(self.captured))

    @property
    def right(self) -> bool:
        """All streams are equal, and each packet that any replica captured is in them once; where preloaded."""
        equal = all(np.array_equal(self.agreed[0], other) for other in self.agreed)
        return equal and np.array_equal(np.sort(self.agreed[0]), self.union)


def run(setup: Setup, folder: Path) -> Outcome:
    """Run a set over a file of packets without repeats."""
    (folder / "secret").write_text(secrets.token_hex(32) + "\n")
    (folder / "secret").chmod(0o600)
    sources = _configurations(setup, folder)
    nodes: list[subprocess.Popen[str]] = []
    try:
        ready = []
        for me, source in enumerate(sources):
            command = [sys.executable, "-m", "bench._node", str(source), str(folder / f"r{me}.npz")]
            command += ["--preload"] * setup.preload
            nodes.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            ready.append(_line(nodes[-1]))  # one after the other: each loads alone on a core
        before = _loopback()
        for node in nodes:
            assert node.stdin
            node.stdin.write("\n")
            node.stdin.flush()
        told = [_line(node) for node in nodes]
        wire = _loopback() - before
        for node in nodes:
            if node.wait(END_S) != 0:
                raise RuntimeError(f"a replica ended with {node.returncode}; see above")
    finally:
        for node in nodes:
            node.kill()
            node.wait()
    found = [np.load(folder / f"r{me}.npz") for me in range(setup.replicas)] if setup.preload else []
    captured, agreed = ([one[key] for one in found] for key in ("captured", "agreed"))
    ingest = min(one["packets"] / one["loaded"] for one in ready) if setup.preload else 0.0
    return Outcome(told, ingest, wire, captured, agreed)


def _configurations(setup: Setup, folder: Path) -> list[Path]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(setup.replicas)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    members = "\n".join(
        f'[[cluster.member]]\nname = "r{m}"\naddress = "tcp://127.0.0.1:{port}"' for m, port in enumerate(ports)
    )
    whole = (setup.size + SLOT * setup.packets >> 20) + SPARE_MB
    facts = {
        "folder": folder,
        "cluster": f"bench-{os.getpid()}-{secrets.token_hex(2)}",
        "members": members,
        "trace": setup.trace,
        "loss": setup.loss,
        "k": setup.k,
        "pps": setup.pps,
        "slots": setup.slots or 1 << (setup.packets - 1).bit_length(),
        "arena_mb": whole if setup.preload else 256,
        "recovered_mb": int(whole * min(1.0, 2 * setup.loss)) + SPARE_MB if setup.preload else 64,
    }
    paths = []
    for me in range(setup.replicas):
        paths.append(folder / f"r{me}.toml")
        seed = setup.seed * 1_000 + me
        paths[-1].write_text(CONFIG.format(me=me, seed=seed, **facts))
    return paths


def _line(node: subprocess.Popen[str]) -> dict[str, Any]:
    assert node.stdout
    line = node.stdout.readline()
    if not line:
        raise RuntimeError(f"a replica ended with {node.wait()}; see above")
    told: dict[str, Any] = json.loads(line)
    return told


def _loopback() -> int:
    """Bytes that the loopback interface has received."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    raise RuntimeError("this machine has no loopback interface")

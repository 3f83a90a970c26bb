"""Sets of preloaded replicas on loopback: each a process of its own, all on CURVE with keys from one secret."""

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

ROOT: Final = Path(__file__).resolve().parent.parent
ALONE_S: Final = 300  # no run takes longer
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
from_start = true
snaplen = 2048
[capture.drop]
loss = {loss}
seed = {seed}
[ring]
slots = {slots}
arena_mb = {arena_mb}
recovered_mb = {arena_mb}
[sync]
k = {k}
[alerts]
output = ""
eve_output = ""
"""


@dataclass(frozen=True)
class Outcome:
    """What one run of a set came to; the slowest replica counts."""

    packets: int  # agreed
    rate: float  # agreed packets/s
    ingest: float  # packets/s that the slowest replica put into its ring, alone on a core
    cpu_ns: float  # of one replica for an agreed packet, their mean
    sent: int  # bytes on the sync link, of all
    recovered: int  # packets, of all
    right: bool  # all streams equal, and each packet that any captured is in them once


def run(trace: Path, folder: Path, *, loss: float, replicas: int = 2, k: int = 56, packets: int, size: int) -> Outcome:
    """Run a set over `trace` of `packets` packets without repeats and `size` bytes in all."""
    cluster = f"bench-{os.getpid()}-{secrets.token_hex(2)}"
    (folder / "secret").write_text(secrets.token_hex(32) + "\n")
    (folder / "secret").chmod(0o600)
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(replicas)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    members = "\n".join(
        f'[[cluster.member]]\nname = "r{m}"\naddress = "tcp://127.0.0.1:{port}"' for m, port in enumerate(ports)
    )
    slots = 1 << (packets - 1).bit_length()
    arena_mb = 1 << max((2 * size - 1).bit_length() - 20, 4)
    nodes = []
    try:
        for me in range(replicas):
            path = folder / f"r{me}.toml"
            path.write_text(
                CONFIG.format(
                    me=me, folder=folder, cluster=cluster, members=members, trace=trace, loss=loss, seed=me + 1,
                    slots=slots, arena_mb=arena_mb, k=k,
                )
            )  # fmt: skip
            command = [sys.executable, "-m", "bench._node", str(path), str(folder / f"r{me}.npz")]
            node = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            nodes.append((node, _line(node)))  # one after the other: each alone on a core
        for node, _ in nodes:
            assert node.stdin
            node.stdin.write("\n")
            node.stdin.flush()
        ends = [_line(node) for node, _ in nodes]
        for node, _ in nodes:
            if node.wait(ALONE_S) != 0:
                raise RuntimeError(f"a replica ended with {node.returncode}; see above")
    finally:
        for node, _ in nodes:
            node.kill()
            node.wait()
    streams = [np.load(folder / f"r{me}.npz") for me in range(replicas)]
    agreed = streams[0]["agreed"]
    union = np.unique(np.concatenate([s["captured"] for s in streams]))
    right = all(np.array_equal(agreed, s["agreed"]) for s in streams) and np.array_equal(np.sort(agreed), union)
    return Outcome(
        len(agreed),
        len(agreed) / max(end["seconds"] for end in ends),
        min(begun["packets"] / begun["loaded"] for _, begun in nodes),
        sum(end["cpu"] for end in ends) / replicas / len(agreed) * 1e9,
        sum(end["sent"] for end in ends),
        sum(end["recovered"] for end in ends),
        right,
    )


def _line(node: subprocess.Popen[str]) -> dict[str, Any]:
    assert node.stdout
    line = node.stdout.readline()
    if not line:
        raise RuntimeError(f"a replica ended with {node.wait()}; see above")
    told: dict[str, Any] = json.loads(line)
    return told

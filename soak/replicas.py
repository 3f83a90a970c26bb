"""Starts a set of watched replicas on one endless link, waits for them, and reads what they noted."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from soak import stub_ids
from soak.growth import Sample
from soak.traffic import Feeder

SAMPLES: Final = 200  # of each replica, about
STALL_S: Final = 120.0  # without a new sample; then the soak ends with the reason
POLL_S: Final = 0.2
LOG_LINES: Final = 12
CONFIG: Final = """
[replica]
name = "r{me}"
run_dir = "r{me}/run"
log_dir = "r{me}/log"

[cluster]
name = "soak-{pid}"
wait_for_all = true
join_timeout_s = 30.0

{members}
[capture]
file = "r{me}.pipe"
pace = "topspeed"
from_start = true
clock_offset_us = {offset_us}
jitter_us = 5

[capture.drop]
loss = {loss}
burst = 2.0
seed = {seed}

[ring]
slots = 8192
arena_mb = 16
recovered_mb = 16

[sync]
failure_ms = 60000

[feed]
ids = "suricata"
ids_binary = "ids"

[log]
level = "warning"
"""


class SoakError(Exception):
    """The set did not come to its end; the message says why."""


@dataclass(frozen=True)
class Run:
    """What one replica noted, and how it ended."""

    name: str
    samples: list[Sample]
    agreed: int
    captured: int
    alerts_out: int


def run(packets: int, replicas: int = 2, loss: float = 0.05, *, plant: bool = False) -> list[Run]:
    """Send `packets` packets to a set of `replicas`; what each noted.  SoakError when one fails or all stand still."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftnids-soak-")))
        _write_files(folder, replicas, loss)
        processes = []
        for me in range(replicas):
            os.mkfifo(folder / f"r{me}.pipe")
            process = _start(folder, me, max(packets // SAMPLES, 1), plant and me == 0)
            stack.callback(_end, process)
            processes.append(process)
            Feeder(folder / f"r{me}.pipe", packets).start()
        _wait(folder, processes)
        return [_read(folder, me) for me in range(replicas)]


def _write_files(folder: Path, replicas: int, loss: float) -> None:
    ids = folder / "ids"
    ids.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{stub_ids.__file__}" "$@"\n')
    ids.chmod(0o700)
    ports = _free_ports(replicas)
    members = "".join(
        f'[[cluster.member]]\nname = "r{i}"\naddress = "tcp://127.0.0.1:{ports[i]}"\n\n' for i in range(replicas)
    )
    for me in range(replicas):
        text = CONFIG.format(me=me, pid=os.getpid(), members=members, loss=loss, seed=me + 1, offset_us=150 * me)
        (folder / f"r{me}.toml").write_text(text.replace('"ids"', f'"{ids}"'))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _start(folder: Path, me: int, every: int, plant: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "soak.watched", f"r{me}.toml", str(every), f"r{me}.samples"]
    root = Path(__file__).resolve().parent.parent
    with (folder / f"r{me}.err").open("wb") as err:
        return subprocess.Popen(
            [*command, *(["--plant"] if plant else [])],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdin=subprocess.DEVNULL,
            stderr=err,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    """Until all have ended by themselves."""
    moved, size = time.monotonic(), 0
    while any(process.poll() is None for process in processes):
        time.sleep(POLL_S)
        now = sum(path.stat().st_size for path in folder.glob("r*.samples"))
        if now != size:
            moved, size = time.monotonic(), now
        failed = [me for me, process in enumerate(processes) if process.poll()]
        if failed:
            raise SoakError(f"r{failed[0]} failed; the logs end with\n{_last_lines(folder)}")
        if time.monotonic() - moved > STALL_S:
            raise SoakError(f"nothing moved for {STALL_S:.0f} s; the logs end with\n{_last_lines(folder)}")


def _last_lines(folder: Path) -> str:
    logs = sorted(folder.glob("r*.err"))
    return "\n".join(line for log in logs for line in log.read_text(errors="replace").splitlines()[-LOG_LINES:])


def _read(folder: Path, me: int) -> Run:
    lines = (folder / f"r{me}.samples").read_text().splitlines()
    status = json.loads((folder / f"r{me}/log/status.json").read_text())
    return Run(
        f"r{me}",
        [Sample(**json.loads(line)) for line in lines],
        status["counters"]["agreed"],
        status["counters"]["captured"],
        status["set"].get("alerts_out", 0),
    )

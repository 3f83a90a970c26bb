"""Two real replicas that read a file at their ease, for tests that look at a set from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ftnids.lab import generate
from ftnids.lab.leftovers import SHARED_MEMORY
from ftnids.lab.processes import Child, Children, wait_until
from ftnids.lab.replicas import toml

READY_S: Final = 60.0
CLUSTER: Final = f"test-{os.getpid()}"


class TwoReplicas:
    """Replicas a and b under `folder`.  A context manager, whose end kills them, and removes their rings."""

    def __init__(self, folder: Path, user: str = "") -> None:
        self.folder, self._children = folder, Children()
        self.processes: dict[str, Child] = {}
        generate.write(folder / "traffic.pcap", 1)
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(4)]
            for held in sockets:
                held.bind(("127.0.0.1", 0))
            ports = [held.getsockname()[1] for held in sockets]
        members = [{"name": n, "address": f"tcp://127.0.0.1:{p}"} for n, p in zip("ab", ports, strict=False)]
        self.metrics = dict(zip("ab", ports[2:], strict=True))
        for name in "ab":
            (folder / name).mkdir()
            drop = {"loss": 0.05, "seed": ord(name)}
            tables = {
                "replica": {"name": name, "run_dir": "run", "log_dir": "log", "user": user},
                "cluster": {"name": CLUSTER, "wait_for_all": True, "member": members},
                "capture": {"file": "../traffic.pcap", "pps": 150, "from_start": True, "drop": drop},
                "ring": {"slots": 16384, "arena_mb": 16, "recovered_mb": 1},
                "sync": {"failure_ms": 1000},
                "metrics": {"listen": f"localhost:{self.metrics[name]}"},
            }
            self.toml(name).write_text(toml(tables).lstrip())

    def __enter__(self) -> Self:
        self._children.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._children.__exit__(kind, error, at)
        for name in "ab":
            Path(SHARED_MEMORY, f"ftnids-{CLUSTER}-{name}").unlink(missing_ok=True)

    def toml(self, name: str) -> Path:
        """The configuration of a replica."""
        return self.folder / name / "replica.toml"

    def status(self, name: str) -> dict[str, Any]:
        """What its status file says; nothing before there is one."""
        path = self.folder / name / "log" / "status.json"
        status: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return status

    def start(self) -> None:
        """Start both, and wait until they have agreed on packets."""
        for name in "ab":
            command = [sys.executable, "-m", "ftnids", "run", "-c", str(self.toml(name))]
            self.processes[name] = self._children.start(name, command, self.folder / f"{name}.log")
        wait_until(
            lambda: all(self.status(name).get("counters", {}).get("agreed", 0) > 0 for name in "ab"), READY_S, "the set"
        )

    def kill(self, name: str) -> None:
        """As kill -9 does it."""
        self.processes[name].signal(signal.SIGKILL)
        wait_until(lambda: self.processes[name].status is not None, READY_S, "the end")

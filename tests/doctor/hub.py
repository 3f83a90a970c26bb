"""Two replicas on a link of their own, whose frames a test sends to each port as it likes."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ftnids.lab import generate, netns
from ftnids.lab.netns import HUB
from ftnids.lab.options import Options
from ftnids.lab.stage import Stage

RATE: Final = 400  # frames/s ...
AT_ONCE: Final = 8  # ... so many at a time
CONNECTIONS, LOOKUPS = 40, 32

Change = Callable[[bytes], bytes]


def frames(path: Path) -> list[bytes]:
    """What a test sends: TCP and DNS, as in the lab."""
    generate.write(path, 1, CONNECTIONS, LOOKUPS)
    data, place, found = path.read_bytes(), 24, []
    while place < len(data):
        length = int.from_bytes(data[place + 8 : place + 12], "little")
        found.append(data[place + 16 : place + 16 + length])
        place += 16 + length
    return found


@contextlib.contextmanager
def sending(stage: Stage, data: list[bytes], changes: Mapping[str, Change]) -> Iterator[None]:
    """Inside the block each frame goes to every replica's port, changed as `changes` says of that replica."""
    over, ports = threading.Event(), dict[str, socket.socket]()
    with contextlib.ExitStack() as stack:
        with netns.entered(stage.link.namespace(HUB)):
            for name in stage.replicas:
                port = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
                port.bind((name, 0))
                ports[name] = port

        def send() -> None:
            number = 0
            while not over.wait(AT_ONCE / RATE):
                for _ in range(AT_ONCE):
                    frame = data[number % len(data)]
                    frame = frame[:18] + (number & 0xFFFF).to_bytes(2, "big") + frame[20:]  # no two are the same
                    for name, port in ports.items():
                        port.send(changes[name](frame) if name in changes else frame)
                    number += 1

        thread = threading.Thread(target=send)
        thread.start()
        stack.callback(thread.join)
        stack.callback(over.set)
        yield


@contextlib.contextmanager
def running(folder: Path, adjust: Callable[[str, dict[str, Any]], None], loss: float = 0.0) -> Iterator[Stage]:
    """Replicas r0 and r1, in one view; nothing is sent."""
    netns.check_host("hub")
    path = folder / "nothing.pcap"
    generate.write(path, 1, 1, 1)
    options = Options(out=folder / "out", loss=loss, pcap=path, ids="none", netns=True)

    def small(name: str, tables: dict[str, Any]) -> None:
        tables["ring"] = {"arena_mb": 16, "recovered_mb": 16}
        tables["sync"] = {"failure_ms": 1_000}
        tables["capture"]["buffer_mb"] = 4
        adjust(name, tables)

    with Stage(options, small) as stage:
        stage.start(*options.names)
        stage.together(*options.names)
        yield stage


def doctor(stage: Stage, name: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Exit status of `ftnids doctor -c FILE --json` beside a replica, and its findings by name."""
    replica = stage.replicas[name]
    command = stage.link.inside(
        name, *replica.program, "doctor", "-c", str(replica.directory / "replica.toml"), "--json"
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0), done.stderr
    found: dict[str, list[dict[str, str]]] = {}
    for one in report["findings"]:
        found.setdefault(one["name"], []).append(one)
    return done.returncode, found

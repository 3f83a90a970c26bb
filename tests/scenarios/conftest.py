"""A set to break: real replicas, real Suricatas where there are any, traffic that lasts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ftnids.errors import UsageError
from ftnids.lab import generate, netns
from ftnids.lab.options import Options
from ftnids.lab.stage import Stage
from ftnids.sync.messages import PROTOCOL
from tests.conftest import SEED, find

from .judge import SNAPLEN

LOSS = 0.05  # of each replica, so that recovery goes on all the time
FAILURE_MS = 1_000  # on a machine that is busy with other tests a replica that gets no turn for 300 ms is not dead
LASTS_S = 40.0  # the traffic, at `busy` 1.0 ...
CONNECTIONS, LOOKUPS = 4_000, 3_200  # ... with so much in it: some 2,300 packets/s

Scene = Callable[..., Stage]


def release(stage: Stage, speaks: int, *names: str) -> None:
    """From their next start on replicas are of a release that speaks the protocol up to this version."""
    program = ("ftnids",) if speaks == PROTOCOL else ("tests.older", str(speaks))
    for name in names:
        stage.replicas[name].program = (sys.executable, "-m", *program)


@pytest.fixture(scope="session")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """A capture file by how many seconds it lasts, made once."""
    folder = tmp_path_factory.mktemp("traffic")

    def made(seconds: float) -> Path:
        path = folder / f"{seconds:.0f}.pcap"
        if not path.exists():
            generate.write(path, SEED, CONNECTIONS, LOOKUPS, seconds)
        return path

    return made


@pytest.fixture
def scene(tmp_path: Path, traffic: Callable[[float], Path], needs_root: None, seed: int) -> Iterator[Scene]:
    """`scene(replicas)` makes a set that is up, with traffic that lasts longer than the story; r0 leads it.

    `apart`: each replica puts alerts out to a file of its own, as on hosts of their own; else all into one.
    `speaks`: they are of a release that speaks the protocol up to this version.
    """
    try:
        netns.check_host("hub")
    except UsageError as error:
        pytest.skip(str(error))
    ids = "none" if isinstance(find("needs_suricata"), str) else "suricata"
    with ExitStack() as stack:

        def make(replicas: int, *, apart: bool = False, busy: float = 1.0, speaks: int = PROTOCOL) -> Stage:
            path = traffic(LASTS_S / busy)
            options = Options(
                out=tmp_path / "out", replicas=replicas, loss=LOSS, seed=seed, pcap=path, ids=ids, netns=True
            )

            def adjust(name: str, tables: dict[str, Any]) -> None:
                tables["capture"]["snaplen"] = SNAPLEN
                tables["ring"] = {"arena_mb": 64, "recovered_mb": 16}
                tables["sync"] = {"failure_ms": FAILURE_MS}
                if apart:
                    own = Path(tables["replica"]["log_dir"])
                    tables["alerts"] = {"output": str(own / "alerts.jsonl"), "eve_output": str(own / "eve.jsonl")}

            stage = stack.enter_context(Stage(options, adjust))
            release(stage, speaks, *stage.options.names)
            stage.begin()
            return stage

        yield make

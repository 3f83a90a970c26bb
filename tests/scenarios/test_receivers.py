"""What an operator fears for the tools that alerts go to: they are down when it matters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ftnids.alerts.redis_sink import Redis
from ftnids.alerts.spooled import Spooled
from ftnids.lab.processes import wait_until
from tests.alerts.records import ids_in
from tests.redis_server import Server

from .conftest import Scene
from .judge import judge

pytest.importorskip("redis")
KEY = "ftnids"


@pytest.fixture
def server(needs_redis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that loses nothing that it has acknowledged; the replicas know it from their environment."""
    (tmp_path / "redis").mkdir()
    one = Server(needs_redis, tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always")
    monkeypatch.setenv("FTNIDS_ALERTS__REDIS__URL", one.url)
    yield one
    one.kill()


@pytest.mark.needs_suricata
def test_redis_is_killed_under_load(scene: Scene, server: Server) -> None:
    """Twice, and with it the coordinator: every alert that left the set is there, once."""
    stage = scene(2)
    stage.agree(3_000, "r0")
    server.kill()
    stage.agree(3_000, "r0")
    server.start()
    stage.agree(3_000, "r0")
    server.kill()
    stage.kill("r0")
    stage.agree(2_000, "r1")
    server.start()
    stage.agree(1_000, "r1")
    stage.finish(early=True)
    judge(stage)
    for name in ("r0", "r1"):
        deliver(server, stage.places.replica(name) / "spool/redis")
    found, written = server.ids(KEY), ids_in(stage.places.out / "alerts.jsonl")
    assert len(found) == len(set(found))
    assert len(found) > 20
    assert set(found) == set(written)


def deliver(server: Server, directory: Path) -> None:
    """As a replica does that is started again: what it could not hand over before it ended goes out."""
    assert directory.exists()
    out = Spooled("alerts.redis", Redis(server.url, key=KEY, mode="stream", maxlen=0), directory, 1 << 28)
    wait_until(lambda: not out.counters()["waiting_bytes"], 20, "the end of the spool")
    out.close()

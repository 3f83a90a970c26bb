"""The Redis output against a real server: killed, restarted, emptied; every alert is there in the end, once."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ftnids.alerts import redis_sink, spooled
from ftnids.alerts.outputs import as_line
from ftnids.alerts.redis_sink import Redis, password
from ftnids.alerts.sinks import ForgetfulError, SinkError
from ftnids.alerts.spooled import Spooled
from ftnids.errors import ConfigError
from ftnids.lab.processes import wait_until
from tests.redis_server import Server

from .records import identified

pytest.importorskip("redis")


@pytest.fixture
def server(needs_redis: Path, tmp_path: Path) -> Iterator[Server]:
    one = Server(needs_redis, tmp_path, "--appendonly", "no")
    yield one
    one.kill()


def sink(server: Server, mode: str = "stream", maxlen: int = 0, secret: str = "") -> Redis:
    return Redis(server.url, key="alerts", mode=mode, maxlen=maxlen, secret=secret)


def lines(first: int, end: int) -> list[bytes]:
    return [as_line(identified(str(n))) for n in range(first, end)]


def put(target: Redis, batch: list[bytes]) -> int:
    """What it takes, after it has said that this is a server that it does not know."""
    with pytest.raises(ForgetfulError):
        target.put(batch)
    return target.put(batch)


def test_a_stream_has_each_id_once(server: Server) -> None:
    target = sink(server)
    assert put(target, lines(0, 5)) == 5
    assert target.put(lines(3, 8)) == 5
    other = sink(server)  # the coordinator that takes over
    assert put(other, lines(0, 9)) == 9
    assert server.ids("alerts") == [str(n) for n in range(9)]
    target.close()
    other.close()


def test_each_status_of_an_alert_is_there_once(server: Server) -> None:
    provisional = identified("1")
    provisional["ftnids"]["status"] = "provisional"
    target = sink(server)
    both = [as_line(provisional), as_line(identified("1"))]
    put(target, both)
    target.put(both)
    assert server.ids("alerts") == ["1", "1"]
    target.close()


def test_a_user_who_may_not_ask_for_the_run_id(server: Server) -> None:
    """Then what is kept is handed over again with each connection."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-info")
    target = sink(server)
    put(target, lines(0, 3))
    target.close()
    assert put(target, lines(0, 5)) == 5
    assert server.ids("alerts") == [str(n) for n in range(5)]
    target.close()


@pytest.mark.parametrize(("mode", "order"), [("lpush", -1), ("rpush", 1)])
def test_a_list_has_the_records_as_json(server: Server, mode: str, order: int) -> None:
    target = sink(server, mode)
    put(target, lines(0, 5))
    with server.client() as client:
        found = [json.loads(one)["ftnids"]["id"] for one in client.lrange("alerts", 0, -1)]
    assert found[::order] == [str(n) for n in range(5)]
    target.close()


def test_a_stream_and_the_ids_beside_it_do_not_grow(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_sink, "REDIS_IDS", 50)
    target = sink(server, maxlen=200)
    put(target, lines(0, 1))
    for first in range(1, 1000, 37):
        target.put(lines(first, first + 37))
    with server.client() as client:
        assert client.xlen("alerts") <= 400
        assert client.zcard("{alerts}:ids") == 50
    assert target.put(lines(990, 1000)) == 10
    found = server.ids("alerts")
    assert found == [str(n) for n in range(int(found[0]), 1000)]
    target.close()


def test_what_redis_refuses_is_named(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        client.set("alerts", "x")
        target = sink(server)
        with pytest.raises(SinkError, match="WRONGTYPE") as refused:
            put(target, lines(0, 1))
        assert "alerts.redis.key" in refused.value.hint
        client.config_set("requirepass", "secret")
    with pytest.raises(SinkError) as refused:
        sink(server).put(lines(0, 1))
    assert "alerts.redis.password_file" in refused.value.hint
    path = tmp_path / "password"
    path.write_text("secret\n")
    with pytest.raises(ConfigError, match="others may read it: chmod 600"):
        password(path, "alerts.redis.password_file")
    path.chmod(0o600)
    with pytest.raises(ForgetfulError):
        sink(server, secret=password(path, "alerts.redis.password_file")).put(lines(0, 1))
    with pytest.raises(ConfigError, match=r"alerts.redis.password_file .*none: No such file"):
        password(tmp_path / "none", "alerts.redis.password_file")
    server.kill()
    with pytest.raises(SinkError, match=re.escape(str(server.socket))) as refused:
        sink(server).put(lines(0, 1))
    assert "start the Redis server" in refused.value.hint


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"alerts.x: needs a Python package .* pip install 'ftnids\[no_such\]'"):
        redis_sink.library("no_such", "alerts.x")


@pytest.mark.parametrize(
    ("options", "reads"),
    [(["--appendonly", "yes", "--appendfsync", "always"], True), (["--appendonly", "no"], False)],
    ids=["on disk", "in memory"],
)
def test_killed_and_restarted_under_load(
    needs_redis: Path, tmp_path: Path, options: list[str], reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every alert arrives, once per id, in order: also with a server that lost all that it had in memory."""
    monkeypatch.setattr(spooled, "FIRST_S", 0.01)
    (tmp_path / "redis").mkdir()
    server = Server(needs_redis, tmp_path / "redis", *options)
    total, went = 3_000, threading.Condition()
    numbers, stop = [0], threading.Event()

    def reached(number: int) -> None:
        with went:
            assert went.wait_for(lambda: numbers[0] >= number, 30)

    def load(out: Spooled) -> None:
        for first in range(0, total, 10):
            out.write([identified(str(n)) for n in range(first, first + 10)])
            with went:
                numbers[0] = first + 10
                went.notify_all()
            stop.wait(0.002)

    with capture_logs():
        out = Spooled("alerts.redis", sink(server), tmp_path / "spool", 64 << 20)
        writer = threading.Thread(target=load, args=(out,))
        writer.start()
        for mark in (600, 1_200, 1_800):
            reached(mark)
            server.kill()
            reached(mark + 300)  # the load goes on while it is dead
            server.start()
        stop.set()
        writer.join()
        wait_until(lambda: not out.counters()["waiting_bytes"], 60, "the end of the spool")
        out.close()
    try:
        assert server.ids("alerts") == [str(n) for n in range(total)]
    finally:
        server.kill()
    counted = out.counters()
    assert (counted["lost"], counted["suppressed"]) == (0, 0)
    assert counted["failures"] > 0
    assert counted["delivered"] >= total
    assert reads or counted["delivered"] > total  # what it had in memory was handed over again

"""The status socket: many viewers, none of whom anybody waits for; and the page of metrics."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ftnids import limits
from ftnids.errors import ConfigError
from ftnids.status import client, metrics, server
from ftnids.status.roster import Roster, SetView
from ftnids.status.server import Server, short, socket_path
from tests.status.sets import snapshot

PATIENCE_S = 30.0


@pytest.fixture
def roster() -> Roster:
    made = Roster("office", ["r0", "r1"], me=0)
    made.own(snapshot("r0"))
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return socket_path(tmp_path, "r0")


@pytest.fixture
def served(roster: Roster, path: Path) -> Iterator[Server]:
    made = Server(roster, path)
    yield made
    made.close()


def connect(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(PATIENCE_S)
    with short(path) as name:
        made.connect(name)
    return made


def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.005)):
        if true():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come")


def test_viewers_get_a_line_at_once_and_with_every_news(served: Server, roster: Roster, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with contextlib.ExitStack() as stack:
        files = []
        for _ in range(5):
            one = stack.enter_context(connect(path))
            files.append(stack.enter_context(one.makefile("rb")))
            SetView.parse(files[-1].readline())
        roster.own(snapshot("r0", 101.0, counters={"captured": 7}))
        served.news()
        for file in files:
            told = SetView.parse(file.readline()).members[0].snapshot
            assert told is not None
            assert told.counters["captured"] == 7
        assert served.counters["viewers"] == 5
    until(lambda: served.counters["viewers"] == 0)
    assert served.counters["viewers_dropped"] == 0


def test_the_last_line_is_sent_at_the_end_and_the_socket_goes(roster: Roster, path: Path) -> None:
    made = Server(roster, path)
    with connect(path) as one, one.makefile("rb") as file:
        file.readline()
        roster.own(snapshot("r0", state="ended"))
        made.close()
        assert SetView.parse(file.readline()).members[0].state == "ended"
        assert file.readline() == b""
    assert not path.exists()


def test_who_does_not_read_is_dropped_and_the_others_see_all(
    monkeypatch: pytest.MonkeyPatch, roster: Roster, path: Path
) -> None:
    monkeypatch.setattr(limits, "STATUS_VIEWER_S", 0.05)
    roster.own(snapshot("r0", warnings=["x" * 100_000] * 9))  # more than the kernel takes for a reader
    made = Server(roster, path)
    try:
        with connect(path), connect(path) as reader, reader.makefile("rb") as file:
            for _ in range(3):
                assert SetView.parse(file.readline()).members[0].snapshot is not None
                made.news()
            until(lambda: made.counters["viewers_dropped"] >= 1)
            assert made.counters["viewers"] <= 1
    finally:
        made.close()


def test_who_speaks_is_dropped(served: Server, path: Path) -> None:
    with connect(path) as one:
        one.sendall(b"hello\n" * 100)
        until(lambda: served.counters["viewers_dropped"] == 1)


def test_more_viewers_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch, served: Server, path: Path) -> None:
    monkeypatch.setattr(limits, "STATUS_VIEWERS", 2)
    with connect(path) as one, connect(path) as other, connect(path) as third:
        assert one.recv(1)
        assert other.recv(1)
        assert third.recv(1) == b""
        assert (served.counters["viewers"], served.counters["viewers_refused"]) == (2, 1)


def test_the_socket_that_a_killed_replica_left_is_replaced(roster: Roster, path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    made = Server(roster, path)
    with connect(path) as one:
        assert one.recv(1)
    made.close()


def test_an_older_replica_does_not_take_the_socket_of_a_newer_one(roster: Roster, path: Path) -> None:
    older = Server(roster, path)
    newer = Server(roster, path)
    older.close()
    assert path.exists()
    newer.close()
    assert not path.exists()


def test_what_is_no_socket_stays(roster: Roster, path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"r0\.status is there and no socket; remove it"):
        Server(roster, path)
    assert path.read_text() == "mine"
    with pytest.raises(ConfigError, match="cannot be made: No such file"):
        Server(roster, path.parent / "away" / "r0.status")


def test_a_path_longer_than_a_socket_address(roster: Roster, tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 200)
    folder.mkdir()
    made = Server(roster, socket_path(folder, "r0"))
    assert client.once([socket_path(folder, "r0")], PATIENCE_S)[0] is not None
    made.close()


def test_a_failure_in_the_thread_ends_nothing(
    roster: Roster, served: Server, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "PAUSE_S", 0.01)
    failing = iter([RuntimeError("so it goes")])
    view = roster.view

    def sometimes() -> SetView:
        for error in failing:
            raise error
        return view()

    monkeypatch.setattr(roster, "view", sometimes)
    with connect(path):
        until(lambda: "status_socket_failed" in capsys.readouterr().err)
    with connect(path) as one:
        assert one.recv(1)


def test_a_main_loop_that_hangs_is_seen_to(roster: Roster, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PAUSE_S", 0.02)
    made = Server(roster, path)
    with connect(path) as one, one.makefile("rb") as file:  # and nobody says that there is news
        ages = [SetView.parse(file.readline()).members[0].age_s or 0.0 for _ in range(4)]
        assert ages == sorted(ages)
        assert ages[-1] > 0.1
    made.close()


def test_no_more_files_is_no_reason_to_spin(
    served: Server, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def accept() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    fileno = served._listeners[0].fileno()
    real = served._listeners[0]
    served._listeners[0] = SimpleNamespace(accept=accept, fileno=lambda: fileno, close=real.close)  # type: ignore[call-overload]
    served._selector.unregister(real)
    served._selector.register(served._listeners[0], 1)
    served._accept(served._listeners[0])
    assert "status_socket_busy" in capsys.readouterr().err
    assert fileno not in served._selector.get_map()
    served._listen()
    assert fileno not in served._selector.get_map()  # for a while


# -- the metrics ------------------------------------------------------------------------------------


@pytest.fixture
def page(roster: Roster, path: Path) -> Iterator[Server]:
    made = Server(roster, path, ("127.0.0.1", 0), metrics.Exporter(roster).page)
    yield made
    made.close()


def url(page: Server, name: str = "/metrics") -> str:
    assert page.address is not None
    return f"http://127.0.0.1:{page.address[1]}{name}"


def test_the_page_of_metrics(page: Server) -> None:
    with urllib.request.urlopen(url(page), timeout=PATIENCE_S) as answer:
        body = answer.read().decode()
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'ftnids_capture_packets_total{cluster="office",replica="r0"} 0.0' in body
    with pytest.raises(urllib.error.HTTPError, match="404") as missing:
        urllib.request.urlopen(url(page, "/"), timeout=PATIENCE_S)
    missing.value.close()
    with pytest.raises(urllib.error.HTTPError, match="405") as posted:
        urllib.request.urlopen(url(page), data=b"x", timeout=PATIENCE_S)
    posted.value.close()
    assert page.counters["scrapes"] == 1


@pytest.mark.parametrize("request_", [b"x" * 20_000, b"GET /metrics"])
def test_a_request_that_does_not_end_is_dropped(page: Server, monkeypatch: pytest.MonkeyPatch, request_: bytes) -> None:
    monkeypatch.setattr(limits, "METRICS_S", 0.05)
    assert page.address is not None
    with socket.create_connection(page.address, PATIENCE_S) as one, contextlib.suppress(ConnectionError):
        one.sendall(request_)
        assert one.recv(1) == b""
    until(lambda: page.counters["scrapes_dropped"] == 1)


@pytest.mark.parametrize("request_", [b"\n\n", b"\r\n\r\n", b"GET\n\n", b"\0\xff\n\r\n", b"HEAD /metrics\r\n\r\n"])
def test_strange_requests_are_answered(page: Server, request_: bytes) -> None:
    assert page.address is not None
    with socket.create_connection(page.address, PATIENCE_S) as one:
        one.sendall(request_)
        assert one.recv(1000).startswith(b"HTTP/1.0 ")


def test_an_address_that_is_taken_is_named(roster: Roster, path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"metrics\.listen 127\.0\.0\.1:{port}: cannot listen there: Address"):
            Server(roster, path, ("127.0.0.1", port))


# -- the client -------------------------------------------------------------------------------------


def test_a_client_follows_through_the_death_and_return_of_a_replica(roster: Roster, path: Path) -> None:
    first = Server(roster, path)
    with contextlib.closing(client.Client([path])) as viewer:
        assert viewer.poll(PATIENCE_S)
        first.close()
        until(lambda: not viewer.poll(0.0) and viewer.source is None)
        assert "has gone" in viewer.trouble
        assert viewer.view is not None
        assert viewer.view.members[0].state == "dead"
        roster.own(snapshot("r0"))
        second = Server(roster, path)
        until(lambda: viewer.poll(0.1))
        assert viewer.trouble == ""
        assert viewer.view.members[0].state == "running"
        second.close()


def test_a_client_takes_another_replica_when_the_first_does_not_answer(served: Server, path: Path) -> None:
    view, trouble = client.once([path.parent / "r9.status", path], PATIENCE_S)
    assert view is not None
    assert view.source == "r0"
    assert trouble == ""


def test_a_client_says_why_nobody_answers(tmp_path: Path) -> None:
    view, trouble = client.once([tmp_path / "a.status", tmp_path / "away" / "b.status"], PATIENCE_S)
    assert view is None
    assert trouble.count("no replica answers there") == 2


@pytest.mark.parametrize("told", [b"nonsense\n", b'{"format": 99}\n', b"[]\n", json.dumps({}).encode() + b"\n"])
def test_a_client_does_not_believe_everything(path: Path, told: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with contextlib.closing(client.Client([path])) as viewer:
            viewer.poll(0.0)
            with listener.accept()[0] as other:
                other.sendall(told)
                until(lambda: not viewer.poll(0.0) and viewer.source is None)
            assert "not understood" in viewer.trouble
            assert viewer.view is None

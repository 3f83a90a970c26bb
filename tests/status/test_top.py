"""`ftnids top` in a real terminal: a live set, a set that dies, sizes, keys, and a replica that goes and comes back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftnids.status.roster import Roster
from ftnids.status.server import Server, socket_path
from tests.status.live import TwoReplicas
from tests.status.sets import alert, snapshot
from tests.terminal import Terminal

pytestmark = pytest.mark.needs_tmux


def top(*paths: Path) -> list[str | Path]:
    words: list[str | Path] = [sys.executable, "-m", "ftnids", "top"]
    for path in paths:
        words += ["-c", path]
    return words


@pytest.fixture
def roster() -> Iterator[Roster]:
    """Of two replicas that stay alive, however long the test takes."""
    made, over = Roster("office", ["r0", "r1"], me=0), threading.Event()

    def live() -> None:
        while not over.wait(0.2):
            mine = made.mine()
            assert mine is not None
            made.own(mine[0])
            made.heard(1, snapshot("r1", 100.0).json())

    made.own(snapshot("r0", 100.0, alerts=[alert(1), alert(2, "provisional"), alert(3, "retracted")]))
    made.heard(1, snapshot("r1", 100.0).json())
    thread = threading.Thread(target=live)
    thread.start()
    yield made
    over.set()
    thread.join()


@pytest.fixture
def server(roster: Roster, tmp_path: Path) -> Iterator[Server]:
    made = Server(roster, socket_path(tmp_path, "r0"))
    yield made
    made.close()


def test_a_live_set_at_two_sizes_and_a_replica_that_is_killed(tmp_path: Path) -> None:
    with TwoReplicas(tmp_path) as both:
        both.start()
        with Terminal(top(both.toml("a"), both.toml("b"))) as terminal:
            shown = terminal.wait(lambda text: "2 of 2 running" in text and "max " in text)
            assert " healthy" in shown
            lines = shown.splitlines()
            assert lines[0].startswith(" ftnids top  test-")
            assert sum(line.startswith(("a ", "b ")) for line in lines) == 6
            assert "coord" in shown
            terminal.resize(200, 60)
            wide = terminal.wait(lambda text: any(line.rstrip().endswith("LOSS") for line in text.splitlines()))
            assert len(wide.splitlines()) == 60
            terminal.resize(40, 8)
            terminal.wait(lambda text: len(text.splitlines()) == 8 and "ftnids top" in text)
            terminal.resize(80, 24)
            both.kill("a")  # which top looks through
            shown = terminal.wait(lambda text: "1 of 2 running" in text and "from b" in text)
            assert "degraded: a: dead, last heard" in shown
            both.kill("b")
            terminal.wait("0 of 2 running")
            assert terminal.status is None
            terminal.press("q")
            assert terminal.wait_end() == 0


def test_keys_do_what_the_last_line_says(server: Server, roster: Roster, tmp_path: Path) -> None:
    with Terminal(top(tmp_path)) as terminal:
        shown = terminal.wait("conf FTNIDS canary")
        assert "prov FTNIDS canary" in shown
        assert "RETR FTNIDS canary" in shown
        terminal.press("r")
        terminal.wait("captures from eth1")
        terminal.press("r", "r")
        terminal.wait("REPLICA   STATE")
        terminal.press("a")
        terminal.wait(lambda text: "REPLICA" not in text and "conf FTNIDS canary" in text)
        terminal.press("h")
        terminal.wait("docs/operations.md")
        terminal.press("Escape")
        terminal.wait("REPLICA   STATE")
        terminal.press("s")
        terminal.wait("by name")
        terminal.press("p")
        terminal.wait("PAUSED")
        terminal.press("p")

        def resumed(text: str) -> bool:
            roster.own(snapshot("r0", 101.0, counters={"recovered": 4321}))
            server.news()
            return "PAUSED" not in text and "4,321" in text

        terminal.wait(resumed)
        terminal.press("q")
        assert terminal.wait_end() == 0


def test_a_replica_that_goes_away_is_dead_and_comes_back(roster: Roster, tmp_path: Path) -> None:
    path = socket_path(tmp_path, "r0")
    first = Server(roster, path)
    with Terminal(top(tmp_path)) as terminal:
        terminal.wait("1 to 3 of 3")
        first.close()
        shown = terminal.wait("r0        dead")
        assert "the replica has gone" in shown or "no replica answers" in shown
        second = Server(roster, path)
        try:
            terminal.wait("r0        running")
        finally:
            second.close()
        terminal.press("q")
        assert terminal.wait_end() == 0


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_colours_mean_something_and_nothing_is_lost_without(
    server: Server, roster: Roster, tmp_path: Path, locale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Terminal(top(tmp_path), locale=locale) as terminal:
        with_colours = terminal.wait(" healthy")
        assert "\x1b[32m" in terminal.coloured()
        assert ("█" in with_colours) == (locale != "C")
    with Terminal([*top(tmp_path), "--no-color"], locale=locale) as terminal:
        without = terminal.wait(" healthy")
        assert "\x1b[32m" not in terminal.coloured()
        # Below the tables are the rates, which there are from the second look on.
        assert without.splitlines()[1:7] == with_colours.splitlines()[1:7]


def test_what_cannot_be_shown_is_one_line(tmp_path: Path) -> None:
    with Terminal(top(tmp_path)) as terminal:
        assert terminal.wait_end() == 2
        assert f"no replica runs or is configured in {tmp_path}" in terminal.text().replace("\n", "")
        assert "Traceback" not in terminal.text()

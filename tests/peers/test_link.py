"""What is said of a peer that does not let this replica in, and when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from ftnids import log
from ftnids.peers.addresses import parse
from ftnids.peers.keys import derived
from ftnids.peers.link import PATIENCE_S, PAUSE_S, Link


@pytest.fixture
def link() -> Iterator[Link]:
    log.configure("info", "json")
    keys = derived(bytes(32), 2, 0)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = Link(context, "b", parse("tcp://127.0.0.1:1"), keys.secret, keys.members[1])
    yield made
    made.close(0)
    context.term()


def test_a_peer_that_is_starting_or_stopping_is_not_accused(link: Link, capsys: pytest.CaptureFixture[str]) -> None:
    for start in (100.0, 100.0 + PAUSE_S + PATIENCE_S):  # it stops, and starts again
        for attempt in range(4):
            link._failed(start + attempt * PATIENCE_S / 4)
    assert capsys.readouterr().err == ""


def test_a_peer_that_goes_on_refusing_is_told(link: Link, capsys: pytest.CaptureFixture[str]) -> None:
    for attempt in range(5):
        link._failed(100.0 + attempt * PATIENCE_S / 2)
    said = capsys.readouterr().err
    assert said.count("peer_handshake_failed") == 1
    assert '"peer": "b"' in said
    assert "still starting" in said

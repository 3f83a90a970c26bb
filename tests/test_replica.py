"""The replica as a whole, where no other test reaches: what it leaves when it is refused, and a full disk."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ftnids import core
from ftnids.alerts.identity import END_OF_FLOW
from ftnids.config import Config, load, make_directories
from ftnids.core import segment
from ftnids.errors import ConfigError, PeerError
from ftnids.ids_logs import IdsLogs
from ftnids.lab import generate
from ftnids.replica import Replica
from ftnids.status import snapshot
from ftnids.sync.actions import Change, Note, Publish, Rejoin, Start
from ftnids.sync.messages import View


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A replica of a set whose other member is not there; it reads a file and goes on alone."""
    generate.write(tmp_path / "traffic.pcap", 1)
    with socket.socket() as one, socket.socket() as other:
        for held in (one, other):
            held.bind(("127.0.0.1", 0))
        ports = [held.getsockname()[1] for held in (one, other)]
    members = "".join(
        f'[[cluster.member]]\nname = "{name}"\naddress = "tcp://127.0.0.1:{port}"\n'
        for name, port in zip("ab", ports, strict=True)
    )
    (tmp_path / "a.toml").write_text(
        f'[replica]\nname = "a"\nrun_dir = "run"\nlog_dir = "log"\n'
        f'[cluster]\nname = "test-{os.getpid()}"\njoin_timeout_s = 0.1\n{members}'
        '[capture]\nfile = "traffic.pcap"\npace = "topspeed"\nfrom_start = true\n'
        "[ring]\nslots = 16384\narena_mb = 16\nrecovered_mb = 1\n"
        '[feed]\nhashes = "hashes.txt"\n'
    )
    return load(tmp_path / "a.toml")


def test_a_refused_replica_leaves_nothing(config: Config) -> None:
    address = config.cluster.member[0].parsed
    with socket.socket() as held:
        held.bind(("127.0.0.1", address.port))
        held.listen()
        with pytest.raises(PeerError, match="is in use"):
            Replica(config)
    assert not list(segment.DIRECTORY.glob(f"*{config.cluster.name}*"))


def test_a_status_that_cannot_be_written_stops_nothing(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, record: snapshot.Snapshot) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(snapshot, "write", full)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert Replica(config).run() == 0
    assert (config.replica.log_dir / "hashes.txt").read_text().count("\n") > 100
    assert capsys.readouterr().err.count("status_not_written") == 1


def test_a_void_seq_has_no_position(config: Config) -> None:
    """What nobody has is stable like any other packet, and no packet of this replica."""
    replica = Replica(config)
    try:
        refs, times = np.array([-1, core.RECOVERED | 3, 7], np.int64), np.arange(3, dtype=np.int64)
        replica.ring.publish_agreed = lambda *_: None  # type: ignore[method-assign]
        replica._act(Publish(replica.engine.view, 10, refs, times, np.zeros(3, np.uint8)))
        assert replica._positions.tolist() == [7]
        assert replica._seqs.tolist() == [12]
    finally:
        replica._close()


def test_what_was_captured_before_the_first_view_is_counted(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica(config)
    monkeypatch.setattr(replica.thread, "start", lambda: None)
    try:
        assert replica._snapshot("").counters["captured_before"] == 0
        replica._act(Start(replica.engine.view, (0, 1), 7, 0))
        assert replica._snapshot("").counters["captured_before"] == 7
    finally:
        replica._close()


@pytest.mark.parametrize(
    ("number", "agrees", "said"), [(signal.SIGHUP, True, "keys_unchanged"), (signal.SIGTERM, False, "")]
)
def test_signals_between_two_lives_are_heeded(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    agrees: bool,
    said: str,
) -> None:
    """A replica that rejoins is built anew; what comes meanwhile reaches the one that has ended."""
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    first = Replica(config)
    first.rejoin, first._reason = True, "left behind"
    assert first.run() == 1
    assert "replica_failed" not in (ended := capsys.readouterr().err)  # it goes on
    assert "rejoining" in ended
    handlers[number](number, None)
    second = Replica(first.config)
    second.take_over(first)
    assert second.run() == 0
    assert bool((config.replica.log_dir / "hashes.txt").read_text()) == agrees
    assert said in capsys.readouterr().err


def test_a_view_change_is_one_line_with_names(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    replica = Replica(config)
    try:
        replica._act(Start(replica.engine.view, (0, 1), 0, 0))
        capsys.readouterr()
        replica._act(Note("warning", "member_leaves", {"member": 1, "reason": "silent"}))
        replica._act(Note("info", "view_changed", {"number": 2, "members": [0]}))
        replica._act(Change(View(1, 2, 0, 1), (0,), 5))
        leaves, changed = capsys.readouterr().err.splitlines()
    finally:
        replica._close()
    assert "member_leaves" in leaves
    assert "member=b" in leaves
    assert "view_changed" in changed
    assert "members=['a']" in changed


def test_a_rejoin_names_the_member_that_went_on(config: Config) -> None:
    replica = Replica(config)
    try:
        replica._act(Rejoin("member 1 is in view 2 without this replica"))
        assert replica._reason == "member b is in view 2 without this replica"
    finally:
        replica._close()


@pytest.mark.parametrize("cut_short", [False, True])
def test_flows_that_an_ids_gives_up_when_it_is_stopped_have_not_ended(cut_short: bool) -> None:
    """A replica leaves, its IDS ends, and says of each open flow what it says of one that is over."""
    alert = {"event_type": "alert", "alert": {"gid": 1, "signature_id": 2, "rev": 1}, "proto": "TCP"}
    ordinary = alert | {"pcap_cnt": 3, "timestamp": "2026-01-01T00:00:01.000000+0000"}
    given_up = alert | {"pkt_src": END_OF_FLOW, "flow": {"start": "x"}, "timestamp": "2026-01-01T00:00:01.000000+0000"}
    logged = [[ordinary, given_up], [], []]
    reader = SimpleNamespace(poll=lambda final=False: logged.pop(0), close=lambda: None)
    run = SimpleNamespace(number=0, ended=False, base_seq=0, base_us=1, voids=[], reader=reader)
    ids = SimpleNamespace(runs=[run], bound=lambda run: None, note=lambda: None, ahead=False)
    logs = IdsLogs("a", ids)  # type: ignore[arg-type]
    read = logs.read(1, cut_short=cut_short)
    assert [record.get("pcap_cnt") for record in read] == ([3] if cut_short else [3, None])


@pytest.mark.parametrize(("where", "words"), [("file", "File exists"), ("file/below", "Not a directory")])
def test_directories_that_cannot_be_made(config: Config, tmp_path: Path, where: str, words: str) -> None:
    (tmp_path / "file").touch()
    replica = config.replica.model_copy(update={"log_dir": tmp_path / where})
    with pytest.raises(ConfigError, match=rf"replica\.log_dir .*{words}; name another directory"):
        make_directories(replica)

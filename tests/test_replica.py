"""The replica as a whole, where no other test reaches: what it leaves when it is refused, and a full disk."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path

import pytest

from ftnids.config import Config, load, make_directories
from ftnids.core import segment
from ftnids.errors import ConfigError, PeerError
from ftnids.lab import generate
from ftnids.replica import Replica
from ftnids.status import snapshot


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


@pytest.mark.parametrize(("where", "words"), [("file", "File exists"), ("file/below", "Not a directory")])
def test_directories_that_cannot_be_made(config: Config, tmp_path: Path, where: str, words: str) -> None:
    (tmp_path / "file").touch()
    replica = config.replica.model_copy(update={"log_dir": tmp_path / where})
    with pytest.raises(ConfigError, match=rf"replica\.log_dir .*{words}; name another directory"):
        make_directories(replica)

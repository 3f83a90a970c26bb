"""Keys are read again on a signal: what is wrong changes nothing, and is named as what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftnids import config, log, rekey
from ftnids.errors import PeerError
from ftnids.peers import keys
from ftnids.peers.transport import Transport
from ftnids.settings import sources
from tests.two import two

NAMED = 'secret_file = "keys/cluster.secret"'


class Door(Transport):
    """Notes the keys that it is given."""

    def __init__(self) -> None:
        self.given: list[keys.Keys] = []
        self.other = False  # than before

    def renew(self, keys: keys.Keys) -> bool:
        self.given.append(keys)
        return self.other


def load(folder: Path, secret: str) -> config.Config:
    path = folder / "a.toml"
    path.write_text(two(cluster=secret))
    return config.load(path)


def renewed(loaded: config.Config, seed: int, capsys: pytest.CaptureFixture[str]) -> tuple[Door, list[dict[str, Any]]]:
    """What the transport was given, and what was said."""
    log.configure("info", "json")
    capsys.readouterr()
    door = Door()
    rekey.renew(loaded, door, seed)
    return door, [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("secret", [NAMED, ""], ids=["named", "by default"])
def test_a_secret_that_has_gone_is_named_and_the_keys_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], secret: str
) -> None:
    keys.generate(tmp_path / "keys", [])
    loaded = load(tmp_path, secret)
    seed = rekey.identity(loaded).seed
    door, said = renewed(loaded, seed, capsys)
    assert (len(door.given), [line["event"] for line in said]) == (1, ["keys_unchanged"])
    path = tmp_path / "keys/cluster.secret"
    path.unlink()
    door, said = renewed(loaded, seed, capsys)
    assert door.given == []
    assert [line["event"] for line in said] == ["keys_not_renewed"]
    assert said[0]["reason"].startswith(f"{path}: No such file or directory")
    keys.generate(tmp_path / "keys", [])
    door, said = renewed(loaded, seed, capsys)
    assert door.given == []
    assert "another secret needs a restart of the whole set" in said[0]["reason"]


def test_another_key_is_told_from_the_same_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load(tmp_path, "")
    log.configure("info", "json")
    door = Door()
    door.other = True
    rekey.renew(loaded, door, rekey.identity(loaded).seed)
    assert '"keys_renewed"' in capsys.readouterr().err


def test_a_set_without_a_secret_goes_on_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load(tmp_path, "")
    door, said = renewed(loaded, rekey.identity(loaded).seed, capsys)
    assert (len(door.given), [line["event"] for line in said]) == (1, ["no_cluster_secret", "keys_unchanged"])


def test_a_secret_that_the_file_names_must_be_there(tmp_path: Path) -> None:
    """Only what nobody asked for may be missing, and only on loopback."""
    assert load(tmp_path, "").secret_optional
    assert not load(tmp_path, NAMED).secret_optional
    with pytest.raises(PeerError, match=r"keys/cluster.secret: No such file"):
        rekey.identity(load(tmp_path, NAMED))


def test_the_log_changes_at_once_and_the_rest_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load(tmp_path, "")
    seed = rekey.identity(loaded).seed
    path = tmp_path / "a.toml"
    path.write_text(f'{path.read_text()}\n[log]\nlevel = "debug"\nformat = "json"\n[sync]\nk = 40\n')
    log.configure("info", "json")
    capsys.readouterr()
    logger = log.get("other")
    new = rekey.renew(loaded, Door(), seed)
    logger.debug("heard")
    said = {line["event"]: line for line in map(json.loads, capsys.readouterr().err.splitlines())}
    assert said["settings_changed"]["settings"] == ["log.level", "log.format"]
    assert said["settings_wait_for_a_restart"]["settings"] == ["sync.k"]
    assert "heard" in said
    assert (new.log.level, new.sync.k) == ("debug", loaded.sync.k)


def test_what_the_command_line_set_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A signal reads the file again; it does not take back what went before it."""
    path = tmp_path / "a.toml"
    path.write_text(two())
    loaded = config.load(path, sources.of_options(["sync.k=48"]))
    _, said = renewed(loaded, rekey.identity(loaded).seed, capsys)
    assert "settings_wait_for_a_restart" not in [line["event"] for line in said]

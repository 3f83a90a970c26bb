"""`ftnids init`: two replicas that could start as they are, and nothing that was there is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ftnids import config
from ftnids.cli import cli
from ftnids.commands import init
from ftnids.errors import ConfigError, UsageError


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=False)


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_both_files_pass_the_check(tmp_path: Path) -> None:
    folder = tmp_path / "new/cluster"
    shown = run("init", str(folder), "-i", "lo", "--ids", "none").output
    made = {"cluster.secret", "a.key", "a.key_secret", "b.key", "b.key_secret"}
    assert set(tree(folder)) == {"replica-a.toml", "replica-b.toml", *(f"keys/{name}" for name in made)}
    for name in ("a", "b"):
        path = folder / f"replica-{name}.toml"
        assert str(path) in shown
        assert f"replica {name} is valid" in run("run", "-c", str(path), "-T").output
        found = config.load(path)
        assert (found.replica.name, found.replica.log_dir) == (name, folder / f"log-{name}")
        assert found.loopback
        assert path.read_text().count("#") > 50
    assert (folder / "keys/cluster.secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("there", ["replica-a.toml", "replica-b.toml", "keys"])
def test_it_overwrites_nothing(tmp_path: Path, there: str) -> None:
    (tmp_path / there).symlink_to("nowhere")
    with pytest.raises(UsageError, match=f"{there} is there already, and init overwrites nothing"):
        run("init", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_addresses_of_two_hosts(tmp_path: Path) -> None:
    addresses = ["tcp://192.0.2.1:5701", "tcp://192.0.2.2:5701"]
    options = [part for one in addresses for part in ("--address", one)]
    run("init", str(tmp_path), "-i", "eth1", "--ids", "snort", "--cluster", "edge", *options)
    found = config.load(tmp_path / "replica-b.toml")
    assert [member.address for member in found.cluster.member] == addresses
    assert (found.cluster.name, found.capture.interface, found.feed.ids) == ("edge", "eth1", "snort")
    with pytest.raises(UsageError, match="--address: wants one for each of a and b, or none"):
        run("init", str(tmp_path / "x"), "--address", addresses[0])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--cluster", "a b"], "cluster.name"),
        (["-i", "a-name-that-is-too-long"], "capture.interface"),
        (["--address", "x", "--address", "y"], "is no address"),
    ],
)
def test_a_wrong_option_leaves_no_file(tmp_path: Path, options: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        run("init", str(tmp_path), *options)
    assert tree(tmp_path) == {}


def test_a_place_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made: Not a directory"):
        run("init", str(tmp_path / "file/x"))


def test_what_it_finds_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "_tap", lambda: "lo")
    monkeypatch.setattr(init, "_ids", lambda: "none")
    shown = run("init", str(tmp_path)).output
    assert "capture.interface is lo, for a trial" in shown
    assert 'feed.ids is "none"' in shown

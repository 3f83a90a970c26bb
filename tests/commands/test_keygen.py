"""`ftnids keygen` on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ftnids.commands.keygen import command
from ftnids.errors import PeerError, UsageError
from ftnids.peers import keys


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, standalone_mode=False)


def test_what_it_prints_fits_the_files(tmp_path: Path) -> None:
    result = run(str(tmp_path / "k"), "--name", "a", "--name", "b")
    assert result.exit_code == 0
    shown = re.findall(r'public_key = "(.*)"', result.output)
    pair = keys.load_keys(tmp_path / "k/a.key_secret", [[key] for key in shown], 0)
    assert [key.decode() for (key,) in pair.members] == shown
    assert len(keys.load_secret(tmp_path / "k/cluster.secret")) == 32
    assert pair.secret.decode() not in result.output
    assert (tmp_path / "k/cluster.secret").read_text().strip() not in result.output


def test_a_replica_can_be_added_later(tmp_path: Path) -> None:
    assert run(str(tmp_path), "--name", "a").exit_code == 0
    secret = keys.load_secret(tmp_path / "cluster.secret")
    refused = run(str(tmp_path), "--name", "c")
    assert isinstance(refused.exception, PeerError)
    assert "cluster.secret is there already" in str(refused.exception)
    assert run(str(tmp_path), "--no-secret", "--name", "c").exit_code == 0
    assert keys.load_secret(tmp_path / "cluster.secret") == secret


@pytest.mark.parametrize(
    "arguments",
    [["--name", "../x"], ["--name", ""], ["--name", "a" * 65], ["--name", "a", "--name", "a"], ["--no-secret"]],
)
def test_wrong_use(tmp_path: Path, arguments: list[str]) -> None:
    result = run(str(tmp_path / "k"), *arguments)
    assert isinstance(result.exception, UsageError)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "k").exists()


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(str(tmp_path / "file" / "k"), "--name", "a")
    assert isinstance(result.exception, PeerError)

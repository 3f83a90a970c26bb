"""Values from the environment and the command line: they go before the file, and errors name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ftnids import config
from ftnids.cli import cli
from ftnids.errors import ConfigError
from ftnids.settings import sources, text

TEXT = text.example()
HERE = Path.cwd()


def loaded(*sets: str, environment: dict[str, str] | None = None, **options: Any) -> config.Config:
    given = [*sources.of_environment(environment or {}), *sources.of_options(sets, **options)]
    return config.parse_text(TEXT, Path("x.toml"), given)


def problems(*sets: str, environment: dict[str, str] | None = None, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loaded(*sets, environment=environment, **options)
    return str(raised.value).splitlines()


def value(found: config.Config, name: str) -> Any:
    where: Any = found
    for part in name.split("."):
        where = getattr(where, part)
    return where


VALUES: list[tuple[str, str, Any]] = [
    ("capture.snaplen", "1600", 1600),
    ("capture.promiscuous", "false", False),
    ("capture.drop.loss", "0.25", 0.25),
    ("capture.drop.loss", "1", 1.0),
    ("cluster.join_timeout_s", "7", 7.0),
    ("feed.cpus", "[0, 1]", [0, 1]),
    ("feed.rules", '["r/a.rules", "/etc/b"]', [HERE / "r/a.rules", Path("/etc/b")]),
    ("feed.ids_config", "s.yaml", str(HERE / "s.yaml")),
    ("feed.ids_config", "", ""),
    ("feed.ids", "suricata", "suricata"),
    ("feed.ids", '"snort"', "snort"),
    ("capture.bpf", "tcp port 80", "tcp port 80"),
    ("capture.bpf", "8", "8"),
    ("capture.bpf", "host = 1\nx", "host = 1\nx"),
    ("replica.log_dir", "log", HERE / "log"),
    ("replica.log_dir", "/l", Path("/l")),
    ("log.level", "debug", "debug"),
]


@pytest.mark.parametrize(("name", "given", "expected"), VALUES, ids=[f"{name}={given}" for name, given, _ in VALUES])
def test_both_ways_give_the_same_value(name: str, given: str, expected: Any) -> None:
    variable = f"FTNIDS_{name.replace('.', '__').upper()}"
    assert value(loaded(f"{name}={given}"), name) == expected
    assert value(loaded(environment={variable: given}), name) == expected


def test_members_count_from_one() -> None:
    address = "tcp://127.0.0.1:7000"
    assert loaded(f"cluster.member[2].address={address}").cluster.member[1].address == address
    given = loaded(environment={"FTNIDS_CLUSTER__MEMBER__1__ADDRESS": address})
    assert given.cluster.member[0].address == address


def test_the_command_line_goes_before_the_environment() -> None:
    environment = {"FTNIDS_SYNC__K": "16", "FTNIDS_SYNC__L": "4"}
    sync = loaded("sync.k=32", environment=environment).sync
    assert (sync.k, sync.l) == (32, 4)


def test_what_has_no_two_underscores_is_no_key() -> None:
    environment = {"FTNIDS_IMPL": "c", "FTNIDS_SNORT": "/x", "PATH": "/bin", "OTHER__K": "1"}
    assert loaded(environment=environment).overrides == ()


def test_short_options() -> None:
    found = loaded(interface="eth7", log_dir=Path("logs"))
    assert (found.capture.interface, found.replica.log_dir) == ("eth7", HERE / "logs")
    found = loaded(file=Path("x.pcap"))
    assert (found.capture.interface, found.capture.file) == (None, HERE / "x.pcap")
    environment = {"FTNIDS_CAPTURE__FILE": "/x.pcap"}
    assert loaded(environment=environment).capture.interface is None
    assert loaded(environment=environment, interface="eth7").capture.file is None
    assert problems(interface="eth7", file=Path("x")) == ["-i and -r: name an interface or a file, not both"]


MISTAKES = [
    ("capture.snapln=9", "--set capture.snapln: capture.snapln: unknown key; did you mean snaplen?"),
    ("captre.snaplen=9", "--set captre.snaplen: captre: unknown key; did you mean capture?"),
    ("sync.k=0", "--set sync.k: sync.k = 0: must be a whole number, 1 to 4096"),
    ("sync.k=x", '--set sync.k: sync.k = "x": must be a whole number, 1 to 4096'),
    ("sync.k=", '--set sync.k: sync.k = "": must be a whole number, 1 to 4096'),
    ("sync.k", "--set sync.k: wants KEY=VALUE, as in --set capture.snaplen=1600"),
    ("sync..k=1", "--set sync..k: '' is no name of a key; those are as in capture.snaplen"),
    ("sync.k.x=1", "--set sync.k.x: sync.k.x: sync.k is no table"),
    ("sync[1].k=1", "--set sync[1].k: sync[1].k: sync is no list"),
    ("cluster.member[3].name=x", "--set cluster.member[3].name: cluster.member[3].name: cluster.member is 2 of them,"),
    ("cluster.member[0].name=x", "--set cluster.member[0].name: cluster.member[0].name: cluster.member is 2 of them,"),
    ("capture.pps=9", "--set capture.pps: capture.pps is for a file: remove it"),
    ("feed.rules=[5]", "--set feed.rules: feed.rules[1] = 5: must be a text"),
    ("replica.name=c", '--set replica.name: replica.name = "c": is no cluster.member; those are a, b'),
]


@pytest.mark.parametrize(("given", "problem"), MISTAKES, ids=[given for given, _ in MISTAKES])
def test_every_mistake_names_its_source(given: str, problem: str) -> None:
    (shown,) = problems(given)
    assert shown.startswith(problem)


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    (shown,) = problems(environment={"FTNIDS_SYNC__KK": "1"})
    assert shown.startswith("FTNIDS_SYNC__KK: sync.kk: unknown key; did you mean k?")


def test_a_conflict_with_the_file_names_both() -> None:
    (shown,) = problems(environment={"FTNIDS_SYNC__K": "4"})
    line = TEXT[: TEXT.index("\nl = 8")].count("\n") + 2
    reason = "an anchor is no longer than a cluster; at most sync.k = 4 (sync.k is from FTNIDS_SYNC__K)"
    assert shown == f"x.toml:{line}: sync.l = 8: {reason}"


def test_run_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "replica.toml"
    path.write_text(TEXT)
    monkeypatch.setenv("FTNIDS_SYNC__K", "0")
    with pytest.raises(ConfigError, match=r"^FTNIDS_SYNC__K: sync.k = 0: must be"):
        CliRunner().invoke(cli, ["run", "-c", str(path), "-T"], standalone_mode=False, catch_exceptions=False)
    options = ["-i", "lo", "-l", str(tmp_path), "--set", "sync.k=-1"]
    with pytest.raises(ConfigError, match=r"^--set sync.k: sync.k = -1: must be"):
        CliRunner().invoke(cli, ["run", "-c", str(path), "-T", *options], standalone_mode=False, catch_exceptions=False)

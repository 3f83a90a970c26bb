"""Refusals: each is one line that names the option and the cure, and nothing is made or removed before it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from ftnids.errors import UsageError
from ftnids.lab import netns
from ftnids.lab.options import MARK, Options, prepare


def refusal(tmp_path: Path, **asked: Any) -> str:
    with pytest.raises(UsageError) as caught:
        Options(**{"out": tmp_path / "out", "ids": "none", **asked}).check()
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"mode": "optimistic"}, "--mode optimistic needs checkpoints; say --checkpoint criu"),
        ({"mode": "optimistic", "checkpoint": "criu"}, "--checkpoint criu needs an IDS to set back"),
        ({"mode": "optimistic", "checkpoint": "fork", "ids": "suricata"}, "only Snort forks by itself"),
        ({"replicas": 1}, "-n 1: a set has 2 to"),
        ({"replicas": 17}, "-n 17: a set has 2 to 16"),
        ({"loss": -0.01}, "--loss -0.01"),
        ({"loss": 1.01}, "--loss 1.01"),
        ({"loss": math.nan}, "--loss nan"),
        ({"seed": -1}, "--seed -1"),
        ({"pps": -5}, "--pps -5"),
        ({"pps": 5, "topspeed": True}, "exclude each other"),
        ({"jitter_us": -1}, "jitter is not negative"),
        ({"clock_offset_us": 1_000_001}, "--clock-offset-us"),
        ({"link": "bond"}, "say --netns"),
        ({"pcap": Path("nowhere.pcap")}, "nowhere.pcap: cannot be read"),
        ({"rules": (Path("nowhere.rules"),)}, "nowhere.rules: cannot be read"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, asked: dict[str, Any], words: str) -> None:
    assert words in refusal(tmp_path, **asked)


def test_no_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTNIDS_SNORT", str(tmp_path / "no-snort"))
    assert "--ids none" in refusal(tmp_path, ids="snort")


def test_rules_are_tried_first(tmp_path: Path, needs_suricata: Path) -> None:
    rules = tmp_path / "bad.rules"
    rules.write_text('alert http any any -> any any (msg:"no end"; content:"x)\n')
    assert "--ids suricata: suricata: refuses" in refusal(tmp_path, ids="suricata", rules=(rules,))


def test_namespaces_need_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--netns makes network namespaces, which needs root" in refusal(tmp_path, netns=True)


def test_bond_needs_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(netns, "has_bonding", lambda: False)
    assert "CONFIG_BONDING" in refusal(tmp_path, netns=True, link="bond")


def test_a_file_that_would_be_removed(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "traffic.pcap").touch()
    with pytest.raises(UsageError, match="which is emptied first"):
        Options(out=tmp_path, ids="none", pcap=tmp_path / "traffic.pcap").check()


def test_programs_are_not_paced(tmp_path: Path) -> None:
    assert "say --pcap" in refusal(tmp_path, netns=True, pps=100)


def test_what_can_be(tmp_path: Path) -> None:
    Options(out=tmp_path, ids="none", loss=1, replicas=16, pps=10).check()


def test_every_replica_and_run_has_losses_of_its_own(tmp_path: Path) -> None:
    seeds = [Options(out=tmp_path, seed=seed).drop_seed(number) for seed in range(3) for number in range(16)]
    assert len(set(seeds)) == len(seeds)


class TestDirectory:
    """`-o DIR` is new, empty, or a former lab's."""

    def test_new(self, tmp_path: Path) -> None:
        prepare(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b" / MARK).exists()

    def test_former(self, tmp_path: Path) -> None:
        prepare(tmp_path)
        (tmp_path / "r0").mkdir()
        (tmp_path / "r0" / "hashes.txt").touch()
        (tmp_path / "summary.json").touch()
        prepare(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [MARK]

    def test_anothers(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").touch()
        with pytest.raises(UsageError, match="holds files that no lab wrote"):
            prepare(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_no_directory(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match="cannot be written"):
            prepare(tmp_path / "file")

    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        prepare(tmp_path / "out")
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "file").touch()
        (tmp_path / "out" / "r0").symlink_to(tmp_path / "precious")
        prepare(tmp_path / "out")
        assert (tmp_path / "precious" / "file").exists()

"""The union of what was captured, from drop decisions alone and from hashes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ftnids.core import RandomDrop
from ftnids.lab import generate, truth, verify
from ftnids.lab.verify import Stream


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("truth") / "source.pcap"
    generate.write(path, seed=2, connections=60, lookups=60, seconds=1)
    return path


def drops(loss: float, replicas: int) -> list[RandomDrop]:
    return [RandomDrop(loss, 1.0, seed) for seed in range(replicas)]


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.5, 1.0])
def test_union_by_drops(source: Path, tmp_path: Path, loss: float) -> None:
    all_of_it = verify.read_pcap(source, 65_535, 3)
    union = truth.union(source, truth.by_drops(drops(loss, 3)), 3, 65_535, 3, tmp_path / "union.pcap")
    kept = [~np.asarray(drop.decide(len(all_of_it)), bool) for drop in drops(loss, 3)]
    some = kept[0] | kept[1] | kept[2]
    assert union.source_packets == len(all_of_it)
    assert union.captured == [one.sum() for one in kept]
    assert (union.stream.hash == all_of_it.hash[some]).all()
    assert (union.holders == (kept[0] + 2 * kept[1] + 4 * kept[2])[some]).all()


def test_the_file_holds_the_union(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "union.pcap"
    union = truth.union(source, truth.by_drops(drops(0.5, 2)), 2, 65_535, 3, path)
    written = verify.read_pcap(path, 65_535, 3)
    assert (written.hash == union.stream.hash).all()
    assert (written.time_us == union.stream.time_us).all()
    assert path.stat().st_mode & 0o777 == 0o600


def test_union_by_hash_takes_as_many_as_were_agreed(source: Path, tmp_path: Path) -> None:
    all_of_it = verify.read_pcap(source, 65_535, 3)
    order = np.random.default_rng(1).permutation(len(all_of_it))[: len(all_of_it) // 2]
    agreed = Stream(all_of_it.hash[order], all_of_it.time_us[order])
    union = truth.union(source, truth.by_hash(agreed, 2), 2, 65_535, 3, tmp_path / "union.pcap")
    assert sorted(union.stream.hash) == sorted(agreed.hash)
    assert (np.diff(union.stream.time_us) >= 0).all()

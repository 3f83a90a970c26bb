"""The fuzz targets without a fuzzer: seeds, past findings and seeded mutations, as `make fuzz` runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ftnids.peers import wire
from ftnids.sync.messages import KINDS
from fuzz import build, replay, seeds
from fuzz.wire import CLUSTER

ROUNDS: Final = 200  # mutations of each input of a C target
PYTHON_ROUNDS: Final = 200
ODD: Final[tuple[Any, ...]] = (
    *(None, True, -1, 1 << 70, 1.5, float("inf"), float("nan"), "", "x", "\ud800\0", "7", [], {}, [[]], {"start": 5}),
    json.loads("[" * 500 + "]" * 500),
)


@pytest.mark.parametrize("target", replay.PYTHON)
def test_python_targets(target: str, seed: int) -> None:
    check = replay.checker(target)
    for data in replay.inputs(target):
        check(data)
        for mutant in replay.mutations(data, PYTHON_ROUNDS, seed):
            check(mutant)


def test_every_field_of_a_log_line_may_be_anything() -> None:
    """Each value of each kind of line, at any depth, replaced by odd ones, and left out."""
    check = replay.checker("records")
    for data in seeds.CORPORA["records"]():
        record = json.loads(data[1:].splitlines()[0])
        for owner in (record, *(value for value in record.values() if isinstance(value, dict))):
            for key, value in list(owner.items()):
                for odd in ODD:
                    owner[key] = odd
                    check(data[:1] + json.dumps(record).encode())
                del owner[key]
                check(data[:1] + json.dumps(record).encode())
                owner[key] = value


def test_every_field_of_a_status_may_be_anything() -> None:
    """The same of what replicas say of themselves, at any depth."""
    check = replay.checker("status")

    def damaged(node: Any) -> Iterator[None]:
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            for odd in ODD:
                node[key] = odd
                yield
            node[key] = value
            if isinstance(value, dict | list):
                yield from damaged(value)

    for data in seeds.CORPORA["status"]():
        tree = json.loads(data)
        for _ in damaged(tree):
            check(json.dumps(tree).encode())


@pytest.mark.parametrize("target", build.SOURCES)
def test_c_targets_under_sanitizers(target: str, seed: int, tmp_path: Path) -> None:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    probe: list[str | Path] = [compiler, *build.CHECKS, "-x", "c", "-", "-o", tmp_path / "probe"]
    if subprocess.run(probe, input="int main(void){return 0;}", text=True, capture_output=True).returncode:
        pytest.skip(f"{compiler} has no libraries for {' '.join(build.CHECKS)}")
    program = build.build(target, compiler, tmp_path, fuzzer=False)
    files = [*seeds.write(target, tmp_path / "seeds"), *replay.found(target)]
    command: list[str | Path] = [program, str(ROUNDS), str(seed), *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, f"done {len(files) * (ROUNDS + 1)}\n"), done.stderr[-4000:]


def test_seeds_reach_behind_the_first_check() -> None:
    """Most seeds are sound: a corpus of nothing but refusals would test the doors only."""
    kinds = {type(wire.decode(data, CLUSTER)) for data in seeds.CORPORA["wire"]()}
    assert kinds == set(KINDS.values())
    assert len({next(seeds.CORPORA[target]())[:40] for target in seeds.CORPORA}) == 6  # the twins take the same
    for data in replay.inputs("wire"):
        assert wire.decode(data, CLUSTER).sender == 1

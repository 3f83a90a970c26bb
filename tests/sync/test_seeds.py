"""The promises in weather that no version before has seen, and the proof that the simulation would notice."""

import re
import subprocess
import sys
from typing import Final

import pytest

from ftnids.limits import SIMULATE_MAX_SEED
from ftnids.sync.simulation import simulate
from ftnids.sync.simulation.plants import PLANTS, planted
from tests.background import FreshSeeds

FAILED_ONCE: Final = (
    2_000,
    7_059,
    500_152,
    600_366,
    700_216,
    700_422,
    800_223,
    800_856,
    801_226,
    900_140,
    854_260_796,
    1_357_031_189,
    1_357_031_300,
)
pytestmark = pytest.mark.timeout(900)  # 500 seeds take three minutes on two cores, and others may be slower
WITHIN: Final = 200  # seeds in which a planted bug must be found
FOUND: Final = {"forget-last-decision": 8, "self-trained-clock": 14}  # where it was last time; tried first


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ftnids", "simulate", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=1_200)


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_seed_that_failed_once_holds(seed: int) -> None:
    simulate(seed)


def test_fresh_seeds(fresh_seeds: FreshSeeds, capsys: pytest.CaptureFixture[str]) -> None:
    """FTNIDS_SEEDS=N runs N of them (500).  A failure prints the one command that replays it."""
    with capsys.disabled():
        print(f" [seeds {fresh_seeds.seeds}]", end=" ", flush=True)
    status, output = fresh_seeds.result(timeout_s=850)
    assert status == 0, output


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    with planted(name):
        for seed in (FOUND.get(name, 1), *range(1, WITHIN + 1)):
            try:
                simulate(seed)
            except AssertionError:  # a broken promise, or an assertion of the protocol itself
                return
    pytest.fail(f"{name} is not found in seeds 1 to {WITHIN}")


def test_the_replay_command_replays() -> None:
    failed = run("--seeds", "1:50", "--jobs", "2", "--plant", "feed-before-ack")
    assert failed.returncode == 1
    found = re.search(r"^replay: ftnids simulate (.+)$", failed.stdout, re.MULTILINE)
    assert found, failed.stdout
    again = run(*found[1].split(), "--events")
    assert again.returncode == 1
    assert failed.stdout.splitlines()[-2] in again.stdout
    assert " ms r" in again.stdout, "the event log is missing"


@pytest.mark.parametrize(
    "options",
    [
        ("--seeds", "7"),
        ("--seeds", "9:8"),
        ("--seeds", f"1:{SIMULATE_MAX_SEED + 1}"),
        ("--seeds", "1:2", "--plant", "x"),
        ("--seeds", "1:2", "--replicas", "1"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(options: tuple[str, ...]) -> None:
    done = run(*options)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not done.stdout

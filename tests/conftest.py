"""What all tests share: a printed seed, what a test needs of the machine, and a check that nothing is left behind.

As root the whole run lives in a mount namespace of its own, with its own /dev/shm and /run/netns.  So the leak check
sees only what these tests made, two runs at once do not meet, and whatever a killed run leaves goes away with it.

A test that needs something of the machine is marked with it (`@pytest.mark.needs_suricata`) or takes the fixture of
that name, whose value is the path of the program or file; where it is missing, the test skips and says why.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import hypothesis
import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

from ftnids import log
from tests.background import FreshSeeds

ROOT: Final = Path(__file__).resolve().parent.parent
WAITING: Final = ("scenarios", "lab", "commands", "status")  # `make test` runs them beside the others ...
APART: Final = (  # ... and these, which do little for a long time or are in nobody's way, beside both
    "scenarios/test_network.py::test_the_sync_link_is_cut[60-0.3]",
    "scenarios/test_upgrade.py::test_a_release_that_skips_a_version_is_told_so_and_stays_outside",
    "scenarios/test_watching.py::test_a_death_and_a_return_are_seen",
    "scenarios/test_handover.py::",
    "test_wheel.py::",
)
FEEDING: Final = ("feed", "equivalence", "snort_adapter", "alerts", "bench", "doctor")  # real IDSs, most of them
# Where replicas must answer in time goes first.
NICE: Final = {"waits": -5, "apart": 0, "feeds": 19, "simulates": 19, "computes": 19}
SHM: Final = Path("/dev/shm")
NETNS: Final = Path("/run/netns")
SEED: Final = int(os.environ.get("FTNIDS_SEED", "1"))
NEEDS: Final = (
    "needs_root",
    "needs_suricata",
    "needs_snort",
    "needs_criu",
    "needs_tmux",
    "needs_promtool",
    "needs_redis",
    "needs_shared_trace",
)
PROGRAMS: Final = {"needs_root", "needs_suricata", "needs_snort", "needs_criu", "needs_redis"}
CLONE_NEWNS: Final = 0x00020000
PR_SET_CHILD_SUBREAPER: Final = 36
LEAVE_S: Final = 3.0  # how long an ended test's processes and namespaces may take to go

hypothesis.settings.register_profile("ftnids", deadline=None, derandomize=True, print_blob=True, max_examples=50)
hypothesis.settings.load_profile("ftnids")


# -- the run ---------------------------------------------------------------------------------------
def private_mounts() -> bool:
    """Give this process its own /dev/shm and /run/netns; False where the machine does not allow it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of a test become our children, where the check sees them
    if os.geteuid() or libc.unshare(CLONE_NEWNS):
        return False
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for directory in (SHM, NETNS):
        directory.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "ftnids-tests", directory], check=True)
    return True


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; what tests start would ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for need in NEEDS:
        config.addinivalue_line("markers", f"{need}: skip where the machine lacks it")
    config.stash[private] = private_mounts()


private: Final = pytest.StashKey[bool]()
asked: Final = pytest.StashKey[bool]()
fresh: Final = pytest.StashKey[FreshSeeds]()


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[asked] = any("fresh_seeds" in getattr(item, "fixturenames", ()) for item in session.items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The fresh seeds begin with the first test that simulates, where a test will ask how they ended."""
    of = part(item.nodeid)
    if "PYTEST_XDIST_WORKER" in os.environ:
        with contextlib.suppress(PermissionError):  # to go up again takes root
            os.setpriority(os.PRIO_PROCESS, 0, NICE[of])
    if of == "simulates" and item.config.stash[asked] and fresh not in item.config.stash:
        item.config.stash[fresh] = FreshSeeds()


def pytest_unconfigure(config: pytest.Config) -> None:
    if fresh in config.stash:
        config.stash[fresh].stop()


def pytest_report_header(config: pytest.Config) -> list[str]:
    from ftnids import core

    implementation = getattr(core, "IMPL", "none")
    found = {need.removeprefix("needs_"): not isinstance(find(need), str) for need in NEEDS}
    mounts = "private" if config.stash[private] else "shared"
    return [
        f"ftnids: seed {SEED} (FTNIDS_SEED={SEED} repeats it), core {implementation}, {mounts} mounts",
        "ftnids: " + ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in found.items()),
    ]


def part(nodeid: str) -> str:
    """Which part of the tests one belongs to."""
    inside = nodeid.removeprefix("tests/")
    if inside.startswith(APART):
        return "apart"
    room = inside.split("/")[0]
    if room == "sync":
        return "simulates"
    return "waits" if room in WAITING else "feeds" if room in FEEDING else "computes"


class Parts(LoadScopeScheduling):  # type: ignore[misc]
    """Each part of the tests to a worker that has none; who is through with one takes the next."""

    def _split_scope(self, nodeid: str) -> str:
        return part(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Parts:
    return Parts(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        wanted = [mark.name for mark in item.iter_markers() if mark.name in NEEDS]
        if isinstance(item, pytest.Function):
            item.fixturenames.extend(name for name in wanted if name not in item.fixturenames)
        if part(item.nodeid) in ("waits", "apart") or PROGRAMS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.flaky(reruns=1))


# -- seeds -----------------------------------------------------------------------------------------
@pytest.fixture
def seed() -> int:
    """The run's seed: 1, or what FTNIDS_SEED says; in the header of every run."""
    return SEED


@pytest.fixture
def fresh_seeds(request: pytest.FixtureRequest) -> FreshSeeds:
    """The simulation that has run beside the other tests."""
    return request.config.stash[fresh]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(SEED)  # for libraries that draw from the global generator; tests make their own from `seed`


# -- logging ---------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def _logging() -> None:
    """Each test starts with the logging of a fresh process; what an earlier one configured is gone."""
    log.configure()


# -- what a test may need ----------------------------------------------------------------------------
def output(*command: str | Path) -> str:
    """Standard output and error of a command, "" where it cannot run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""


def program(variable: str, name: str) -> Path | None:
    """The binary that an environment variable names, else the one in .venv/bin or on PATH."""
    path = os.pathsep.join((str(ROOT / ".venv/bin"), os.environ.get("PATH", ""), "/usr/sbin"))
    found = os.environ.get(variable, "") or shutil.which(name, path=path)
    return Path(found) if found else None


@functools.cache
def find(need: str) -> Path | str:
    """Where the thing that a test needs is, or why the test must skip."""
    if need == "needs_root":
        return Path("/") if os.geteuid() == 0 else "needs root"
    if need == "needs_suricata":
        suricata = program("", "suricata")
        version = re.search(r"version (\d+)", output(suricata, "-V")) if suricata else None
        return suricata if suricata and version and int(version[1]) >= 7 else "needs Suricata 7"
    if need == "needs_snort":
        snort = program("FTNIDS_SNORT", "snort")
        return snort if snort and "Version 3" in output(snort, "-V") else "needs Snort 3 (on PATH or in FTNIDS_SNORT)"
    if need == "needs_criu":
        criu = program("FTNIDS_CRIU", "criu")
        return criu if criu and "Looks good" in output(criu, "check") else "needs root and a CRIU whose check passes"
    if need == "needs_tmux":
        return program("", "tmux") or "needs tmux"
    if need == "needs_promtool":
        return program("FTNIDS_PROMTOOL", "promtool") or "needs promtool (Debian: prometheus; FTNIDS_PROMTOOL names it)"
    if need == "needs_redis":
        return program("", "redis-server") or "needs redis-server"
    trace = Path(os.environ.get("FTNIDS_TRACE", ROOT.parent / "shared/pcaps/real-mix.pcap"))
    return trace if trace.is_file() else "needs the shared trace (FTNIDS_TRACE names it)"


def need_or_skip(need: str) -> Path:
    found = find(need)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture
def needs_root() -> None:
    """Skip unless the tests run as root."""
    need_or_skip("needs_root")


@pytest.fixture
def needs_suricata() -> Path:
    """The Suricata binary, version 7 or newer."""
    return need_or_skip("needs_suricata")


@pytest.fixture
def needs_snort() -> Path:
    """The Snort 3 binary: FTNIDS_SNORT, else PATH."""
    return need_or_skip("needs_snort")


@pytest.fixture
def needs_criu() -> Path:
    """A CRIU whose own check passes here: FTNIDS_CRIU, else .venv/bin/criu, else PATH."""
    return need_or_skip("needs_criu")


@pytest.fixture
def needs_tmux() -> Path:
    """tmux, a terminal whose screen can be read."""
    return need_or_skip("needs_tmux")


@pytest.fixture
def needs_promtool() -> Path:
    """Prometheus's tool that checks rules: FTNIDS_PROMTOOL, else PATH."""
    return need_or_skip("needs_promtool")


@pytest.fixture
def needs_redis() -> Path:
    """The redis-server binary."""
    return need_or_skip("needs_redis")


@pytest.fixture
def needs_shared_trace() -> Path:
    """The real trace of 64,906 packets that lies beside the repository."""
    return need_or_skip("needs_shared_trace")


# -- nothing left behind ---------------------------------------------------------------------------
def standing(config: pytest.Config) -> dict[str, Callable[[], object]]:
    """Rings, network namespaces and processes of this run, each with what removes it."""
    beside = config.stash[fresh].processes() if fresh in config.stash else set()
    found: dict[str, Callable[[], object]] = {}
    for ring in SHM.glob("ftnids-*"):
        found[str(ring)] = ring.unlink
    for namespace in NETNS.glob("*"):
        found[f"network namespace {namespace.name}"] = functools.partial(output, "ip", "netns", "del", namespace.name)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and child.pid not in beside:
                found[f"process {child.pid} ({' '.join(child.cmdline())[:120]})"] = child.kill
    return found


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a ring, a network namespace or a process behind, and remove what it left."""
    before = set(standing(request.config))
    yield
    deadline = time.monotonic() + LEAVE_S
    while True:
        left = {name: remove for name, remove in standing(request.config).items() if name not in before}
        if not request.config.stash[private]:  # what is no process may belong to another run on this machine
            left = {name: remove for name, remove in left.items() if name.startswith("process")}
        if not left:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    for remove in left.values():
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            remove()
    pytest.fail(f"left behind: {', '.join(sorted(left))}")

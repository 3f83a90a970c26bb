"""Namespaces of an IDS: its own pids and paths, its end told, and nothing of it left when the supervisor is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ftnids.feed import keeper
from ftnids.feed.checkpoint import CheckpointError
from ftnids.feed.namespace import PLACE, Namespace

pytestmark = pytest.mark.needs_root
OUT = PLACE / "log/out"
SUPERVISOR = """
import sys
from pathlib import Path
from ftnids.feed.namespace import PLACE, Namespace
namespace = Namespace({"log": Path(sys.argv[1])})
child = namespace.spawn(["/bin/sh", "-c", "/bin/sleep 3600 & wait"], PLACE / "log/out")
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    try:
        namespace = Namespace({"log": tmp_path})
    except CheckpointError as error:
        pytest.skip(str(error))
    yield namespace
    namespace.close()


def test_pids_and_paths_are_its_own(namespace: Namespace, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("before\n")
    child = namespace.spawn(["/bin/sh", "-c", f"echo $$; ls {PLACE}; readlink /proc/self/fd/0"], OUT, after_pid=99)
    assert child.wait(10) == 0
    assert (tmp_path / "out").read_text().split() == ["before", "100", "log", "/dev/null"]
    assert not list(PLACE.glob("*")), "the world outside sees nothing of it"


def test_environment_and_cpus_are_those_asked_for(namespace: Namespace, tmp_path: Path) -> None:
    (cpu, *_) = os.sched_getaffinity(0)
    program = "import os; print(os.environ['ASKED'], os.sched_getaffinity(0), os.getsid(0) == os.getpid())"
    child = namespace.spawn([sys.executable, "-c", program], OUT, env={"ASKED": "é" * 9}, cpus=[cpu])
    assert child.wait(30) == 0
    assert (tmp_path / "out").read_text() == f"{'é' * 9} {{{cpu}}} True\n"


def test_ends_are_told(namespace: Namespace) -> None:
    status = namespace.spawn(["/bin/sh", "-c", "exit 7"], OUT)
    sleeper = namespace.spawn(["/bin/sleep", "3600"], OUT)
    assert (status.wait(10), sleeper.poll()) == (7, None)
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.01)
    sleeper.send_signal(signal.SIGTERM)
    assert sleeper.wait(10) == -signal.SIGTERM
    sleeper.kill()
    assert (status.poll(), sleeper.poll()) == (7, -signal.SIGTERM)


def test_what_cannot_be_done_is_one_line_and_the_next_request_works(namespace: Namespace) -> None:
    with pytest.raises(CheckpointError, match=r"cannot run /none/such: No such file or directory"):
        namespace.spawn(["/none/such"], OUT)
    with pytest.raises(CheckpointError, match="No such file"):
        namespace.spawn(["/bin/true"], PLACE / "log/none/out")
    with pytest.raises(CheckpointError, match=r"cannot run /bin/true: arguments and environment exceed \d+ bytes"):
        namespace.spawn(["/bin/true", "x" * keeper.MESSAGE_BYTES], OUT)
    with pytest.raises(CheckpointError, match="No such process"):
        namespace.adopt(9_999, ["none"])
    assert namespace.spawn(["/bin/true"], OUT).wait(10) == 0


def test_all_of_it_ends_when_it_is_closed(namespace: Namespace) -> None:
    child = namespace.spawn(["/bin/sh", "-c", "trap '' TERM; /bin/sleep 3600"], OUT)
    process = psutil.Process(child.pid)
    namespace.close()
    assert child.poll() == -signal.SIGKILL
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    with pytest.raises(CheckpointError, match="is gone"):
        namespace.spawn(["/bin/true"], OUT)


def test_no_orphan_survives_the_kill_of_the_supervisor(tmp_path: Path) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    assert supervisor.stdin is not None
    child = psutil.Process(int(supervisor.stdout.readline()))
    family = [child, *child.children()]
    supervisor.kill()
    supervisor.wait()
    supervisor.stdin.close()
    supervisor.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert all(one.status() == psutil.STATUS_ZOMBIE for one in alive)


def test_a_keeper_that_may_not_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "keeper.py"
    script.write_text(Path(keeper.__file__).read_text().replace("LIBC.unshare(", "LIBC.setns(-1, "))
    monkeypatch.setattr(keeper, "__file__", str(script))
    with pytest.raises(CheckpointError, match=r"namespaces for the IDS: unshare: Bad file descriptor"):
        Namespace({})

"""Names that tell which run owns a thing, so that what a killed run left behind can be removed.

Namespaces and temporary directories outlive a lab that was killed with SIGKILL.  Their names carry
the pid *and the start time* of the lab that made them: a pid alone comes round again, the pair does not.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ftnids import limits
from ftnids.errors import FtnidsError

PREFIX: Final = "ftnids-lab"
SHARED_MEMORY: Final = "/dev/shm"
_TAG: Final = re.compile(rf"{PREFIX}-(\d+)-(\d+)(?:-|$)")


def started(pid: int) -> int | None:
    """The start time of process `pid` in clock ticks since boot, None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])  # the command's name may hold spaces and brackets


def tag() -> str:
    """The prefix of all names of this run."""
    return f"{PREFIX}-{os.getpid()}-{started(os.getpid())}"


def ring_tag() -> str:
    """The prefix of this run's rings and its cluster's name: the core adds `ftnids-`, which makes it `tag()` again."""
    return tag().removeprefix("ftnids-")


def stale(name: str) -> bool:
    """Whether `name` belongs to a lab run that is no more; False for names that are not the lab's."""
    match = _TAG.match(name)
    return match is not None and started(int(match[1])) != int(match[2])


def remove_namespace(name: str) -> None:
    """Kill what runs in a namespace that a lab made, and remove it; one that is gone already is no error."""
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
    for pid in pids.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    try:
        subprocess.run(
            ["ip", "netns", "del", name], capture_output=True, check=False, timeout=limits.LAB_COMMAND_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise FtnidsError(f"network namespace {name} cannot be removed; try: ip netns del {name}") from error


def namespaces() -> Iterator[str]:
    """The names of all network namespaces of this host that a lab made."""
    directory = Path("/run/netns")
    if directory.is_dir():
        yield from (path.name for path in directory.iterdir() if _TAG.match(path.name))


def remove_files(of: Callable[[str], bool]) -> list[str]:
    """Remove this user's temporary directories and rings with names that `of` accepts; their paths."""
    removed = []
    for directory in (tempfile.gettempdir(), SHARED_MEMORY):
        for path in Path(directory).glob(f"{PREFIX}-*"):
            if of(path.name) and path.lstat().st_uid == os.geteuid():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed.append(str(path))
    return removed


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """A directory for keys, sockets and FIFOs that only this user may enter.

    It is removed at the end, and with it the rings of replicas and other children that had to be killed.
    """
    path = Path(tempfile.gettempdir()) / tag()
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        remove_files(lambda name: f"{name}-".startswith(f"{tag()}-") or stale(name))


def sweep() -> list[str]:
    """Remove what runs that are no more have left: namespaces (when root), temporary directories and rings."""
    removed = []
    if os.geteuid() == 0:
        for name in filter(stale, list(namespaces())):
            remove_namespace(name)
            removed.append(name)
    return removed + remove_files(stale)

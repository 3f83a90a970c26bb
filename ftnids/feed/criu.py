"""CRIU by subprocess: a running IDS into an image, and an image into a running IDS with the same pids.

Theory of operation

CRIU runs inside the IDS's namespaces (`namespace.py`), so that the pids of the image are free there and the paths
the same.  A dump leaves the IDS stopped: while it stands still the sizes of its logs are read, then it goes on.  What
lies unread in its FIFO is part of the image.  A restored IDS is CRIU's sibling, hence the keeper's child, as the first
one was.  Its files must be as long as they were at the dump, or CRIU refuses: bringing its logs back to that length is
what takes back what it has logged since.

A dump that fails leaves the IDS running as it was.  A restore that fails leaves none: the caller starts a cold one.
Either way the caller gets a CheckpointError of one line, with CRIU's first complaint.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from ftnids.feed.checkpoint import CheckpointError
from ftnids.feed.images import Image, Images, log_sizes, truncate_logs, writes_elsewhere
from ftnids.feed.namespace import PLACE, Child, Namespace
from ftnids.limits import CRIU_AGAIN_S, CRIU_CHECK_S, CRIU_DUMP_S, CRIU_PIDS, CRIU_RESTORE_S, FEED_WAIT_S
from ftnids.log import get

log = get("feed")
OLDEST: Final = (4, 1)
INSTALL: Final = "install CRIU 4.1 or newer (make setup does), or name one in FTNIDS_CRIU"
FIRST_PID: Final = 9  # an IDS is process 10 in its namespace; CRIU and its helpers get numbers far from its threads'
_HARMLESS: Final = ("rlimit: Can't setup RLIMIT_NOFILE",)  # CRIU goes on after these
# A pid of the image is not free yet: Linux 6.15 and newer free those of threads after their leader could be reaped.
_TAKEN: Final = ("Unable to create a thread: -17", "File exists")
_LOG_THERE: Final = "let its configuration name files without a folder, or use feed.mode = pessimistic"
_HINTS: Final = {
    "No space left": "make room in replica.run_dir",
    "bad size": "a file that the IDS has open was changed outside of its log folder",
    "build-ID": "a program or library was replaced since; restart the replica",
    "Permission denied": "CRIU needs root",
    "Operation not permitted": "CRIU needs root",
}


class _TimeError(CheckpointError):
    """CRIU took too long and was killed."""


class Criu:
    """The CRIU program, found and of a version that will do; CheckpointError where there is none.

    FTNIDS_CRIU names one; else it is the one beside this Python, else the one on PATH.
    """

    def __init__(self) -> None:
        path = os.pathsep.join((str(Path(sys.prefix) / "bin"), os.environ.get("PATH", ""), "/usr/sbin"))
        named = os.environ.get("FTNIDS_CRIU", "")
        found = shutil.which(named or "criu", path=path)
        if found is None:
            raise CheckpointError(f"no program {named or 'criu'} to run; {INSTALL}")
        self.binary = found
        status, output = self._ask("--version")
        match = re.search(r"Version: ((\d+)\.(\d+)\S*)", output)
        if match is None:
            said = (output.strip().splitlines() or [f"exit status {status}"])[0]
            raise CheckpointError(f"{found} --version: {said}; {INSTALL}")
        self.version = match[1]
        if (int(match[2]), int(match[3])) < OLDEST:
            raise CheckpointError(f"criu {self.version} ({found}) is older than 4.1; {INSTALL}")

    def check(self) -> None:
        """CheckpointError, with CRIU's own complaint, where it cannot work on this kernel or as this user."""
        if os.geteuid():
            raise CheckpointError(f"criu {self.version} ({self.binary}) needs root")
        status, output = self._ask("check")
        if status:
            complaint = next((line for line in output.splitlines() if "Error" in line), output.strip()[-200:])
            raise CheckpointError(
                f"criu {self.version} ({self.binary}), its check fails: {_plain(complaint)}; {INSTALL}"
            )

    def dump(self, namespace: Namespace, child: Child, images: Images, logs: Path, seq: int, *, stop: bool) -> Image:
        """An image of `child`, which has been given all below `seq` and logs into the folder `logs`.

        The child goes on, or with `stop` is killed.  CheckpointError: there is no image, and it goes on either way,
        unless it had ended, or CRIU took too long: then it is killed, for it may have been left half changed.
        """
        if child.poll() is not None:
            raise CheckpointError(f"process {child.inside} has ended with status {child.returncode}")
        folder = images.new()
        arguments = ["-t", str(child.inside), "--leave-stopped", "--file-locks", "--timeout", str(int(CRIU_DUMP_S))]
        try:
            last_pid = max(_inside_pids(child.pid), default=child.inside)
            self._run(namespace, "dump", folder / "criu", arguments, CRIU_DUMP_S, after_pid=_far(last_pid))
            last_pid = max(last_pid, *_pids_in(folder / "criu"))  # a thread may have begun before all were stopped
            sizes = log_sizes(logs)
            if elsewhere := writes_elsewhere(child.pid, logs):
                raise CheckpointError(f"the IDS writes {elsewhere}, outside of its log folder; {_LOG_THERE}")
        except (CheckpointError, OSError) as error:
            images.remove(folder)
            child.send_signal(signal.SIGKILL if isinstance(error, _TimeError) else signal.SIGCONT)
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"criu dump: {error.strerror or error}") from None
        child.send_signal(signal.SIGKILL if stop else signal.SIGCONT)
        return Image(folder, seq, child.inside, last_pid, tuple(child.args), sizes)

    def restore(self, namespace: Namespace, image: Image, logs: Path, fifo: Path, cpus: Collection[int] = ()) -> Child:
        """The IDS as it was, its logs in `logs` as long as they were; the one that ran must be dead.

        What lay in its FIFO lies in `fifo` again, whose writing end must be open, and nothing else; `fifo` is outside
        of the namespaces.  CheckpointError: nothing runs.
        """
        try:
            truncate_logs(logs, image.sizes)
        except OSError as error:
            raise CheckpointError(f"cannot bring the logs in {logs} back: {error.strerror}") from None
        # logs that stand in for those of another replica have other modes; all in the folder are the owner's alone
        arguments = ["--restore-detached", "--restore-sibling", "--skip-file-rwx-check"]
        after_pid, until = _far(image.last_pid), time.monotonic() + CRIU_AGAIN_S
        while True:
            empty(fifo)  # of what came later, and of what a try before had brought back
            try:
                self._run(namespace, "restore", image.criu, arguments, CRIU_RESTORE_S, cpus=cpus, after_pid=after_pid)
                break
            except CheckpointError as error:
                if not any(sign in str(error) for sign in _TAKEN) or time.monotonic() > until:
                    raise
                log.debug("CRIU tries again", reason=str(error))
                time.sleep(FEED_WAIT_S / 20)
        return namespace.adopt(image.pid, image.args)

    def self_test(self, folder: Path) -> float:
        """Dump, kill and restore a small process that reads a FIFO; the seconds it took.

        CheckpointError when it is not what it was.  `folder` is one that this may fill and empty.
        """
        started = time.monotonic()
        self.check()
        images, logs, fifo = Images(folder), folder / "logs", folder / "logs/fifo"
        logs.mkdir(mode=0o700)
        os.mkfifo(fifo, 0o600)
        namespace = Namespace({"log": logs})
        writer = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
        try:
            child = namespace.spawn(["/bin/cat", str(PLACE / "log/fifo")], PLACE / "log/out", after_pid=FIRST_PID)
            _pass(writer, logs / "out", b"before the dump\n", b"")
            image = self.dump(namespace, child, images, logs, 0, stop=False)
            _pass(writer, logs / "out", b"taken back\n", b"before the dump\n")
            child.kill()
            child.wait(CRIU_RESTORE_S)
            self.restore(namespace, image, logs, fifo)
            _pass(writer, logs / "out", b"after the restore\n", b"before the dump\n")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CheckpointError(f"criu {self.version}: its self-test fails: {error}") from None
        finally:
            os.close(writer)
            namespace.close()
            shutil.rmtree(folder, ignore_errors=True)
        return time.monotonic() - started

    def _run(
        self,
        namespace: Namespace,
        what: str,
        folder: Path,
        arguments: list[str],
        timeout_s: float,
        *,
        cpus: Collection[int] = (),
        after_pid: int,
    ) -> None:
        """Run CRIU in the namespaces; CheckpointError with the reason when it fails or takes too long."""
        command = [self.binary, what, "-D", str(folder), "-o", f"{what}.log", "-v2", "--manage-cgroups=ignore"]
        process = namespace.spawn([*command, *arguments], folder / f"{what}.out", cpus=cpus, after_pid=after_pid)
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(CRIU_RESTORE_S)
            raise _TimeError(f"criu {what} did not end within {timeout_s:.0f} s; killed") from None
        if status:
            raise CheckpointError(f"criu {what} failed: {complaint(folder, what, status)}")

    def _ask(self, *arguments: str) -> tuple[int, str]:
        try:
            done = subprocess.run(
                [self.binary, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=CRIU_CHECK_S,
                check=False,
            )
        except OSError as error:
            raise CheckpointError(f"cannot run {self.binary}: {error.strerror}; {INSTALL}") from None
        except subprocess.TimeoutExpired:
            raise CheckpointError(f"{self.binary} {arguments[0]} did not end within {CRIU_CHECK_S:.0f} s") from None
        return done.returncode, done.stdout.decode(errors="replace")


def complaint(folder: Path, what: str, status: int) -> str:
    """What CRIU's log in `folder` says went wrong, in one line with what to do where that is known."""
    lines = []
    for name in (f"{what}.log", f"{what}.out"):
        path = folder / name
        lines += path.read_text(errors="replace").splitlines() if path.is_file() else []
    errors = [line for line in lines if "Error" in line and not any(one in line for one in _HARMLESS)]
    said = (errors or lines[-1:] or [f"exit status {status}"])[0]
    hint = next((cure for sign, cure in _HINTS.items() if any(sign in line for line in errors)), "")
    return f"{_plain(said)}; {hint}" if hint else _plain(said)


def unread(fd: int) -> int:
    """Bytes in a pipe that nobody has read."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])


def empty(fifo: Path) -> None:
    """Throw away what lies unread in a FIFO whose writing end is open; a restore brings back what belongs there.

    CheckpointError where it cannot be read.
    """
    try:
        fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            while unread(fd):
                os.read(fd, 1 << 16)
        finally:
            os.close(fd)
    except OSError as error:
        raise CheckpointError(f"cannot empty {fifo}: {error.strerror}") from None


def _plain(line: str) -> str:
    """A line of CRIU's log without its time and its place in CRIU's source."""
    return re.sub(r"^(\(\d+\.\d+\)\s*)?(\d+:\s*)?(Error \(\S+:\d+\):\s*)?", "", line.strip())


def _far(pid: int) -> int:
    """A pid behind which CRIU's own processes meet none of the IDS's."""
    return pid + CRIU_PIDS


def _inside_pids(pid: int) -> list[int]:
    """The ids that the threads of `pid` have in their innermost namespace."""
    found = []
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        match = re.search(r"^NSpid:.*?(\d+)$", status.read_text(), re.MULTILINE)
        if match:
            found.append(int(match[1]))
    return found


def _pids_in(image: Path) -> list[int]:
    """The ids of the threads that CRIU wrote into an image, a file for each."""
    return [int(path.stem.removeprefix("core-")) for path in image.glob("core-*.img")]


def _pass(writer: int, output: Path, line: bytes, before: bytes) -> None:
    """Send a line through the self-test's process, and wait until it has come out behind `before`."""
    os.write(writer, line)
    deadline = time.monotonic() + CRIU_RESTORE_S
    while (found := output.read_bytes()) != before + line:
        if time.monotonic() > deadline or not (before + line).startswith(found):
            raise CheckpointError(f"the self-test of criu: {before + line!r} came out as {found!r}")
        time.sleep(FEED_WAIT_S / 20)

"""Namespaces for one IDS and for CRIU, kept by `keeper.py`, and the processes in them.

A `Child` is named by a pidfd: signals and the wait for its end need no help from the keeper, and cannot meet another
process that has got the same number.  Its exit status comes from the keeper, whose child it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ftnids.feed import keeper
from ftnids.feed.checkpoint import CheckpointError
from ftnids.limits import IDS_TERM_S, KEEPER_S, KEEPER_STATUSES

PLACE: Final = Path("/run/ftnids-ids")  # where a run's folders appear to the IDS, on every replica


class Child:
    """A process in the namespaces; what it shares with `subprocess.Popen` means the same."""

    def __init__(self, namespace: Namespace, args: Sequence[str], inside: int, pidfd: int) -> None:
        self.args = list(args)
        self.inside = inside  # its pid in the namespace
        self.pidfd = pidfd
        self.returncode: int | None = None
        self._namespace = namespace
        self._lock = threading.Lock()  # its end is told once
        self.pid = _pid_of(pidfd)  # as this process sees it; -1 when it has ended already

    def poll(self) -> int | None:
        """The exit status (minus the signal that killed it), or None while it runs."""
        with self._lock:
            if self.returncode is None and _readable(self.pidfd, 0):
                self.returncode = self._namespace.status_of(self.inside)
                os.close(self.pidfd)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; subprocess.TimeoutExpired when it does not come."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            _readable(self.pidfd, KEEPER_S if left is None else left)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Nothing happens when it has ended."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if self.returncode is None:
                signal.pidfd_send_signal(self.pidfd, sig)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Namespace:
    """PID and mount namespace in which each folder of `binds` appears under PLACE by the name that it has there.

    Needs root.  CheckpointError, with the kernel's reason, when there can be none.  It ends, with all that is in it, at
    `close`, and when the thread that made it ends.
    """

    def __init__(self, binds: Mapping[str, Path]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        self._lock = threading.Lock()
        self._statuses: dict[int, int] = {}
        with theirs:
            self._keeper = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", keeper.__file__, str(os.getpid()), str(theirs.fileno())),
                    *(str(PLACE), json.dumps([[str(source.resolve()), name] for name, source in binds.items()])),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        try:
            with self._lock:
                self._answer(KEEPER_S)
        except CheckpointError:
            self.close()
            raise

    def spawn(
        self,
        args: Sequence[str],
        output: Path,
        *,
        env: Mapping[str, str] | None = None,
        cpus: Collection[int] = (),
        after_pid: int = 0,
    ) -> Child:
        """Start a program whose output is appended to the file `output`, named as it is inside.

        CheckpointError when it cannot be run.
        With `after_pid` it gets the next free pid behind that one.
        """
        wanted = {"argv": list(args), "env": dict(env or os.environ), "cpus": sorted(cpus)}
        return self._child(args, {**wanted, "after_pid": after_pid, "output": str(output)})

    def adopt(self, inside: int, args: Sequence[str]) -> Child:
        """The child with the pid `inside`, which a program made as its own sibling."""
        return self._child(args, {"adopt": inside})

    def status_of(self, inside: int) -> int:
        """The exit status of a child that has ended, which the keeper tells once."""
        with self._lock:
            deadline = time.monotonic() + KEEPER_S
            while inside not in self._statuses:
                left = deadline - time.monotonic()
                if left <= 0 or not self._take(left):
                    return -signal.SIGKILL  # the keeper is gone, and all that was in there with it
            return self._statuses.pop(inside)

    def close(self) -> None:
        """End everything in the namespaces; returns when it is over."""
        self._channel.close()
        try:
            self._keeper.wait(IDS_TERM_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        if self._keeper.stderr is not None:
            self._keeper.stderr.close()

    def _child(self, args: Sequence[str], wanted: dict[str, Any]) -> Child:
        with self._lock:
            message = json.dumps(wanted).encode()
            if len(message) > keeper.MESSAGE_BYTES:
                raise CheckpointError(
                    f"cannot run {args[0]}: arguments and environment exceed {keeper.MESSAGE_BYTES} bytes"
                )
            try:
                self._channel.send(message)
            except OSError as error:
                raise CheckpointError(f"the keeper of the IDS's namespaces is gone: {error.strerror}") from None
            answer, pidfds = self._answer(KEEPER_S)
            self._statuses.pop(answer["pid"], None)  # of one before it, which nobody asked for
        return Child(self, args, answer["pid"], pidfds[0])

    def _answer(self, timeout_s: float) -> tuple[dict[str, Any], list[int]]:
        deadline = time.monotonic() + timeout_s
        while True:
            taken = self._take(max(0.0, deadline - time.monotonic()))
            if taken is None:
                words = self._last_words()
                raise CheckpointError(
                    f"the keeper of the IDS's namespaces does not answer within {timeout_s:.0f} s{words}"
                )
            message, fds = taken
            if "error" in message:
                raise CheckpointError(message["error"])
            if "exit" not in message:
                return message, fds

    def _take(self, timeout_s: float) -> tuple[dict[str, Any], list[int]] | None:
        """The next message, exit statuses noted; None when none comes."""
        try:
            if not _readable(self._channel.fileno(), timeout_s):
                return None
            data, fds, _, _ = socket.recv_fds(self._channel, keeper.MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except (OSError, ValueError):
            return None
        if not data:
            return None
        message: dict[str, Any] = json.loads(data)
        if "exit" in message:
            self._statuses[message["exit"]] = os.waitstatus_to_exitcode(message["status"])
            while len(self._statuses) > KEEPER_STATUSES:  # of processes that nobody here asks for
                self._statuses.pop(next(iter(self._statuses)))
        return message, fds

    def _last_words(self) -> str:
        if self._keeper.poll() is None or self._keeper.stderr is None:
            return ""
        lines = self._keeper.stderr.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


def _readable(fd: int, timeout_s: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1_000))


def _pid_of(pidfd: int) -> int:
    """The pid of a pidfd's process as this process sees it."""
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))

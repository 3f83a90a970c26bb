"""First process of namespaces of its own: `python keeper.py PARENT_PID SOCKET_FD PLACE BINDS`.

CRIU gives a restored process the ids that it had, and finds its files by the paths that they had.  Inside a PID
namespace no other process can have taken those ids; inside a mount namespace a run's folders stand at paths that are
the same on every replica.  BINDS is a JSON list of [folder, its name under PLACE].

The supervisor asks over a SOCK_SEQPACKET socket, one JSON object a message, and gets one answer each, with a pidfd:

    {"argv", "env", "cpus", "after_pid", "output"}  ->  {"pid"}, a pidfd      starts a program
    {"adopt": pid}                                  ->  {"pid"}, a pidfd      a child that CRIU made
    anything that cannot be done                    ->  {"error"}

`{"exit": pid, "status": raw}` tells of a child that ended, unasked.  The kernel kills everything in here with this
process, and this process with its parent or when the socket closes.  A file of its own without imports from the
package, for it may have to stay privileged.
"""

import array
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_REC, MS_SLAVE, MS_BIND = 0x4000, 0x80000, 0x1000
MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
PR_SET_PDEATHSIG = 1
MESSAGE_BYTES = 1 << 18
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
CHILD_FAILED = 127

LIBC = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    """Turn a C return value into an OSError that names `what`."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def tethered(parent: int) -> None:
    """Die when `parent` dies; at once if it is gone already."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """mount(2); a tmpfs is writable for root alone."""
    data = b"mode=755" if kind == "tmpfs" else None
    checked(LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, data), f"mount on {target}")


def remember(run: Path) -> None:
    """Let CRIU keep what it finds out about the kernel, which it does in /run where that is a tmpfs, and only there.

    Without it each call takes several times as long.  In containers /run is often none: then what is in it appears in
    a tmpfs.
    """
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    if [kind for _, where, kind, *_ in mounts if where == str(run)][-1:] == ["tmpfs"]:
        return
    before = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount("tmpfs", str(run), "tmpfs", MS_NOSUID_NODEV_NOEXEC)
        for entry in Path(f"/proc/self/fd/{before}").iterdir():
            here = run / entry.name
            if entry.is_symlink():
                here.symlink_to(entry.readlink())
            elif entry.name.startswith("criu.kdat"):
                continue
            else:
                here.mkdir() if entry.is_dir() else here.touch()
                mount(str(entry), str(here), "", MS_BIND | MS_REC)
    finally:
        os.close(before)


def enter(place: Path, binds: list[list[str]]) -> None:
    """As first process of the PID namespace: a /proc that shows it, and the folders at their places."""
    mount("none", "/", "", MS_REC | MS_SLAVE)
    mount("proc", "/proc", "proc", MS_NOSUID_NODEV_NOEXEC)
    remember(Path("/run"))
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    mount("tmpfs", str(place), "tmpfs", MS_NOSUID_NODEV_NOEXEC)
    for source, name in binds:
        (place / name).mkdir(mode=0o755)
        mount(source, str(place / name), "", MS_BIND)


class Keeper:
    """Serves one supervisor until it is gone."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel

    def serve(self) -> None:
        """Answer requests, report exits."""
        wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self.channel.fileno(), wake_reader], [], [])
            if wake_reader in ready:
                os.read(wake_reader, 4096)
                self.reap()
            if self.channel.fileno() in ready:
                message = self.channel.recv(MESSAGE_BYTES)
                if not message:
                    return
                self.answer(message)

    def answer(self, message: bytes) -> None:
        """Do what one message asks."""
        try:
            wanted = json.loads(message)
            pid = wanted["adopt"] if "adopt" in wanted else self.spawn(wanted)
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError, LookupError, TypeError) as error:
            self.send({"error": getattr(error, "strerror", None) or repr(error)})
        else:
            self.send({"pid": pid}, [pidfd])
            os.close(pidfd)

    def spawn(self, wanted: dict) -> int:  # type: ignore[type-arg]
        """Start a program in a session of its own, its input empty, its output in a file."""
        if wanted["after_pid"]:
            LAST_PID.write_text(str(wanted["after_pid"]))
        output = os.open(wanted["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        error_reader, error_writer = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self.become(wanted, output, error_writer)
        os.close(error_writer)
        os.close(output)
        with os.fdopen(error_reader, "rb") as pipe:
            failure = pipe.read()
        if failure:
            os.waitpid(pid, 0)
            raise OSError(0, f"cannot run {wanted['argv'][0]}: {failure.decode(errors='replace')}")
        return pid

    @staticmethod
    def become(wanted: dict, output: int, error_writer: int) -> None:  # type: ignore[type-arg]
        """In the child: never returns."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):  # the latter two Python ignores
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            if wanted["cpus"]:
                os.sched_setaffinity(0, wanted["cpus"])
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.execve(wanted["argv"][0], wanted["argv"], wanted["env"])
        except BaseException as error:  # whatever it is, this copy of the process must end here
            os.write(error_writer, str(getattr(error, "strerror", None) or error).encode())
        os._exit(CHILD_FAILED)

    def reap(self) -> None:
        """Tell of every child that ended."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                self.send({"exit": pid, "status": status})

    def send(self, message: dict, fds: list[int] | None = None) -> None:  # type: ignore[type-arg]
        """One message to the supervisor."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.channel.sendmsg([json.dumps(message).encode()], rights)


def main() -> None:
    """Outside: make the namespaces, and end with what is inside.  Inside: serve."""
    parent, channel = int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(channel.fileno(), False)
    tethered(parent)
    keeper = Keeper(channel)
    try:
        checked(LIBC.unshare(CLONE_NEWNS | CLONE_NEWPID), "unshare")
        inside = os.fork()
    except OSError as error:
        keeper.send({"error": f"namespaces for the IDS: {error.strerror}"})
        return
    if inside:
        channel.close()
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1]) != 0)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        enter(Path(sys.argv[3]), json.loads(sys.argv[4]))
    except OSError as error:
        keeper.send({"error": f"namespaces for the IDS: {error.strerror}"})
        return
    keeper.send({"ready": os.getpid()})
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        keeper.serve()


if __name__ == "__main__":
    main()

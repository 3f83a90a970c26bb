"""The shared-memory file of a ring: made, locked, mapped and removed here, for both implementations.

The owner holds an exclusive lock on the file for as long as it lives.  So a segment that a killed replica left behind
is told from one in use, without process ids: the lock can be had, and the file is replaced.  What is no ring stays.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ftnids import limits
from ftnids.core import layout
from ftnids.errors import RingError

DIRECTORY: Final = Path("/dev/shm")
PREFIX: Final = "ftnids-"
MAGICS: Final = tuple(magic.to_bytes(8, "little") for magic in (layout.MAGIC, layout.READER_MAGIC))


def path_of(name: str, suffix: str = "") -> Path:
    """Where the segment of ring `name` is, or the one that belongs to it by `suffix`.

    RingError for a name that is no plain file name.
    """
    if not name or "/" in name or "\0" in name or len(name.encode()) > limits.MAX_NAME:
        raise RingError(f"ring name {name!r}: must be 1 to {limits.MAX_NAME} bytes without a slash")
    return DIRECTORY / f"{PREFIX}{name}{suffix}"


class Segment:
    """One mapped segment.  `memory` stays mapped for as long as anything refers to it."""

    def __init__(self, path: Path, fd: int, size: int, writable: bool, *, populate: bool = False) -> None:
        self.path = path
        self.fd = fd
        prot = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        self.memory = mmap.mmap(fd, size, mmap.MAP_SHARED | (mmap.MAP_POPULATE if populate else 0), prot)

    def close(self, unlink: bool) -> None:
        """Let go of the file, and with it of the owner's lock; `unlink` removes it."""
        if unlink:
            self.path.unlink(missing_ok=True)
        os.close(self.fd)


def create(name: str, size: int, mode: int, group: str | None, suffix: str = "") -> Segment:
    """A new zeroed segment of `size` bytes, its memory reserved and mapped: the first packets meet no page fault.

    RingError if it is in use or there is no room.
    """
    path = path_of(name, suffix)
    fd = _create_locked(name, path)
    try:
        _share(fd, name, mode, group)
        _reserve(fd, name, size)
        return Segment(path, fd, size, True, populate=True)
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(fd)
        raise


def attach(name: str, readonly: bool) -> Segment:
    """The segment that another process made.  RingError if there is none, or it is too short for a header."""
    path = path_of(name)
    flags = os.O_RDONLY if readonly else os.O_RDWR
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise RingError(
            f"ring {name}: {path}: {error.strerror}; is the replica running, and may you read it?"
        ) from None
    size = os.fstat(fd).st_size
    if size < layout.HEADER_BYTES:
        os.close(fd)
        raise RingError(f"ring {name}: {path} is too short for a header; it is no ftnids ring")
    return Segment(path, fd, size, not readonly)


def check(name: str) -> None:
    """RingError where a ring of that name could not be made, because of the name or of what is there and no ring."""
    path = path_of(name)
    with _existing(name, path) as fd:
        if fd is not None and not _is_ours(fd):
            raise _foreign(name, path)


@contextlib.contextmanager
def _existing(name: str, path: Path) -> Iterator[int | None]:
    """The file that has a ring's name, open; None if there is none."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise _foreign(name, path, error.strerror) from None
    try:
        yield fd
    finally:
        os.close(fd)


def _foreign(name: str, path: Path, reason: str | None = None) -> RingError:
    what = f"is there and not ours: {reason}" if reason else "is there and no ring of ftnids"
    return RingError(f"ring {name}: {path} {what}; look whose it is, and move it away")


def _create_locked(name: str, path: Path) -> int:
    for _ in range(8):  # each turn ends, or somebody else made or removed the file meanwhile
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            _remove_stale(name, path)
            continue
        except OSError as error:
            raise RingError(f"ring {name}: cannot create {path}: {error.strerror}") from None
        if _lock(fd) and os.fstat(fd).st_nlink:
            return fd
        os.close(fd)
    raise RingError(f"ring {name}: {path} is being made by another process; give this replica another name")


def _remove_stale(name: str, path: Path) -> None:
    with _existing(name, path) as fd:
        if fd is None:
            return
        if not _lock(fd):
            raise RingError(f"ring {name}: {path} is in use by a running replica; stop it or choose another name")
        if not _is_ours(fd):
            raise _foreign(name, path)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(fd).st_ino:
                path.unlink()


def _is_ours(fd: int) -> bool:
    """Whether a file is a ring or a reader's segment, of any version, or the beginning of one.

    Nothing is written before all is reserved.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return False
    header = os.pread(fd, layout.HEADER_BYTES, 0)
    return header[:8] in MAGICS or not any(header)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _share(fd: int, name: str, mode: int, group: str | None) -> None:
    if group:
        try:
            os.fchown(fd, -1, grp.getgrnam(group).gr_gid)
        except KeyError:
            raise RingError(f"ring {name}: there is no group {group!r} [ring.group]") from None
        except PermissionError:
            raise RingError(
                f"ring {name}: may not be given to group {group!r} [ring.group]; be a member of it, or root"
            ) from None
    os.fchmod(fd, mode)


def _reserve(fd: int, name: str, size: int) -> None:
    """Take the memory now: a page that cannot be had later would kill the process in the middle of a packet."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM):
            raise
        needed = f"{size / 1e6:.0f} MB needed"
        raise RingError(
            f"ring {name}: not enough room in {DIRECTORY}: {needed}; lower ring.arena_mb or enlarge it"
        ) from None

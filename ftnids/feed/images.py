"""Checkpoint images on disk: a folder with CRIU's files, what the IDS's logs held at that moment, and the position.

An image holds the memory of the IDS, and so packets: its folder is of mode 0700.  The newest IMAGES stay; those of
an earlier process are worth nothing to this one and go at the start.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ftnids.feed.checkpoint import CheckpointError
from ftnids.limits import IMAGES
from ftnids.log import get

log = get("feed")
CRIU_FILES: Final = "criu"  # the folder in an image that holds what CRIU writes


@dataclass(frozen=True, slots=True)
class Image:
    """One checkpoint: the IDS as it was when it had been given all below `seq`."""

    folder: Path
    seq: int
    pid: int  # in its namespace
    last_pid: int  # no task of it has a higher one
    args: tuple[str, ...]
    sizes: dict[str, int] = field(default_factory=dict)  # bytes of each log file, by its name in the log folder

    @property
    def criu(self) -> Path:
        """The folder with CRIU's files."""
        return self.folder / CRIU_FILES

    def bytes(self) -> int:
        """Size on disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class Images:
    """The images of one replica, in a folder of their own under its run_dir."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._next = 0
        self._kept: list[Path] = []
        try:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(mode=0o700, parents=True)
            folder.chmod(0o700)  # whatever the umask
        except OSError as error:
            raise CheckpointError(
                f"cannot make {folder} for checkpoints: {error.strerror}; check replica.run_dir and its owner"
            ) from None

    def new(self) -> Path:
        """A fresh folder for an image, which makes the oldest of more than IMAGES go; CheckpointError on a bad disk."""
        while len(self._kept) >= IMAGES:
            self.remove(self._kept[0])
        path = self.folder / str(self._next)
        self._next += 1
        try:
            path.mkdir(mode=0o700)
            (path / CRIU_FILES).mkdir(mode=0o700)
        except OSError as error:
            raise CheckpointError(f"cannot make {path}: {error.strerror}; make room in replica.run_dir") from None
        self._kept.append(path)
        return path

    def remove(self, path: Path) -> None:
        """Remove an image; one that cannot be removed is said and forgotten."""
        with contextlib.suppress(ValueError):  # another thread may be removing it
            self._kept.remove(path)
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("checkpoint not removed", folder=str(path), reason=error.strerror or str(error))

    def clear(self) -> None:
        """Remove all of them."""
        for path in list(self._kept):
            self.remove(path)


def log_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each regular file in `folder`, by its name there; of a process that does not write meanwhile."""
    sizes = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        if stat.S_ISREG(about.st_mode):
            sizes[path.relative_to(folder).as_posix()] = about.st_size
    return sizes


def writes_elsewhere(pid: int, folder: Path) -> str:
    """A file outside of `folder` that process `pid` writes, or "": nothing would take back what it writes there."""
    ours = {(about.st_dev, about.st_ino) for about in (path.lstat() for path in folder.rglob("*"))}
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        about, name = fd.stat(), str(fd.readlink())
        if not stat.S_ISREG(about.st_mode) or not about.st_nlink or (about.st_dev, about.st_ino) in ours:
            continue  # what has no name is part of the image
        flags = re.search(r"^flags:\s*(\d+)", Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text(), re.MULTILINE)
        if flags and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY:
            return name
    return ""


def blank_logs(folder: Path, sizes: dict[str, int]) -> None:
    """Make the files in `folder` that are missing or too short as long as `sizes` say, without content.  OSError."""
    for name, size in sizes.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=False)
            path.chmod(0o600)
        if path.stat().st_size < size:  # rules that are the same, of files with other names
            os.truncate(path, size)


def truncate_logs(folder: Path, sizes: dict[str, int]) -> None:
    """Bring the files in `folder` back to `sizes`; what has appeared since goes.

    CheckpointError where a file is gone or shorter than it was: then the logs cannot be what they were.
    """
    for name in log_sizes(folder).keys() - sizes.keys():
        (folder / name).unlink()
    for name, size in sizes.items():
        path = folder / name
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise CheckpointError(f"cannot bring {path} back to {size} bytes: {error.strerror}") from None
        try:
            there = os.fstat(fd).st_size
            if there < size:
                raise CheckpointError(f"cannot bring {path} back to {size} bytes: it has {there}")
            os.ftruncate(fd, size)
        finally:
            os.close(fd)

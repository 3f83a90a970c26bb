"""The `criu` checkpoint back-end: an IDS on a FIFO, in namespaces of its own, brought back from an image on disk.

It differs from `fork` in that it starts the IDS itself, and that what lies unread in the FIFO is part of a checkpoint.
A checkpoint at seq s is thus right as soon as all records below s are in the pipe, wherever the IDS is in them, and
`restore` brings the logs back to what they held, cleared of what was logged since.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from ftnids.feed.checkpoint import CheckpointError
from ftnids.feed.criu import FIRST_PID, Criu
from ftnids.feed.images import Image, Images, blank_logs
from ftnids.feed.namespace import PLACE, Child, Namespace
from ftnids.limits import CRIU_RESTORE_S
from ftnids.log import get

log = get("feed")
FOLDER: Final = "checkpoints"  # in run_dir
OUTGOING: Final = "checkpoints-out"  # images for other replicas ...
INCOMING: Final = "checkpoints-in"  # ... and of theirs


def remove_left(run_dir: Path) -> None:
    """Remove what a killed process left of its checkpoints: they hold memory of the IDS, and packets."""
    for folder in (run_dir / name for name in (FOLDER, OUTGOING, INCOMING)):
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            log.info("checkpoints of an earlier run removed", folder=str(folder))


class CriuCheckpoints:
    """Checkpoints of one IDS at a time; all calls but `self_test` come from the thread that started it.

    `run_dir` takes the images.  `fifo` lies in `fifo_dir`, which the IDS sees at PLACE/run, its logs at PLACE/log.
    """

    name = "criu"

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / FOLDER
        self._criu: Criu | None = None
        self._images: Images | None = None
        self._namespace: Namespace | None = None
        self._child: Child | None = None
        self._image: Image | None = None
        self._fifo = self._logs = Path()
        self._cpus: Collection[int] = ()

    def self_test(self) -> str:
        """Why CRIU does not work on this machine, or "".  Takes about a second."""
        try:
            self._criu = Criu()
            seconds = self._criu.self_test(self._folder)
        except CheckpointError as error:
            return str(error)
        log.info("CRIU works", version=self._criu.version, program=self._criu.binary, self_test_s=round(seconds, 3))
        return ""

    @staticmethod
    def inside(fifo: Path) -> tuple[Path, Path]:
        """The FIFO and the log folder as the IDS is to be told of them."""
        return PLACE / "run" / fifo.name, PLACE / "log"

    def start(
        self, command: Sequence[str], env: Mapping[str, str], fifo: Path, logs: Path, cpus: Collection[int] = ()
    ) -> Child:
        """Start the IDS; what it prints goes to `ids.log` in `logs`.  CheckpointError when it cannot be run.

        The FIFO must stay where it is, alone in its folder.
        """
        self.close()
        self._criu = self._criu or Criu()
        self._images = self._images or Images(self._folder)
        self._fifo, self._logs, self._cpus = fifo, logs, cpus
        namespace = Namespace({"run": fifo.parent, "log": logs})
        try:
            self._child = namespace.spawn(command, PLACE / "log/ids.log", env=env, cpus=cpus, after_pid=FIRST_PID)
        except CheckpointError:
            namespace.close()
            raise
        self._namespace = namespace
        return self._child

    def start_from(self, image: Image, fifo: Path, logs: Path, cpus: Collection[int] = ()) -> tuple[Child, int]:
        """Restore the IDS of another replica, whose `image` came here; the process, and the writing end of its FIFO.

        The FIFO has the name that it had there.  The logs in `logs` are as long as they were there, without content.
        CheckpointError: nothing runs.
        """
        self.close()
        self._criu = self._criu or Criu()
        self._images = self._images or Images(self._folder)
        self._fifo, self._logs, self._cpus = fifo, logs, cpus
        try:
            blank_logs(logs, image.sizes)
            held = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # else it would read an end of file
        except OSError as error:
            raise CheckpointError(f"cannot prepare {error.filename}: {error.strerror}") from None
        namespace = None
        try:
            namespace = Namespace({"run": fifo.parent, "log": logs})
            self._child = self._criu.restore(namespace, image, logs, fifo, cpus)
            writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (CheckpointError, OSError):
            if namespace is not None:
                namespace.close()
            raise
        finally:
            os.close(held)
        self._namespace = namespace
        return self._child, writer

    def take(self, seq: int, *, stop: bool = False) -> Image:
        """A checkpoint of the IDS, to which all records below `seq` were written; it goes on, or with `stop` ends.

        CheckpointError: there is none, the earlier one is gone too, and the IDS goes on.
        """
        self.discard()
        assert self._criu is not None
        assert self._images is not None
        assert self._namespace is not None
        assert self._child is not None
        self._image = self._criu.dump(self._namespace, self._child, self._images, self._logs, seq, stop=stop)
        return self._image

    def copy(self, seq: int, images: Images) -> Image:
        """An image among `images`, which are somebody else's; the checkpoint that stands is not touched.

        For the rest see `take`.
        """
        assert self._criu is not None
        assert self._namespace is not None
        assert self._child is not None
        return self._criu.dump(self._namespace, self._child, images, self._logs, seq, stop=False)

    @property
    def version(self) -> str:
        """CRIU's; CheckpointError where there is none."""
        self._criu = self._criu or Criu()
        return self._criu.version

    @property
    def running(self) -> bool:
        """Whether there is an IDS that this can checkpoint."""
        return self._namespace is not None

    @property
    def image(self) -> Image | None:
        """The checkpoint that stands."""
        return self._image

    def discard(self) -> None:
        """The checkpoint is not needed any more.  Without one, nothing."""
        if self._image is not None:
            assert self._images is not None
            self._images.remove(self._image.folder)
            self._image = None

    def restore(self) -> Child:
        """End the IDS and bring it back as it was, its FIFO and its logs with it; the checkpoint stands on.

        The writing end of the FIFO must be open.  CheckpointError: no IDS runs.
        """
        assert self._criu is not None
        assert self._namespace is not None
        assert self._child is not None
        assert self._image is not None
        self._child.kill()
        try:
            self._child.wait(CRIU_RESTORE_S)
        except subprocess.TimeoutExpired:
            raise CheckpointError(f"process {self._child.pid} does not die") from None
        self._child = self._criu.restore(self._namespace, self._image, self._logs, self._fifo, self._cpus)
        return self._child

    def close(self) -> None:
        """End the IDS, and leave no image behind."""
        self._image = None
        if self._images is not None:
            self._images.clear()
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None
        if self._child is not None:
            self._child.poll()  # lets go of it
            self._child = None

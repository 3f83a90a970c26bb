"""The way through a FIFO: the IDS reads a pcap stream, as from a file.

A run's stream starts at the first packet that its predecessor's pipe had not taken, so a packet that kills
the IDS is not fed for ever; what lay unread in the pipe (64 KiB) is lost to this replica's IDS, not to the set.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Collection
from pathlib import Path

from ftnids.core import pcap_header
from ftnids.feed.ids import DeathError, Ids, Run
from ftnids.feed.ring import AgreedRing
from ftnids.feed.sinks import write_all
from ftnids.limits import FEED_WAIT_S, IDS_START_S
from snort_adapter.launchers import IdsLauncher


class FifoIds(Ids):
    """Feeds any IDS that reads a pcap stream.  `run_dir` takes the FIFO; for the rest see `Ids`."""

    def __init__(
        self, ring: AgreedRing, launcher: IdsLauncher, run_dir: Path, log_dir: Path, cpus: Collection[int] = ()
    ) -> None:
        super().__init__(ring, launcher, log_dir, cpus)
        self._path = run_dir / f"{launcher.name}.fifo"
        self._fd = -1

    def _input(self, log_dir: Path) -> list[str]:
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        return self.launcher.command(self._path, log_dir)

    def _open(self, run: Run) -> None:
        deadline = time.monotonic() + IDS_START_S
        while self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads yet
                    raise
                if run.process.poll() is not None:
                    raise DeathError("before it opened its input") from None
                if self._stop.is_set() or time.monotonic() > deadline:
                    raise DeathError(f"killed: its input was not open after {IDS_START_S:.0f} s") from None
                time.sleep(0.005)
        self._opened()
        self._write_header()

    def _opened(self) -> None:
        """Both ends are open: nobody else is to find it."""
        self._path.unlink()

    def _write_header(self) -> None:
        try:
            write_all(self._fd, pcap_header(self.ring.linktype, self.ring.snaplen))
        except BrokenPipeError:
            raise DeathError("while it was fed") from None

    def _take(self, first: int, last: int) -> int:
        self._note(last)  # before it can alert
        try:
            taken = self.ring.export_pcap(self._fd, first, last)
        except BrokenPipeError:
            raise DeathError("while it was fed") from None
        if taken == first:  # the pipe is full
            self._idle()
            wait_writable(self._fd)
        return taken

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _exhausted(self, run: Run) -> bool:
        """Suricata 7 hangs where there is no first packet."""
        return not run.base_us

    def _close(self) -> None:
        super()._close()
        self._path.unlink(missing_ok=True)


def wait_writable(fd: int) -> None:
    """Wait for a moment until the reader of a pipe has taken something."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll(FEED_WAIT_S * 1_000)

"""What a lab run is asked to do, and the refusals that need nothing but the question and this host."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ftnids import limits
from ftnids.errors import FtnidsError, UsageError
from ftnids.feed.criu_checkpoints import CriuCheckpoints
from ftnids.lab import netns
from snort_adapter.launchers import launcher

MARK: Final = ".ftnids-lab"  # in a directory that a lab made


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command's options, by their names."""

    out: Path
    replicas: int = 2
    loss: float = 0.0
    seed: int = 1
    pcap: Path | None = None
    pps: int = 0
    topspeed: bool = False
    ids: str = "suricata"
    rules: tuple[Path, ...] = ()
    mode: str = "pessimistic"
    checkpoint: str = "none"
    netns: bool = False
    link: str = "hub"
    clock_offset_us: int = 0
    jitter_us: int = 0
    reference: bool = False

    @property
    def names(self) -> list[str]:
        return [f"r{number}" for number in range(self.replicas)]

    @property
    def pace(self) -> str:
        return "topspeed" if self.topspeed else "file"

    def drop_seed(self, number: int) -> int:
        """The seed of replica `number`'s losses: another for each replica and each run's seed."""
        return self.seed * limits.MAX_MEMBERS + number

    def check(self) -> None:
        """UsageError with the first thing that cannot be."""
        self._check_mode()
        self._check_numbers()
        self._check_files()
        self._check_ids()
        if self.netns:
            netns.check_host(self.link)
        elif self.link == "bond":
            raise UsageError("--link bond is a link between namespaces; say --netns (as root) with it")

    def _check_mode(self) -> None:
        if self.mode == "pessimistic":
            return
        if self.checkpoint == "none":
            raise UsageError("--mode optimistic needs checkpoints; say --checkpoint criu with it, or fork for Snort")
        if self.checkpoint == "criu":
            self._check_criu()
            return
        if self.ids != "snort":
            raise UsageError(f"--checkpoint fork goes with --ids snort, not {self.ids}: only Snort forks by itself")
        try:
            reason = launcher(self.ids).ring_fault()
        except FtnidsError as error:
            reason = str(error)
        if reason:
            raise UsageError(f"--mode optimistic: {reason}")

    def _check_criu(self) -> None:
        if self.ids == "none":
            raise UsageError("--checkpoint criu needs an IDS to set back; say --ids suricata or --ids snort")
        with tempfile.TemporaryDirectory(prefix="ftnids-lab-") as folder:
            if reason := CriuCheckpoints(Path(folder)).self_test():
                raise UsageError(f"--checkpoint criu: {reason}")

    def _check_numbers(self) -> None:
        if not 2 <= self.replicas <= limits.MAX_MEMBERS:
            raise UsageError(f"-n {self.replicas}: a set has 2 to {limits.MAX_MEMBERS} replicas")
        if not 0 <= self.loss <= 1:  # not a number fails, too
            raise UsageError(f"--loss {self.loss}: the loss is a fraction, 0 to 1 (5 % is 0.05)")
        if not 0 <= self.seed <= limits.LAB_MAX_SEED:
            raise UsageError(f"--seed {self.seed}: a seed is 0 to {limits.LAB_MAX_SEED}")
        if not 0 <= self.pps <= limits.LAB_MAX_PPS:
            raise UsageError(f"--pps {self.pps:g}: a rate is 0 to {limits.LAB_MAX_PPS:,} packets/s")
        if self.pps and self.topspeed:
            raise UsageError("--pps and --topspeed exclude each other; say one of them")
        if self.netns and not self.pcap and (self.pps or self.topspeed):
            raise UsageError("--pps and --topspeed pace a capture file; programs send as they do: say --pcap with them")
        if self.jitter_us < 0 or max(abs(self.clock_offset_us), self.jitter_us) > limits.LAB_MAX_CLOCK_US:
            raise UsageError(
                f"--clock-offset-us and --jitter-us reach to {limits.LAB_MAX_CLOCK_US:,}, and jitter is not negative"
            )

    def _check_files(self) -> None:
        for path in (*self.rules, *([self.pcap] if self.pcap else [])):
            if not path.is_file() or not os.access(path, os.R_OK):
                raise UsageError(f"{path}: cannot be read; check the name and the permissions")
            if path.resolve().is_relative_to(self.out.resolve()):
                raise UsageError(f"{path}: lies in -o {self.out}, which is emptied first; name another directory")

    def _check_ids(self) -> None:
        if self.ids == "none":
            return
        try:
            ids = launcher(self.ids, rules=self.rules)
            if self.rules:  # the shipped ones are good
                with tempfile.TemporaryDirectory() as directory:
                    ids.validate(Path(directory))
        except FtnidsError as error:
            raise UsageError(f"--ids {self.ids}: {error}; or say --ids none") from None


def prepare(out: Path) -> None:
    """Make `out` ready: it is new, or empty, or a lab's, whose files then go.  UsageError otherwise."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not (out / MARK).exists():
            raise UsageError(f"-o {out}: holds files that no lab wrote; name a new, an empty or a former lab directory")
        (out / MARK).touch()
        for entry in list(out.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != MARK:
                entry.unlink()
    except OSError as error:
        raise UsageError(
            f"-o {out}: cannot be written: {error.strerror}; name a directory that you may write"
        ) from error

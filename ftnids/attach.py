"""Which replicas `-c` means: their status sockets, and what they left where none answers."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ftnids import config
from ftnids.config import Config
from ftnids.errors import UsageError
from ftnids.lab.leftovers import PREFIX
from ftnids.status.roster import Member, SetView
from ftnids.status.server import SUFFIX, socket_path
from ftnids.status.snapshot import STATUS, Snapshot

DEFAULT: Final = Path("/run/ftnids")  # replica.run_dir, where nothing else is said
OPTION_HELP: Final = (
    "A replica's TOML file, its run directory, or a directory of such files (a lab's -o DIR); "
    f"several may be named.  [default: {DEFAULT}, else a lab that runs]"
)


@dataclass(frozen=True)
class Replicas:
    """What is known of the replicas that are asked for."""

    sockets: list[Path]
    configs: list[Config]

    @property
    def alerts(self) -> list[Path]:
        """The files that these replicas put alerts out to, each once."""
        files = (one.in_log_dir(one.alerts.output) for one in self.configs)
        return list(dict.fromkeys(path for path in files if path is not None))

    def last_known(self) -> SetView | None:
        """What the replicas left in their status files, where none answers; None where no file tells of a set."""
        if not self.configs:
            return None
        first = self.configs[0]
        left = {one.replica.name: _left(one) for one in self.configs if one.cluster.name == first.cluster.name}
        members = tuple(left.get(one.name) or Member(one.name) for one in first.cluster.member)
        view = SetView(first.cluster.name, first.replica.name, time.time(), members)
        for name in left:
            view = view.later(0.0, gone=name)
        return view


def find(paths: Sequence[Path]) -> Replicas:
    """The replicas that `paths` name; without any, those in DEFAULT, else those of a lab that this user runs.

    UsageError when there are none, ConfigError when a file is wrong.
    """
    sockets: list[Path] = []
    configs: list[Config] = []
    for path in paths or [DEFAULT]:
        try:
            there, folder = path.exists(), path.is_dir()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        if folder:
            in_run_dir = sorted(path.glob(f"*{SUFFIX}"))
            sockets += in_run_dir
            if not in_run_dir:
                configs += map(config.load, sorted(path.glob("*.toml")) or sorted(path.glob("*/replica.toml")))
        elif there:
            configs.append(config.load(path))
        elif paths:
            raise UsageError(f"{path}: there is no such file or directory")
    if not paths and not sockets and not configs:
        sockets += _of_a_lab()
    sockets += [socket_path(one.replica.run_dir, one.replica.name) for one in configs]
    if not sockets:
        where = " or ".join(map(str, paths or [DEFAULT]))
        raise UsageError(f"no replica runs or is configured in {where}; name its file: -c replica.toml")
    return Replicas(list(dict.fromkeys(sockets)), configs)


def _of_a_lab() -> list[Path]:
    """The status sockets of the lab that this user began last; anybody may put others beside it."""
    folders = [one for one in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*") if one.lstat().st_uid == os.geteuid()]
    newest = max(folders, key=lambda one: one.lstat().st_mtime, default=None)
    return [] if newest is None else sorted(newest.glob(f"*/*{SUFFIX}"))


def _left(one: Config) -> Member:
    try:
        snapshot = Snapshot.parse((one.replica.log_dir / STATUS).read_bytes())
    except (OSError, ValueError):
        return Member(one.replica.name)
    return Member(one.replica.name, max(0.0, time.time() - snapshot.time), snapshot)

"""`ftnids run`: one replica as a foreground daemon."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ftnids import log
from ftnids.config import Config, load
from ftnids.errors import ConfigError


@click.command("run")
@click.option("-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="The replica's TOML file.")
@click.option("-T", "--test", is_flag=True, help="Check the file and what it names, and end.")
def command(path: Path, test: bool) -> int:
    """Run one replica in the foreground; SIGTERM ends it cleanly, SIGHUP lets it read its keys again.

    Exit status: 0 the stream ended or a signal came, 1 the replica could not start or go on; with -T 0 or 1, too.
    """
    config = load(path)
    log.configure(config.log.level, config.log.format)
    # One thread until privileges are dropped: numpy's library would start some that it then has no work for.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if test:
        return _test(config, path)
    from ftnids.replica import Replica

    replica = Replica(config)
    while True:
        status = replica.run()
        if not replica.rejoin:
            return status
        ended = replica
        replica = Replica(ended.config, ended.capture if config.capture.interface else None)
        replica.take_over(ended)


def _test(config: Config, path: Path) -> int:
    """Say that all is well, or what is not."""
    from ftnids import check

    if found := list(check.faults(config)):
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in found))
    click.echo(f"{path}: the configuration of replica {config.replica.name} is valid, and what it names is there")
    return 0

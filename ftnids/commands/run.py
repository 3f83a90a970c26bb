"""`ftnids run`: one replica as a foreground daemon."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ftnids import log
from ftnids.config import load


@click.command("run")
@click.option("-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="The replica's TOML file.")
@click.option("-T", "--test", is_flag=True, help="Check the file and end; `doctor -c` checks what it names.")
def command(path: Path, test: bool) -> int:
    """Run one replica in the foreground; SIGTERM ends it cleanly, SIGHUP lets it read its keys again.

    Exit status: 0 the stream ended or a signal came, 1 the replica could not start or go on.
    """
    config = load(path)
    if test:
        click.echo(f"{path}: the configuration of replica {config.replica.name} is valid")
        return 0
    # One thread until privileges are dropped: numpy's library would start some that it then has no work for.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from ftnids.replica import Replica

    log.configure(config.log.level, config.log.format)
    replica = Replica(config)
    while True:
        status = replica.run()
        if not replica.rejoin:
            return status
        ended = replica
        replica = Replica(ended.config, ended.capture if config.capture.interface else None)
        replica.take_over(ended)

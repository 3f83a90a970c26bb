"""`ftnids run`: one replica as a foreground daemon."""

from __future__ import annotations

from pathlib import Path

import click

from ftnids import log
from ftnids.config import load


@click.command("run")
@click.option("-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="The replica's TOML file.")
@click.option("-T", "--test", is_flag=True, help="Test the configuration and end.")
def command(path: Path, test: bool) -> int:
    """Run one replica in the foreground; SIGTERM ends it cleanly.

    Exit status: 0 the stream ended or a signal came, 1 the replica could not start or go on.
    """
    config = load(path)
    if test:
        click.echo(f"{path}: the configuration of replica {config.replica.name} is valid")
        return 0
    from ftnids.replica import Replica

    log.configure(config.log.level, config.log.format)
    while True:
        replica = Replica(config)
        status = replica.run()
        if not replica.rejoin:
            return status

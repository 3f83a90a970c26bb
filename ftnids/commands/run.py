"""`ftnids run`: one replica as a foreground daemon."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ftnids import log
from ftnids.config import Config, load
from ftnids.errors import ConfigError
from ftnids.settings import sources


@click.command("run")
@click.option("-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="The replica's TOML file.")
@click.option("-T", "--test", is_flag=True, help="Check the file and what it names, and end.")
@click.option("-i", "--interface", metavar="NAME", help="Capture there (capture.interface).")
@click.option("-r", "--read", "file", metavar="FILE", type=click.Path(path_type=Path), help="Read it (capture.file).")
@click.option("-l", "--log-dir", metavar="DIR", type=click.Path(path_type=Path), help="Write there (replica.log_dir).")
@click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any key, as capture.snaplen=1600; may be repeated.",
)
def command(
    path: Path, test: bool, interface: str | None, file: Path | None, log_dir: Path | None, sets: tuple[str, ...]
) -> int:
    """Run one replica in the foreground.

    SIGTERM ends it cleanly.  SIGHUP opens its outputs anew and reads keys and log level again; it says what else has
    changed in the file and waits for a restart.  Keys may also come from the environment: FTNIDS_CAPTURE__SNAPLEN.

    Exit status: 0 the stream ended or a signal came, 1 the replica could not start or go on; with -T 0 or 1, too.
    """
    given = sources.of_options(sets, interface, file, log_dir)
    config = load(path, [*sources.of_environment(os.environ), *given])
    log.configure(config.log.level, config.log.format)
    if config.overrides:
        log.get("config").info("settings_overridden", by=[one.source for one in config.overrides])
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
        replica = Replica(ended.config, ended.capture if config.capture.interface else None, ended.service)
        replica.take_over(ended)


def _test(config: Config, path: Path) -> int:
    """Say that all is well, or what is not."""
    from ftnids import check

    if found := list(check.faults(config)):
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in found))
    click.echo(f"{path}: the configuration of replica {config.replica.name} is valid, and what it names is there")
    return 0

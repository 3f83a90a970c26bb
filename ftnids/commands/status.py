"""`ftnids status`: how the set is, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from ftnids import attach
from ftnids.errors import ConfigError, UsageError
from ftnids.status import client, health, table

WAIT_S: Final = 3.0  # for a replica to answer


@click.command("status")
@click.option("-c", "--config", "paths", multiple=True, type=click.Path(path_type=Path), help=attach.OPTION_HELP)
@click.option("--json", "as_json", is_flag=True, help="The whole view, with every counter, as one JSON object.")
def command(paths: tuple[Path, ...], as_json: bool) -> int:
    """Say how the set is, a line for each replica, then what is wrong.

    Exit status: 0 healthy; 1 degraded: the set works, and something is wrong; 2 down: no replica runs, as far as can
    be seen from here.
    """
    try:
        replicas = attach.find(paths)
    except ConfigError as error:
        raise UsageError(str(error)) from None  # status 1 would say that the set works
    view, trouble = client.once(replicas.sockets, WAIT_S)
    if view is None:
        view = replicas.last_known()
    level = health.level(view)
    if as_json:
        told = {"members": []} if view is None else json.loads(view.json())
        problems = [trouble] * bool(trouble) + ([] if view is None else health.problems(view))
        click.echo(json.dumps({"status": level, "word": health.WORDS[level], "problems": problems, **told}))
    else:
        click.echo("\n".join(table.report(view, trouble)))
    return level

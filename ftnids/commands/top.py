"""`ftnids top`: the whole set in a terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ftnids import attach
from ftnids.errors import UsageError


@click.command("top")
@click.option("-c", "--config", "paths", multiple=True, type=click.Path(path_type=Path), help=attach.OPTION_HELP)
@click.option("--no-color", is_flag=True, help="Without colours; NO_COLOR in the environment does the same.")
def command(paths: tuple[Path, ...], no_color: bool) -> int:
    """Watch the whole set, from any of its replicas: rates, drops, delays, IDSs, alerts.

    Keys: q quit, p pause, s sort, r one replica after the other, a alerts, h help.  A replica that goes away is shown
    as dead; the view goes on from another one that -c names, or when it is back.
    """
    replicas = attach.find(paths)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal; ftnids status is for scripts")
    import curses

    from ftnids.status import top

    try:
        top.run(replicas.sockets, replicas.last_known(), not (no_color or os.environ.get("NO_COLOR")))
    except curses.error as error:
        raise UsageError(f"this terminal (TERM={os.environ.get('TERM', '')}) cannot show it: {error}") from None
    except KeyboardInterrupt:
        pass
    return 0

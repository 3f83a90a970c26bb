"""`ftnids keygen`: the cluster's secret and a CURVE key pair for each replica."""

from __future__ import annotations

import re
from pathlib import Path

import click

from ftnids.config import NAME
from ftnids.errors import UsageError
from ftnids.limits import MAX_NAME
from ftnids.peers import keys


@click.command("keygen")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", "names", multiple=True, metavar="NAME", help="A replica; once for each.")
@click.option("--no-secret", is_flag=True, help="Keys only, for a replica that joins a cluster that has its secret.")
def command(directory: Path, names: tuple[str, ...], no_secret: bool) -> None:
    """Write DIRECTORY/cluster.secret, and NAME.key_secret and NAME.key for each replica.

    Each replica gets cluster.secret, its own key_secret file, and every public key in cluster.member.
    """
    for name in names:
        if not re.fullmatch(NAME, name) or len(name) > MAX_NAME:
            raise UsageError(
                f"--name {name}: wants letters, digits and . _ -, at most {MAX_NAME}, a letter or digit first"
            )
    if len(set(names)) != len(names):
        raise UsageError("--name: the same name is there twice")
    if no_secret and not names:
        raise UsageError("--no-secret: wants a --name to make keys for")
    public = keys.generate(directory, names, secret=not no_secret)
    if not no_secret:
        click.echo(f"{directory / 'cluster.secret'}: the cluster's secret, for every replica (cluster.secret_file)")
    for name, key in public.items():
        click.echo(f"{directory / name}.key_secret: for replica {name} alone (cluster.key_file)")
        click.echo(f'{directory / name}.key: for every replica, in cluster.member {name}: public_key = "{key}"')

"""`ftnids init`: a commented cluster of two replicas to begin with."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click
import psutil

from ftnids.config import load
from ftnids.errors import FtnidsError, UsageError
from ftnids.peers import keys
from ftnids.settings import text
from snort_adapter.launchers import launcher

NAMES: Final = ("a", "b")
ADDRESSES: Final = ("tcp://127.0.0.1:5701", "tcp://127.0.0.1:5702")
LOOPBACK: Final = "lo"


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("-i", "--interface", metavar="NAME", help="Capture interface.  [default: the one without address]")
@click.option("--address", "addresses", metavar="TCP", multiple=True, help="Of a, then of b: tcp://HOST:PORT.")
@click.option("--cluster", default="example", show_default=True, metavar="NAME", help="Name of the set.")
@click.option("--ids", type=click.Choice(["suricata", "snort", "none"]), help="[default: suricata where it is there]")
def command(directory: Path, interface: str | None, addresses: tuple[str, ...], cluster: str, ids: str | None) -> None:
    """Write DIRECTORY/replica-a.toml, replica-b.toml and keys/: two replicas that can start as they are.

    Every key stands in the files with its default and what it does.  Nothing that is there is overwritten.
    """
    if len(addresses) not in (0, len(NAMES)):
        raise UsageError(f"--address: wants one for each of {' and '.join(NAMES)}, or none")
    capture, program = interface or _tap(), ids or _ids()
    paths = {name: directory / f"replica-{name}.toml" for name in NAMES}
    for path in (*paths.values(), directory / "keys"):
        if os.path.lexists(path):
            raise UsageError(f"{path} is there already, and init overwrites nothing; name another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be made: {error.strerror}") from None
    public = keys.generate(directory / "keys", NAMES)
    with ExitStack() as undo:
        for made in (directory / "keys").iterdir():
            undo.callback(made.unlink)
        for name, path in paths.items():
            values = _values(name, cluster, addresses or ADDRESSES, public, capture, program)
            _write(path, name, values, undo)
            load(path, [])  # says what is wrong with an option
        undo.pop_all()
    for name, path in paths.items():
        click.echo(f"{path}: replica {name}; check it with ftnids run -c {path} -T, then run it without -T")
    click.echo(f"{directory / 'keys'}: the set's secret, and a key for each; a host needs the secret and its own")
    if capture == LOOPBACK:
        click.echo("capture.interface is lo, for a trial: name that of a tap or a SPAN port there (or with init -i)")
    if program == "none":
        click.echo('feed.ids is "none", as no Suricata 7 was found: without an IDS there are no alerts')


def _values(
    name: str, cluster: str, addresses: tuple[str, ...], public: dict[str, str], capture: str, program: str
) -> text.Values:
    """What one file says other than the defaults."""
    members = [
        {"name": one, "address": address, "public_key": public[one]}
        for one, address in zip(NAMES, addresses, strict=True)
    ]
    return {
        "replica.name": name,
        "replica.run_dir": f"run-{name}",
        "replica.log_dir": f"log-{name}",
        "cluster.name": cluster,
        "cluster.key_file": f"keys/{name}.key_secret",
        "cluster.member": members,
        "capture.interface": capture,
        "feed.ids": program,
    }


def _write(path: Path, name: str, values: text.Values, undo: ExitStack) -> None:
    """One new file; `undo` removes it."""
    head = (
        f"Replica {name} of a set of two. Every key stands here; docs/configuration.md says more on each.",
        "Relative paths are relative to this file. The other file differs in what is named after the replica.",
        f"On hosts of their own each replica needs this file, keys/cluster.secret and keys/{name}.key_secret, and both",
        "files the hosts' real addresses in cluster.member.",
    )
    try:
        with path.open("x") as file:
            undo.callback(path.unlink)
            file.write(text.document(head, values))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


def _tap() -> str:
    """The interface that is up and has no IP address, as a tap's has; loopback unless there is exactly one."""
    families = {"AF_INET", "AF_INET6"}
    addresses = psutil.net_if_addrs()
    bare = [
        name
        for name, found in psutil.net_if_stats().items()
        if found.isup and name != LOOPBACK and not any(one.family.name in families for one in addresses.get(name, []))
    ]
    return bare[0] if len(bare) == 1 else LOOPBACK


def _ids() -> str:
    """Suricata, where there is one that ftnids can use."""
    try:
        launcher("suricata", "", "", [])
    except FtnidsError:
        return "none"
    return "suricata"

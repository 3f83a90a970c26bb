"""`ftnids lab`: the whole system on this machine."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
from rich.console import Console


@click.command("lab", short_help="Run the whole system on this machine.")
@click.option("-n", "replicas", type=int, metavar="N", default=2, show_default=True, help="Replicas.")
@click.option(
    "--loss", type=float, metavar="P", default=0.0, show_default=True, help="Share that each replica loses, 0 to 1."
)
@click.option("--seed", type=int, metavar="S", default=1, show_default=True, help="Seed of losses and of made traffic.")
@click.option(
    "--pcap",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Play this capture file; without it, traffic is made.",
)
@click.option("--pps", type=int, default=0, metavar="R", help="Play at R packets/s, not at the file's own pace.")
@click.option("--topspeed", is_flag=True, help="Play as fast as can be.")
@click.option("--ids", type=click.Choice(["suricata", "snort", "none"]), default="suricata", show_default=True)
@click.option(
    "--rules",
    type=click.Path(path_type=Path),
    metavar="FILE",
    multiple=True,
    help="Rule file in place of the IDS's own event rules and ours; may be said more than once.",
)
@click.option(
    "--mode",
    type=click.Choice(["pessimistic", "optimistic"]),
    default="pessimistic",
    show_default=True,
    help="Whether the IDS is fed what is not stable yet, and set back where that was wrong.",
)
@click.option(
    "--checkpoint",
    type=click.Choice(["criu", "fork", "none"]),
    default="none",
    show_default=True,
    help="How the IDS is set back; fork is for Snort, criu needs root.",
)
@click.option(
    "--netns/--no-netns",
    default=None,
    help="A hub in namespaces, or a file read by each replica.  [default: --netns when root]",
)
@click.option("--link", type=click.Choice(["hub", "bond"]), default="hub", show_default=True, help="With --netns.")
@click.option(
    "--clock-offset-us",
    type=int,
    metavar="US",
    default=0,
    show_default=True,
    help="Replica i's clock is i times this ahead.",
)
@click.option(
    "--jitter-us",
    type=int,
    metavar="US",
    default=0,
    show_default=True,
    help="0 to this much is added to each capture time.",
)
@click.option("--reference", is_flag=True, help="Compare with one IDS over all that was captured, in true order.")
@click.option(
    "-o", "out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="New, empty, or a former lab's."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary alone, as JSON.")
def command(netns: bool | None, as_json: bool, **asked: object) -> int:
    """Run the whole system on this machine: hub, replicas, loss, an IDS, a result table.

    Exit status: 0 when the replicas' streams are equal and no difference of alerts is unexplained, 1 otherwise, 2 for
    what cannot be.
    """
    from ftnids.lab import lab  # heavy; not for --help
    from ftnids.lab.options import Options
    from ftnids.lab.progress import Voice

    options = Options(netns=os.geteuid() == 0 if netns is None else netns, **asked)  # type: ignore[arg-type]
    summary = lab.run(options, Voice(Console(stderr=as_json)))
    if as_json:
        json.dump(summary, sys.stdout, indent=2)
        print()
    return 1 if summary["reasons"] else 0

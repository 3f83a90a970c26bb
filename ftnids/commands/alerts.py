"""`ftnids alerts`: the set's alerts, from the files that they are put out to."""

from __future__ import annotations

import json
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from ftnids import attach
from ftnids.alerts import history
from ftnids.alerts.follow import LineFollower
from ftnids.alerts.readers import Record
from ftnids.alerts.recent import short
from ftnids.errors import FtnidsError, UsageError
from ftnids.limits import ALERT_LOOK_BACK, ALERT_TABLE
from ftnids.status import client
from ftnids.status.text import plain

ANSWER_S: Final = 2.0  # for a replica to say who leads
LOOK_S: Final = 0.2  # between looks at the files, with -f
FIRST: Final = 10  # alerts that -f begins with


@click.command("alerts")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("-c", "--config", "paths", multiple=True, type=click.Path(path_type=Path), help=attach.OPTION_HELP)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, also through rotation and truncation.")
@click.option("-n", "--lines", type=click.IntRange(min=0), help="The newest so many alone.  [default: all; with -f 10]")
@click.option("--json", "as_json", is_flag=True, help="The records as they are in the file, a line each.")
def command(files: tuple[Path, ...], paths: tuple[Path, ...], follow: bool, lines: int | None, as_json: bool) -> int:
    """Show the alerts of the set that FILES hold, or those of the replicas that -c names; rotated files first.

    Each alert comes once, with its last word: confirmed, provisional, or retracted.  With -f, an alert that is
    provisional comes again when it is confirmed or retracted, or when its time is over.
    """
    replicas = None if files else attach.find(paths)
    outputs = list(files) if replicas is None else replicas.alerts
    if not outputs:
        raise UsageError("name the file, or a replica's TOML file: -c replica.toml; a run directory does not tell")
    if replicas is not None and (leader := _leads_elsewhere(replicas)):
        click.echo(f"ftnids: {leader} leads: new alerts are in its file alone; ask there, or name its file", err=True)
    try:
        if follow:
            _follow(outputs, FIRST if lines is None else lines, as_json)
        else:
            missing = [str(path) for path in outputs if not history.files_of(path)]
            if missing:
                raise FtnidsError(f"{missing[0]}: there is no such file: no alert was ever put out there")
            shown: Iterator[Record] | deque[Record] = history.alerts(outputs)
            for record in shown if lines is None else deque(shown, maxlen=lines):
                click.echo(_line(record, as_json))
    except KeyboardInterrupt:
        return 130
    except (PermissionError, IsADirectoryError) as error:
        raise FtnidsError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return 0


def _leads_elsewhere(replicas: attach.Replicas) -> str:
    """The replica that leads now, where it is none of `replicas`; "" where it is, or none of them answers."""
    view, _ = client.once(replicas.sockets, ANSWER_S)
    asked = {one.replica.name for one in replicas.configs}
    found = {} if view is None else {one.name: one.snapshot for one in view.members if one.snapshot is not None}
    leader = next((one.coordinator for name, one in found.items() if name in asked and one.coordinator), "")
    return "" if leader in asked or view is None or not any(one.state == "running" for one in view.members) else leader


def _follow(outputs: list[Path], first: int, as_json: bool) -> None:
    """Show the newest `first` alerts, then whatever comes, for ever."""
    followers = [LineFollower(path, last=ALERT_LOOK_BACK) for path in outputs]
    once = history.Once()
    newest: deque[Record] = deque(maxlen=first)
    for follower in followers:
        while batch := follower.poll():
            newest.extend(record for record in map(history.parse, batch) if record is not None and once.new(record))
    waiting: OrderedDict[str, Record] = OrderedDict()  # provisional, and shown so
    for known in newest:
        _show(known, waiting, as_json)
    while True:
        came = [line for follower in followers for line in follower.poll()]
        for record in map(history.parse, came):
            if record is not None and once.new(record):
                _show(record, waiting, as_json)
        _end_waiting(waiting, once, as_json)
        if not came:
            time.sleep(LOOK_S)


def _show(record: Record, waiting: OrderedDict[str, Record], as_json: bool) -> None:
    """Show a record; one that is provisional waits for another word."""
    alert_id = str(record["ftnids"].get("id"))
    waiting.pop(alert_id, None)
    if record["ftnids"].get("status") == history.OPEN:
        waiting[alert_id] = record
        if len(waiting) > ALERT_TABLE:
            waiting.popitem(last=False)
    click.echo(_line(record, as_json))


def _end_waiting(waiting: OrderedDict[str, Record], once: history.Once, as_json: bool) -> None:
    """What waited for too long is retracted."""
    while waiting and (gone := history.lapsed(next(iter(waiting.values())), time.time_ns() // 1_000)):
        waiting.popitem(last=False)
        if once.new(gone):
            click.echo(_line(gone, as_json))


def _line(record: Record, as_json: bool) -> str:
    if as_json:
        return json.dumps(record, separators=(",", ":"))
    one = {key: "" if value is None else plain(value) for key, value in short(record).items()}
    silent = f" not {one['silent']}" if one["silent"] else ""
    at = one["time"].replace("T", " ").removesuffix("+0000")
    return (
        f"{at}  {one['status']:<11}  [{one['sid']}] {one['signature']}  {{{one['proto']}}} {one['from']} -> {one['to']}"
        f"  seq {one['seq'] or '-'}  {one['replicas']}{silent}  {one['id']}"
    )

"""`ftnids simulate`: the protocol under seeded weather, one seed a run, stops at the first failure."""

from __future__ import annotations

import multiprocessing
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count as counting

import click

from ftnids.errors import UsageError
from ftnids.limits import MAX_MEMBERS, SIMULATE_MAX_SEED
from ftnids.sync.simulate import BrokenPromiseError, Result, simulate
from ftnids.sync.weather import draw


def _range(text: str) -> range:
    """A:B as a range that includes B."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match:
        raise UsageError(f"--seeds {text}: wants A:B, two whole numbers, for example 1:100")
    first, last = int(match[1]), int(match[2])
    if first > last or last > SIMULATE_MAX_SEED:
        raise UsageError(f"--seeds {text}: wants A <= B <= {SIMULATE_MAX_SEED}")
    return range(first, last + 1)


def _one(task: tuple[int, int | None]) -> Result | str:
    """Run one seed; the text of what broke when a promise does not hold."""
    seed, replicas = task
    try:
        return simulate(seed, replicas)
    except BrokenPromiseError as broken:
        return str(broken)
    except AssertionError as error:
        command = f"ftnids simulate --seeds {seed}:{seed}" + (f" --replicas {replicas}" if replicas else "")
        return f"seed {seed}: assertion: {error!r}\nreplay: {command}"


def _results(tasks: Iterator[tuple[int, int | None]], jobs: int) -> Iterator[Result | str]:
    if jobs == 1:
        yield from map(_one, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(_one, tasks, chunksize=1)


@click.command("simulate")
@click.option("--seeds", required=True, metavar="A:B", help="Seeds to run, B included.")
@click.option("--replicas", type=click.IntRange(2, MAX_MEMBERS), help="Force the number of replicas.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Stop after that long.")
@click.option("--events", is_flag=True, help="Print the weather and the event log of each run.")
def command(seeds: str, replicas: int | None, jobs: int, minutes: float | None, events: bool) -> int:
    """Run the protocol of a whole set in one process, in virtual time, and check its promises.

    Exit status: 0 all held, 1 a promise broke (the output holds the command that replays it), 2 usage.
    """
    todo = _range(seeds)
    until = time.monotonic() + 60 * minutes if minutes else None
    terminal = sys.stdout.isatty()
    done = packets = 0
    for done, result in zip(counting(1), _results(((seed, replicas) for seed in todo), jobs), strict=False):
        if isinstance(result, str):
            click.echo(result)
            return 1
        packets += result.agreed
        if events:
            click.echo(f"seed {result.seed}: {asdict(draw(result.seed, replicas))}")
            click.echo("\n".join(result.log))
        if events or len(todo) == 1:
            click.echo(
                f"seed {result.seed}: {result.replicas} replicas, {result.agreed} agreed of {result.union} captured, "
                f"{result.ambiguous} ambiguous, {result.late} late, delay p99 {result.delay_p99_ms:.1f} ms, "
                f"max {result.delay_max_ms:.1f} ms, {result.messages} messages"
            )
        elif terminal:
            click.echo(f"\r{done} of {len(todo)} seeds", nl=False)
        if until and time.monotonic() > until:
            break
    click.echo(
        ("\r" if terminal else "") + f"{done} seeds from {todo[0]} on, {packets} packets agreed: every promise held"
    )
    return 0

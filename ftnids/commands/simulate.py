"""`ftnids simulate`: the protocol under seeded weather, one seed a run, stops at the first failure."""

from __future__ import annotations

import math
import multiprocessing
import re
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count as counting
from pathlib import Path

import click

from ftnids.errors import UsageError
from ftnids.limits import MAX_MEMBERS, SIMULATE_MAX_SEED
from ftnids.sync.simulation import BrokenPromiseError, Result, Simulation, draw
from ftnids.sync.simulation.plants import PLANTS, planted

Task = tuple[int, int | None, str | None]  # seed, number of replicas, planted bug


def _range(text: str) -> range:
    """A:B as a range that includes B."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match:
        raise UsageError(f"--seeds {text}: wants A:B, two whole numbers, for example 1:100")
    first, last = int(match[1]), int(match[2])
    if first > last or last > SIMULATE_MAX_SEED:
        raise UsageError(f"--seeds {text}: wants A <= B <= {SIMULATE_MAX_SEED}")
    return range(first, last + 1)


@dataclass(frozen=True, slots=True)
class Broken:
    """A run in which a promise did not hold."""

    what: str
    replay: str
    log: list[str]


def _one(task: Task) -> Result | Broken:
    """Run one seed."""
    seed, replicas, plant = task
    simulation = Simulation(draw(seed, replicas))
    try:
        with planted(plant):
            return simulation.run()
    except BrokenPromiseError as broken:
        what = str(broken)
    except Exception as error:  # an assertion of the protocol, or what a bug leads to
        at = traceback.extract_tb(error.__traceback__)[-1]
        what = f"seed {seed}: {type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {error}"
    command = f"ftnids simulate --seeds {seed}:{seed} --replicas {simulation.weather.replicas}"
    return Broken(what, command + (f" --plant {plant}" if plant else ""), simulation.log)


def _results(tasks: Iterator[Task], jobs: int) -> Iterator[Result | Broken]:
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
@click.option("--plant", type=click.Choice(list(PLANTS)), help="Put a known bug in, to see it found.")
@click.option("--events", is_flag=True, help="Print the weather and the event log of each run.")
def command(seeds: str, replicas: int | None, jobs: int, minutes: float | None, plant: str | None, events: bool) -> int:
    """Run the protocol of a whole set in one process, in virtual time, and check its promises.

    Exit status: 0 all held, a planted bug or not; 1 a promise broke (the output holds the command that replays it); 2
    usage.
    """
    todo = _range(seeds)
    if minutes is not None and not math.isfinite(minutes):
        raise UsageError(f"--minutes {minutes}: wants a time that passes")
    until = time.monotonic() + 60 * minutes if minutes else None
    terminal = sys.stdout.isatty()
    done = packets = excused = 0
    for done, result in zip(counting(1), _results(((seed, replicas, plant) for seed in todo), jobs), strict=False):
        if events:
            click.echo(f"seed {todo[done - 1]}: {asdict(draw(todo[done - 1], replicas))}")
            click.echo("\n".join(result.log))
        if isinstance(result, Broken):
            click.echo(f"{result.what}\nreplay: {result.replay}")
            return 1
        packets += result.agreed
        excused += result.excused > 0
        if events or len(todo) == 1:
            click.echo(_line(result))
        elif terminal:
            click.echo(f"\r{done} of {len(todo)} seeds", nl=False)
        if until and time.monotonic() > until:
            break
    click.echo(
        ("\r" if terminal else "") + f"{done} seeds from {todo[0]} on, {packets} packets agreed: every promise held"
    )
    if excused:
        click.echo(
            f"exempt: in {excused} seeds stamps lay further apart than the clocks may err, and packets came out twice "
            "(docs/protocol.md, What it does not promise)"
        )
    if plant:
        click.echo(f"the planted bug {plant} was not found: these seeds do not bring it out; try more")
    return 0


def _line(result: Result) -> str:
    return (
        f"seed {result.seed}: {result.replicas} replicas, {result.views} views, "
        f"{result.agreed} agreed of {result.union} captured, {result.ambiguous} ambiguous, {result.late} late, "
        f"delay p99 {result.delay_p99_ms:.1f} ms, max {result.delay_max_ms:.1f} ms, {result.messages} messages"
    )

"""The highest rate on a live link at which no packet is lost, against tcpdump and against Suricata alone (paper, 5.3).

Two replicas in network namespaces; the rate rises by a quarter until a step fails, then one rate in between is tried.
A rate that fails is tried twice.  A step of two seconds is clean

* for the set, when both agreed streams have each packet that any replica captured, once, half a second after the
  traffic ends at the latest, and so has the IDS where there is one, in the same view; at loss 0 one replica's kernel
  or ring may drop what the other captured, at others neither's may, for then nobody knows what was lost by all;
* for tcpdump (`-w /dev/null`) and Suricata alone (one packet thread, rules and settings of the replicas' IDS), when
  their kernel dropped nothing.  Their capture buffers are as large as a replica's.

Loss is the replicas' own drop generator's.  The paper reports close to 1 Gbit/s without loss, on machines of their own.

Here all share the cores: generator with the kernel's hub, two replicas, two Suricatas.  *ns/packet*: processor time of
each at the highest clean rate, IMIX; *a core of its own* is its reciprocal, for a replica by its busiest thread: what a
deployment could expect that has a core for each, the kernel's receive work apart.  "Generator alone": nobody captures.

options: --rounds N of Suricata alone and the set with IDS in turns (2), --quick loss 0 and one round
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.__main__ import SKIPPED
from bench._hub import PARTS, Hub, Program, Sample, suricata, tcpdump
from bench._progress import progress
from bench._results import Results, Row
from bench._traces import imix_bytes, write_imix
from ftnids.errors import FtnidsError
from ftnids.lab import netns
from snort_adapter.launchers import launcher

LOSSES: Final = (0.0, 0.01, 0.05, 0.2, 0.5)
START: Final = 40_000  # packets/s
LEAST: Final = 1_000
RISE: Final = 1.25
REACHED: Final = 0.9  # of the rate asked for: the generator keeps up
STEP_S: Final = 1.5  # measured; half a second before that is not
BEHIND_S: Final = 0.5
GOAL: Final = ">= 1.0"
TRIES: Final = 2
PACKETS: Final = 1_200_000
PROGRAMS: Final = ("tcpdump", "pcap_dump", "suricata")


@dataclass(frozen=True)
class Trial:
    """One rate that was tried."""

    asked: float
    clean: bool
    used: Sample

    @property
    def reached(self) -> bool:
        """Whether the generator sent that fast."""
        return self.used.rate >= REACHED * self.asked


def highest(attempt: Callable[[int], Trial], start: float) -> Trial | None:
    """The clean trial at the highest rate; None where even LEAST is too much."""

    def tried(rate: float) -> Trial:
        trial = attempt(int(rate))
        for _ in range(TRIES - 1):
            trial = trial if trial.clean else attempt(int(rate))
        return trial

    best, rate = tried(start), start
    failed = 0.0
    while not best.clean:
        failed, rate = rate, rate / RISE
        if rate < LEAST:
            return None
        best = tried(rate)
    while not failed and best.reached:
        rate *= RISE
        trial = tried(rate)
        best, failed = (trial, 0.0) if trial.clean else (best, rate)
    if failed:
        trial = tried((failed * failed / RISE) ** 0.5)
        best = trial if trial.clean else best
    return best


class Bench:
    """The hub, and where the next search starts."""

    def __init__(self, hub: Hub, results: Results) -> None:
        self.hub, self.results = hub, results
        self._start: dict[str, float] = {}

    def alone(self, program: Program) -> Trial:
        """The highest clean rate of one program, no replica being there."""

        def attempt(rate: int) -> Trial:
            with self.hub.listening(program) as listener:
                step = self.hub.play(rate, STEP_S)
            return Trial(rate, listener.drops == 0, step.used[0])

        return self._search(program.name, attempt)

    def replicas(self, loss: float, *, ids: bool) -> Trial:
        """The highest clean rate of the set."""

        def attempt(rate: int) -> Trial:
            step = self.hub.play(rate, STEP_S)
            clean = step.missing == step.extra == 0 and step.behind_s <= BEHIND_S
            clean = clean and not (loss and any(step.dropped.values()))
            if not clean and not self.hub.whole():
                self.hub.down()
                self.hub.up(loss=loss, ids=ids)
            return Trial(rate, clean, step.used[0])

        self.hub.up(loss=loss, ids=ids)
        found = self._search(f"replicas {ids}", attempt)
        self.hub.down()
        return found

    def _search(self, name: str, attempt: Callable[[int], Trial]) -> Trial:
        found = highest(attempt, self._start.get(name, START))
        if found is None:
            raise FtnidsError(f"{name}: not even {LEAST:,} packets/s were clean")
        self._start[name] = found.used.rate
        return found

    def add_costs(self, what: str, used: Sample) -> None:
        """Rows: what each process takes for a packet, and what that comes to on a core of its own."""
        names = self.hub.options.names
        found: dict[str, list[float]] = {}
        for key in used.cpu:
            name, _, part = key.partition(" ")
            found.setdefault((part or "replica") if name in names else key, []).append(used.ns(key))
        shown = {name: statistics.fmean(costs) for name, costs in found.items()}
        for name, ns in shown.items():
            self.results.add(Row(f"{what}: {name}", ns, "ns/packet"))
        alone: dict[str, float] = {name: shown[name] for name in (*PROGRAMS, "ids") if name in shown}
        if "replica" in shown:
            alone["replica"] = max(shown[part] for part in PARTS if part in shown)
        for name, ns in alone.items():
            self.results.add(Row(f"{what}: {name}, on a core of its own", 1e9 / ns, "packets/s"))


def measure(bench: Bench, rounds: int, losses: tuple[float, ...]) -> None:
    """All rows."""
    hub, add = bench.hub, bench.results.add
    bits = 8 * imix_bytes(PACKETS) / PACKETS
    add(Row("generator alone", hub.play(0, STEP_S).rate, "packets/s"))
    dump = bench.alone(tcpdump(hub))
    add(Row("tcpdump alone", dump.used.rate, "packets/s"))
    turns = [(bench.alone(suricata(hub)), bench.replicas(0.0, ids=True)) for _ in progress(range(rounds))]
    suricatas, sets = ([one.used.rate for one in group] for group in zip(*turns, strict=True))
    add(Row("Suricata alone", statistics.median(suricatas), "packets/s"))
    add(Row("loss 0 %, with IDS", statistics.median(sets), "packets/s", statistics.median(suricatas), GOAL))
    add(Row("loss 0 %, with IDS: the same", statistics.median(sets) * bits / 1e9, "Gbit/s"))
    without = bench.replicas(0.0, ids=False)
    add(Row("loss 0 %", without.used.rate, "packets/s", dump.used.rate))
    add(Row("loss 0 %: the same", without.used.rate * bits / 1e9, "Gbit/s"))
    for loss in progress(losses):
        for ids, base in ((False, dump.used.rate), (True, statistics.median(suricatas))):
            found = bench.replicas(loss, ids=ids)
            add(Row(f"loss {100 * loss:g} %{', with IDS' * ids}", found.used.rate, "packets/s", base))
    bench.add_costs("tcpdump", dump.used)
    bench.add_costs("Suricata", turns[-1][0].used)
    bench.add_costs("with IDS", turns[-1][1].used)
    bench.add_costs("without", without.used)


def main(arguments: list[str]) -> int:
    """Print the table and write live.json; 0 when the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m bench live", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    rounds, losses = (1, ()) if options.quick else (options.rounds, LOSSES[1:])
    try:
        netns.check_host("hub")
        launcher("suricata")
    except FtnidsError as error:
        print(f"skipped: {error}")
        return SKIPPED
    results = Results("live", arguments, "generated IMIX, two replicas")
    results.heading()
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        trace = Path(name, "imix.pcap")
        write_imix(trace, PACKETS)
        with Hub(Path(name, "out"), trace, ids="suricata") as hub:
            measure(Bench(hub, results), rounds, losses)
    return results.finish()

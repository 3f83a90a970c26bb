"""The highest rate on a live link at which no packet is lost, against tcpdump and against Suricata alone (paper, 5.3).

Two replicas in network namespaces; the rate rises (or falls) by a quarter until a step fails (or does not), then one
rate in between is tried, and each that fails once more; at losses above 0 it stays at whole steps, each tried once.
A step of 1.5 s is clean

* for the set, when both agreed streams have as many packets as any replica captured, in the same view, and when all but
  the last quarter of a second is agreed on, and fed to the IDS where there is one, as the traffic ends: else it only
  fills a buffer; at loss 0 one replica's kernel or ring may drop what the other captured, at others neither's may:
  nobody knows what both lost;
* for tcpdump (`-w /dev/null`) and Suricata alone (one packet thread, rules and settings of the replicas' IDS), when
  their kernel dropped nothing.  Their capture buffers are as large as a replica's.

Loss is the replicas' own drop generator's.  *twice*: packets that an agreed stream has once too often, in all steps:
where the machine is preempted between two ports, two kernels' stamps are too far apart to be of one packet.  They
are shown and do not fail a step: no packet is lost.  The paper reports close to 1 Gbit/s without loss, a machine for
each replica.

Here all share the cores: generator with the kernel's hub, two replicas, two Suricatas.  Where *all together* is near
the number of cores, or the generator does not reach the next rate, that is the limit, whoever fails first.
*ns/packet*: processor time of each at its highest clean rate, with IMIX; *on a core of its own* is its reciprocal: what
a deployment could expect that has a core for each process, the kernel's receive work apart.  *generator alone*: nobody
captures.

options: --rounds N of Suricata alone and the set with IDS, in turns (2), --quick these two at loss 0, one round
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
from bench._hub import Hub, Program, Sample, suricata, tcpdump
from bench._progress import progress
from bench._results import Results, Row
from bench._traces import imix_bytes, write_imix
from ftnids.errors import FtnidsError
from ftnids.lab import netns
from snort_adapter.launchers import launcher

LOSSES: Final = (0.0, 0.01, 0.05, 0.2, 0.5)
START: Final = {"suricata": 150_000, "set": 100_000, "set, IDS": 100_000}  # packets/s; the search begins somewhere
OTHERS: Final = 200_000
LEAST: Final = 1_000
RISE: Final = 1.25
REACHED: Final = 0.9  # of the rate asked for: the generator keeps up
STEP_S: Final = 1.0  # measured; half a second before that is not
BEHIND_S: Final = 0.25
GOAL: Final = ">= 1.0"
PACKETS: Final = 1_000_000
BITS: Final = 8 * imix_bytes(PACKETS) / PACKETS  # of a packet
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


def highest(attempt: Callable[[int], Trial], start: float, *, coarse: bool = False) -> Trial | None:
    """The clean trial at the highest rate; None where even LEAST is too much.  Coarse: whole steps, one try each."""

    def tried(rate: float) -> Trial:
        trial = attempt(int(rate))
        return trial if trial.clean or coarse else attempt(int(rate))

    best, failed = tried(start), 0.0
    while not best.clean:
        failed = best.asked
        if failed < LEAST:
            return None
        best = tried(failed / RISE)
    while not failed and best.reached:
        trial = tried(best.asked * RISE)
        best, failed = (trial, 0.0) if trial.clean else (best, trial.asked)
    if failed and not coarse:
        trial = tried((best.asked * failed) ** 0.5)
        best = trial if trial.clean else best
    return best


class Bench:
    """The hub, and where the next search starts."""

    def __init__(self, hub: Hub, results: Results, *, quick: bool) -> None:
        self.hub, self.results, self._quick = hub, results, quick
        self.twice = 0
        self._start: dict[str, float] = dict(START)

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
            if not self.hub.live:
                self.hub.up(loss=loss, ids=ids)
            step = self.hub.play(rate, STEP_S)
            self.twice += step.extra
            clean = step.whole and step.missing == 0 and step.behind_s <= BEHIND_S
            clean = clean and not (loss and any(step.dropped.values()))
            if not step.whole:
                self.hub.down(patience_s=0.0)
            return Trial(rate, clean, step.used[0])

        found = self._search("set, IDS" if ids else "set", attempt, coarse=loss > 0)
        self.hub.down()
        return found

    def _search(self, name: str, attempt: Callable[[int], Trial], *, coarse: bool = False) -> Trial:
        found = highest(attempt, self._start.get(name, OTHERS), coarse=coarse or self._quick)
        if found is None:
            raise FtnidsError(f"{name}: not even {LEAST:,} packets/s were clean")
        self._start[name] = found.asked
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
        together = sum(used.share(key) for key in used.cpu if key.partition(" ")[2] in ("", "ids"))
        self.results.add(Row(f"{what}: all together", together, "cores"))
        for name in (name for name in (*PROGRAMS, "ids", "replica") if name in shown):
            self.results.add(Row(f"{what}: {name}, on a core of its own", 1e9 / shown[name], "packets/s"))


def against_suricata(bench: Bench, rounds: int) -> tuple[float, Trial, Trial]:
    """The rows of Suricata alone and of the set with it, which take turns; Suricata's rate, and the last trials."""
    alone, found = [], []
    for _ in progress(range(rounds)):
        alone.append(bench.alone(suricata(bench.hub)))
        found.append(bench.replicas(0.0, ids=True))
    base, rate = (statistics.median(one.used.rate for one in group) for group in (alone, found))
    bench.results.add(Row("Suricata alone", base, "packets/s"))
    bench.results.add(Row("loss 0 %, with IDS", rate, "packets/s", base, GOAL))
    bench.results.add(Row("loss 0 %, with IDS: the same", rate * BITS / 1e9, "Gbit/s"))
    return base, alone[-1], found[-1]


def measure(bench: Bench, rounds: int) -> None:
    """All rows."""
    add = bench.results.add
    add(Row("generator alone", bench.hub.play(0, STEP_S).rate, "packets/s"))
    dump = bench.alone(tcpdump(bench.hub))
    add(Row("tcpdump alone", dump.used.rate, "packets/s"))
    suricata_rate, alone, with_ids = against_suricata(bench, rounds)
    without = bench.replicas(0.0, ids=False)
    add(Row("loss 0 %", without.used.rate, "packets/s", dump.used.rate))
    add(Row("loss 0 %: the same", without.used.rate * BITS / 1e9, "Gbit/s"))
    for loss in progress(LOSSES[1:]):
        for ids, base in ((False, dump.used.rate), (True, suricata_rate)):
            found = bench.replicas(loss, ids=ids)
            add(Row(f"loss {100 * loss:g} %{', with IDS' * ids}", found.used.rate, "packets/s", base))
    add(Row("twice", bench.twice, "packets"))
    bench.add_costs("tcpdump", dump.used)
    bench.add_costs("Suricata", alone.used)
    bench.add_costs("without IDS", without.used)
    bench.add_costs("with IDS", with_ids.used)


def main(arguments: list[str]) -> int:
    """Print the table and write live.json; 0 when the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m bench live", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
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
        with Hub(Path(name, "out"), trace, ids="suricata", realtime=True) as hub:
            bench = Bench(hub, results, quick=options.quick)
            if options.quick:
                against_suricata(bench, 1)
            else:
                measure(bench, options.rounds)
    return results.finish()

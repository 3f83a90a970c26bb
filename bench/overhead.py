"""What a whole replica costs for each packet, against `tcpdump -w /dev/null` on the same hub; what an idle one costs.

Two replicas capture live in network namespaces, tcpdump does at a third port; all see the same packets in the same
seconds.  *replica*: processor time, user and system, of all its threads (capture, main loop with the protocol,
ZeroMQ), mean of the two, for each packet on the link, with its defaults; *main loop*, *ZeroMQ* and *capture* are its
parts.
The kernel's work on a packet up to the capture buffer is charged to the generator, so that it is in neither figure.
Where tcpdump is not installed, the same libpcap calls in C (native/dump.c) take its place, with the same buffer.

Loss is the replicas' own drop generator's.  *dropped*: by the kernel or a full ring of a replica, or by tcpdump's
kernel.  *not agreed*: packets that a replica captured and that are not in both agreed streams; *twice*: that are there
once too often: presumably where the machine is preempted between two ports and stamps are too far apart for one packet.
*idle*: share of a core of one replica, the set being up and the link without a packet.

options: --turns N for each row (5), --quick 3 turns of 0.7 s, without 10,000 packets/s
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.__main__ import SKIPPED
from bench._hub import PARTS, Hub, Program, Sample, Step, tcpdump
from bench._progress import progress
from bench._results import Results, Row
from bench._traces import write_imix
from ftnids.errors import FtnidsError
from ftnids.lab import netns

RATES: Final = (100_000, 10_000)  # packets/s
GOALS: Final = {0.0: "<= 3", 0.01: "<= 3.5"}  # of tcpdump's processor time, by loss, at the first rate
IDLE: Final = "<= 0.03"  # of a core
TURN_S, QUICK_S = 1.5, 0.7
SETTLE_S: Final = 1.0  # a new set is not idle yet


def typical(samples: list[Sample], figure: Callable[[Sample, str], float], names: list[str], part: str = "") -> float:
    """The median over the turns of the mean over processes, or over the same part of each."""
    keys = [f"{name} {part}".strip() for name in names]
    return statistics.median(statistics.fmean(figure(one, key) for key in keys) for one in samples)


def idle(hub: Hub, turns: int, seconds: float) -> list[Sample]:
    """What passes while nothing comes."""
    time.sleep(SETTLE_S)
    samples = []
    for _ in range(turns):
        first = hub.sample()
        time.sleep(seconds)
        samples.append(hub.sample() - first)
    return samples


def add_idle(results: Results, names: list[str], samples: list[Sample]) -> None:
    """The rows of an idle set."""
    results.add(Row("idle: replica", typical(samples, Sample.share, names), "of a core", goal=IDLE))
    for part in PARTS:
        results.add(Row(f"idle: {part}", typical(samples, Sample.share, names, part), "of a core"))
        wakes = typical(samples, Sample.wakes_s, names, part)
        results.add(Row(f"idle: {part}, put on a core", wakes, "times/s"))


def add(results: Results, names: list[str], rate: int, loss: float, step: Step, program: str, drops: int) -> None:
    """The rows of one rate and loss."""
    what = f"{rate:,}/s, loss {100 * loss:g} %"
    base, cost = (typical(step.used, Sample.ns, which) for which in ([program], names))
    results.add(Row(f"{what}: replica", cost, "ns/packet", base, GOALS[loss] if rate == RATES[0] else None))
    for part in PARTS:
        results.add(Row(f"{what}: {part}", typical(step.used, Sample.ns, names, part), "ns/packet"))
    results.add(Row(f"{what}: generator and hub", typical(step.used, Sample.ns, ["generator"]), "ns/packet"))
    results.add(Row(f"{what}: sent", step.rate, "packets/s"))
    results.add(Row(f"{what}: the set broke up", 1 - step.whole, "runs", goal="== 0"))
    results.add(Row(f"{what}: dropped", sum(step.dropped.values()) + drops, "packets", goal="== 0"))
    results.add(Row(f"{what}: not agreed", step.missing, "packets", goal="== 0"))
    results.add(Row(f"{what}: twice", step.extra, "packets"))


def main(arguments: list[str]) -> int:
    """Print the table and write overhead.json; 0 when the goals are met."""
    parser = argparse.ArgumentParser(prog="python -m bench overhead", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    turns, seconds, rates = (3, QUICK_S, RATES[:1]) if options.quick else (options.turns, TURN_S, RATES)
    try:
        netns.check_host("hub")
    except FtnidsError as error:
        print(f"skipped: {error}")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="ftnids-bench-", dir="/dev/shm") as name:
        folder = Path(name)
        trace = folder / "imix.pcap"
        packets = int(RATES[0] * (turns * seconds + 2.0))
        write_imix(trace, packets)
        with Hub(folder / "out", trace) as hub:
            program = tcpdump(hub)
            results = Results("overhead", arguments, f"generated IMIX, two replicas, baseline {program.name}")
            results.heading()
            for loss in progress(list(GOALS)):
                hub.up(loss=loss)
                if loss == 0:
                    add_idle(results, hub.live, idle(hub, turns, seconds))
                for rate in rates:
                    measure(results, hub, program, rate, loss, turns, seconds)
                hub.down()
    return results.finish()


def measure(results: Results, hub: Hub, program: Program, rate: int, loss: float, turns: int, seconds: float) -> None:
    """Play at one rate, and add its rows."""
    with hub.listening(program) as listener:
        step = hub.play(rate, turns * seconds, turns)
    add(results, hub.live, rate, loss, step, program.name, listener.drops)
    if not step.whole:
        hub.down()
        hub.up(loss=loss)

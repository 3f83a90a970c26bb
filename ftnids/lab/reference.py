"""One IDS over all that the replicas captured together, in true order, and how the set's alerts differ from its."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ftnids import limits
from ftnids.alerts.compare import compare as compare_alerts
from ftnids.alerts.identity import Identifier
from ftnids.alerts.readers import Record
from ftnids.core import RandomDrop
from ftnids.errors import FeedError, FtnidsError
from ftnids.lab import causes, steady, truth, verify
from ftnids.lab.options import Options
from ftnids.lab.replicas import SNAPLEN, Places
from snort_adapter.launchers import IdsLauncher, launcher

TRIES: Final = 2  # an IDS crashes on rare occasions and passes on the next run


def compare(
    options: Options,
    places: Places,
    source: Path,
    seed: int,
    statuses: Mapping[str, Mapping[str, Any]],
    alerts: Sequence[Record],
) -> dict[str, Any]:
    """The summary's part on the reference: `reference`, `alerts_missing`, `alerts_spurious`, `alert_differences`.

    FtnidsError when the truth cannot be had or the IDS does not run over it.
    """
    directory = places.out / causes.REFERENCE
    directory.mkdir()
    path = directory / "union.pcap"
    agreed = verify.read_hashes(places.replica(options.names[0]) / "hashes.txt")
    known, basis = _union(options, source, seed, path, statuses, agreed)
    late = any(status["counters"]["late"] for status in statuses.values())
    odd = causes.find(known.stream, agreed, excuse(options, late))
    reasons = causes.Causes(odd, path, known.stream, agreed, SNAPLEN)
    raised: list[Record] = []
    if options.ids != "none":
        config = steady.ids_config(options.ids, places.out)
        raised = alerts_of(launcher(options.ids, config=config, rules=options.rules), path, directory)
    result = compare_alerts(alerts, raised, reasons.of)
    return {
        "reference": {
            "basis": basis,
            "source_packets": known.source_packets,
            "packets": len(known.stream),
            "missing": odd.missing,
            "extra": odd.extra,
            "displaced": odd.displaced,
            "alerts": len(raised),
        },
        "alerts_missing": result.missing,
        "alerts_spurious": result.spurious,
        "alert_differences": result.differences,
    }


def excuse(options: Options, late: bool) -> causes.Excuse:
    """What excuses an odd packet of this run; `late`: the replicas counted late packets.

    The stamps of a file are off by the injected jitter alone.  On a hub each kernel stamps a frame when it gets
    to it, mostly well within the reorder window; but where the machine itself is preempted between two ports, by a
    hypervisor say, the two stamps are milliseconds apart, and no clock fit can know.
    """
    jitter_us, window_us = 2 * options.jitter_us, limits.REORDER_NS // 1_000
    floor_us = limits.TOLERANCE_FLOOR_NS // 1_000 + jitter_us
    if options.netns:
        return causes.Excuse(window_us + jitter_us, window_us + jitter_us, limits.MAX_TOLERANCE_NS // 1_000, late)
    return causes.Excuse(floor_us, window_us + jitter_us, floor_us, late)


def _union(
    options: Options,
    source: Path,
    seed: int,
    path: Path,
    statuses: Mapping[str, Mapping[str, Any]],
    agreed: verify.Stream,
) -> tuple[truth.Union, str]:
    """The union of what was captured, and in words what it is based on."""
    count = options.replicas
    drops = [RandomDrop(options.loss, 1.0, options.drop_seed(number)) for number in range(count)]
    known = truth.union(source, truth.by_drops(drops), count, SNAPLEN, seed, path)
    captured = [status["counters"]["captured"] for status in statuses.values()]
    if captured == known.captured:
        return known, "the replicas' drop decisions"
    if not options.netns:
        raise FtnidsError(
            f"the replicas say they captured {captured} packets of {source}, the truth is {known.captured}"
        )
    # A kernel dropped frames, so that decisions and packets no longer go by the same numbers.
    known = truth.union(source, truth.by_hash(agreed, count), count, SNAPLEN, seed, path)
    return known, "the tap's order of the agreed packets, as a kernel dropped packets before a replica saw them"


def alerts_of(ids: IdsLauncher, source: Path, directory: Path, voids: Sequence[int] = ()) -> list[Record]:
    """The identified alerts of one IDS over a capture file.  FeedError when it does not come to its end twice.

    `voids`: seqs, rising, that have no packet in the file.
    """
    ids.prepare(directory)
    log = directory / f"{ids.name}.log"
    for _ in range(TRIES):
        (directory / ids.alert_file).unlink(missing_ok=True)
        with log.open("ab") as out:
            try:
                status = subprocess.run(
                    ids.command(source, directory),
                    env={**os.environ, **ids.environment()},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    timeout=limits.LAB_REFERENCE_SECONDS,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise FeedError(f"{ids.name} took longer than {limits.LAB_REFERENCE_SECONDS} s over {source}") from None
        if status == 0:
            return read(ids, directory, voids)
    raise FeedError(f"{ids.name} ended with status {status} over {source}, {TRIES} times (log: {log})")


def read(ids: IdsLauncher, directory: Path, voids: Sequence[int] = ()) -> list[Record]:
    """The identified alerts that the reference IDS logged into `directory`; `voids`: as in `alerts_of`."""
    reader, identify = ids.reader(directory), Identifier(causes.REFERENCE, voids=voids).identify
    try:
        records = reader.poll(final=True)
        while more := reader.poll(final=True):
            records += more
    finally:
        reader.close()
    return [identify(record) for record in records if record["event_type"] == "alert"]

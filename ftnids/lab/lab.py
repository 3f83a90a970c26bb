"""The story of a lab run: make the link, start the replicas, send the traffic, end, and judge what came out."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ftnids import limits
from ftnids.errors import CaptureError, FtnidsError, UsageError
from ftnids.lab import generate, leftovers, reference, report, scan, summary, verify
from ftnids.lab.netns import PORT_MTU, Link
from ftnids.lab.options import Options, prepare
from ftnids.lab.processes import Children
from ftnids.lab.progress import Voice, Watch
from ftnids.lab.replicas import SNAPLEN, Places, Set
from ftnids.lab.traffic import Tap, Traffic, senders
from ftnids.lab.writing import writing

ETHERNET: Final = 1
TAP_PCAP: Final = "tap.pcap"  # in -o DIR: all that went over the hub


@dataclass
class Outcome:
    """What the replicas left when they had ended."""

    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)  # why the run has failed already
    notes: list[str] = field(default_factory=list)  # what is worth knowing, and no failure


def run(options: Options, voice: Voice) -> dict[str, Any]:
    """Do a whole run and write `summary.json`.

    Returns the summary; the run has failed if its `reasons` are not empty.  UsageError for what cannot be started;
    FtnidsError when not even a summary can be had.
    """
    options.check()
    played = _look_at(options, voice)
    if left := leftovers.sweep():
        voice.say(f"removed what a killed run left behind: {', '.join(left)}")
    prepare(options.out)
    with _interruptible(), leftovers.private_directory() as private:
        places = _places(options, private, voice)
        if places.source:
            played = played or scan.shape(places.source)
        outcome = _operate(options, places, played, voice)
        return _judge(options, places, voice, outcome, played.warning if played else "")


# -- set-up ----------------------------------------------------------------------------------------


def _look_at(options: Options, voice: Voice) -> scan.Shape | None:
    """What `--pcap FILE` holds; None without one.  An error when it cannot be played."""
    if options.pcap is None:
        return None
    try:
        shape = scan.shape(options.pcap)
    except CaptureError as error:
        raise UsageError(f"--pcap {error}") from None
    if shape.warning:
        voice.say(shape.warning)
    if options.netns and shape.linktype != ETHERNET:
        raise UsageError(f"{options.pcap}: holds no Ethernet frames, which is all that the hub carries; use --no-netns")
    return shape


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and the first Ctrl-C end the run in order; what comes after is not to disturb the cleaning up."""

    def interrupt(*_: object) -> None:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _places(options: Options, private: Path, voice: Voice) -> Places:
    """Where the files of this run are; the capture file is generated when there is to be one and none is named."""
    out = options.out.resolve()
    if options.netns:
        return Places(out, private, None)
    if options.pcap:
        return Places(out, private, options.pcap.resolve())
    source = out / "traffic.pcap"
    count = generate.write(source, options.seed)
    voice.say(f"generated {count:,} packets of HTTP, DNS and attacks: {source}")
    return Places(out, private, source)


# -- the run ---------------------------------------------------------------------------------------


def _operate(options: Options, places: Places, played: scan.Shape | None, voice: Voice) -> Outcome:
    """Start everything, let the traffic pass, end everything.  What a replica or the traffic does wrong is a reason."""
    quiet_s = limits.LAB_STALL_SECONDS + (played.longest_gap_s if played and options.pace == "file" else 0)
    outcome = Outcome()
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(Link(options.names, senders(options), options.link)) if options.netns else None
        children = stack.enter_context(Children())
        replicas = Set(options, places, link)
        try:
            replicas.start(children)
            replicas.wait_running()
            voice.say(f"{options.replicas} replicas are ready; traffic starts")
            with voice.watching(options.names, played.packets if played else None) as watch:
                if link is not None:
                    outcome.notes += _send(options, places, link, children, replicas, watch, quiet_s)
                    replicas.stop()
                replicas.wait_while(lambda: not replicas.ended, quiet_s, watch)
        except FtnidsError as error:
            outcome.reasons.append(str(error))
        outcome.statuses = {replica.name: replica.status() for replica in replicas.replicas}
    return outcome


def _send(
    options: Options, places: Places, link: Link, children: Children, replicas: Set, watch: Watch, quiet_s: float
) -> list[str]:
    """Let the traffic go over the hub, and wait until all replicas have seen it; what is worth knowing of it."""
    tap = Tap(link, children, places.out / TAP_PCAP, places.out / "tap.log")
    traffic = Traffic(options, link, children, places.out / "traffic")
    traffic.prepare()
    traffic.start()
    replicas.wait_while(lambda: not traffic.over, quiet_s, watch)
    replicas.settle(watch)
    captured, missed = tap.stop()
    notes = [f"the tap saw {captured:,} packets on the link"]
    if skipped := traffic.report().get("skipped"):
        notes.append(f"{skipped:,.0f} frames of {options.pcap} were too long for the hub ({PORT_MTU} bytes)")
    dropped = link.drops()
    if missed or dropped:
        notes.append(f"the link itself lost packets: {missed:,} at the tap, {dropped:,} in the hub's ports")
    return notes


# -- the verdict -----------------------------------------------------------------------------------


def _judge(options: Options, places: Places, voice: Voice, outcome: Outcome, damage: str) -> dict[str, Any]:
    """Check streams and alerts, compare with the reference, write the summary and show it.

    `damage` is why a part of the input was not read: what follows is true of the rest alone.
    """
    seed = places.hash_seed
    result = summary.summarize(outcome.statuses, places.out)
    alerts = summary.read_alerts(places.out / "alerts.jsonl")
    reasons = list(outcome.reasons)
    if not reasons:  # else what follows would only repeat it in other words
        reasons += verify.differences([places.replica(name) for name in options.names], SNAPLEN, seed)
        reasons += summary.faults(outcome.statuses, alerts, result)
    if options.reference and not reasons:
        voice.say("comparing with all that was captured, in true order")
        source = places.source or places.out / TAP_PCAP
        result |= reference.compare(options, places, source, seed, outcome.statuses, alerts)
    result["notes"] = [*outcome.notes, *summary.warnings(outcome.statuses)]
    result["reasons"] = summary.verdict(result, reasons)
    result |= {"damaged_input": damage} if damage else {}
    with writing(places.out / "summary.json"):
        (places.out / "summary.json").write_text(json.dumps(result, indent=2) + "\n")
    for note in result["notes"]:
        voice.say(note)
    report.show(voice.console, result, alerts)
    return result

"""What a replica that runs here says of itself and of its set, and what its ring shows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import psutil

from ftnids.config import Config
from ftnids.doctor.finding import Finding, Level, fail, ok, warn
from ftnids.errors import FtnidsError
from ftnids.status import health, server
from ftnids.status.client import NOBODY, Client
from ftnids.status.roster import SetView
from ftnids.status.snapshot import Snapshot

ANSWER_S: Final = 3.0  # for the replica to answer
TRY_S: Final = 0.05  # where no replica runs, that is all it costs
NEXT_S: Final = 1.5  # for its next view; they come every second
FOLLOW_S: Final = 2.0
CLOCK_S: Final = 0.1  # as in ftnids.doctor.frames, which needs the core
DROPS: Final = ("kernel_drops", "ring_drops", "injected_drops", "left_to_peers")
UNEXPLAINED: Final = 20  # packets that are recovered without a drop: from here on, and ...
SHARE: Final = 0.01  # ... from this share of the agreed ones on
QUIET: Final = 100  # packets agreed meanwhile that are too few to tell; then the totals do
WHY_SET: Final = "what one replica loses is only made up for by others that run"
WHY_CLOCK: Final = "alerts carry the time of the replica that coordinates; the set itself measures offsets"
WHY_RECOVERED: Final = "what is recovered without having been dropped does not reach the port, or reaches it changed"

_HELP: Final = {
    "absent": "start it; if it runs, see its log, the addresses, the keys, and firewalls between the hosts",
    "dead": "see on its host whether it runs, and whether the hosts reach each other",
    "failed": "do what the reason says, and start it again",
    "ended": "start it again, if it was not stopped on purpose",
    "waiting": "it looks for its peers: see the addresses, the keys, and firewalls between the hosts",
    "starting": "ask again in a moment; its log says what it waits for",
}


@dataclass(frozen=True)
class Running:
    """The replica of the configuration, which runs."""

    pid: int
    findings: list[Finding]

    def port(self, found: Finding, number: int) -> Finding:
        """`found` about the replica's port, unless it is this replica that has taken it."""
        if found.level != Level.FAIL or _listens(self.pid, number) is False:
            return found
        address = found.what.rpartition(": ")[0]
        return ok(found.name, f"{address} is taken by this replica, which runs (pid {self.pid})", found.why)


def _listens(pid: int, port: int) -> bool | None:
    """Whether a process listens at a TCP port; None where that may not be known."""
    try:
        there = psutil.Process(pid).net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in there)


def examine(config: Config, seconds: float = FOLLOW_S) -> Running | Finding | None:
    """Look at the running replica for `seconds`; None where none runs, a finding where it does not answer."""
    path = server.socket_path(config.replica.run_dir, config.replica.name)
    with contextlib.closing(Client([path])) as client:
        first = _next(client, ANSWER_S)
        if first is None:
            if NOBODY in client.trouble:
                return None
            what = f"the status socket {path}: {client.trouble or 'no answer'}"
            do = "ask as root or as the replica's user; if it hangs, its log and its host's load say more"
            return warn("running", what, "a replica that runs knows more than its host shows", do)
        if first.cluster != config.cluster.name:
            what = f"the status socket {path}: who answers is of cluster {first.cluster!r}, not {config.cluster.name!r}"
            do = "give each replica a run_dir of its own, or name the configuration with which that one was started"
            return warn("running", what, "it says nothing of this replica", do)
        before = _next(client, NEXT_S) or first
        shown = _same_frames(config, seconds)
        while client.poll(0.0):
            pass  # what came meanwhile
        after = _next(client, NEXT_S) or client.view or before
    name = config.replica.name
    own = _snapshots(after).get(name)
    findings = [*members(after), *clocks(after, name), *snaplens(after), *recovered(first, before, after), *shown]
    return Running(own.pid if own else 0, findings)


def _next(client: Client, timeout_s: float) -> SetView | None:
    """The view that comes next; None where none does in time, or nobody answers."""
    until = time.monotonic() + timeout_s
    while (left := until - time.monotonic()) > 0:
        if client.poll(min(left, TRY_S)):
            return client.view
        if client.source is None and client.trouble:
            break
    return None


def _same_frames(config: Config, seconds: float) -> list[Finding]:
    try:
        from ftnids.doctor import stream
    except (ImportError, FtnidsError):  # the core's absence is a finding of its own
        return []
    others = [member.name for member in config.cluster.member if member.name != config.replica.name]
    return stream.examine(config.ring_name, config.replica.name, " or ".join(others), seconds)


def _snapshots(view: SetView) -> dict[str, Snapshot]:
    """The last status of each member that is there, by name."""
    return {one.name: one.snapshot for one in view.members if one.alive and one.snapshot is not None}


def members(view: SetView) -> Iterator[Finding]:
    """Who does not run, and what else is wrong with the set now."""
    states = {one.name: one.state for one in view.members}
    lines = health.problems(view)
    for line in lines:
        state = states.get(line.partition(":")[0], "")
        yield warn("set", line, WHY_SET, _HELP.get(state, "ftnids status shows the whole set"))
    if not lines:
        yield ok("set", f"{', '.join(states)} run, in one view", WHY_SET)


def clocks(view: SetView, me: str) -> Iterator[Finding]:
    """The capture clock of each peer against this replica's, as the set measures them."""
    own = _snapshots(view).get(me)
    measured = own.clocks if own is not None else {}
    if own is None or me not in measured:
        return
    for name, clock in measured.items():
        if name == me:
            continue
        # To be added to a clock for the reference's: one that is ahead has the lower.
        ahead_us = measured[me].get("offset_us", 0) - clock.get("offset_us", 0)
        sure_us = measured[me].get("tolerance_us", 0) + clock.get("tolerance_us", 0)
        side = "ahead of" if ahead_us >= 0 else "behind"
        what = f"the capture clock of {name} is {abs(ahead_us) / 1e6:.6f} s {side} that of {me} (to {sure_us} us)"
        if abs(ahead_us) > CLOCK_S * 1e6:
            do = "keep the clocks of both hosts with chrony or another NTP client, and restart the one that was wrong"
            yield warn("clock_offset", what, WHY_CLOCK, f"{do}: a replica takes the time when it starts")
        else:
            yield ok("clock_offset", what, WHY_CLOCK)


def snaplens(view: SetView) -> Iterator[Finding]:
    """Members that keep other lengths of frames do not form a set."""
    lengths = {name: one.snaplen for name, one in _snapshots(view).items()}
    if len(set(lengths.values())) > 1:
        what = "capture.snaplen differs: " + ", ".join(f"{length} on {name}" for name, length in lengths.items())
        yield fail("same_frames", what, "longer frames differ, and the set does not form", "set the same everywhere")


def _dropped(one: Snapshot) -> float:
    return sum(one.counters.get(key, 0) for key in DROPS)


def recovered(first: SetView, before: SetView, after: SetView) -> Iterator[Finding]:
    """Who recovers packets that its own drops do not explain.

    Growth is that from `before` to `after`; drops are counted from `first` on, as what is recovered was dropped
    earlier.
    """
    oldest, older, newest = _snapshots(first), _snapshots(before), _snapshots(after)
    fine = []
    for name, now in newest.items():
        got, agreed = now.counters["recovered"], now.counters["agreed"]
        unexplained = got - _dropped(now)
        then, earliest = older.get(name, now), oldest.get(name, now)
        if not earliest.pid == then.pid == now.pid or then.counters["recovered"] > got:
            then = earliest = now  # another life, in which all began anew
        grown = got - then.counters["recovered"]
        fresh = grown - max(0, _dropped(now) - _dropped(earliest))
        agreed_now = agreed - then.counters["agreed"]
        seconds = now.time - then.time
        do = (
            f"see same_frames; compare the port of {name} with the others': both directions of a tap, the same VLANs, "
            "a mirror port that is too slow (ip -s link, ethtool -S); late captures count, too (capture.cpus)"
        )
        if fresh > max(UNEXPLAINED, SHARE * agreed_now):
            what = f"{name} recovered {grown:,.0f} of {agreed_now:,.0f} packets in {seconds:.1f} s"
            what += f", {fresh:,.0f} without a drop"
            yield warn("recovered", what, WHY_RECOVERED, do)
        elif agreed_now < QUIET and unexplained > max(UNEXPLAINED, SHARE * agreed):
            what = (
                f"{name} recovered {got:,.0f} of {agreed:,.0f} packets since it runs, {unexplained:,.0f} without a drop"
            )
            yield warn("recovered", what, WHY_RECOVERED, do)
        else:
            fine.append(f"{name} {got:,.0f} of {agreed:,.0f} packets with {_dropped(now):,.0f} drops")
    if fine and len(fine) == len(newest):
        yield ok("recovered", f"recovered as drops explain: {', '.join(fine)}", WHY_RECOVERED)

"""The promises, checked against the truth while a simulation runs.

Theory of operation.  What replicas call stable is entered in a *ledger* for each view.  Views form a
tree: a view's ancestors are the views that its members came from.  Two views of which one is the
other's ancestor belong to one branch, and there the ledgers must agree seq by seq; a partition makes
branches that may differ.  At the end all replicas are in one view; the ledgers of that view
and its ancestors, put together, are the agreed stream, which must be complete, once, and in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftnids import limits
from ftnids.sync.messages import I64, U8, Flag, View
from ftnids.sync.settings import MS
from ftnids.sync.simulation.life import FOREVER, Life
from ftnids.sync.simulation.traffic import Link
from ftnids.sync.simulation.weather import Weather

UNKNOWN = -2  # no word on this seq
VOID = -1  # a packet that nobody has any more
BOUND = 20 * MS  # T
DECIDED = 500 * MS  # within this a packet is decided, also through a view change
BEFORE = 50 * MS  # a wrong clock matters to packets so long before, too


class BrokenPromiseError(AssertionError):
    """A promise did not hold."""


@dataclass(slots=True)
class Ledger:
    """What was called stable in one view, by seq: true packet (or VOID, or UNKNOWN), agreed time in us, flags, when."""

    packet: I64
    time_us: I64
    flags: U8
    at_ns: I64  # true time of the last word on it
    members: tuple[int, ...]

    @classmethod
    def empty(cls, size: int, members: tuple[int, ...]) -> Ledger:
        """Without a word on any seq below `size`."""
        numbers = np.zeros(size, np.int64)
        return cls(np.full(size, UNKNOWN), numbers, np.zeros(size, np.uint8), numbers.copy(), members)


class Judge:
    """Keeps the ledgers of one run; `broken` raises."""

    def __init__(self, weather: Weather, link: Link, captures: Sequence[I64], lateness: Sequence[I64]) -> None:
        self.weather = weather
        self.link = link
        self._spread, self._overtaken = _late(link, captures, lateness)
        self.lives: list[Life] = []
        self._ledgers: dict[View, Ledger] = {}
        self._ancestors: dict[View, set[View]] = {}
        self._clock: list[tuple[int, int, int, int]] = []  # true time; tolerance from then on, room in it, least room
        self._began_ns = 0  # all replicas were in their first view
        self.excused = 0  # bursts that came out wrong while a clock erred by more than the tolerance

    def broken(self, what: str) -> None:
        """Say that a promise did not hold."""
        raise BrokenPromiseError(f"seed {self.weather.seed}: {what}")

    # -- while it runs ---------------------------------------------------------------------------------

    def entered(self, life: Life, view: View, members: tuple[int, ...], seq: int, now: int) -> None:
        """`life` is now in `view`."""
        self._began_ns = now if life.first_seq < 0 else self._began_ns
        known = self._ledgers.get(view)
        if known is not None and known.members != members:
            self.broken(f"views: {view} has members {known.members} at one replica and {members} at r{life.me}")
        if known is None:
            self._ledgers[view] = Ledger.empty(2 * len(self.link) + 1_000, members)
        ancestors = self._ancestors.setdefault(view, set())
        if life.view.number:
            came = {life.view} | self._ancestors[life.view]
            for one in came:
                apart = [two for two in ancestors if two.lineage == one.lineage and not self._related(one, two)]
                if apart:
                    self.broken(f"views: {view} joins two branches, {one} and {apart[0]}")
            ancestors |= came
        if view in ancestors:
            self.broken(f"views: {view} comes after itself")
        if life.first_seq < 0:
            life.first_seq = life.stable = life.published_end = seq
        life.view = view

    def _related(self, one: View, two: View) -> bool:
        return one == two or one in self._ancestors[two] or two in self._ancestors[one]

    def published(self, life: Life, first_seq: int, true: I64, time_us: I64, flags: U8) -> None:
        """`life` has the bytes of these seqs and acknowledges them."""
        if first_seq != life.published_end:
            self.broken(f"agreement: r{life.me} publishes from {first_seq} after {life.published_end}")
        life.published_end += len(true)
        life.published.append((true, time_us, flags))

    def stable(self, life: Life, seq: int, now: int) -> None:
        """`life` calls everything below `seq` stable: agreement, and the meaning of stable."""
        here = self._ledgers[life.view]
        for other in self.lives:
            if other.me not in here.members or other.dead or not other.view.number or other.first_seq > seq:
                continue
            if self._related(other.view, life.view) and other.published_end < seq:
                self.broken(f"stable: r{life.me} calls {seq} stable, r{other.me} has {other.published_end}")
        first, life.stable = life.stable, seq
        if seq > life.published_end:
            self.broken(f"stable: r{life.me} calls {seq} stable and has {life.published_end}")
        true, time_us, flags = _taken(life.published, seq - first)
        if seq > len(here.packet):
            self.broken(f"completeness: {seq} packets agreed of {len(self.link)}")
        self._compare(life, first, true, time_us)
        part = slice(first, seq)
        here.packet[part], here.time_us[part], here.flags[part], here.at_ns[part] = true, time_us, flags, now

    def _compare(self, life: Life, first: int, true: I64, time_us: I64) -> None:
        part = slice(first, first + len(true))
        for view, ledger in self._ledgers.items():
            if view.lineage != life.view.lineage or not self._related(view, life.view):
                continue
            theirs = ledger.packet[part]
            known = theirs != UNKNOWN
            void = (true == VOID) | (theirs == VOID)
            differ = np.where(void, true != theirs, self.link.hash[true] != self.link.hash[theirs])
            wrong = known & (differ | (ledger.time_us[part] != time_us))
            if wrong.any():
                at = int(wrong.argmax())
                self.broken(
                    f"agreement: r{life.me} has packet {true[at]} at seq {first + at}, time {time_us[at]}; "
                    f"known in view {view.number}: packet {theirs[at]}, time {ledger.time_us[first + at]}"
                )

    def clock(self, now: int, tolerance_ns: int, room_ns: int, least_ns: int) -> None:
        """A coordinator's clocks: the widest tolerance in force, and by how much the true errors stay within theirs.

        `least_ns` is the same by the tolerances at the last packet that all know: a late stamp must fit into those.
        """
        if not self._clock or self._clock[-1][1:] != (tolerance_ns, room_ns, least_ns):
            self._clock.append((now, tolerance_ns, room_ns, least_ns))

    # -- at the end ------------------------------------------------------------------------------------

    def at_end(self, lives: Sequence[Life]) -> None:
        """All replicas are in one view, and all of its stream is stable."""
        view = lives[0].view
        if any(life.view != view for life in lives):
            self.broken("views: replicas end in different views")
        stream = self.stream(view)
        first = min(life.first_seq for life in lives)
        known = stream.packet != UNKNOWN
        length = max(life.stable for life in lives)
        if not known[first:length].all() or known[length:].any():
            self.broken("agreement: the agreed stream has a gap")
        if (np.diff(stream.time_us[known]) < 0).any():
            self.broken("order: agreed time decreases")
        agreed = stream.packet[known]
        captured = [life.stream.ids[life.start :] for life in lives]
        self._check_completeness(agreed[agreed >= 0], captured)
        if self.weather.orderly:
            self._check_order(stream, captured)
        self._check_delays(lives)
        self._check_drops()

    def stream(self, view: View) -> Ledger:
        """The agreed stream of the branch that ends in `view`."""
        whole = Ledger.empty(len(self._ledgers[view].packet), self._ledgers[view].members)
        for one in (view, *self._ancestors[view]):
            ledger = self._ledgers[one]
            known = ledger.packet != UNKNOWN
            for name in ("packet", "time_us", "flags", "at_ns"):
                getattr(whole, name)[known] = getattr(ledger, name)[known]
        return whole

    def delays_ms(self, view: View, since: int = 0) -> NDArray[np.float64]:
        """By agreed packet, of a time from `since` on: from then until the last replica called it stable."""
        stream = self.stream(view)
        here = stream.packet >= 0
        here[here] = self.link.time_ns[stream.packet[here]] >= since
        return (stream.at_ns[here] - self.link.time_ns[stream.packet[here]]) / 1e6

    def _in_force(self, times: I64) -> tuple[I64, I64, I64]:
        """By packet, around its decision: the widest tolerance, by how much all clocks kept to theirs, and least so."""
        since = np.array([at for at, *_ in self._clock])
        first = np.maximum(np.searchsorted(since, times - BEFORE, side="right") - 1, 0)
        last = np.minimum(np.searchsorted(since, np.maximum(times, self._began_ns) + DECIDED), len(since))
        spans, which = np.unique(np.stack([first, np.maximum(first + 1, last)]), axis=1, return_inverse=True)
        _, tolerance, room, least = np.array(self._clock).T
        bounds = [slice(a, b) for a, b in spans.T.tolist()]
        extremes = np.array([(tolerance[s].max(), room[s].min(), least[s].min()) for s in bounds]).T[:, which.ravel()]
        return extremes[0], extremes[1], extremes[2]

    def _check_completeness(self, agreed: I64, captured: list[I64]) -> None:
        """Once per real occurrence; between the largest replica's count and the union where ambiguous."""
        union = np.unique(np.concatenate([life.stream.ids for life in self.lives]))
        _, group, sizes = np.unique(self.link.hash, return_inverse=True, return_counts=True)
        tolerance, room, least = self._in_force(self.link.time_ns)
        w = self.weather
        repeating = w.repeats or w.collisions or w.flood  # then reordering looks like loss: decision 0012
        told = (sizes[group] == 1) & (not repeating)
        kept = (room >= 0) & np.where(self._overtaken, told, (self._spread == 0) | (self._spread <= least))
        for fault in w.faults:  # no capture clock steps; when one does, what it stamped around that time is off
            if fault.kind == "step":
                kept &= np.abs(self.link.time_ns - self.link.time_ns[0] - fault.at) > DECIDED
        ambiguous = limits.REORDER_NS + 2 * tolerance + 4 * w.jitter + (2 * w.reorder_by if w.reorder else 0)
        order = np.lexsort((self.link.time_ns, group))
        gaps = np.diff(self.link.time_ns[order])
        fresh = np.r_[True, (np.diff(group[order]) != 0) | (gaps > ambiguous[order][1:])]
        burst = np.empty(len(order), np.int64)
        burst[order] = np.cumsum(fresh) - 1
        bursts = int(burst.max()) + 1
        most = np.max([np.bincount(burst[c], minlength=bursts) for c in captured], axis=0)
        in_union = np.bincount(burst[union], minlength=bursts)
        counts = np.bincount(burst[agreed], minlength=bursts)
        excused = np.bincount(burst[~kept], minlength=bursts) > 0
        repeated = np.bincount(burst, sizes[group] > 1, minlength=bursts) > 0
        lost, twice = counts < most, counts > in_union
        self.excused += int(((lost & repeated & excused) | (twice & excused)).sum())
        for name, bad in (("lost", lost & ~(repeated & excused)), ("twice", twice & ~excused)):
            if bad.any():
                b = int(np.flatnonzero(bad)[0])
                which = np.flatnonzero(burst == b)
                self.broken(
                    f"completeness: packets {which.tolist()[:8]} at {self._ms(which[0]):.3f} ms {name}: "
                    f"agreed {counts[b]}, most {most[b]}, union {in_union[b]}; {int(bad.sum())} such"
                )

    def _ms(self, packet: int) -> float:
        return float(self.link.time_ns[packet] - self.link.time_ns[0]) / 1e6

    def _check_order(self, stream: Ledger, captured: list[I64]) -> None:
        """Packets that all had keep their order, and so do those of each replica; late ones are exempt."""
        ordinary = stream.packet[(stream.packet >= 0) & (stream.flags & Flag.LATE == 0)]
        everywhere = np.bincount(np.concatenate(captured), minlength=len(self.link)) == len(captured)
        own = [(f"r{i}'s", ordinary[np.isin(ordinary, ids)]) for i, ids in enumerate(captured)]
        for whose, mine in (("common", ordinary[everywhere[ordinary]]), *own):
            wrong = np.flatnonzero(np.diff(mine) < 0)
            if len(wrong):
                self.broken(f"order: {whose} packet {mine[wrong[0]]} before {mine[wrong[0] + 1]}")

    def _check_delays(self, lives: Sequence[Life]) -> None:
        worst = float(self.delays_ms(lives[0].view, since=self._began_ns + BOUND).max(initial=0.0))
        if self.weather.healthy and worst > BOUND / 1e6:
            self.broken(f"delay: a packet was stable {worst:.1f} ms after its capture")

    def _check_drops(self) -> None:
        """No replica's ring overflows because of another one."""
        w = self.weather
        if w.slots < w.rate * 4 * DECIDED / 1e9 or w.stall:
            return
        for life in self.lives:
            if life.stream.dropped and not life.troubled:
                self.broken(
                    f"availability: r{life.me} dropped {life.stream.dropped} packets and nothing was wrong with it"
                )


def _taken(queue: list[tuple[I64, I64, U8]], count: int) -> tuple[I64, I64, U8]:
    """Take the first `count` elements off a queue of blocks."""
    out = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8))]
    while count:
        block = queue[0]
        part = block[0][:count], block[1][:count], block[2][:count]
        if len(block[0]) <= count:
            queue.pop(0)
        else:
            queue[0] = block[0][count:], block[1][count:], block[2][count:]
        out.append(part)
        count -= len(part[0])
    return np.concatenate([p[0] for p in out]), np.concatenate([p[1] for p in out]), np.concatenate([p[2] for p in out])


def _late(link: Link, captures: Sequence[I64], lateness: Sequence[I64]) -> tuple[I64, NDArray[np.bool_]]:
    """By packet: how far apart it reached the replicas, ns, and whether later ones overtook it somewhere."""
    latest, soonest = np.zeros(len(link), np.int64), np.full(len(link), FOREVER)
    overtaken = np.zeros(len(link), bool)
    for ids, late in zip(captures, lateness, strict=True):
        latest[ids], soonest[ids] = np.maximum(latest[ids], late), np.minimum(soonest[ids], late)
        arrival = link.time_ns[ids] + late
        overtaken[ids[:-1]] |= arrival[:-1] > np.minimum.accumulate(arrival[::-1])[::-1][1:]
    return latest - np.minimum(soonest, latest), overtaken

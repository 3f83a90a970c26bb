"""The aligner: N lossy captures of one link, on one clock, become one sequence.

Theory of operation

A packet is known by its hash and its capture time, and real traffic repeats itself: one packet in
eight of the trace we measure with has a byte-identical twin, mostly microseconds away.  So the unit
is the *burst*: packets of one hash, in all captures, that follow each other within the tolerance of
the clocks.  Between bursts time tells repeats apart; inside a burst only order can.

1. *Bursts.*  A burst with at most one packet of each capture is one agreed packet: most are.
2. *Order.*  Those that several captures hold are merged into one sequence (`_topological`); its
   places are the ruler on which every other packet is measured: a packet lies between the last
   ruled packet before it and the first one after it in its own capture.
3. *Pairs.*  In every other burst, capture by capture, the most pairs are joined that the clocks and
   the ruler allow without crossing, closeness breaking ties: a banded dynamic programme where
   the band is narrow, greedy where it is wide, so that floods of one packet cost linear time.
   What stays unpaired is kept: the larger of the captures' counts survives.
4. *Reordering.*  Packets left alone whose order contradicts the ruler are joined when they
   have nobody else to belong to (`_join_reordered`).
5. *Merge.*  All packets in an order that keeps each capture's own order; where captures contradict
   each other, and between packets that no capture orders, corrected time decides.

Everything is integer arithmetic, so that the C kernel and this module agree to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftnids.sync.messages import I64, U8, U64, Flag

BAND_CELLS = 64  # cells of the pairing programme per packet of a burst; a wider band is paired greedily


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged sequence of m packets out of N captures."""

    place: I64  # [m, N] index into each input, -1 where absent
    time_ns: I64  # [m] mean of the holders' corrected times, never decreasing
    flags: U8  # [m] Flag bits


@dataclass(slots=True)
class Group:
    """One agreed packet in the making: its place in each capture, and what it may still join."""

    place: list[int]
    first_ns: int
    last_ns: int
    sum_ns: int
    holders: int
    after: int  # the ruler's place that it follows
    before: int  # the ruler's place that it precedes
    tolerance_ns: int
    flags: int = 0

    @property
    def time_ns(self) -> int:
        return self.sum_ns // self.holders


def merge(
    hashes: Sequence[U64],
    times: Sequence[I64],
    tolerance_ns: Sequence[int],
    reorder_ns: int,
    reorder_places: int,
) -> Merged:
    """Merge N >= 2 captures into one sequence.

    `hashes[r]` (uint64) and `times[r]` (int64 ns on the common clock, never decreasing) are capture
    r; `tolerance_ns[r]` bounds its clock's error against the common clock: packets of r and q
    further apart than the larger of both are two packets, unless they were reordered, which is
    looked for within `reorder_ns` and `reorder_places`.
    """
    window = _Window(hashes, times, tolerance_ns)
    groups, complex_bursts = _bursts(window)
    rule = _Ruler(window, groups)
    for burst in complex_bursts:
        groups.extend(_pair(window, rule, burst))
    groups = _join_reordered(window, rule, groups, reorder_ns, reorder_places)
    return _sequence(window, groups)


class _Window:
    """The input, end to end: packet x of the whole is packet `index[x]` of capture `owner[x]`."""

    def __init__(self, hashes: Sequence[U64], times: Sequence[I64], tolerance_ns: Sequence[int]) -> None:
        sizes = [len(h) for h in hashes]
        self.captures = len(sizes)
        self.start = np.concatenate([[0], np.cumsum(sizes)])
        self.hash = np.concatenate(list(hashes))
        self.time = np.concatenate(list(times))
        self.owner = np.repeat(np.arange(self.captures), sizes)
        self.index = np.arange(len(self.hash)) - self.start[self.owner]
        self.tolerance = [int(t) for t in tolerance_ns]

    def single(self, x: int, after: int = -1, before: int = 1 << 62) -> Group:
        """A group of packet x alone."""
        owner, time = int(self.owner[x]), int(self.time[x])
        place = [-1] * self.captures
        place[owner] = int(self.index[x])
        return Group(place, time, time, time, 1, after, before, self.tolerance[owner])


def _bursts(window: _Window) -> tuple[list[Group], list[list[int]]]:
    """Split the window into bursts: the groups of those with one packet a capture, and the others."""
    order = np.lexsort((window.time, window.hash))
    hashes, times, owners = window.hash[order], window.time[order], window.owner[order]
    widest = max(window.tolerance)
    starts = np.flatnonzero(
        np.concatenate([[True], (hashes[1:] != hashes[:-1]) | (times[1:] - times[:-1] > widest)])
    ) if len(order) else np.empty(0, np.int64)
    groups: list[Group] = []
    bursts: list[list[int]] = []
    ends = np.append(starts[1:], len(order))
    for a, b in zip(starts.tolist(), ends.tolist()):
        members = order[a:b].tolist()
        if b - a == 1:
            groups.append(window.single(members[0]))
        elif len(set(owners[a:b].tolist())) == b - a and _fits(window, members):
            group = window.single(members[0])
            for x in members[1:]:
                _join(group, window.single(x))
            groups.append(group)
        else:
            bursts.append(members)
    return groups, bursts


def _fits(window: _Window, members: list[int]) -> bool:
    for i, x in enumerate(members):
        for y in members[i + 1:]:
            if abs(int(window.time[x]) - int(window.time[y])) > max(window.tolerance[window.owner[x]], window.tolerance[window.owner[y]]):
                return False
    return True


def _join(group: Group, other: Group) -> None:
    group.place = [max(p, q) for p, q in zip(group.place, other.place)]
    group.first_ns = min(group.first_ns, other.first_ns)
    group.last_ns = max(group.last_ns, other.last_ns)
    group.sum_ns += other.sum_ns
    group.holders += other.holders
    group.after = max(group.after, other.after)
    group.before = min(group.before, other.before)
    group.tolerance_ns = max(group.tolerance_ns, other.tolerance_ns)
    group.flags |= other.flags


class _Ruler:
    """The order of the packets that are certain, as a measure for the others."""

    def __init__(self, window: _Window, groups: list[Group]) -> None:
        ruled = [g for g in groups if g.holders > 1]
        order, broken = topological(ruled, window.captures)
        self.index: list[list[int]] = [[] for _ in range(window.captures)]
        self.place: list[list[int]] = [[] for _ in range(window.captures)]
        for place, g in enumerate(order):
            if g in broken:
                continue
            for r, i in enumerate(ruled[g].place):
                if i >= 0:
                    self.index[r].append(i)
                    self.place[r].append(place)
        self.broken = {id(ruled[g]) for g in broken}

    def measure(self, owner: int, index: int) -> tuple[int, int]:
        """The places that packet `index` of capture `owner` follows and precedes."""
        import bisect
        at = bisect.bisect_left(self.index[owner], index)
        after = self.place[owner][at - 1] if at else -1
        before = self.place[owner][at] if at < len(self.place[owner]) else 1 << 62
        return after, before


def topological(groups: list[Group], captures: int) -> tuple[list[int], set[int]]:
    """Order `groups` so that each capture's order is kept; returns the order and those that broke it."""
    sequences: list[list[int]] = []
    for r in range(captures):
        held = sorted((g.place[r], i) for i, g in enumerate(groups) if g.place[r] >= 0)
        sequences.append([i for _, i in held])
    at = [{g: k for k, g in enumerate(s)} for s in sequences]
    head = [0] * captures
    waiting = [g.holders for g in groups]
    done = [False] * len(groups)
    time = [g.time_ns for g in groups]
    order: list[int] = []
    broken: set[int] = set()

    def arrive(r: int) -> None:
        s = sequences[r]
        while head[r] < len(s) and done[s[head[r]]]:
            head[r] += 1
        if head[r] < len(s):
            waiting[s[head[r]]] -= 1

    def leave(g: int) -> None:
        for r in range(captures):
            if head[r] < len(sequences[r]) and sequences[r][head[r]] == g:
                head[r] += 1
                arrive(r)

    for r in range(captures):
        arrive(r)
    while True:
        heads = [(time[s[h]], r, s[h]) for r, (s, h) in enumerate(zip(sequences, head)) if h < len(s)]
        if not heads:
            break
        ready = [x for x in heads if waiting[x[2]] == 0]
        if ready:
            g = min(ready)[2]
            done[g] = True
            order.append(g)
            leave(g)
            continue
        def distance(g: int) -> int:
            return max(at[r][g] - head[r] for r in range(captures) if g in at[r])
        _, odd = max((distance(g), -g) for _, _, g in heads)
        odd = -odd
        broken.add(odd)
        if time[odd] <= min(t for t, _, g in heads if g != odd):
            done[odd] = True
            order.append(odd)
        leave(odd)
    return order, broken


def _pair(window: _Window, rule: _Ruler, burst: list[int]) -> list[Group]:
    groups: list[Group] = []
    counts = []
    for r in range(window.captures):
        own = []
        for x in burst:
            if window.owner[x] == r:
                own.append(window.single(x, *rule.measure(r, int(window.index[x]))))
        if own:
            counts.append(len(own))
            groups = _match(groups, own)
    if len(set(counts)) > 1:
        for g in groups:
            g.flags |= int(Flag.AMBIGUOUS)
    return groups


def _allowed(g: Group, e: Group) -> bool:
    return (
        max(g.last_ns, e.last_ns) - min(g.first_ns, e.first_ns) <= max(g.tolerance_ns, e.tolerance_ns)
        and max(g.after, e.after) < min(g.before, e.before)
    )


def _match(groups: list[Group], own: list[Group]) -> list[Group]:
    if not groups:
        return own
    p, q = len(groups), len(own)
    BIG = 1 << 40
    if p * q > 1 << 14:
        pairs = []
        j = 0
        for i in range(p):
            while j < q and not _allowed(groups[i], own[j]) and own[j].first_ns < groups[i].first_ns:
                j += 1
            if j < q and _allowed(groups[i], own[j]):
                pairs.append((i, j)); j += 1
    else:
        f = [[0] * (q + 1) for _ in range(p + 1)]
        for i in range(1, p + 1):
            for j in range(1, q + 1):
                best = max(f[i - 1][j], f[i][j - 1])
                if _allowed(groups[i - 1], own[j - 1]):
                    best = max(best, f[i - 1][j - 1] + BIG - abs(groups[i - 1].time_ns - own[j - 1].time_ns))
                f[i][j] = best
        pairs = []
        i, j = p, q
        while i and j:
            if f[i][j] == f[i - 1][j]:
                i -= 1
            elif f[i][j] == f[i][j - 1]:
                j -= 1
            else:
                i -= 1; j -= 1
                pairs.append((i, j))
    joined = set()
    for i, j in pairs:
        _join(groups[i], own[j]); joined.add(j)
    rest = [e for j, e in enumerate(own) if j not in joined]
    return sorted(groups + rest, key=lambda g: g.time_ns)


def _join_reordered(window: _Window, rule: _Ruler, groups: list[Group], reorder_ns: int, reorder_places: int) -> list[Group]:
    return groups


def _sequence(window: _Window, groups: list[Group]) -> Merged:
    order, _ = topological(groups, window.captures)
    place = np.array([groups[g].place for g in order], np.int64).reshape(-1, window.captures)
    time = np.maximum.accumulate(np.array([groups[g].time_ns for g in order], np.int64))
    return Merged(place, time, np.array([groups[g].flags for g in order], np.uint8))


def aligner(name: str):
    """The merge function by its name: "default" or "difflib"."""
    return {"default": merge}[name]

"""The aligner in pure Python: the twin of `ftnids/core/merge.c`, equal to it to the bit.

Theory of operation

A packet is known by its hash and its capture time, and real traffic repeats itself: one packet in
eight of the trace that we measure with has a byte-identical twin, mostly microseconds away.  So the
unit is the *burst*: the packets of one hash, in all captures, that follow each other within the
tolerance of the clocks.  Between bursts time tells repeats apart; inside a burst order and
closeness do.

1. *Bursts.*  A burst with at most one packet of each capture is one agreed packet; most are.
2. *Ruler.*  The agreed packets whose hash occurs in no other burst and that several captures hold are put
   into one order.  Its places are the ruler on which every other packet is measured: a packet lies
   between the last ruled packet before it and the first one after it in its own capture.
   Packets whose order contradicts the others' are left out.
3. *Pairs.* In every other burst, capture by capture, packets are paired without crossing, where the clocks
   allow it. In a burst of a few tolerances little tells repeats apart: the most pairs win, rather such as the
   ruler allows, so that the larger count survives; closeness breaks ties. In a longer one, a flood, that would
   shift one capture against the other to win a pair: there the ruler must allow a pair, and two packets, each
   lost by all who do not hold it, must be less likely than its distance and the silence that it spans. Of more
   than two captures the fullest goes first. It is a banded dynamic programme; a band too wide is paired
   greedily, so that no input costs more than linear time.
4. *Reordering.*  Packets left over in two captures, in an order that contradicts the ruler, are joined
   where reordering explains them better than loss does.
5. *Merge.*  All packets in an order that keeps each capture's own; where captures contradict each
   other, and between packets that no capture orders, time decides.

Integers only.  The C kernel's cost is that of sorting, whatever the input.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ftnids.sync.messages import I64, U8, U64, Flag

BAND = 16  # cells of the pairing programme for each packet of a burst; a wider band is paired greedily
SHORT = 4  # tolerances; in a longer burst the count of pairs does not come first
SCORE_BITS = 20  # of a time in a score: 2**46 for a pair at most, and 2**16 pairs fit an int64
MOST_PAIRS = 64  # what a pair is worth where the count comes first, in tolerances squared
SURPRISES = 256  # surprises that are worth a tolerance squared: 16 are one bit
SURPRISE = 44  # of two repeats so close
SEEN = 256  # packets that occur once; fewer show nothing of loss ...
UNKNOWN = 896  # ... and this is the surprise of two captures; of more, the most pairs win
REALIGN = 64  # packets of a burst of more than two captures that is gone over once more ...
REALIGNED = 512  # ... and these, times its captures
EVIDENCE = 4  # reordered packets in one window from which on reordering counts as seen ...
ENOUGH = 2_048  # ... among so many: in a short window repeats and a poor clock look the same
BEFORE_ALL, BEHIND_ALL = -1, 1 << 31  # places on the ruler
FOREVER = 1 << 62  # ns
ONE = 1 << 16  # a share, in fixed point
UP, LEFT, DIAGONAL = range(3)


class Packet(NamedTuple):
    """One captured packet."""

    capture: int
    place: int  # in it
    time_ns: int
    tolerance_ns: int


class Group:
    """One agreed packet in the making: a captured packet, and those of other captures that joined it."""

    __slots__ = ("after", "before", "first_ns", "flags", "last_ns", "packets", "sum_ns", "tolerance_ns")

    def __init__(self, packet: Packet, between: tuple[int, int] = (BEFORE_ALL, BEHIND_ALL)) -> None:
        self.packets = [packet]
        self.first_ns = self.last_ns = self.sum_ns = packet.time_ns
        self.tolerance_ns = packet.tolerance_ns  # the widest
        self.after, self.before = between  # places on the ruler
        self.flags = 0

    @property
    def time_ns(self) -> int:
        """The mean of the packets' times."""
        return self.sum_ns // len(self.packets)

    def join(self, other: Group) -> None:
        """Become the packet that both are."""
        self.packets += other.packets
        self.first_ns = min(self.first_ns, other.first_ns)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.sum_ns += other.sum_ns
        self.tolerance_ns = max(self.tolerance_ns, other.tolerance_ns)
        self.after = max(self.after, other.after)
        self.before = min(self.before, other.before)

    def fits(self, other: Group) -> bool:
        """Whether the clocks allow both to be one packet."""
        spread = max(self.last_ns, other.last_ns) - min(self.first_ns, other.first_ns)
        return spread <= max(self.tolerance_ns, other.tolerance_ns)

    def contradicts(self, other: Group) -> bool:
        """Whether a ruled packet lies between them."""
        return max(self.after, other.after) >= min(self.before, other.before)

    def precedes(self, other: Group) -> bool:
        """Whether it comes first: by the ruler, else by time."""
        if self.contradicts(other):
            return self.before <= other.after
        return self.time_ns <= other.time_ns


def merge(
    hashes: Sequence[U64], times: Sequence[I64], tolerance_ns: Sequence[int], reorder_ns: int, reorder_places: int
) -> tuple[I64, I64, U8]:
    """`ftnids.sync.align.merge`, as arrays: place [m, N], time_ns [m], flags [m]."""
    captures = len(hashes)
    by_hash = list(_by_hash(hashes, times, tolerance_ns))
    simple = [[_fused(burst) if _is_simple(burst) else None for burst in bursts] for bursts in by_hash]
    ruler = Ruler([g for same in simple if len(same) == 1 for g in same if g and len(g.packets) > 1], captures)
    surprises = _surprises([same[0] for same in simple if len(same) == 1 and same[0]], captures)
    scale = max(max(tolerance_ns).bit_length() - SCORE_BITS, 0)
    paired: list[list[Group]] = []  # for each hash its agreed packets in time order
    for bursts, fused in zip(by_hash, simple, strict=True):
        paired.append([])
        for burst, group in zip(bursts, fused, strict=True):
            paired[-1] += [group] if group else _pair(burst, ruler, surprises, scale)
    _join_reordered(paired, captures, ruler, reorder_ns, reorder_places)
    groups = [g for same in paired for g in same]
    return as_arrays([groups[g] for g in topological(groups, captures)[0]], captures)


def as_arrays(groups: Sequence[Group], captures: int) -> tuple[I64, I64, U8]:
    """Ordered groups as place [m, N], time_ns [m], flags [m]."""
    place = np.full((len(groups), captures), -1, np.int64)
    for row, group in enumerate(groups):
        for packet in group.packets:
            place[row, packet.capture] = packet.place
    time = np.array([group.time_ns for group in groups], np.int64)
    flags = np.array([group.flags for group in groups], np.uint8)
    return place, np.maximum.accumulate(time) if len(time) else time, flags


# -- bursts --------------------------------------------------------------------------------------


def _by_hash(hashes: Sequence[U64], times: Sequence[I64], tolerance_ns: Sequence[int]) -> Iterator[list[list[Packet]]]:
    """For each hash its bursts; bursts and their packets in order of time, capture, index."""
    hash_, time = np.concatenate(list(hashes)), np.concatenate(list(times))
    sizes = [len(h) for h in hashes]
    order = np.lexsort((time, hash_))  # stable: equal times stay in order of capture and index
    owner = np.repeat(np.arange(len(sizes)), sizes)[order].tolist()
    index = np.concatenate([np.arange(size) for size in sizes])[order].tolist()
    fresh = np.flatnonzero(np.diff(hash_[order]) != 0) + 1
    packets = [Packet(r, i, t, tolerance_ns[r]) for r, i, t in zip(owner, index, time[order].tolist(), strict=True)]
    for a, b in pairwise([0, *fresh.tolist(), len(packets)] if packets else []):
        widest = max(packet.tolerance_ns for packet in packets[a:b])
        cuts = [i for i in range(a + 1, b) if packets[i].time_ns - packets[i - 1].time_ns > widest]
        yield [packets[i:j] for i, j in pairwise([a, *cuts, b])]


def _is_simple(burst: list[Packet]) -> bool:
    """Whether the burst is one agreed packet: at most one packet of each capture, in tolerance of each other."""
    apart = burst[-1].time_ns - burst[0].time_ns
    return len({p.capture for p in burst}) == len(burst) and apart <= max(p.tolerance_ns for p in burst)


def _fused(packets: Iterable[Packet], ruler: Ruler | None = None) -> Group:
    """The group of `packets`, at most one of each capture, measured if there is a ruler."""
    group, *others = (Group(packet, ruler.measure(packet)) if ruler else Group(packet) for packet in packets)
    for other in others:
        group.join(other)
    return group


# -- order ---------------------------------------------------------------------------------------


def topological(groups: Sequence[Group], captures: int) -> tuple[list[int], set[int]]:
    """Order `groups` so that each capture's order is kept, by time where no capture orders them.

    Where captures contradict each other, the packet that is furthest out of place gives way: it goes
    to the earlier or the later of its places, by its time.  A packet must not overtake, thanks to another one
    that gave way, one that is older by more than stamps of one packet differ: then the oldest gives way.
    Returns the order and the set of the packets that gave way, as indices.
    """
    held: list[list[tuple[int, int]]] = [[] for _ in range(captures)]
    for g, group in enumerate(groups):
        for packet in group.packets:
            held[packet.capture].append((packet.place, g))
    sequences = [[g for _, g in sorted(own)] for own in held]
    rank = [{g: k for k, g in enumerate(sequence)} for sequence in sequences]
    time = [group.time_ns for group in groups]
    apart = 2 * max((group.last_ns - group.first_ns for group in groups), default=0)
    waiting = [len(group.packets) for group in groups]  # captures that have yet to reach it
    done = [False] * len(groups)
    head = [0] * captures
    order: list[int] = []
    broken: set[int] = set()

    def arrive(r: int) -> None:
        """Go over what is done and stand before the next packet."""
        sequence = sequences[r]
        while head[r] < len(sequence) and done[sequence[head[r]]]:
            head[r] += 1
        if head[r] < len(sequence):
            waiting[sequence[head[r]]] -= 1

    def out_of_place(g: int) -> int:
        return max(rank[r][g] - head[r] for r in range(captures) if g in rank[r])

    for r in range(captures):
        arrive(r)
    while heads := [(time[s[h]], r, s[h]) for r, (s, h) in enumerate(zip(sequences, head, strict=True)) if h < len(s)]:
        oldest = min(heads)
        ready = min((entry for entry in heads if waiting[entry[2]] == 0), default=None)
        if ready and ready[0] - oldest[0] <= apart:
            chosen, now = ready[2], True
        elif ready:
            chosen, now = oldest[2], True
            broken.add(chosen)
        else:
            chosen = max(heads, key=lambda entry: (out_of_place(entry[2]), -entry[1]))[2]
            now = time[chosen] <= min(t for t, _, g in heads if g != chosen)
            broken.add(chosen)
        if now:
            done[chosen] = True
            order.append(chosen)
        for _, r, g in heads:
            if g == chosen:
                head[r] += 1
                arrive(r)
    return order, broken


class Ruler:
    """The order of the packets that are certain, to measure the others with."""

    def __init__(self, groups: list[Group], captures: int) -> None:
        order, broken = topological(groups, captures)
        self.ruled, self.broken = len(order), len(broken)
        self._index: list[list[int]] = [[] for _ in range(captures)]  # of the ruled packets; increasing
        self._place: list[list[int]] = [[] for _ in range(captures)]  # increasing too
        for place, g in enumerate(order):
            for packet in groups[g].packets if g not in broken else ():
                self._index[packet.capture].append(packet.place)
                self._place[packet.capture].append(place)

    def measure(self, packet: Packet) -> tuple[int, int]:
        """The places that `packet` follows and precedes in its own capture."""
        index, place = self._index[packet.capture], self._place[packet.capture]
        low, high = bisect_left(index, packet.place), bisect_right(index, packet.place)
        return place[low - 1] if low else BEFORE_ALL, place[high] if high < len(place) else BEHIND_ALL


# -- pairs ---------------------------------------------------------------------------------------


class _Scores:
    """What a pair of a burst is worth."""

    def __init__(self, burst: list[Packet], surprises: Sequence[int], scale: int) -> None:
        self._times = [packet.time_ns for packet in burst]
        self._short = burst[-1].time_ns - burst[0].time_ns <= SHORT * max(packet.tolerance_ns for packet in burst)
        self._surprises = surprises
        self._scale = scale

    def score(self, g: Group, h: Group) -> int:
        """The worth, in units of time squared; a pair below zero is not made."""
        tolerance = max(g.tolerance_ns, h.tolerance_ns) >> self._scale
        distance = abs(g.time_ns - h.time_ns) >> self._scale
        if self._short:
            return (MOST_PAIRS * tolerance**2 - distance**2) >> g.contradicts(h)  # the ruler may be wrong
        if g.contradicts(h):
            return -1
        silence = self._silence(*sorted((g.time_ns, h.time_ns))) >> self._scale
        surprise = SURPRISE + sum(self._surprises[packet.capture] for packet in (*g.packets, *h.packets))
        return min(surprise, MOST_PAIRS * SURPRISES) * tolerance**2 // SURPRISES - distance**2 - 3 * silence**2

    def _silence(self, first: int, last: int) -> int:
        """The longest time between `first` and `last` without a packet of the burst."""
        between = self._times[bisect_right(self._times, first) : bisect_left(self._times, last)]
        return max(b - a for a, b in pairwise([first, *between, last]))


def _surprises(certain: Sequence[Group], captures: int) -> list[int]:
    """How surprising it is that each capture loses a packet: by those that occur just once."""
    if len(certain) < SEEN:
        return [UNKNOWN if captures == 2 else MOST_PAIRS * SURPRISES] * captures
    kept = np.bincount([packet.capture for group in certain for packet in group.packets], minlength=captures)
    return [_surprise(len(certain) + 1 - k, len(certain) + 1) for k in kept.tolist()]


def _surprise(part: int, total: int) -> int:
    """Sixteen times the logarithm to base 2 of `total / part`, 0 < part <= total; straight lines between powers."""
    share = max(part * ONE // total, 1)
    whole = share.bit_length() - 1
    return 16 * 16 - 16 * whole - ((share << 4 >> whole) - 16)


def _pair(burst: list[Packet], ruler: Ruler, surprises: Sequence[int], scale: int) -> list[Group]:
    """The agreed packets of a burst in which some capture has several."""
    scores = _Scores(burst, surprises, scale)
    captures = sorted({packet.capture for packet in burst})
    own = {r: [packet for packet in burst if packet.capture == r] for r in captures}
    groups: list[Group] = []
    taking_part, most = len(own), max(map(len, own.values()))
    for r in sorted(captures, key=lambda r: -len(own[r])) if taking_part > 2 else captures:
        groups = _matched(groups, [_fused([p], ruler) for p in own[r]], scores)
    if taking_part > 2 and len(burst) <= REALIGN and len(burst) * taking_part <= REALIGNED:
        for r in captures:
            if len(groups) > most:
                groups = _realigned(groups, r, own[r], ruler, scores)
    for group in groups:
        if len(group.packets) < taking_part or group.after >= group.before:
            group.flags |= Flag.AMBIGUOUS
    return groups


def _realigned(groups: list[Group], r: int, packets: list[Packet], ruler: Ruler, scores: _Scores) -> list[Group]:
    """Match capture `r` once more, now that all the others are there; `groups` if that leaves no fewer."""
    others = [[p for p in group.packets if p.capture != r] for group in groups]
    rest = [_fused(left, ruler) for left in others if left]
    again = _matched(rest, [_fused([p], ruler) for p in packets], scores)
    return again if len(again) < len(groups) else groups


def _matched(groups: list[Group], own: list[Group], scores: _Scores) -> list[Group]:
    """`groups` and the packets `own` of one more capture as one sequence, pairs joined."""
    bands = _bands(groups, own)
    cells = sum(high - low + 1 for low, high in bands)
    wide = cells > BAND * (len(groups) + len(own))
    pairs = _greedy(groups, own, bands) if wide else _programme(groups, own, bands, scores)
    sequence: list[Group] = []
    i = j = 0
    for pair_i, pair_j in [*pairs, (len(groups), len(own))]:
        while i < pair_i or j < pair_j:
            if j == pair_j or (i < pair_i and groups[i].precedes(own[j])):
                sequence.append(groups[i])
                i += 1
            else:
                sequence.append(own[j])
                j += 1
        if i < len(groups) and j < len(own):
            groups[i].join(own[j])
            sequence.append(groups[i])
            i, j = i + 1, j + 1
    return sequence


def _bands(groups: list[Group], own: list[Group]) -> list[tuple[int, int]]:
    """For each group the half-open range of `own` that the clocks may allow; neither end ever falls."""
    bands = []
    low = high = 0
    for g in groups:
        while low < len(own) and g.last_ns - own[low].first_ns > max(g.tolerance_ns, own[low].tolerance_ns):
            low += 1
        high = max(high, low)
        while high < len(own) and own[high].first_ns - g.first_ns <= max(g.tolerance_ns, own[high].tolerance_ns):
            high += 1
        bands.append((low, high))
    return bands


def _greedy(groups: list[Group], own: list[Group], bands: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pair each group with the first packet that is left in its band."""
    pairs = []
    free = 0
    for i, (low, high) in enumerate(bands):
        j = max(low, free)
        if j < high and groups[i].fits(own[j]):
            pairs.append((i, j))
            free = j + 1
    return pairs


def _programme(
    groups: list[Group], own: list[Group], bands: list[tuple[int, int]], scores: _Scores
) -> list[tuple[int, int]]:
    """Pairs (i, j) without crossings of the largest total score."""
    moves: list[list[int]] = []  # for each group, for j = low .. high: how the best total was reached
    above, above_low = [0], 0  # the row before: totals for j = above_low, above_low + 1, ...
    for g, (low, high) in zip(groups, bands, strict=True):
        row: list[int] = []
        move: list[int] = []
        for j in range(low, high + 1):
            best, how = above[min(j - above_low, len(above) - 1)], UP
            if j > low and row[-1] > best:
                best, how = row[-1], LEFT
            if j > low and g.fits(own[j - 1]):
                total = above[min(j - 1 - above_low, len(above) - 1)] + scores.score(g, own[j - 1])
                if total >= best:
                    best, how = total, DIAGONAL
            row.append(best)
            move.append(how)
        moves.append(move)
        above, above_low = row, low
    pairs = []
    i, j = len(groups), len(own)
    while i:
        low, high = bands[i - 1]
        j = min(j, high)
        how = moves[i - 1][j - low]
        if how == DIAGONAL:
            pairs.append((i - 1, j - 1))
        i -= how != LEFT
        j -= how != UP
    return pairs[::-1]


# -- reordering ----------------------------------------------------------------------------------


def _join_reordered(
    paired: list[list[Group]], captures: int, ruler: Ruler, reorder_ns: int, reorder_places: int
) -> None:
    """Join packets that are left over in two captures, in place.

    Two packets of one hash, left over in different captures and out of order, may also be a repeat of which each
    capture lost another copy.  Where a hash has just two packets within the reorder window, repeats that
    some capture shows to be two tell how many such to expect; only more than twice as many count as reordered.
    Hashes with more packets, and packets further apart, are joined when reordering is seen elsewhere in the
    window: when more packets are out of order than both captures would lose by chance, on a ruler that is dense.
    """

    def suspect(g: Group, h: Group, within_ns: int) -> bool:
        if h.first_ns - g.first_ns > within_ns or _share(g, h):
            return False
        g, h = (_fused(x.packets, ruler) for x in (g, h))
        between = max(g.after, h.after) - min(g.before, h.before) + 1
        return 0 < between <= reorder_places

    def join(g: Group, h: Group) -> None:
        g.join(h)
        g.sum_ns = g.first_ns * len(g.packets)  # reordering delays
        g.flags |= Flag.AMBIGUOUS

    total = sum(map(len, paired))
    lacking = [total] * captures  # agreed packets that each capture lacks
    for packet in (packet for same in paired for g in same for packet in g.packets):
        lacking[packet.capture] -= 1
    twos = [same for same in paired if len(same) == 2 and same[1].first_ns - same[0].first_ns <= reorder_ns]
    suspects = [same for same in twos if suspect(same[0], same[1], reorder_ns)]
    repeats = sum(_share(same[0], same[1]) for same in twos)
    seen = ruler.broken
    if _outnumber(len(suspects), repeats, lacking, total):
        seen += len(suspects)
        for same in suspects:
            join(same[0], same.pop())
    if seen < EVIDENCE or total < ENOUGH:
        return

    def explained(g: Group, h: Group) -> bool:
        lost = lacking[min(p.capture for p in g.packets)] * lacking[min(p.capture for p in h.packets)]
        return 2 * ruler.ruled > total and seen * total * total > ruler.ruled * lost

    for same in paired:
        gone = []
        last = -1  # the latest that some capture lacks
        for i, g in enumerate(same):
            if len(g.packets) == captures:
                continue
            within = FOREVER if last == i - 1 >= 0 and _apart(same, last) else reorder_ns
            if last >= 0 and suspect(same[last], g, within) and explained(same[last], g):
                join(same[last], g)
                gone.append(i)
            else:
                last = i
        for i in reversed(gone):
            del same[i]


def _share(g: Group, h: Group) -> bool:
    """Whether some capture has both."""
    captures = {packet.capture for packet in g.packets}
    return any(packet.capture in captures for packet in h.packets)


def _outnumber(suspects: int, repeats: int, lacking: list[int], total: int) -> bool:
    """Whether there are more than twice as many suspects as loss makes of repeats.

    `repeats` is how many some capture shows to be two packets.  The chance that captures which lose
    independently show a repeat so, and that they show it as one packet each, follow from what
    they lack; in fixed point, so that both kernels agree.
    """
    none = unseen = ONE  # no capture has both packets; no capture has the first one
    for lost in lacking:
        loss = lost * ONE // max(total, 1)
        none = none * (ONE - (ONE - loss) * (ONE - loss) // ONE) // ONE
        unseen = unseen * loss // ONE
    apart = max(none - 2 * unseen + unseen * unseen // ONE, 0)
    return suspects * (ONE - none) > 2 * repeats * apart


def _apart(same: list[Group], i: int) -> bool:
    """Whether groups i and i + 1 are closer to each other than to their other neighbours."""
    gap = same[i + 1].first_ns - same[i].first_ns
    return (i == 0 or same[i].first_ns - same[i - 1].first_ns > gap) and (
        i + 2 == len(same) or same[i + 2].first_ns - same[i + 1].first_ns > gap
    )

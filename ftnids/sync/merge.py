"""The merger: pending streams of all members in, agreed packets out.

Theory of operation

`decide` settles what is certain, in this order:

* A *clean stretch*: the members' next packets are equal, hash by hash and within the clocks'
  tolerance.  It costs a few vector comparisons and needs no watermark.
* A *dirty window*: all that is pending (at most MAX_WINDOW of each member) is aligned, and the
  merged sequence is settled up to the last anchor, or up to the horizon, whichever is further.

An *anchor* is a run of l packets, all different, that every member holds contiguously: what comes
later comes behind it.  The *horizon* is a time: every member's watermark has passed it by more
than the tolerance and the reorder window, so nothing can come that belongs before it.

Packets beyond the cut stay pending, in capture order; nothing settled is looked at again.  What comes
in after its time was settled is dropped when the history shows it to be a copy that its
sender lacked, else appended as late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash

from ftnids import limits
from ftnids.sync import align, clocks
from ftnids.sync.history import History
from ftnids.sync.messages import I64, U8, U32, U64, Flag
from ftnids.sync.pending import FOREVER, NEVER, Stream, Summary

CLEAN_WORTH = 1_024  # a clean stretch this long is settled by itself, a shorter one with the window it leads
TRAIN = 63  # packets of a clean stretch that train the clocks ...
TRAIN_WITHIN = 512  # ... out of its first
AMBIGUOUS, LATE, CLAMPED = (np.uint8(f) for f in (Flag.AMBIGUOUS, Flag.LATE, Flag.CLAMPED))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the merger must know of the protocol's parameters."""

    k: int = 56
    l: int = 8  # noqa: E741 - the paper's name
    max_desync: int = 16
    reorder_ns: int = limits.REORDER_NS
    reorder_places: int = limits.REORDER_PLACES
    aligner: str = "default"


@dataclass(slots=True)
class Settled:
    """n packets whose place in the agreed stream is fixed; columns of `places` are the members in order."""

    hash: U64
    time_us: I64  # agreed: whole us on the reference clock, never decreasing
    places: I64  # [n, N] absolute positions, -1 absent
    flags: U8  # Flag bits
    skipped: dict[int, I64] = field(default_factory=dict)  # positions consumed without an entry of their own
    cut_ns: int = 0  # reference clock: all before it is settled


class Merger:
    """Merges the members' capture streams; `start` gives their first positions (default 0)."""

    def __init__(
        self, members: Sequence[int], reference: int, settings: Settings, *, start: Mapping[int, int] | None = None
    ) -> None:
        if reference not in members:
            raise ValueError(f"the reference {reference} is not one of the members {list(members)}")
        self.members = tuple(members)
        self.reference = reference
        self._settings = settings
        self._merge = align.aligner(settings.aligner)
        self._streams = {m: Stream((start or {}).get(m, 0), clocks.Clock()) for m in members}
        self._streams[reference].clock.set_offset(0, 0)
        self._live = list(members)
        self._history = History()
        self._cut_ns = NEVER
        self._last_us = NEVER
        self._wanted: list[tuple[int, int, int]] = []
        self.ambiguous = self.late = self.clamped = 0
        self.rounds = self.dirty_rounds = self.desync_level = self.max_desync = 0
        self._round_left = 0  # packets short of a whole round

    # -- what comes in -------------------------------------------------------------------------

    def add(self, member: int, position: int, hashes: U64, time_ns: I64) -> None:
        """Packets of `member` from `position` on, raw times; ValueError on a gap, known ones are ignored."""
        self._streams[member].add(position, hashes, time_ns)

    def add_clusters(self, member: int, position: int, k: int, cluster: U64, first_ns: I64, last_ns: I64) -> None:
        """Clusters of `k` packets: XXH3-64 of their hashes, and the raw times of the first and last packet."""
        self._streams[member].add_clusters(position, k, cluster, first_ns, last_ns)

    def add_detail(self, member: int, position: int, hashes: U64, time_ns: I64) -> None:
        """The packets behind summaries, as `wanted` asked for them."""
        self._streams[member].answer(position, hashes, time_ns)

    def watermark(self, member: int, time_ns: int, end: bool = False) -> None:
        """All that `member` captured up to `time_ns` (raw) has been added; `end`: nothing will follow at all."""
        stream = self._streams[member]
        stream.watermark_ns = max(stream.watermark_ns, time_ns)
        stream.ended = stream.ended or end

    def set_offset(self, member: int, offset_ns: int, tolerance_ns: int) -> None:
        """Seed a member's clock: add `offset_ns` to get the reference's, right to `tolerance_ns`."""
        if member != self.reference:
            self._streams[member].clock.set_offset(offset_ns, tolerance_ns)

    def drop_member(self, member: int) -> None:
        """Go on without `member`; what it reported and nobody settled goes with it."""
        if member == self.reference:
            raise ValueError("the reference cannot leave; begin a new merger on another reference")
        self._live.remove(member)
        self._streams[member] = Stream(self._streams[member].consumed, self._streams[member].clock)

    # -- where things stand --------------------------------------------------------------------

    def reported(self, member: int) -> int:
        """The position that `member` must report next."""
        return self._streams[member].reported

    def consumed(self, member: int) -> int:
        """The lowest position of `member` that no decision has consumed."""
        return self._streams[member].consumed

    def pending(self, member: int) -> int:
        """Packets of `member` that are reported and not settled."""
        return self._streams[member].pending

    def offset_ns(self, member: int) -> int:
        """What to add to the member's clock for the reference's."""
        return self._streams[member].clock.offset_ns()

    def tolerance_ns(self, member: int) -> int:
        """How far the member's corrected times may err."""
        return self._streams[member].clock.tolerance_ns()

    def history(self) -> tuple[U64, I64]:
        """Hashes and times (ns, reference clock) of the last settled packets, oldest first."""
        return self._history.hash.copy(), self._history.time_ns.copy()

    def wanted(self) -> list[tuple[int, int, int]]:
        """Summarised stretches (member, position, count) that must be known in detail."""
        return list(self._wanted)

    # -- deciding ----------------------------------------------------------------------------------

    def decide(self) -> Settled | None:
        """Settle what can be settled now, boundedly much; call again while it returns something."""
        streams = [self._streams[m] for m in self._live]
        for stream in streams:
            stream.fold()
        self._resolve_summaries()
        clean = self._clean(streams)
        shortest = min(min(len(s.position) for s in streams), limits.MAX_WINDOW)
        if clean and (clean == shortest or clean >= CLEAN_WORTH):
            return self._settle_clean(streams, clean)
        return self._settle_dirty(streams) or (self._settle_clean(streams, clean) if clean else None)

    def _corrected(self, stream: Stream, count: int) -> I64:
        return stream.clock.correct(stream.time_ns[:count])

    def _clean(self, streams: list[Stream]) -> int:
        """Length of the stretch in which all members' next packets are equal and agree in time."""
        reference = self._streams[self.reference]
        count = min(min(len(s.position) for s in streams), limits.MAX_WINDOW)
        for stream in streams:
            if stream is reference or count == 0:
                continue
            count = _leading(reference.hash[:count] == stream.hash[:count])
            if count == 0:
                break
            if not stream.clock.known:
                return 0
            times = self._corrected(stream, count)
            tolerance = stream.clock.tolerance_ns(int(stream.time_ns[count - 1]))
            count = _leading(np.abs(times - reference.time_ns[:count]) <= tolerance)
        return count

    def _settle_clean(self, streams: list[Stream], count: int) -> Settled:
        reference = self._streams[self.reference]
        total = np.zeros(count, np.int64)
        places = np.full((count, len(self.members)), -1, np.int64)
        for stream, member in zip(streams, self._live, strict=True):
            total += self._corrected(stream, count) - reference.time_ns[:count]
            places[:, self.members.index(member)] = stream.position[:count]
        time = np.maximum.accumulate(reference.time_ns[:count] + total // len(streams))
        hashes = reference.hash[:count]
        pick = _unique(hashes[:TRAIN_WITHIN])[:TRAIN]
        for stream in streams:
            if stream is not reference:
                stream.clock.learn(stream.time_ns[pick], reference.time_ns[pick])
        self._count_rounds(np.ones(count, bool), 0)
        for stream in streams:
            stream.consume_front(count)
        return self._emit(hashes, time, places, np.zeros(count, np.uint8), int(time[-1]))

    def _settle_dirty(self, streams: list[Stream]) -> Settled | None:
        counts = [min(len(s.position), limits.MAX_WINDOW) for s in streams]
        if not any(counts):
            return None
        self._train(streams, counts)
        tolerances = [s.clock.tolerance_ns(int(s.time_ns[c // 2]) if c else None) for s, c in zip(streams, counts, strict=True)]
        horizon = self._horizon(streams, counts, max(tolerances))
        times = [self._corrected(s, c) for s, c in zip(streams, counts, strict=True)]
        if min(len(t) for t in times) == 0 and min(int(t[0]) for t in times if len(t)) > horizon:
            return None
        merged = self._merge(
            [s.hash[:c] for s, c in zip(streams, counts, strict=True)],
            times,
            tolerances,
            self._settings.reorder_ns,
            self._settings.reorder_places,
        )
        self._train_merged(streams, merged)
        count = self._cut(merged, streams, horizon)
        if count == 0:
            return None
        return self._settle_merged(streams, merged, count, horizon, max(tolerances))

    def _train(self, streams: list[Stream], counts: list[int]) -> None:
        reference = self._streams[self.reference]
        at = streams.index(reference)
        for stream, count in zip(streams, counts, strict=True):
            if stream is not reference and count and counts[at]:
                theirs, ours = clocks.common(stream.hash[:count], reference.hash[: counts[at]])
                stream.clock.learn(stream.time_ns[theirs], reference.time_ns[ours])

    def _train_merged(self, streams: list[Stream], merged: align.Merged) -> None:
        """Keep the clocks known through floods, in which no hash is unique but time tells packets apart."""
        at = streams.index(self._streams[self.reference])
        certain = (merged.place[:, at] >= 0) & (merged.flags == 0)
        for column, stream in enumerate(streams):
            if column != at:
                pairs = merged.place[certain & (merged.place[:, column] >= 0)]
                stream.clock.learn(stream.time_ns[pairs[:, column]], streams[at].time_ns[pairs[:, at]])

    def _horizon(self, streams: list[Stream], counts: list[int], tolerance: int) -> int:
        """Corrected time before which nothing can come any more."""
        least = FOREVER
        for stream, count in zip(streams, counts, strict=True):
            raw = stream.known_until(count)
            if raw == NEVER:
                return NEVER
            if raw != FOREVER:
                least = min(least, raw + stream.clock.offset_ns(raw))
        return least if least == FOREVER else least - max(tolerance, self._settings.reorder_ns)

    def _cut(self, merged: align.Merged, streams: list[Stream], horizon: int) -> int:
        """How many merged packets can be settled: up to the last anchor or up to the horizon."""
        by_time = int(np.searchsorted(merged.time_ns, horizon, side="right"))
        full = (merged.place >= 0).all(axis=1)
        step = np.zeros(len(full), bool)  # the packet follows its predecessor in every capture
        step[1:] = full[1:] & full[:-1]
        for column, stream in enumerate(streams):
            position = np.where(full, stream.position[merged.place[:, column]] if len(stream.position) else -1, -1)
            step[1:] &= np.diff(position) == 1
        hashes = self._hashes(merged, streams)
        anchors = _anchors(full, step, hashes, self._settings.l)
        self._desync(anchors, len(full))
        by_anchor = int(anchors[-1]) + 1 if len(anchors) else 0
        return max(by_time, by_anchor)

    def _hashes(self, merged: align.Merged, streams: list[Stream]) -> U64:
        hashes = np.zeros(len(merged.place), np.uint64)
        for column, stream in enumerate(streams):
            here = merged.place[:, column] >= 0
            hashes[here] = stream.hash[merged.place[here, column]]
        return hashes

    def _desync(self, anchors: I64, length: int) -> None:
        """The paper's desync level: by how many clusters the window has grown without an anchor."""
        ends = np.concatenate([[0], anchors, [length]])
        k, limit = self._settings.k, self._settings.max_desync
        self.desync_level = min(int(ends[-1] - ends[-2]) // k, limit)
        self.max_desync = max(self.max_desync, min(int(np.diff(ends).max()) // k, limit))

    def _settle_merged(
        self, streams: list[Stream], merged: align.Merged, count: int, horizon: int, tolerance: int
    ) -> Settled:
        place = merged.place[:count]
        here = place >= 0
        hashes = self._hashes(merged, streams)[:count]
        self._count_rounds(here.all(axis=1), len(merged.place) - count)
        places = np.full((count, len(self.members)), -1, np.int64)
        for column, (stream, member) in enumerate(zip(streams, self._live, strict=True)):
            held = here[:, column]
            places[held, self.members.index(member)] = stream.position[place[held, column]]
        for column, stream in enumerate(streams):
            stream.consume(place[here[:, column], column])
        cut = horizon if count == len(merged.place) and horizon != FOREVER else int(merged.time_ns[count - 1])
        return self._emit(hashes, merged.time_ns[:count], places, merged.flags[:count].copy(), cut, tolerance)

    # -- putting out -------------------------------------------------------------------------------

    def _emit(self, hashes: U64, time: I64, places: I64, flags: U8, cut: int, tolerance: int = 0) -> Settled:
        """Drop late duplicates, mark what is late, make agreed times, remember."""
        here = places >= 0
        holders: U32 = (here.astype(np.uint32) << np.arange(len(self.members), dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
        skipped: dict[int, I64] = {}
        overdue = np.flatnonzero((time <= self._cut_ns + tolerance) & ~here.all(axis=1)) if self._cut_ns != NEVER else np.empty(0, np.int64)
        if len(overdue):
            claims = np.array(self._history.claim(hashes[overdue], time[overdue], holders[overdue], tolerance))
            drop = overdue[claims >= 0]
            if len(drop):
                for column, member in enumerate(self.members):
                    positions = places[drop, column]
                    skipped[member] = positions[positions >= 0]
                keep = np.ones(len(time), bool)
                keep[drop] = False
                hashes, time, places, flags, holders = hashes[keep], time[keep], places[keep], flags[keep], holders[keep]
        if self._cut_ns != NEVER:
            flags[time < self._cut_ns - tolerance] |= LATE
        natural = (time + 500) // 1000
        agreed = np.maximum(natural, self._last_us)
        flags[agreed > natural] |= CLAMPED
        if len(agreed):
            self._last_us = int(agreed[-1])
        self.ambiguous += int(np.count_nonzero(flags & AMBIGUOUS))
        self.late += int(np.count_nonzero(flags & LATE))
        self.clamped += int(np.count_nonzero(flags & CLAMPED))
        self._history.append(hashes, time, holders)
        self._cut_ns = max(self._cut_ns, cut)
        return Settled(hashes, agreed, places, flags, skipped, self._cut_ns)

    def _count_rounds(self, clean: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], undecided: int) -> None:
        """Count a round for every k packets settled; it is dirty when a member lacks one of them."""
        k = self._settings.k
        total = self._round_left + len(clean)
        self.rounds += total // k
        dirty = np.flatnonzero(~clean)
        self.dirty_rounds += len(np.unique((dirty + self._round_left) // k))
        self._round_left = total % k
        if undecided == 0 and len(dirty) == 0:
            self.desync_level = 0

    # -- summaries -------------------------------------------------------------------------------------

    def _resolve_summaries(self) -> None:
        """Know summaries by the reference's packets where they are equal; ask for the others."""
        self._wanted = []
        reference = self._streams[self.reference]
        for member in self._live:
            stream = self._streams[member]
            if stream is reference:
                continue
            while stream.behind and isinstance(stream.behind[0], Summary):
                summary = stream.behind[0]
                at = len(stream.position)
                if at + summary.count > len(reference.position):
                    break
                if not self._in_step(stream, reference, at) or not self._equal(stream, reference, at, summary):
                    self._wanted.append((member, summary.position, summary.count))
                    break
                part = slice(at, at + summary.count)
                offset = stream.clock.offset_ns(summary.first_ns)
                times = np.clip(reference.time_ns[part] - offset, summary.first_ns, summary.last_ns)
                times[0], times[-1] = summary.first_ns, summary.last_ns
                stream.answer(summary.position, reference.hash[part], times)
                stream.fold()

    def _in_step(self, stream: Stream, reference: Stream, count: int) -> bool:
        return bool((stream.hash == reference.hash[:count]).all())

    def _equal(self, stream: Stream, reference: Stream, at: int, summary: Summary) -> bool:
        part = reference.hash[at : at + summary.count]
        if xxhash.xxh3_64_intdigest(np.ascontiguousarray(part).tobytes()) != summary.cluster:
            return False
        ends = stream.clock.correct(np.array([summary.first_ns, summary.last_ns]))
        tolerance = stream.clock.tolerance_ns(summary.last_ns)
        ours = reference.time_ns[[at, at + summary.count - 1]]
        return not stream.clock.known or bool((np.abs(ends - ours) <= tolerance).all())


def _leading(equal: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> int:
    """How many leading elements are true."""
    return len(equal) if equal.all() else int(equal.argmin())


def _unique(hashes: U64) -> I64:
    """Indices of the hashes that occur once, in order."""
    _, first, count = np.unique(hashes, return_index=True, return_counts=True)
    return np.sort(first[count == 1])


def _anchors(full: np.ndarray, step: np.ndarray, hashes: U64, length: int) -> I64:
    """Indices at which a run of `length` different packets ends that all captures hold contiguously."""
    fresh = full.copy()  # no equal packet within `length` before it: floods make no anchors
    for back in range(1, min(length, len(hashes))):
        fresh[back:] &= hashes[back:] != hashes[:-back]
    run = step & fresh
    if length == 1:
        return np.flatnonzero(full & fresh)
    broken = np.concatenate([[-1], np.flatnonzero(~run)])
    since = np.arange(len(run)) - broken[np.searchsorted(broken, np.arange(len(run)), side="right") - 1]
    return np.flatnonzero(run & (since >= length - 1))

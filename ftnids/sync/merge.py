"""The merger: pending streams of all members in, agreed packets out.

Theory of operation

`decide` settles what is certain, in this order:

* A *clean stretch*: the members' next packets are equal, hash by hash and within the clocks'
  tolerance.  It costs a few vector comparisons and needs no watermark.
* A *dirty window*: all that is pending (at most MAX_WINDOW of each member) is aligned, and the
  merged sequence is settled up to the last anchor, or up to the horizon, whichever is further.  Where much is
  pending, because some member lags, only what lies near the horizon is aligned each time, and all of it
  when it has grown by half: so no packet is aligned more than a few times.

An *anchor* is a run of l packets, all different, that every member holds contiguously: what comes
later comes behind it, but for what was reordered; so it holds only when no packet that some member
lacks lies within the reorder window before its end.  The *horizon* is a time: every member's
watermark has passed it by more than the tolerance and the reorder window, so nothing can come that
belongs before it.

Packets beyond the cut stay pending, in capture order; nothing settled is looked at again.  What comes
in after its time was settled is dropped when the history shows it to be a copy that its sender
lacked, else appended as late.

Members send raw times; the clocks (`ftnids.sync.clocks`) are trained here, on the packets that a
window shows a member to share with the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ftnids import limits
from ftnids.sync import align, clocks, summaries
from ftnids.sync.jitter import Jitter
from ftnids.sync.messages import I64, U32, U64
from ftnids.sync.pending import FOREVER, NEVER, Stream, leading
from ftnids.sync.rounds import Rounds
from ftnids.sync.settle import Settled, Settler
from ftnids.sync.survey import Survey, survey

CLEAN_WORTH: Final = 1_024  # a clean stretch this long is settled by itself, a shorter one with what follows it
TRAIN_WITHIN: Final = 512  # packets of a clean stretch that may train the clocks
WHOLE_LOOK: Final = 4_096  # pending packets that are aligned all together; of more only those near the horizon ...
GROWN: Final = 1.5  # ... unless so many times as many are pending as when an anchor was last looked for among all
NEAR: Final = 4  # tolerances or reorder windows behind the horizon that tell what lies before it


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
class _Window:
    """A stretch of every live member's front, its times corrected."""

    streams: list[Stream]
    counts: list[int]
    times: list[I64]  # on the reference clock
    tolerances: list[int]
    tolerance: int  # the widest

    @property
    def hashes(self) -> list[U64]:
        return [stream.hash[:count] for stream, count in zip(self.streams, self.counts, strict=True)]


class Merger:
    """Merges the members' capture streams.

    `start` gives each member's first position (default 0).  `floor_us` is the agreed time below
    which none may be put out: the last one of the view before.
    """

    def __init__(
        self,
        members: Sequence[int],
        reference: int,
        settings: Settings,
        *,
        start: Mapping[int, int] | None = None,
        floor_us: int = NEVER,
    ) -> None:
        if reference not in members:
            raise ValueError(f"the reference {reference} is not one of the members {list(members)}")
        self.members = tuple(members)
        self.reference = reference
        self._settings = settings
        self._align = align.aligner(settings.aligner)
        self._streams = {m: Stream((start or {}).get(m, 0), clocks.Clock()) for m in members}
        self._streams[reference].clock.set_offset(0, 0)
        self._live = list(members)
        self._settler = Settler(floor_us)
        self._rounds = Rounds(settings.k, settings.max_desync)
        self._jitter = Jitter()
        self._unplaced: set[int] = set()  # members whose stream's beginning is not known yet
        self._unknown: list[tuple[int, int, int]] = []
        self._searched: list[tuple[int, ...]] = []  # the streams' states when all that they hold had been aligned
        self._looked = 0  # packets that were pending when all of them were last aligned, or fewer

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

    def set_offset(self, member: int, offset_ns: int, tolerance_ns: int, at_ns: int | None = None) -> None:
        """Seed a member's clock: add `offset_ns` for the reference's, right to `tolerance_ns` at its `at_ns`."""
        if member != self.reference:
            at = None if at_ns is None else at_ns - offset_ns
            self._streams[member].clock.set_offset(offset_ns, tolerance_ns, at)

    def resume(self, history: tuple[U64, I64, U32], cut_ns: int, shift_ns: int, tolerance_ns: int = 0) -> None:
        """Go on where another merger stopped, the reference's clock being right to `tolerance_ns` against that one's.

        `history`: hashes, times (ns, reference clock) and holders (bit mask over members) of the last settled packets;
        `cut_ns`: all before it is settled (reference clock); `shift_ns`: what to add to the reference clock for the
        clock of the agreed times.
        """
        hashes, times, members = history
        holders = np.zeros(len(members), np.uint32)
        for column, member in enumerate(self.members):
            holders |= ((members >> np.uint32(member)) & np.uint32(1)) << np.uint32(column)
        self._settler.resume((hashes, times, holders), cut_ns, shift_ns, tolerance_ns)
        self._settler.orphaned(self._asked())

    def taken(self, member: int, positions: I64) -> None:
        """Positions of `member` that decisions before this merger have consumed out of turn."""
        self._streams[member].taken = positions

    def add_member(self, member: int) -> None:
        """Go on with one more member, whose stream begins where its first report does."""
        if member not in self.members:
            self.members = (*self.members, member)
        self._live = [m for m in self.members if m in self._live or m == member]
        self._streams[member] = Stream(0, clocks.Clock())
        self._unplaced.add(member)

    def place(self, member: int, position: int) -> None:
        """The first report of a member that was added says where its stream begins."""
        if member in self._unplaced:
            self._unplaced.discard(member)
            self._streams[member].reported = position

    def drop_member(self, member: int) -> None:
        """Go on without `member`; what it reported and nobody settled goes with it."""
        if member == self.reference:
            raise ValueError("the reference cannot leave; begin a new merger on another reference")
        self._live.remove(member)
        self._streams[member] = Stream(self._streams[member].consumed, self._streams[member].clock)
        self._settler.orphaned(self._asked())

    def _asked(self) -> int:
        """The columns of the live members, as a bit mask."""
        return sum(1 << self.members.index(member) for member in self._live)

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

    def tolerance_ns(self, member: int, time_ns: int | None = None) -> int:
        """How far the member's corrected times may err, at its own `time_ns` (default: at the last sample)."""
        return max(self._streams[member].clock.tolerance_ns(time_ns), self._jitter.tolerance_ns(self._settler.cut_ns))

    def history(self) -> tuple[U64, I64]:
        """Hashes and times (ns, reference clock) of the last settled packets, oldest first."""
        history = self._settler.history
        return history.hash.copy(), history.time_ns.copy()

    def wanted(self) -> list[tuple[int, int, int]]:
        """Summarised stretches (member, position, count) that must be known in detail."""
        return list(self._unknown)

    @property
    def ambiguous(self) -> int:
        """Settled packets of which nothing told how many they were."""
        return self._settler.ambiguous

    @property
    def late(self) -> int:
        """Packets that came after their time was settled."""
        return self._settler.late

    @property
    def clamped(self) -> int:
        """Packets whose agreed time was raised so that none decreases."""
        return self._settler.clamped

    @property
    def rounds(self) -> int:
        """Comparisons of k packets."""
        return self._rounds.rounds

    @property
    def dirty_rounds(self) -> int:
        """Rounds in which some member lacked a packet."""
        return self._rounds.dirty_rounds

    @property
    def desync_level(self) -> int:
        """By how many clusters the dirty window has grown without an anchor."""
        return self._rounds.desync_level

    @property
    def max_desync(self) -> int:
        """The highest desync level so far."""
        return self._rounds.max_desync

    # -- deciding ----------------------------------------------------------------------------------

    def decide(self) -> Settled | None:
        """Settle what can be settled now, boundedly much; call again while it returns something."""
        streams = [self._streams[m] for m in self._live]
        for stream in streams:
            stream.fold()
        self._resolve()
        shortest = min(min(len(s.position) for s in streams), limits.MAX_WINDOW)
        clean = self._clean(streams, shortest)
        if clean and (clean == shortest or clean >= CLEAN_WORTH):
            return self._settle_clean(streams, clean)
        settled = self._settle_dirty(streams)
        return self._settle_clean(streams, clean) if settled is None and clean else settled

    def _resolve(self) -> None:
        reference = self._streams[self.reference]
        self._unknown = []
        for member in self._live:
            stream = self._streams[member]
            if stream.behind and stream is not reference:
                unknown = summaries.resolve(stream, reference)
                self._unknown += [(member, summary.position, summary.count) for summary in unknown]

    def _tolerances(self, streams: list[Stream], counts: list[int]) -> list[int]:
        wide = self._jitter.tolerance_ns(self._settler.cut_ns)
        return [max(wide, stream.tolerance_ns(count)) for stream, count in zip(streams, counts, strict=True)]

    def _window(self, streams: list[Stream], counts: list[int]) -> _Window:
        tolerances = self._tolerances(streams, counts)
        times = [stream.clock.correct(stream.time_ns[:count]) for stream, count in zip(streams, counts, strict=True)]
        return _Window(streams, counts, times, tolerances, max(tolerances))

    def _clean(self, streams: list[Stream], count: int) -> int:
        """Length, at most `count`, of the stretch in which all members' next packets are equal and agree in time."""
        reference = self._streams[self.reference]
        for stream in streams:
            if stream is reference:
                continue
            count = leading(reference.hash[:count] == stream.hash[:count])
            if count == 0 or not stream.clock.known:
                return 0
            away = np.abs(stream.clock.correct(stream.time_ns[:count]) - reference.time_ns[:count])
            tolerance = stream.clock.tolerance_ns(int(stream.time_ns[count - 1]))
            count = leading(away <= max(tolerance, self._jitter.tolerance_ns(self._settler.cut_ns)))
        return count

    def _settle_clean(self, streams: list[Stream], count: int) -> Settled:
        """Settle a clean stretch: the times are the members' mean."""
        window = self._window(streams, [count] * len(streams))
        time = np.maximum.accumulate(_mean(window.times))
        pick = np.sort(clocks.once(streams[0].hash[: min(count, TRAIN_WITHIN)])[1])
        self._train(streams, {id(stream): (pick, pick) for stream in streams})
        self._rounds.clean()
        settled = Settled(
            self._streams[self.reference].hash[:count],
            time,
            np.full(count, self._asked(), np.uint32),
            self._taken(streams, [count] * len(streams)),
            np.zeros(count, np.uint8),
            cut_ns=int(time[-1]),
        )
        return self._settle(settled, window.tolerance)

    def _settle_dirty(self, streams: list[Stream]) -> Settled | None:
        """Align what is pending, unless that was done and nothing came since, and settle what is certain of it."""
        counts = [min(len(s.position), limits.MAX_WINDOW) for s in streams]
        horizon = self._horizon(streams, counts)
        counts = self._look(streams, counts, horizon)
        if not any(counts) or self._searched == [s.state for s in streams]:
            return None
        reference = self._streams[self.reference]
        hashes = [stream.hash[:count] for stream, count in zip(streams, counts, strict=True)]
        ours = hashes[streams.index(reference)]
        others = ((s, own) for s, own in zip(streams, hashes, strict=True) if s is not reference)
        self._train(streams, {id(s): clocks.common(own, ours) for s, own in others})
        window = self._window(streams, counts)
        horizon = min(horizon, self._horizon(streams, counts))
        if not all(counts) and min(int(times[0]) for times in window.times if len(times)) > horizon:
            return None  # no anchor, and nothing before the horizon
        everything = all(count == len(s.position) for s, count in zip(streams, counts, strict=True))
        settled = self._settle_window(window, horizon)
        if settled is None or everything:  # what lies beyond a window has not been looked at
            self._searched = [s.state for s in streams]
        return settled

    def _settle_window(self, window: _Window, horizon: int) -> Settled | None:
        """Align a window and settle it up to the last anchor or the horizon."""
        merged = self._merged(window)
        seen = self._survey(window, merged)
        if wide := self._late_stamps(window, merged, seen):
            window.tolerances = [max(tolerance, wide) for tolerance in window.tolerances]
            window.tolerance = wide
            merged = self._merged(window)
            seen = self._survey(window, merged)
        self._train_certain(window, merged)
        self._rounds.window(seen.widest, seen.behind)
        count = max(seen.anchored, int(np.searchsorted(merged.time_ns, horizon, side="right")))
        if count == 0:
            return None
        cut = int(merged.time_ns[count - 1])
        if count == len(merged.place) and horizon != FOREVER:
            cut = max(cut, horizon)
        settled = Settled(
            seen.hash[:count],
            merged.time_ns[:count],
            self._by_member(seen.holders[:count]),
            self._taken(window.streams, seen.held(count)),
            merged.flags[:count],
            cut_ns=cut,
        )
        return self._settle(settled, window.tolerance)

    def _look(self, streams: list[Stream], counts: list[int], horizon: int) -> list[int]:
        """How many packets of each member are aligned: all, or those near the horizon when all are too many."""
        pending = sum(counts)
        if pending <= WHOLE_LOOK or pending >= GROWN * self._looked or horizon == FOREVER:
            self._looked = pending
            return counts
        self._looked = min(self._looked, pending)
        if horizon == NEVER:
            return [0] * len(counts)
        until = horizon + NEAR * max(max(self._tolerances(streams, counts)), self._settings.reorder_ns)
        return [
            min(count, int(np.searchsorted(stream.time_ns, stream.clock.raw(until), side="right")))
            for stream, count in zip(streams, counts, strict=True)
        ]

    def _merged(self, window: _Window) -> align.Merged:
        reorder = self._settings.reorder_ns, self._settings.reorder_places
        return self._align(window.hashes, window.times, window.tolerances, *reorder)

    def _survey(self, window: _Window, merged: align.Merged) -> Survey:
        times, positions = window.times, [stream.position for stream in window.streams]
        within = window.tolerances, self._settings.reorder_ns, self._settings.l
        return survey(merged.place, merged.time_ns, window.hashes, times, positions, *within)

    def _late_stamps(self, window: _Window, merged: align.Merged, seen: Survey) -> int:
        """The tolerance that late stamps in this window call for, or 0 where its own is wide enough."""
        if all(len(own) == len(seen.hash) for own in seen.index):
            return 0
        wide = self._jitter.look(seen, window.tolerance, int(merged.time_ns[-1]))
        return wide if wide > window.tolerance else 0

    def _train(self, streams: list[Stream], pairs: Mapping[int, tuple[I64, I64]]) -> None:
        """Train the clocks on packets of each stream and the reference, by index; made-up times are left out."""
        reference = self._streams[self.reference]
        for stream in streams:
            if stream is not reference:
                theirs, ours = pairs[id(stream)]
                own = stream.measured[theirs]
                stream.clock.learn(stream.time_ns[theirs[own]], reference.time_ns[ours[own]])

    def _train_certain(self, window: _Window, merged: align.Merged) -> None:
        """Keep the clocks known through floods, in which no hash is unique but time tells packets apart."""
        at = window.streams.index(self._streams[self.reference])
        pairs = {}
        for column, (stream, times) in enumerate(zip(window.streams, window.times, strict=True)):
            known = stream.clock.known_before(stream.time_ns[: len(times)])
            first = len(merged.place)
            if known < len(times):
                first = int(np.searchsorted(merged.time_ns, times[known] - window.tolerance))
            behind = slice(first, None)
            rows = merged.place[behind][:, [column, at]]
            both = (rows >= 0).all(axis=1) & (merged.flags[behind] == 0)
            pairs[id(stream)] = rows[both, 0], rows[both, 1]
        self._train(window.streams, pairs)

    def _horizon(self, streams: list[Stream], counts: list[int]) -> int:
        """The time, on the reference clock, before which nothing can come any more."""
        least = FOREVER
        for stream, count in zip(streams, counts, strict=True):
            raw = stream.known_until(count)
            if raw == NEVER:
                return NEVER
            if raw != FOREVER:
                least = min(least, raw + stream.clock.offset_ns(raw))
        if least == FOREVER:
            return FOREVER
        return least - max(*self._tolerances(streams, counts), self._settings.reorder_ns)

    # -- putting out -------------------------------------------------------------------------------

    def _taken(self, streams: list[Stream], which: Sequence[I64 | int]) -> list[I64]:
        """Take packets from the live members' streams, as `Stream.take` does; their positions, by column."""
        positions = [np.empty(0, np.int64)] * len(self.members)
        for member, stream, own in zip(self._live, streams, which, strict=True):
            positions[self.members.index(member)] = stream.take(own)
        return positions

    def _by_member(self, holders: U32) -> U32:
        """Bits of the live members' streams as bits of columns."""
        columns = [self.members.index(member) for member in self._live]
        if columns == list(range(len(columns))):
            return holders
        bits = [(holders >> np.uint32(i) & np.uint32(1)) << np.uint32(column) for i, column in enumerate(columns)]
        return np.asarray(np.bitwise_or.reduce(bits), np.uint32)

    def _settle(self, settled: Settled, tolerance: int) -> Settled:
        self._rounds.settle(self._settler.settle(settled, self.members, self._asked(), tolerance))
        return settled


def _mean(times: Sequence[I64]) -> I64:
    """The mean of arrays whose sum may not fit."""
    away = [own - times[0] for own in times]
    return times[0] + sum(away[1:], away[0]) // len(times)

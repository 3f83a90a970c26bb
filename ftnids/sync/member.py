"""What every member of a view does: keep the decisions, gather the bytes, acknowledge, free.

Theory of operation.  The coordinator's decisions, numbered without a gap, say for each seq who
captured the packet.  A member *applies* them in order: its own packets are found by position, the
others' bytes come in BYTES pushed by the first holder, before or after the decision.  `acked` is
the lowest seq whose bytes (or decision) are missing here; everything below enters the agreed index
and is acknowledged to all.  A seq is `stable` when every member has acknowledged it.  A slot is
free when a decision consumed it that every member reports stable, and the local feed is past it.
A decision itself is forgotten before that, when every member has it and calls it stable: a feed
that lags keeps slots, not decisions.

    decided >= acked >= stable >= floor (what all members call stable and the feed has passed)

Rules: only `apply` appends decided packets; only `_advance` moves `acked`; nothing moves back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final

import numpy as np

from ftnids import limits
from ftnids.sync.actions import Action, Free, Note, Publish, Push, Send, Stable, Store
from ftnids.sync.history import History
from ftnids.sync.messages import I64, U32, U64, Ack, Bytes, Decision, Fetch, Flag, Nack, View
from ftnids.sync.settings import Settings, Stream
from ftnids.sync.windows import ABSENT, VOID, ConsumedWindow, SeqWindow

RECOVERED: Final = 1 << 62
PATIENCE: Final = 3  # times that each holder of a packet is asked for it before others are


@dataclass(slots=True)
class _Applied:
    """A decision in the log, with what may be freed when it is behind everyone."""

    decision: Decision
    end: int  # one more than its last seq
    position: int  # all positions below are consumed by it and its predecessors


@dataclass(slots=True)
class _Mark:
    """What may be freed when the local feed is past `end`; the decisions themselves are forgotten."""

    first: int
    end: int
    position: int


class Member:
    """The agreed stream as one member of one view sees it."""

    def __init__(
        self, settings: Settings, view: View, members: tuple[int, ...], start: int, first_seq: int, number: int = 0
    ) -> None:
        self._settings = settings
        self.stream: Stream | None = None  # the local capture; without it what is freed is forgotten
        self._past = History()  # of decided packets that the window holds no more, for a new coordinator
        self.me = settings.me
        self.view = view
        self.members = members
        self.window = SeqWindow(first_seq)
        self.consumed = ConsumedWindow(start)
        self.number = number  # of the next decision to apply; decisions are numbered through a lineage
        self.frozen = False  # a newer view is promised: nothing of this one is taken or acknowledged any more
        self.acked = first_seq
        self.stable = first_seq
        self.fed = first_seq
        self.full = False  # the local feed lags so far that no more can be acknowledged
        self.ends_at: int | None = None  # the agreed stream is complete at this seq
        self.time_us = -(1 << 62)  # of the last decided packet
        self.cut_ns = 0  # founder's clock: all before it is decided
        self.offset_ns: dict[int, int] = {}  # of every member's clock to the founder's
        self.tolerance_ns: dict[int, int] = {}
        self.recovered = self.lost = self.clamped = 0
        self.early_dropped = self.ahead_dropped = 0  # packets and decisions that came early and found no room
        self.peer_acked = dict.fromkeys(members, first_seq)
        self.peer_stable = dict.fromkeys(members, first_seq)
        self.peer_decisions = dict.fromkeys(members, number)
        self.log: deque[_Applied] = deque()
        self.settled = start  # own positions below wait for no other member, at most for the local feed
        self._marks: deque[_Mark] = deque()
        self.last: Decision | None = None
        self._ahead: dict[int, Decision] = {}  # decisions that overtook others
        self._early: list[tuple[I64, U64, I64]] = []  # seq, hash, ref of packets that overtook their decision
        self._early_count = 0
        self._recovered_seq = np.empty(0, np.int64)  # by recovered number, from _recovered_base on
        self._recovered_base = 0
        self._said = (-1, -1, -1)
        self._told: dict[int, tuple[int, int, int, int]] = {}  # by member, what the last ACK said
        self.moved, self._fed_before = True, first_seq  # whether `advance` may find something new
        self._progress_ns = 0
        self._fetched_ns = 0
        self._nacked_ns = 0
        self._gap_ns = 0  # since when decisions wait for an earlier one
        self._attempt = 0
        self.out: list[Action] = []

    # -- views ------------------------------------------------------------------------------------

    def enter(self, view: View, members: tuple[int, ...], void: I64) -> None:
        """The next view of the lineage: who is in it, and which decided packets nobody has any more."""
        assert not self._present(void), "a packet is declared void that is here"
        self.view, self.members, self.frozen = view, members, False
        inside = void[(void >= self.window.base) & (void < self.window.end)]
        base, end = self.window.base, self.window.end
        self.lost += int(np.count_nonzero(self.window.refs(base, end)[inside - base] == ABSENT))
        self.window.refs(base, end)[inside - base] = VOID
        self.window.flags(base, end)[inside - base] |= np.uint8(Flag.VOID)
        for peers, first in ((self.peer_acked, end), (self.peer_stable, end), (self.peer_decisions, self.number)):
            known = dict(peers)
            peers.clear()
            peers.update({m: known.get(m, first) for m in members})
        self._ahead.clear()
        self._told.clear()
        self._said = (-1, -1, -1)
        self.moved = True

    def freeze(self) -> None:
        """A newer view is promised; of this one's decisions only those count that come with the proposal."""
        self.frozen = True
        self._ahead.clear()

    def _present(self, seqs: I64) -> list[int]:
        """Those of `seqs` whose bytes are here."""
        inside = seqs[(seqs >= self.window.base) & (seqs < self.window.end)]
        refs = self.window.refs(self.window.base, self.window.end)[inside - self.window.base]
        return [int(s) for s in inside[refs >= 0]]

    def history(self) -> tuple[U64, I64, U32]:
        """Hashes, agreed times (us, never decreasing) and holders of the last HISTORY_PACKETS decided packets."""
        hashes, times, holders = self._decided(self.window.end)
        past, last = self._past, slice(-limits.HISTORY_PACKETS, None)
        return (
            np.concatenate([past.hash, hashes])[last],
            np.maximum.accumulate(np.concatenate([past.time_ns // 1000, times]))[last],
            np.concatenate([past.holders, holders])[last],
        )

    def recall(self, hashes: U64, times_us: I64, holders: U32) -> None:
        """Take over what was decided before this member came."""
        self._past.append(hashes, times_us * 1000, holders, 0)

    def _decided(self, end: int) -> tuple[U64, I64, U32]:
        """Hashes, agreed times (us) and holders of what the window holds below `end`."""
        base = self.window.base
        hashes, refs = self.window.hashes(base, end).copy(), self.window.refs(base, end)
        own = np.flatnonzero((refs >= 0) & (refs < RECOVERED))
        if len(own):
            assert self.stream is not None, "own packets without a stream"
            first, last = int(refs[own].min()), int(refs[own].max()) + 1
            hashes[own] = self.stream.hashes(first, last)[refs[own] - first]
        return hashes, self.window.times(base, end).copy(), self.window.holders(base, end).copy()

    def nowhere(self) -> I64:
        """All decided seqs whose bytes are not here: those that are missing, and those that are void."""
        refs = self.window.refs(self.window.base, self.window.end)
        return np.flatnonzero((refs == ABSENT) | (refs == VOID))[: limits.MAX_UNSTABLE] + self.window.base

    def log_from(self, number: int) -> list[Decision]:
        """The decisions from `number` on, as far as they are remembered and fit into one message; more come later."""
        found: list[Decision] = []
        packets = 0
        for entry in self.log:
            if entry.decision.number < number:
                continue
            packets += len(entry.decision.time_us)
            if found and (packets > limits.MAX_LOG_PACKETS or len(found) == limits.MAX_LOG_SENT):
                break
            found.append(entry.decision)
        return found

    # -- decisions ---------------------------------------------------------------------------

    def decided(self, decision: Decision, now_ns: int) -> None:
        """Take in a decision of this view; one that comes early waits for those before it."""
        if decision.number < self.number:
            return
        if not self._ahead:
            self._gap_ns = now_ns
        if decision.number == self.number or len(self._ahead) < limits.MAX_AHEAD:
            self._ahead[decision.number] = decision
        else:
            self.ahead_dropped += 1
        while (ready := self._ahead.pop(self.number, None)) is not None:
            self._apply(ready, now_ns)

    def _apply(self, decision: Decision, now_ns: int) -> None:
        self.moved = True
        first, count = decision.first_seq, len(decision.time_us)
        assert first == self.window.end, f"decision {decision.number} starts at {first}, not {self.window.end}"
        mine = (decision.holders & np.uint32(1 << self.me)) != 0
        refs = np.full(count, ABSENT, np.int64)
        places = decision.places.get(self.me, np.empty(0, np.int64))
        refs[mine] = places
        hashes = np.zeros(count, np.uint64)
        hashes[decision.holders != decision.members] = decision.hash
        if self.acked == first:
            self._progress_ns = now_ns
        self.window.append(refs, decision.time_us, decision.flags, decision.holders, hashes)
        self.consumed.mark(np.concatenate([places, decision.skipped.get(self.me, np.empty(0, np.int64))]))
        self.log.append(_Applied(decision, first + count, self.consumed.base))
        self.last = decision
        if count:
            self.time_us = int(decision.time_us[-1])
        self.cut_ns = max(self.cut_ns, decision.cut_ns)
        self.offset_ns, self.tolerance_ns = decision.offset_ns, decision.tolerance_ns
        self.number += 1
        self.clamped += int(np.count_nonzero(decision.flags & Flag.CLAMPED))
        if decision.ends:
            self.ends_at = first + count
        if count and not mine.all():
            self._match_early()
        self._push(decision, first, refs)

    def _push(self, decision: Decision, first: int, refs: I64) -> None:
        """Push what I am the first holder of to the members that lack it."""
        holders = decision.holders
        lowest = holders & (~holders + np.uint32(1))
        duty = (lowest == np.uint32(1 << self.me)) & (holders != decision.members)
        if not duty.any():
            return
        for member in self.members:
            lacks = np.flatnonzero(duty & ((holders & np.uint32(1 << member)) == 0))
            for low in range(0, len(lacks), limits.MAX_BYTES_PACKETS):
                part = lacks[low : low + limits.MAX_BYTES_PACKETS]
                self.out.append(Push(member, self.view, part + first, refs[part]))

    # -- bytes ------------------------------------------------------------------------------

    def offered(self, message: Bytes) -> None:
        """A peer pushed packets: store those that are wanted, early ones too."""
        seq = message.seq
        wanted = np.zeros(len(seq), bool)
        known = (seq >= self.window.base) & (seq < self.window.end)
        wanted[known] = self.window.refs(self.window.base, self.window.end)[seq[known] - self.window.base] == ABSENT
        future = seq >= self.window.end
        if self._early_count + int(future.sum()) <= limits.MAX_EARLY:
            wanted |= future
        else:
            self.early_dropped += int(future.sum())
        if wanted.any():
            self.out.append(Store(message, wanted.astype(np.uint8)))

    def stored(self, seq: I64, hashes: U64, refs: I64, now_ns: int) -> None:
        """Packets of BYTES are in the ring at `refs` (negative: rejected or no room)."""
        self.moved = True
        good = refs >= 0
        seq, hashes, refs = seq[good], hashes[good], refs[good]
        numbers = refs & ~np.int64(RECOVERED)
        if len(numbers):
            size = int(numbers[-1]) + 1 - self._recovered_base
            table = np.full(size, ABSENT, np.int64)
            table[: len(self._recovered_seq)] = self._recovered_seq
            table[numbers - self._recovered_base] = seq
            self._recovered_seq = table
        future = seq >= self.window.end
        if future.any():
            self._early.append((seq[future], hashes[future], refs[future]))
            self._early_count += int(future.sum())
        self._fill(seq[~future], hashes[~future], refs[~future])

    def _fill(self, seq: I64, hashes: U64, refs: I64) -> None:
        """Enter recovered packets where they are missing and their hash is the decided one."""
        inside = (seq >= self.window.base) & (seq < self.window.end)
        at = seq[inside] - self.window.base
        base, end = self.window.base, self.window.end
        fits = (self.window.refs(base, end)[at] == ABSENT) & (self.window.hashes(base, end)[at] == hashes[inside])
        self.window.refs(base, end)[at[fits]] = refs[inside][fits]
        self.recovered += int(fits.sum())

    def _match_early(self) -> None:
        early, self._early, self._early_count = self._early, [], 0
        for seq, hashes, refs in early:
            future = seq >= self.window.end
            if future.any():
                self._early.append((seq[future], hashes[future], refs[future]))
                self._early_count += int(future.sum())
            self._fill(seq[~future], hashes[~future], refs[~future])

    def fetch(self, message: Fetch) -> None:
        """A peer asks for packets again: push those that are here."""
        seq = message.seq[(message.seq >= self.window.base) & (message.seq < self.window.end)]
        refs = self.window.refs(self.window.base, self.window.end)[seq - self.window.base]
        here = refs >= 0
        if here.any():
            self.out.append(Push(message.sender, self.view, seq[here], refs[here]))

    # -- acknowledging -----------------------------------------------------------------------

    def acknowledged(self, ack: Ack) -> None:
        """A member tells how far it is."""
        member = ack.sender
        for known, said in (
            (self.peer_acked, ack.acked),
            (self.peer_stable, ack.stable),
            (self.peer_decisions, ack.decisions),
        ):
            if said > known[member]:
                known[member], self.moved = said, True

    def advance(self, now_ns: int) -> None:
        """Move acked, stable and the floor as far as they go; ask for what does not come."""
        if self.frozen:
            return
        if self.moved or self.fed != self._fed_before:
            self.moved, self._fed_before = False, self.fed
            self._advance(now_ns)
        self._repair(now_ns)

    def _advance(self, now_ns: int) -> None:
        complete, room = self.window.first_absent(self.acked), self.fed + self._settings.agreed_slots
        reached = min(complete, room)
        self.full = complete > room
        if reached > self.acked:
            first, self.acked = self.acked, reached
            self.out.append(
                Publish(
                    self.view,
                    first,
                    np.maximum(self.window.refs(first, reached), ABSENT),  # void ones have no slot
                    self.window.times(first, reached).copy(),
                    self.window.flags(first, reached).copy(),
                )
            )
            self._progress_ns = now_ns
            self._attempt = 0
        self.peer_acked[self.me] = self.acked
        stable = min(self.peer_acked.values())
        if stable > self.stable:
            self.stable = stable
            self.out.append(Stable(stable))
        self.peer_stable[self.me] = self.stable
        self.peer_decisions[self.me] = self.number
        self._free()

    def ack(self, reported: dict[int, int], now_ns: int, *, again: bool = False) -> None:
        """Tell each member what is news to it (or all `again`, in case that was lost): how far this one is, and up to
        which position its own reports have come.
        """
        said = self.acked, self.stable, self.number + sum(reported.values())
        if self.frozen or (said == self._said and not again):
            return
        self._said = said
        for member in self.members:
            if member == self.me:
                continue
            told = self.acked, self.stable, self.number, reported.get(member, -1)
            if again or told != self._told.get(member):
                self._told[member] = told
                ack = Ack(self.me, self._settings.incarnation, self.view, self.acked, self.stable, self.number)
                if member in reported:
                    ack.reported = {member: reported[member]}
                self.out.append(Send(member, ack))

    def _free(self) -> None:
        known_stable = min(self.peer_stable.values())
        floor = min(known_stable, self.fed)
        everywhere = min(self.peer_decisions.values())  # decisions below are not asked for again
        while self.log and self.log[0].end <= known_stable and self.log[0].decision.number < everywhere:
            entry = self.log.popleft()
            self.settled = entry.position
            self._mark(entry)
        position = -1
        while self._marks and self._marks[0].end <= floor:
            position = self._marks.popleft().position
        if position < 0 and floor <= self.window.base:
            return
        if self.stream is not None and floor > self.window.base:
            self.recall(*self._decided(min(floor, self.window.end)))
        self.window.cut(floor)
        held = np.flatnonzero(self._recovered_seq >= floor)
        gone = int(held[0]) if len(held) else len(self._recovered_seq)
        self._recovered_seq = self._recovered_seq[gone:]
        self._recovered_base += gone
        self.out.append(Free(position, self._recovered_base))

    def _mark(self, entry: _Applied) -> None:
        """Remember what to free when the feed is past `entry`; of many marks neighbours become one."""
        last = self._marks[-1] if len(self._marks) >= limits.MAX_MARKS else None
        if last is not None and entry.end - last.first <= self._settings.agreed_slots // limits.MAX_MARKS:
            last.end, last.position = entry.end, entry.position
        else:
            self._marks.append(_Mark(entry.end - len(entry.decision.time_us), entry.end, entry.position))

    # -- repair -------------------------------------------------------------------------------

    def _repair(self, now_ns: int) -> None:
        timers = self._settings.timers
        behind = max(self.peer_decisions.values())
        quiet = now_ns - max(self._nacked_ns, self._progress_ns) > timers.fetch
        if self._ahead:  # what is behind the last of them is on its way
            quiet = now_ns - max(self._gap_ns + timers.overtaken, self._nacked_ns + timers.fetch) > 0
        if quiet and (self._ahead or behind > self.number):
            bounds = [self.number - 1, *(sorted(self._ahead) or [behind])]
            for before, after in islice(((a, b) for a, b in pairwise(bounds) if b - a > 1), limits.MAX_NACKS):
                nack = Nack(self.me, self._settings.incarnation, self.view, before + 1, after)
                self.out.append(Send(self.view.coordinator, nack))
            self._nacked_ns = now_ns
        if self.acked < self.window.end and now_ns - max(self._fetched_ns, self._progress_ns) > timers.fetch:
            self._fetch(now_ns)

    def _fetch(self, now_ns: int) -> None:
        """Ask the holders, one after the other, for the oldest packets that are missing."""
        missing = self.window.absent(self.acked, limits.MAX_FETCH)
        if len(missing) == 0:
            return
        self._fetched_ns = now_ns
        holders = self.window.holders(int(missing[0]), int(missing[0]) + 1)[0]
        candidates = [m for m in self.members if m != self.me and int(holders) >> m & 1]
        if self._attempt >= PATIENCE * len(candidates):  # others may have recovered them
            candidates += [m for m in self.members if m != self.me and m not in candidates]
        if not candidates:
            return
        member = candidates[self._attempt % len(candidates)]
        self._attempt += 1
        self.out.append(Send(member, Fetch(self.me, self._settings.incarnation, self.view, missing)))
        if self._attempt == 10:
            self.out.append(
                Note("warning", "bytes_missing", {"seq": int(missing[0]), "packets": len(missing), "asked": member})
            )

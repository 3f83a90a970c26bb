"""A member tells the coordinator what it captured.

Theory of operation.  The capture stream from `start` on is reported in order.  `sent` is the next
position to report, `heard` the next that the coordinator says it wants.  Where `heard` does not move
although `sent` is ahead and the coordinator goes on acknowledging, reports were lost, and reporting goes back
to it; a coordinator that says nothing is busy, and more reports would not help it.  A report carries packet
hashes and times (*pushed*), or, at a high rate and while nearly all is clean, a hash for each k
packets (*summarised*): 8 bytes and two times for k packets.  What differs then has to be asked for, so a
member that is behind pushes unless all is clean.  A stretch with a repeated packet in it is never summarised,
because equal cluster hashes must mean equal packets one by one.

The watermark is a promise: all that was captured up to it is reported.  While packets wait to be
reported it is therefore held below the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import xxhash

from ftnids import limits
from ftnids.sync.messages import I64, U64, Report, View
from ftnids.sync.settings import MS, Settings, Stream

SUMMARY_RATE: Final = 20_000  # packets/s above which summaries pay
SUMMARY_DIRTY: Final = 0.002  # share of packets that not all had, above which clusters are seldom clean
SUMMARY_DIRTY_BEHIND: Final = 0.00002  # the same for a member with more to report than it may: asking costs more time
LOST_ACKS: Final = 2  # acknowledgements without progress that show that reports were lost
FULL: Final = 4_096  # packets that make a report due at once


def cluster_hashes(hashes: U64, k: int) -> U64:
    """XXH3-64 over each k packet hashes (little-endian); `hashes` has a multiple of k elements."""
    data = np.ascontiguousarray(hashes, dtype="<u8").tobytes()
    step = 8 * k
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter(
        (digest(data[at : at + step]) for at in range(0, len(data), step)), np.uint64, count=len(hashes) // k
    )


@dataclass(slots=True)
class _Rate:
    """Packets/s and dirty share, smoothed."""

    packets: float = 0.0
    dirty: float = 1.0
    since_ns: int = 0
    count: int = 0

    def reported(self, count: int, now_ns: int) -> None:
        """Count packets; every 20 ms or later the rate is updated."""
        self.count += count
        span = now_ns - self.since_ns
        if span >= 20 * MS:
            self.packets += 0.5 * (self.count * 1e9 / span - self.packets)
            self.since_ns, self.count = now_ns, 0

    def decided(self, packets: int, dirty: int) -> None:
        """Take in how many of `packets` decided ones not all members had."""
        weight = packets / (packets + 500)
        self.dirty += weight * (dirty / packets - self.dirty)


class Reporter:
    """Makes the reports of one member for one view."""

    def __init__(self, settings: Settings, stream: Stream, start: int) -> None:
        self._settings = settings
        self._stream = stream
        self.start = start
        self.sent = start
        self.heard = start
        self.rate = _Rate()
        self.last_ns = 0  # when the last reports were made
        self._progress_ns = 0
        self._silent = 0  # acknowledgements without progress
        self._counted = start  # packets below are in the rate
        self._behind = False  # the last reports left packets out
        self._ended = False
        self.asked = False  # the coordinator waits for this member's watermark
        self.reporting_waits = 0  # reports that were shorter than what was there

    @property
    def summarising(self) -> bool:
        """Whether clean stretches go out as clusters just now."""
        dirty = SUMMARY_DIRTY_BEHIND if self._behind else SUMMARY_DIRTY
        return self.rate.packets > SUMMARY_RATE and self.rate.dirty < dirty

    def acknowledged(self, position: int, now_ns: int) -> None:
        """The coordinator said that it has everything below `position`."""
        self._silent += 1
        if position > self.heard:
            self.heard = position
            self.sent = max(self.sent, position)
            self._silent = 0
            self._progress_ns = now_ns

    def end(self) -> None:
        """The capture stream ends; the last report says so."""
        self._ended = True

    def silent(self) -> bool:
        """Whether there is nothing to report but how late it is, for which nobody asked."""
        nothing = self._stream.head == self.sent == self.heard
        return nothing and not self.asked and not self._ended

    def reports(self, view: View, now_ns: int, interval_ns: int, consumed: int) -> list[Report]:
        """The reports due at `now_ns`, one interval after the last ones or when there is much to report, or at once.

        `consumed` is the lowest position that no decision consumed.
        """
        watermark = self._stream.watermark_ns  # before head: all up to it is then below head
        head = self._stream.head
        if consumed > self.heard:  # what is decided was heard, whatever became of its acknowledgement
            self.acknowledged(consumed, now_ns)
        self._go_back(now_ns)
        if head - self.sent < FULL and now_ns < self.last_ns + interval_ns and not self.asked:
            return []
        if head > self.sent or not self.asked:
            self.last_ns = now_ns  # an answer without packets does not hold up those that come next
        self.asked = False
        self.rate.reported(max(self.sent - self._counted, 0), now_ns)
        self._counted = max(self._counted, self.sent)
        if self.sent == self.heard:
            self._progress_ns = now_ns
            self._silent = 0
        upto = min(head, self.sent + limits.MAX_REPORT_PACKETS, consumed + limits.MAX_REPORTED)
        upto = max(upto, self.sent)
        self.reporting_waits += upto < min(head, self.sent + limits.MAX_REPORT_PACKETS)
        self._behind = head - upto > FULL
        made = self._cover(view, self.sent, upto, watermark, head)
        for report in made:
            report.start, report.sent_ns = self.start, now_ns
        self.sent = self._reached(made)
        if self._ended and self.sent == head:
            made[-1].end = True
        return made

    def detail(self, view: View, position: int, count: int, now_ns: int) -> Report | None:
        """The packet hashes of [position, position + count), for a coordinator that asks."""
        last = min(position + min(count, limits.MAX_REPORT_PACKETS), self.sent)
        if position < self._stream.tail or last <= position:
            return None
        report = self._pushed(view, position, last)
        report.watermark_ns = np.iinfo(np.int64).min  # says nothing of the watermark
        report.start, report.sent_ns = self.start, now_ns
        return report

    def _go_back(self, now_ns: int) -> None:
        if self.sent == self.heard or self._silent < LOST_ACKS:
            return
        if now_ns - self._progress_ns > self._settings.timers.resend:
            self._silent = 0
            self.sent = self.heard
            self._progress_ns = now_ns

    def _cover(self, view: View, first: int, last: int, watermark: int, head: int) -> list[Report]:
        """Reports that cover [first, last), with the watermark on the last of them."""
        k = self._settings.k
        made: list[Report] = []
        if self.summarising and last - first >= k:
            last = first + (last - first) // k * k
            made = self._summarise(view, first, last)
        elif last > first:
            made = [self._pushed(view, first, last)]
        else:
            made = [Report(self._settings.me, self._settings.incarnation, view, position=first)]
        for report in made[:-1]:
            report.watermark_ns = np.iinfo(np.int64).min
        if last < head:
            watermark = min(watermark, int(self._stream.times(last, last + 1)[0]) - 1)
        made[-1].watermark_ns = watermark
        return made

    def _pushed(self, view: View, first: int, last: int) -> Report:
        return Report(
            self._settings.me,
            self._settings.incarnation,
            view,
            position=first,
            hash=np.array(self._stream.hashes(first, last), np.uint64),
            time_ns=np.array(self._stream.times(first, last), np.int64),
        )

    def _summarise(self, view: View, first: int, last: int) -> list[Report]:
        """Clusters where all hashes differ, details where one repeats, in stream order."""
        k = self._settings.k
        hashes: U64 = np.array(self._stream.hashes(first, last), np.uint64)
        times: I64 = np.array(self._stream.times(first, last), np.int64)
        ordered = np.sort(hashes.reshape(-1, k), axis=1)
        repeats = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
        edges = np.flatnonzero(np.diff(repeats)) + 1
        made = []
        bounds = [0, *edges.tolist(), len(repeats)]
        for low, high in pairwise(bounds):
            a, b = low * k, high * k
            report = Report(self._settings.me, self._settings.incarnation, view, position=first + a)
            if repeats[low]:
                report.hash, report.time_ns = hashes[a:b], times[a:b]
            else:
                report.k = k
                report.cluster = cluster_hashes(hashes[a:b], k)
                report.first_ns, report.last_ns = times[a:b:k].copy(), times[a + k - 1 : b : k].copy()
            made.append(report)
        return made

    @staticmethod
    def _reached(made: list[Report]) -> int:
        last = made[-1]
        return last.position + len(last.hash) + last.k * len(last.cluster)

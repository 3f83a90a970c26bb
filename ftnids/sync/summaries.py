"""Clusters that are known by one hash: made packets again where the reference member has the same ones.

A member that summarises sends, for k packets, one hash of their hashes and the times of the first and the last.  The
reference's own stream is always known in detail.  A cluster whose hash equals that of k contiguous packets of the
reference, at the same time, holds just these packets (a cluster in which a hash repeats is never
summarised); where it lies among the reference's packets its times say.  All others must be asked for.
"""

from __future__ import annotations

import numpy as np
import xxhash

from ftnids import limits
from ftnids.sync.messages import I64, U64
from ftnids.sync.pending import Stream, Summary


def cluster_hash(hashes: U64) -> int:
    """XXH3-64 of packet hashes as little-endian uint64."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(hashes, "<u8").tobytes())


def resolve(stream: Stream, reference: Stream) -> list[Summary]:
    """Put packets in the place of the summaries of `stream` that `reference` knows; returns those to ask for.

    Summaries whose time the reference has not reached yet are left for later.
    """
    unknown: list[Summary] = []
    expected = len(stream.position)  # in step, the next packets of both are equal
    for summary in stream.summaries(limits.MAX_SUMMARIES):
        if summary.unknown:
            unknown.append(summary)
            continue
        if not _reached(stream, reference, expected, summary):
            break
        at = _find(stream, reference, expected, summary)
        if at < 0:
            summary.unknown = True
            unknown.append(summary)
            expected += summary.count
            continue
        part = slice(at, at + summary.count)
        times = _times(stream, reference.time_ns[part], summary)
        stream.answer(summary.position, reference.hash[part], times, measured=False)
        expected = at + summary.count
    stream.fold()
    return unknown


def _reached(stream: Stream, reference: Stream, expected: int, summary: Summary) -> bool:
    """Whether the reference has reported all that the cluster may be."""
    if not stream.clock.known:
        return len(reference.position) >= expected + summary.count or reference.ended
    last, tolerance = _last(stream, summary)
    return reference.known_until(len(reference.position)) > last + tolerance or (
        len(reference.position) > 0 and int(reference.time_ns[-1]) > last + tolerance
    )


def _last(stream: Stream, summary: Summary) -> tuple[int, int]:
    """The corrected time of the cluster's last packet, and how far it may err."""
    clock = stream.clock
    return summary.last_ns + clock.offset_ns(summary.last_ns), clock.tolerance_ns(summary.last_ns)


def _find(stream: Stream, reference: Stream, expected: int, summary: Summary) -> int:
    """Where in the reference's front the cluster begins, or -1."""
    count = summary.count
    candidates = [expected]
    if stream.clock.known:
        last, tolerance = _last(stream, summary)
        first = summary.first_ns + stream.clock.offset_ns(summary.first_ns)
        low = int(np.searchsorted(reference.time_ns, first - tolerance))
        high = int(np.searchsorted(reference.time_ns, first + tolerance, side="right"))
        starts = np.arange(low, min(high, len(reference.time_ns) - count + 1))
        ends = reference.time_ns[starts + count - 1] if len(starts) else np.empty(0, np.int64)
        starts = starts[np.abs(ends - last) <= tolerance]
        candidates = starts[np.argsort(np.abs(starts - expected))][: limits.MAX_CANDIDATES].tolist()
    for at in candidates:
        if 0 <= at <= len(reference.hash) - count and cluster_hash(reference.hash[at : at + count]) == summary.cluster:
            return at
    return -1


def _times(stream: Stream, reference_ns: I64, summary: Summary) -> I64:
    """Raw times for the packets of a cluster: its own first and last, between them those of the reference."""
    times = reference_ns - stream.clock.offset_ns(summary.first_ns)
    times = np.clip(times, summary.first_ns, summary.last_ns)
    times[0], times[-1] = summary.first_ns, summary.last_ns
    return times

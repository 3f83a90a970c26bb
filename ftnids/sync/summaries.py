"""Clusters that are known by one hash: made packets again where the reference member has the same ones.

A member that summarises sends, for k packets, one hash of their hashes and the times of the first and the last.  The
reference's own stream is always known in detail.  A cluster whose hash equals that of k contiguous packets of the
reference, at the same time, holds just these packets (a cluster in which a hash repeats is never
summarised); where it lies among the reference's packets its times say.  All others must be asked for.
"""

from __future__ import annotations

from itertools import takewhile

import numpy as np
import xxhash

from ftnids import limits
from ftnids.sync.messages import I64, U64
from ftnids.sync.pending import Stream, Summary, leading


def cluster_hash(hashes: U64) -> int:
    """XXH3-64 of packet hashes as little-endian uint64."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(hashes, "<u8").tobytes())


def resolve(stream: Stream, reference: Stream) -> list[Summary]:
    """Put packets in the place of the summaries of `stream` that `reference` knows; returns those to ask for.

    Summaries whose time the reference has not reached yet are left for later.
    """
    while _in_step(stream, reference):
        stream.fold()
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


def _in_step(stream: Stream, reference: Stream) -> int:
    """Answer the next summaries whose packets are the next ones of the reference, all at once; returns how many."""
    run, at = stream.run(limits.MAX_SUMMARIES), len(stream.position)
    k = run[0].count if run else 1
    del run[max(len(reference.hash) - at, 0) // k :]
    if not run:
        return 0
    first = np.fromiter((summary.first_ns for summary in run), np.int64, len(run))
    last = np.fromiter((summary.last_ns for summary in run), np.int64, len(run))
    part = slice(at, at + k * len(run))
    times = reference.time_ns[part].reshape(-1, k)
    offset = stream.clock.correct(first) - first
    if stream.clock.known:
        tolerance = min(stream.clock.tolerance_ns(int(first[0])), stream.clock.tolerance_ns(int(last[-1])))
        away = np.maximum(np.abs(first + offset - times[:, 0]), np.abs(stream.clock.correct(last) - times[:, -1]))
        del run[leading(away <= tolerance) :]
    data = np.ascontiguousarray(reference.hash[part], "<u8").tobytes()
    same = (xxhash.xxh3_64_intdigest(data[8 * k * i : 8 * k * (i + 1)]) == s.cluster for i, s in enumerate(run))
    count = len(list(takewhile(bool, same)))
    if count:
        own = np.clip(times[:count] - offset[:count, None], first[:count, None], last[:count, None])
        own[:, 0], own[:, -1] = first[:count], last[:count]
        stream.answer_run(count, reference.hash[at : at + k * count], own.ravel())
    return count


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

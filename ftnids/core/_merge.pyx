# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The aligner in C, and what it needs before and after: `merge.h` on numpy arrays."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

import numpy as np

DEF CAPTURES = 16


cdef extern from "merge.h" nogil:
    struct ftn_capture_view:
        size_t count
        const uint64_t *hash
        const int64_t *time
        int64_t tolerance
    ptrdiff_t ftn_merge(const ftn_capture_view *views, int captures, int64_t reorder_ns, int64_t reorder_places,
                        int64_t *place, int64_t *time, uint8_t *flags)
    struct ftn_surveyed:
        const uint64_t *hash
        const int64_t *time
        const int64_t *position
        int64_t tolerance
    struct ftn_limits:
        int64_t reorder
        int length
    struct ftn_survey_out "ftn_survey":
        uint64_t *hash
        uint32_t *holders
        int64_t *first
        int64_t *last
        int64_t *index[CAPTURES]
        size_t held[CAPTURES]
        int64_t anchored, widest, behind, parted, repeats, gap, spread
    int ftn_survey(const ftn_surveyed *captures, int count, const int64_t *place, const int64_t *time, size_t rows,
                   const ftn_limits *limits, ftn_survey_out *survey)
    struct ftn_fit:
        int64_t origin, seed
        double base, drift
        double reach[2]
        const double *knot_time
        const double *knot_value
        size_t knots
    void ftn_correct(const ftn_fit *fit, const int64_t *time, size_t count, int64_t *corrected)


def merge(hashes, times, tolerance_ns, reorder_ns, reorder_places):
    """`ftnids.sync.bursts.merge`, without the GIL."""
    cdef ftn_capture_view views[CAPTURES]
    cdef int captures = len(hashes)
    cdef int64_t within = reorder_ns, places = reorder_places
    cdef const uint64_t[::1] hash_view
    cdef const int64_t[::1] time_view
    cdef ptrdiff_t count
    if not 1 <= captures <= CAPTURES:
        raise ValueError(f"{captures} captures, at most {CAPTURES}")
    kept = []  # the arrays behind the pointers
    total = 0
    for r in range(captures):
        hash_view = kept_hash = np.ascontiguousarray(hashes[r], np.uint64)
        time_view = kept_time = np.ascontiguousarray(times[r], np.int64)
        if len(kept_hash) != len(kept_time):
            raise ValueError(f"capture {r}: {len(kept_hash)} hashes, {len(kept_time)} times")
        kept.append((kept_hash, kept_time))
        views[r].count = len(kept_hash)
        views[r].hash = &hash_view[0] if len(kept_hash) else NULL
        views[r].time = &time_view[0] if len(kept_hash) else NULL
        views[r].tolerance = tolerance_ns[r]
        total += len(kept_hash)
    place = np.empty((total, captures), np.int64)
    time = np.empty(total, np.int64)
    flags = np.empty(total, np.uint8)
    cdef int64_t[:, ::1] place_out = place
    cdef int64_t[::1] time_out = time
    cdef uint8_t[::1] flags_out = flags
    if total == 0:
        return place, time, flags
    with nogil:
        count = ftn_merge(views, captures, within, places, &place_out[0, 0], &time_out[0], &flags_out[0])
    if count < 0:
        raise MemoryError(f"no memory to align {total} packets")
    if 2 * count >= total:  # a copy would cost more than the room that it saves
        return place[:count], time[:count], flags[:count]
    return place[:count].copy(), time[:count].copy(), flags[:count].copy()


def survey(place, time_ns, hashes, times, positions, tolerance_ns, reorder_ns, length):
    """`ftnids.sync.survey.survey`, as a tuple."""
    cdef ftn_surveyed captures[CAPTURES]
    cdef ftn_limits limits = ftn_limits(reorder_ns, length)
    cdef ftn_survey_out out
    cdef const int64_t[:, ::1] places = np.ascontiguousarray(place)
    cdef const int64_t[::1] merged_times = np.ascontiguousarray(time_ns)
    cdef size_t rows = places.shape[0]
    cdef int count = places.shape[1]
    cdef const uint64_t[::1] hash_view
    cdef const int64_t[::1] view
    cdef int64_t[:, ::1] index = np.empty((count, rows), np.int64)
    cdef int64_t[:, ::1] stamps = np.empty((2, rows), np.int64)
    cdef uint64_t[::1] hash_out = np.empty(rows, np.uint64)
    cdef uint32_t[::1] holders_out = np.empty(rows, np.uint32)
    cdef int failed
    if count > CAPTURES:
        raise ValueError(f"{count} captures, at most {CAPTURES}")
    if rows == 0:
        raise ValueError("nothing was merged")
    memset(&out, 0, sizeof(out))
    kept = []  # the arrays behind the pointers
    for r in range(count):
        own = hash_view = np.ascontiguousarray(hashes[r], np.uint64)
        captures[r].hash = &hash_view[0] if len(own) else NULL
        kept.append(own)
        own = view = np.ascontiguousarray(times[r], np.int64)
        captures[r].time = &view[0] if len(own) else NULL
        kept.append(own)
        own = view = np.ascontiguousarray(positions[r], np.int64)
        captures[r].position = &view[0] if len(own) else NULL
        kept.append(own)
        captures[r].tolerance = tolerance_ns[r]
        out.index[r] = &index[r, 0]
    out.hash, out.holders, out.first, out.last = &hash_out[0], &holders_out[0], &stamps[0, 0], &stamps[1, 0]
    with nogil:
        failed = ftn_survey(captures, count, &places[0, 0], &merged_times[0], rows, &limits, &out)
    if failed:
        raise MemoryError(f"no memory to look at {rows} packets")
    return (
        np.asarray(hash_out), np.asarray(holders_out), [np.asarray(index)[r, :out.held[r]] for r in range(count)],
        out.anchored, out.widest, out.behind, out.parted, out.repeats, out.gap, out.spread,
    )


def correct(times, origin, seed, line, reach, knots):
    """`ftnids.sync.clocks.Clock.correct` by a fit: base and drift, how far they reach, times and values of knots."""
    cdef ftn_fit fit
    cdef const int64_t[::1] given = np.ascontiguousarray(times)
    cdef const double[::1] knot_time = knots[0], knot_value = knots[1]
    cdef size_t count = given.shape[0]
    if count == 0 or knot_time.shape[0] == 0 or knot_time.shape[0] != knot_value.shape[0]:
        raise ValueError("times without knots, or knots without times")
    corrected = np.empty(count, np.int64)
    cdef int64_t[::1] out = corrected
    fit.origin, fit.seed = origin, seed
    fit.base, fit.drift = line
    fit.reach[0], fit.reach[1] = reach
    fit.knot_time, fit.knot_value, fit.knots = &knot_time[0], &knot_value[0], knot_time.shape[0]
    with nogil:
        ftn_correct(&fit, &given[0], count, &out[0])
    return corrected

# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The aligner in C: `merge.c` on numpy arrays."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

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

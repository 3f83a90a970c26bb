/*
 * merge_survey.c: one look at merged packets: who holds each, where the captures are in step again, and which packets
 * look like one whose stamps are far apart.  `ftnids/sync/survey.py` is its twin in Python, equal to the bit, and tells
 * its theory.
 */
#include "merge.h"

#include <stdbool.h>
#include <stdlib.h>

enum { FLOOD_LOOK = 16 }; /* packets of an anchor that must differ from each other, at most */

static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

/* The widest tolerance of some captures. */
static int64_t widest_of(const struct ftn_surveyed *captures, uint32_t holders)
{
    int64_t widest = 0;
    for (; holders; holders &= holders - 1)
        widest = max64(widest, captures[__builtin_ctz(holders)].tolerance);
    return widest;
}

/* Notes packet i and the one before it in its slot, where they are equal. */
static void compare(struct ftn_survey *s, uint32_t *before, int shift, size_t i, const struct ftn_surveyed *captures,
                    int64_t reorder)
{
    const size_t slot = (s->hash[i] * UINT64_C(0x9e3779b97f4a7c15)) >> shift;
    const uint32_t known = before[slot];
    before[slot] = (uint32_t)i + 1;
    if (!known || s->hash[known - 1] != s->hash[i])
        return;
    const size_t j = known - 1;
    const int64_t gap = max64(s->last[i], s->last[j]) - min64(s->first[i], s->first[j]);
    if (gap > reorder || gap <= widest_of(captures, s->holders[i] | s->holders[j]))
        return;
    if (s->holders[i] & s->holders[j]) {
        s->repeats++;
    } else {
        s->parted++;
        s->gap = max64(s->gap, gap);
    }
}

/* Whether packet i equals one of the few before it. */
static bool repeated(const struct ftn_survey *s, size_t i, int length)
{
    const size_t most = (size_t)(length < FLOOD_LOOK ? length : FLOOD_LOOK);
    for (size_t back = 1; back < most && back <= i; back++)
        if (s->hash[i] == s->hash[i - back])
            return true;
    return false;
}

int ftn_survey(const struct ftn_surveyed *captures, int count, const int64_t *place, const int64_t *time, size_t rows,
               const struct ftn_limits *limits, struct ftn_survey *s)
{
    const uint32_t everyone = (UINT32_C(1) << count) - 1;
    const int64_t apart = max64(widest_of(captures, everyone), limits->reorder);
    int64_t position[FTN_MERGE_CAPTURES] = {0}, lacked = INT64_MIN / 2;
    size_t begun = 0, next = 0; /* where the run began that a packet is in; behind the last anchor */
    bool before_full = false;
    int bits = 4;
    while (((size_t)1 << bits) < 2 * rows)
        bits++;
    uint32_t *const before = calloc((size_t)1 << bits, sizeof *before);
    if (!before)
        return -1;
    for (size_t i = 0; i < rows; i++) {
        bool follows = before_full;
        s->holders[i] = 0;
        s->first[i] = INT64_MAX, s->last[i] = INT64_MIN;
        for (int r = 0; r < count; r++) {
            const int64_t x = place[i * (size_t)count + (size_t)r];
            if (x < 0)
                continue;
            s->holders[i] |= UINT32_C(1) << r;
            s->hash[i] = captures[r].hash[x];
            s->first[i] = min64(s->first[i], captures[r].time[x]);
            s->last[i] = max64(s->last[i], captures[r].time[x]);
            s->index[r][s->held[r]++] = x;
            follows = follows && captures[r].position[x] == position[r] + 1;
            position[r] = captures[r].position[x];
        }
        const bool full = s->holders[i] == everyone;
        const int64_t spread = s->last[i] - s->first[i];
        if (spread <= limits->reorder && spread > s->spread && spread > widest_of(captures, s->holders[i]))
            s->spread = spread;
        compare(s, before, 64 - bits, i, captures, limits->reorder);
        const bool fresh = full && !repeated(s, i, limits->length);
        if (!follows || !fresh)
            begun = i;
        if (fresh && i - begun + 1 >= (size_t)limits->length) {
            s->widest = max64(s->widest, (int64_t)(i + 1 - next));
            next = i + 1;
            if (time[i] - lacked > apart)
                s->anchored = (int64_t)i + 1;
        }
        if (!full)
            lacked = max64(lacked, time[i]);
        before_full = full;
    }
    s->behind = (int64_t)(rows - next);
    s->widest = max64(s->widest, s->behind);
    free(before);
    return 0;
}

/*
 * merge.h: the aligner.  N captures of one link, on one clock, become one sequence.
 */
#ifndef FTN_MERGE_H
#define FTN_MERGE_H

#include <stddef.h>
#include <stdint.h>

#define FTN_MERGE_CAPTURES 16 /* limits.MAX_MEMBERS */

struct ftn_capture_view {
    size_t count;
    const uint64_t *hash;
    const int64_t *time; /* ns on the common clock, never decreasing */
    int64_t tolerance;   /* ns */
};

/*
 * Merges `captures` captures.  The outputs have room for as many packets as all captures have together:
 * place[m * captures + r] is the index of the m-th merged packet in capture r, or -1; time[m] its time in ns,
 * never decreasing; flags[m] its flags.  Returns how many packets there are, -1 when memory is short.
 */
ptrdiff_t ftn_merge(const struct ftn_capture_view *views, int captures, int64_t reorder_ns, int64_t reorder_places,
                    int64_t *place, int64_t *time, uint8_t *flags);

#endif

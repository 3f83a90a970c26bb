/*
 * merge.h: the aligner.  N captures of one link, on one clock, become one sequence.  Also what its caller needs
 * before and after: times on one clock, and a look at the result.
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

/* A capture again, for a look at what was merged. */
struct ftn_surveyed {
    const uint64_t *hash;
    const int64_t *time;     /* ns on the common clock */
    const int64_t *position; /* of each packet in all that the capture has seen */
    int64_t tolerance;       /* ns */
};

struct ftn_limits {
    int64_t reorder; /* ns */
    int length;      /* packets of an anchor */
};

struct ftn_survey {
    uint64_t *hash;                     /* of each merged packet ... */
    uint32_t *holders;                  /* ... the captures that have it, as bits ... */
    int64_t *first, *last;              /* ... and their earliest and latest stamp, ns */
    int64_t *index[FTN_MERGE_CAPTURES]; /* of each capture, its packets in merged order ... */
    size_t held[FTN_MERGE_CAPTURES];    /* ... and how many */
    int64_t anchored;                   /* packets up to the last anchor that holds, 0 if none does */
    int64_t widest, behind;             /* packets from one anchor to the next, at most; packets behind the last one */
    int64_t parted, repeats, gap;       /* pairs of equal packets; the widest gap of a parted one, ns ... */
    int64_t spread;                     /* ... and between the stamps of one packet */
};

/*
 * Looks at `rows` merged packets, `place` and `time` as ftn_merge put them out.  All of *survey is zero but for its
 * arrays, which have room for `rows` packets.  Returns -1 when memory is short.
 */
int ftn_survey(const struct ftn_surveyed *captures, int count, const int64_t *place, const int64_t *time, size_t rows,
               const struct ftn_limits *limits, struct ftn_survey *survey);

/* What is added to a time, ns: seed, and, of time - origin, a straight line and the line through at least one knot. */
struct ftn_fit {
    int64_t origin, seed;
    double base, drift, reach[2]; /* the line goes on level beyond its reach */
    const double *knot_time, *knot_value;
    size_t knots;
};

/* Corrects `count` times, so that none is before the one before it. */
void ftn_correct(const struct ftn_fit *fit, const int64_t *time, size_t count, int64_t *corrected);

#endif

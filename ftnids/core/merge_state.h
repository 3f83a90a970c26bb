/*
 * merge_state.h: what the aligner's parts share: the packets and groups of one merge.
 *
 * A packet is a number: capture r's packet i is start[r] + i.  A group, one agreed packet in the making, bears the
 * number of one of its packets, so nothing is allocated for it.  Every array has one entry a packet, or one
 * for each capture of a packet.
 */
#ifndef FTN_MERGE_STATE_H
#define FTN_MERGE_STATE_H

#include "merge.h"

#include <stdbool.h>

enum {
    BAND = 16,       /* cells of the pairing programme for each packet of a burst; a wider band is paired greedily */
    SHORT = 4,       /* tolerances; in a longer burst the count of pairs does not come first */
    SCORE_BITS = 20, /* of a time in a score */
    MOST_PAIRS = 64, /* what a pair is worth where the count comes first, in tolerances squared */
    SURPRISES = 256, /* surprises that are worth a tolerance squared: 16 are one bit */
    SURPRISE = 44,   /* of two repeats so close */
    SEEN = 256,      /* packets that occur once; fewer show nothing of loss ... */
    UNKNOWN = 896,   /* ... and this is the surprise of two captures; of more, the most pairs win */
    REALIGN = 64,    /* packets of a burst of more than two captures that is gone over once more ... */
    REALIGNED = 512, /* ... and these, times its captures */
    PROBES = 8,      /* places of the table of hashes that are looked at for each packet; after more they are sorted */
    ONE = 1 << 16,   /* a share, in fixed point */
    EVIDENCE = 4,    /* reordered packets from which on reordering counts as seen ... */
    ENOUGH = 2048,   /* ... among so many: in a short window repeats and a poor clock look the same */
    AMBIGUOUS = 1,   /* messages.Flag.AMBIGUOUS */
    NONE = -1,
    BEFORE_ALL = -1, /* places on the ruler */
    BEHIND_ALL = INT32_MAX,
    BLOCKS = 40,
};
#define NEVER (INT64_MIN / 2) /* what a pair is worth that is not to be made */
enum move { UP, LEFT, DIAGONAL }; /* LEFT | DIAGONAL is DIAGONAL */

struct group {
    int64_t first, last, sum; /* of its packets' times */
    int64_t tolerance;        /* the widest */
    int32_t after, before;    /* places on the ruler */
    int32_t surprise;         /* were all its captures to lose a packet */
    uint8_t holders, flags;
};

/* A packet of the capture that a burst's groups are being matched with. */
struct own {
    int64_t time, cost; /* of the silence between it and the one before */
    int32_t after, before;
};

struct list {
    int32_t *at;
    size_t count;
};

struct merge {
    int captures;
    size_t total, start[FTN_MERGE_CAPTURES + 1];
    int64_t widest, tolerance[FTN_MERGE_CAPTURES];
    int32_t surprise[FTN_MERGE_CAPTURES]; /* when a capture loses a packet */
    int scale;

    uint8_t *owner; /* of each packet: its capture */
    int64_t *time;  /* relative to the earliest, so that sums fit */

    size_t hashes;
    uint32_t *first_of; /* [hashes + 1] where each hash's packets begin in by_hash */
    int32_t *by_hash;   /* packets by hash, then time, capture, index */

    struct group *group;
    int32_t *member; /* [total * captures] the packets of a group, by capture */
    int32_t *after, *before; /* the ruled places around each packet */
    size_t ruled, broken;
    uint32_t *chain_of; /* [hashes + 1] where each hash's groups begin in chain */
    struct list chain;  /* groups by hash, then time */

    /* scratch */
    int32_t *sequence, *rank, *order, *low, *high, *pair_i, *pair_j;
    uint8_t *waiting, *done, *odd;
    int64_t *mean, *row, *above, *worth;
    int32_t *places;                      /* in their burst, of its packets by capture, then time */
    int64_t *burst_time, *behind, *ahead; /* of each packet of a burst */
    struct own *own_packet;
    uint8_t *move;
    struct list groups, own, merged;

    void *block[BLOCKS];
    int blocks;
    bool failed;
};

static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline size_t max_size(size_t a, size_t b) { return a > b ? a : b; }
static inline int32_t max32(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t min32(int32_t a, int32_t b) { return a < b ? a : b; }


static inline int64_t time_of(const struct merge *m, int32_t g)
{
    const struct group *a = &m->group[g]; /* its times are never negative: they count from the earliest */
    return a->holders == 1 ? a->sum : a->sum / a->holders;
}

static inline int32_t *members(const struct merge *m, int32_t g) { return m->member + (size_t)g * m->captures; }

/* Makes packet x a group of its own, measured by the ruler if there is one. */
static inline void alone(struct merge *m, int32_t x, bool measured)
{
    const int64_t time = m->time[x];
    for (int r = 0; r < m->captures; r++)
        members(m, x)[r] = NONE;
    members(m, x)[m->owner[x]] = x;
    m->group[x] = (struct group){
        .first = time, .last = time, .sum = time, .tolerance = m->tolerance[m->owner[x]], .holders = 1,
        .surprise = m->surprise[m->owner[x]],
        .after = measured ? m->after[x] : BEFORE_ALL, .before = measured ? m->before[x] : BEHIND_ALL,
    };
}

static inline void absorb(struct group *a, const struct group *b)
{
    a->first = min64(a->first, b->first);
    a->last = max64(a->last, b->last);
    a->sum += b->sum;
    a->holders += b->holders;
    a->surprise += b->surprise;
    a->tolerance = max64(a->tolerance, b->tolerance);
    a->after = max32(a->after, b->after);
    a->before = min32(a->before, b->before);
}

static inline void join(struct merge *m, int32_t g, int32_t h)
{
    for (int r = 0; r < m->captures; r++)
        if (members(m, h)[r] != NONE)
            members(m, g)[r] = members(m, h)[r];
    absorb(&m->group[g], &m->group[h]);
}

/* The same where h is one packet. */
static inline void join_packet(struct merge *m, int32_t g, int32_t h)
{
    members(m, g)[m->owner[h]] = h;
    absorb(&m->group[g], &m->group[h]);
}

static inline bool contradicts(const struct group *a, const struct group *b)
{
    return max32(a->after, b->after) >= min32(a->before, b->before);
}

static inline bool fits(const struct group *a, const struct group *b)
{
    return max64(a->last, b->last) - min64(a->first, b->first) <= max64(a->tolerance, b->tolerance);
}

static inline bool precedes(const struct merge *m, int32_t g, int32_t h)
{
    const struct group *a = &m->group[g], *b = &m->group[h];
    return contradicts(a, b) ? a->before <= b->after : time_of(m, g) <= time_of(m, h);
}

/* Makes one group of packets, at most one of each capture. */
static inline int32_t fused(struct merge *m, const int32_t *packets, size_t count, bool measured)
{
    alone(m, packets[0], measured);
    for (size_t i = 1; i < count; i++) {
        alone(m, packets[i], measured);
        join(m, packets[0], packets[i]);
    }
    return packets[0];
}

/* merge_order.c */
void ftn_topological(struct merge *m, struct list groups, int32_t *order);
void ftn_make_ruler(struct merge *m, struct list certain);

/* merge_pairs.c */
void ftn_pair(struct merge *m, size_t at, size_t end);

/* merge_reorder.c */
void ftn_join_reordered(struct merge *m, int64_t reorder_ns, int64_t places);

#endif

/*
 * faults.h: injected loss and clock error, decided by a seed and the packet's index alone.
 *
 * Both are integer arithmetic on draws of splitmix64, so that the pure-Python twin decides the same to the bit,
 * however the packets are batched.  ftnids/core/faults.py says what the thresholds mean.
 */
#ifndef FTN_FAULTS_H
#define FTN_FAULTS_H

#include "hash.h"

#include <stdbool.h>

#define FTN_GAMMA UINT64_C(0x9e3779b97f4a7c15)

/* Runs of losses: a packet is dropped when its draw is below the threshold of the state that its predecessor left. */
struct ftn_drop {
    uint64_t seed, index;
    uint64_t first, after_kept, after_dropped; /* thresholds, of 2^53 */
    bool dropping;
};

/* The `index`-th draw of the splitmix64 generator that starts at `seed`. */
static inline uint64_t ftn_draw(uint64_t seed, uint64_t index)
{
    return ftn_splitmix64(seed + index * FTN_GAMMA);
}

static inline bool ftn_drop_next(struct ftn_drop *drop)
{
    const uint64_t kept_or_not = drop->dropping ? drop->after_dropped : drop->after_kept;
    const uint64_t threshold = drop->index ? kept_or_not : drop->first;
    drop->dropping = (ftn_draw(drop->seed, drop->index++) >> 11) < threshold;
    return drop->dropping;
}

/* A clock that is ahead by an offset, runs fast, and stamps late by 0 to jitter. */
struct ftn_skew {
    int64_t offset_ns, jitter_ns;
    int64_t drift; /* 2^-32 ns per ns */
    uint64_t seed, index;
    int64_t first_ns; /* stamp of packet 0 */
};

__extension__ typedef __int128 ftn_wide;

static inline int64_t ftn_skew_next(struct ftn_skew *skew, int64_t stamp_ns)
{
    if (skew->index == 0)
        skew->first_ns = stamp_ns;
    const uint64_t draw = ftn_draw(skew->seed, skew->index++);
    const int64_t late = (int64_t)(((ftn_wide)(draw >> 1) * (skew->jitter_ns + 1)) >> 63);
    const int64_t drifted = (int64_t)(((ftn_wide)(stamp_ns - skew->first_ns) * skew->drift) >> 32);
    return stamp_ns + skew->offset_ns + drifted + late;
}

#endif

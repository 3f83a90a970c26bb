/*
 * clock.h: capture times on a clock that does not step.
 *
 * The kernel stamps packets with the real-time clock, which an operator or NTP may set.  Capture time is the monotonic
 * clock plus a base fixed at the start, so it reads like real time and never steps.  The offset between
 * the two clocks changes only when real time is stepped (slewing moves both), and an observation of both tells
 * exactly whether it did: the old offset then lies outside what the observation allows.
 */
#ifndef FTN_CLOCK_H
#define FTN_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct ftn_clock {
    int64_t base;       /* capture time less monotonic time */
    int64_t offset;     /* real time less monotonic time now */
    int64_t old_offset; /* before the last step */
    bool straddling;    /* packets stamped before the last step may still come */
    uint64_t steps;
};

static inline void ftn_clock_start(struct ftn_clock *clock, int64_t before, int64_t real, int64_t after)
{
    clock->offset = clock->old_offset = clock->base = real - before - (after - before) / 2;
    clock->straddling = false;
    clock->steps = 0;
}

/* Real time read between two readings of monotonic time; true if real time has stepped. */
static inline bool ftn_clock_observe(struct ftn_clock *clock, int64_t before, int64_t real, int64_t after)
{
    if (clock->offset >= real - after && clock->offset <= real - before)
        return false;
    clock->old_offset = clock->offset;
    clock->offset = real - before - (after - before) / 2;
    clock->straddling = true;
    clock->steps++;
    return true;
}

static inline int64_t ftn_clock_outside(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low - value : value > high ? value - high : 0;
}

/* The capture time of a stamp of a packet that came between capture times `low` and `high`. */
static inline int64_t ftn_clock_convert(const struct ftn_clock *clock, int64_t stamp, int64_t low, int64_t high)
{
    const int64_t now = stamp - clock->offset + clock->base;
    if (!clock->straddling)
        return now;
    const int64_t old = stamp - clock->old_offset + clock->base;
    return ftn_clock_outside(old, low, high) < ftn_clock_outside(now, low, high) ? old : now;
}

#endif

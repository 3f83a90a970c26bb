/*
 * clock.h: capture times on a clock that does not step.
 *
 * The kernel stamps packets with the real-time clock, which an operator or NTP may set.  Capture time is the monotonic
 * clock plus a base fixed at the start, so it reads like real time and never steps.  The offset between
 * the two clocks changes only when real time is stepped: slewing moves both.  Each look at both clocks says between
 * which bounds the offset lies.  The bounds of all looks together hold until the next step, and it is a step when a
 * look contradicts them.
 */
#ifndef FTN_CLOCK_H
#define FTN_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define FTN_CLOCK_NOISE_NS 1000 /* rounding of the two clocks, and steps that small do not matter */

struct ftn_clock {
    int64_t base;       /* capture time less monotonic time */
    int64_t low, high;  /* bounds of the offset since the last step */
    int64_t offset;     /* real time less monotonic time now */
    int64_t old_offset; /* before the last step */
    bool straddling;    /* packets stamped before the last step may still come */
    uint64_t steps;
};

static inline void ftn_clock_set(struct ftn_clock *clock, int64_t low, int64_t high)
{
    clock->low = low;
    clock->high = high;
    clock->offset = low + (high - low) / 2;
}

static inline void ftn_clock_start(struct ftn_clock *clock, int64_t before, int64_t real, int64_t after)
{
    ftn_clock_set(clock, real - after, real - before);
    clock->base = clock->old_offset = clock->offset;
    clock->straddling = false;
    clock->steps = 0;
}

/* Real time read between two readings of monotonic time; true if real time has stepped. */
static inline bool ftn_clock_observe(struct ftn_clock *clock, int64_t before, int64_t real, int64_t after)
{
    const int64_t low = real - after, high = real - before;
    if (low <= clock->high + FTN_CLOCK_NOISE_NS && high >= clock->low - FTN_CLOCK_NOISE_NS) {
        clock->low = low > clock->low && low <= clock->high ? low : clock->low;
        clock->high = high < clock->high && high >= clock->low ? high : clock->high;
        return false;
    }
    clock->old_offset = clock->offset;
    ftn_clock_set(clock, low, high);
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
    const int64_t slack = clock->high - clock->low + FTN_CLOCK_NOISE_NS;
    if (!clock->straddling || ftn_clock_outside(now, low, high) <= slack)
        return now;
    const int64_t old = stamp - clock->old_offset + clock->base;
    return ftn_clock_outside(old, low, high) < ftn_clock_outside(now, low, high) ? old : now;
}

#endif

/*
 * correct.c: one member's times on another's clock.  `ftnids.sync.clocks.Clock` says what the numbers are, and does the
 * same with numpy, equal to the bit.
 */
#include "merge.h"

#include <math.h>

static double between(const struct ftn_fit *fit, size_t *knot, double t)
{
    const double *at = fit->knot_time, *value = fit->knot_value;
    size_t j = *knot;
    if (t < at[0])
        return value[0];
    while (j > 0 && t < at[j])
        j--;
    while (j + 1 < fit->knots && t >= at[j + 1])
        j++;
    *knot = j;
    if (j + 1 == fit->knots || at[j] == t)
        return value[j];
    return (value[j + 1] - value[j]) / (at[j + 1] - at[j]) * (t - at[j]) + value[j];
}

void ftn_correct(const struct ftn_fit *fit, const int64_t *time, size_t count, int64_t *corrected)
{
    size_t knot = 0;
    int64_t latest = INT64_MIN;
    for (size_t i = 0; i < count; i++) {
        const double t = (double)(time[i] - fit->origin);
        const double level = t < fit->reach[0] ? fit->reach[0] : t;
        const double within = level > fit->reach[1] ? fit->reach[1] : level;
        const double offset = fit->base + fit->drift * within + between(fit, &knot, t);
        const int64_t here = time[i] + (int64_t)rint(offset) + fit->seed;
        latest = here > latest ? here : latest;
        corrected[i] = latest;
    }
}

/*
 * merge.c: the aligner keeps its contract on any captures: every packet once, times that never decrease, equal hashes
 * in a row; a look at the result finds each packet where it is.  Whoever makes the traffic chooses which packets
 * repeat, so few hash values and small steps are drawn.
 *
 *   byte 0      bits 0-1 captures less 1, bits 2-3 tolerance, bits 4-5 reorder window, bit 6 places
 *   then        packets of 3 bytes: capture and hash, time step
 */
#include "merge.h"
#include "../../tests/core/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAPTURES = 4, MOST = 20000 };

struct side {
    size_t count;
    uint64_t *hash;
    int64_t *time;
    uint8_t *seen;
};

static const int64_t SPANS[] = {0, 1000, 500000, 50000000};

static void fill(struct side *sides, int captures, const uint8_t *data, size_t packets)
{
    int64_t now = 1000000000;
    for (size_t i = 0; i < packets; i++, data += 3) {
        struct side *s = &sides[data[0] % captures];
        now += (int64_t)data[2] << data[1] % 16; /* of 0 to 8 ms: from less than any window to more than most */
        s->hash[s->count] = (uint64_t)(data[0] / 4) * (data[1] & 0x40 ? 1 : UINT64_C(0x9e3779b97f4a7c15));
        s->time[s->count++] = now;
    }
}

static void check(const struct ftn_capture_view *views, struct side *sides, int captures, ptrdiff_t count,
                  const int64_t *place, const int64_t *time)
{
    for (ptrdiff_t m = 0; m < count; m++) {
        int holders = 0;
        uint64_t hash = 0;
        for (int r = 0; r < captures; r++) {
            const int64_t at = place[m * captures + r];
            if (at < 0)
                continue;
            CHECK(at < (int64_t)views[r].count && !sides[r].seen[at]++);
            CHECK(holders++ == 0 || hash == views[r].hash[at]);
            hash = views[r].hash[at];
        }
        CHECK(holders > 0 && (m == 0 || time[m - 1] <= time[m]));
    }
    for (int r = 0; r < captures; r++)
        for (size_t i = 0; i < views[r].count; i++)
            CHECK(sides[r].seen[i] == 1);
}

/* Looks at what was merged; all arrays are exactly as long as they must be. */
static void survey(const struct ftn_capture_view *views, int captures, size_t rows, const int64_t *place,
                   const int64_t *time, const struct ftn_limits *limits)
{
    struct ftn_surveyed seen[CAPTURES];
    struct ftn_survey s = {.hash = malloc(rows * sizeof *s.hash), .holders = malloc(rows * sizeof *s.holders)};
    const double knots[] = {0, 1e6, 3e6}, values[] = {-5, 1e3, 7};
    const struct ftn_fit fit = {.origin = 1000000000, .drift = 1e-5, .reach = {0, 1e9},
                                .knot_time = knots, .knot_value = values, .knots = 3};
    s.first = malloc(rows * sizeof *s.first);
    s.last = malloc(rows * sizeof *s.last);
    for (int r = 0; r < captures; r++) {
        const size_t n = views[r].count;
        int64_t *time_of = malloc(n * sizeof *time_of), *position = malloc(n * sizeof *position);
        if (n)
            ftn_correct(&fit, views[r].time, n, time_of);
        for (size_t i = 0; i < n; i++) {
            CHECK(i == 0 || time_of[i - 1] <= time_of[i]);
            position[i] = (int64_t)(i + i / 9);
        }
        seen[r] = (struct ftn_surveyed){views[r].hash, time_of, position, views[r].tolerance};
        s.index[r] = malloc(n * sizeof *s.index[r]);
    }
    CHECK(ftn_survey(seen, captures, place, time, rows, limits, &s) == 0);
    CHECK(s.anchored <= (int64_t)rows && s.widest <= (int64_t)rows && s.behind <= s.widest);
    for (int r = 0; r < captures; r++) {
        CHECK(s.held[r] == views[r].count);
        free((void *)(uintptr_t)seen[r].time);
        free((void *)(uintptr_t)seen[r].position);
        free(s.index[r]);
    }
    free(s.hash);
    free(s.holders);
    free(s.first);
    free(s.last);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t packets = size ? (size - 1) / 3 : 0;
    if (packets == 0 || packets > MOST)
        return 0;
    const int captures = 1 + data[0] % CAPTURES;
    struct side sides[CAPTURES] = {0};
    struct ftn_capture_view views[CAPTURES];
    for (int r = 0; r < captures; r++) {
        sides[r].hash = malloc(packets * sizeof *sides[r].hash);
        sides[r].time = malloc(packets * sizeof *sides[r].time);
        sides[r].seen = calloc(packets, 1);
    }
    fill(sides, captures, data + 1, packets);
    for (int r = 0; r < captures; r++) { /* arrays of exactly their size, so that a read past the end is seen */
        const size_t n = sides[r].count;
        uint64_t *hash = malloc(n * sizeof *hash);
        int64_t *time = malloc(n * sizeof *time);
        if (n) {
            memcpy(hash, sides[r].hash, n * sizeof *hash);
            memcpy(time, sides[r].time, n * sizeof *time);
        }
        views[r] = (struct ftn_capture_view){n, hash, time, SPANS[data[0] >> 2 & 3]};
    }
    int64_t *place = malloc(packets * (size_t)captures * sizeof *place), *time = malloc(packets * sizeof *time);
    uint8_t *flags = malloc(packets);
    const ptrdiff_t count =
        ftn_merge(views, captures, SPANS[data[0] >> 4 & 3], data[0] & 0x40 ? 64 : 2, place, time, flags);
    CHECK(count >= 0 && count <= (ptrdiff_t)packets);
    check(views, sides, captures, count, place, time);
    const struct ftn_limits limits = {SPANS[data[0] >> 4 & 3], 1 + data[0] % 9};
    survey(views, captures, (size_t)count, place, time, &limits);
    for (int r = 0; r < captures; r++) {
        free(sides[r].hash);
        free(sides[r].time);
        free(sides[r].seen);
        free((void *)(uintptr_t)views[r].hash);
        free((void *)(uintptr_t)views[r].time);
    }
    free(place);
    free(time);
    free(flags);
    return 0;
}

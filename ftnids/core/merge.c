/*
 * merge.c: the aligner.  `ftnids/sync/bursts.py` is its twin in Python, equal to the bit, and tells its theory;
 * the functions here bear the names of those there.
 * `merge_state.h` says how packets and groups are kept.
 */
#include "merge_state.h"

#include <stdlib.h>
#include <string.h>

static void *take(struct merge *m, size_t count, size_t size)
{
    void *block = malloc((count + 1) * size);
    if (!block || m->blocks == BLOCKS) {
        free(block);
        m->failed = true;
        return NULL;
    }
    return m->block[m->blocks++] = block;
}

/* -- bursts ------------------------------------------------------------------------------------------ */

/* Merges two neighbouring runs of packets, each in time order, into one; the first wins ties. */
static void merge_runs(const struct merge *m, int32_t *run, size_t first, size_t count, int32_t *scratch)
{
    if (first == 0 || first == count || m->time[run[first - 1]] <= m->time[run[first]])
        return;
    memcpy(scratch, run, first * sizeof *run);
    for (size_t a = 0, b = first, out = 0; a < first; out++)
        run[out] = b < count && m->time[run[b]] < m->time[scratch[a]] ? run[b++] : scratch[a++];
}

/* Sorts one hash's packets, which are in order of capture, then time, by time; equal ones stay. */
static void sort_by_time(const struct merge *m, int32_t *packet, size_t count, int32_t *scratch)
{
    size_t run[FTN_MERGE_CAPTURES + 1]; /* where each capture's begin */
    int runs = 1;
    run[0] = 0;
    for (size_t i = 1; i < count; i++)
        if (m->owner[packet[i]] != m->owner[packet[i - 1]])
            run[runs++] = i;
    run[runs] = count;
    for (int width = 1; width < runs; width *= 2)
        for (int i = 0; i + width < runs; i += 2 * width) {
            const int end = i + 2 * width < runs ? i + 2 * width : runs;
            merge_runs(m, packet + run[i], run[i + width] - run[i], run[end] - run[i], scratch);
        }
}

static inline void numbered(struct merge *m, size_t packet, uint32_t hash)
{
    m->rank[packet] = (int32_t)hash;
    m->first_of[hash + 1]++;
}

/* Numbers the hashes in order of appearance and counts their packets; false where too many fall on one place. */
static bool number_hashes(struct merge *m, const struct ftn_capture_view *views)
{
    int bits = 4;
    while (((size_t)1 << bits) < 2 * m->total)
        bits++;
    const size_t slots = (size_t)1 << bits, most = PROBES * m->total;
    size_t probes = 0;
    uint32_t *table = calloc(slots, sizeof *table); /* hash number + 1 */
    uint64_t *known = malloc((m->total + 1) * sizeof *known);
    m->failed = !table || !known;
    for (int r = 0; r < m->captures && !m->failed; r++)
        for (size_t i = 0; i < views[r].count && probes <= most; i++) {
            const uint64_t hash = views[r].hash[i];
            size_t slot = (hash * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - bits);
            for (; table[slot] && known[table[slot] - 1] != hash; probes++)
                slot = (slot + 1) & (slots - 1);
            if (!table[slot]) {
                known[m->hashes++] = hash;
                table[slot] = (uint32_t)m->hashes;
            }
            numbered(m, m->start[r] + i, table[slot] - 1);
        }
    free(table);
    free(known);
    return probes <= most;
}

struct keyed {
    uint64_t hash;
    size_t packet;
};

/* The same by a radix sort, in order of the hashes: slower, but no choice of hashes makes it slower still. */
static void number_sorted(struct merge *m, const struct ftn_capture_view *views)
{
    struct keyed *from = malloc((m->total + 1) * sizeof *from), *to = malloc((m->total + 1) * sizeof *to);
    m->failed = !from || !to;
    for (int r = 0; r < m->captures && !m->failed; r++)
        for (size_t i = 0; i < views[r].count; i++)
            from[m->start[r] + i] = (struct keyed){views[r].hash[i], m->start[r] + i};
    for (int shift = 0; shift < 64 && !m->failed; shift += 8) {
        size_t next[257] = {0};
        for (size_t i = 0; i < m->total; i++)
            next[(from[i].hash >> shift & 255) + 1]++;
        for (int digit = 0; digit < 255; digit++)
            next[digit + 1] += next[digit];
        for (size_t i = 0; i < m->total; i++)
            to[next[from[i].hash >> shift & 255]++] = from[i];
        struct keyed *const swap = from;
        from = to, to = swap;
    }
    memset(m->first_of, 0, (m->total + 1) * sizeof *m->first_of);
    m->hashes = 0;
    for (size_t i = 0; i < m->total && !m->failed; i++) {
        m->hashes += i == 0 || from[i].hash != from[i - 1].hash;
        numbered(m, from[i].packet, (uint32_t)m->hashes - 1);
    }
    free(from);
    free(to);
}

/* Sorts the packets by hash (in any order), then time, capture and index. */
static void sort_packets(struct merge *m, const struct ftn_capture_view *views)
{
    const int32_t *number = m->rank;
    memset(m->first_of, 0, (m->total + 1) * sizeof *m->first_of);
    if (!number_hashes(m, views))
        number_sorted(m, views);
    if (m->failed)
        return;
    for (size_t h = 0; h < m->hashes; h++)
        m->first_of[h + 1] += m->first_of[h];
    for (size_t x = m->total; x-- > 0;)
        m->by_hash[--m->first_of[number[x] + 1]] = (int32_t)x;
    for (size_t h = 0; h < m->hashes; h++)
        m->first_of[h] = m->first_of[h + 1];
    m->first_of[m->hashes] = (uint32_t)m->total;
    for (size_t h = 0; h < m->hashes; h++)
        sort_by_time(m, m->by_hash + m->first_of[h], m->first_of[h + 1] - m->first_of[h], m->sequence);
}

/* The widest tolerance of the captures that hold packets `at` to `end` of by_hash. */
static int64_t widest_of(const struct merge *m, size_t at, size_t end)
{
    int64_t widest = 0;
    for (; at < end && widest < m->widest; at++)
        widest = max64(widest, m->tolerance[m->owner[m->by_hash[at]]]);
    return widest;
}

/* Where the burst ends that begins at packet `at` of by_hash; `end` is where its hash ends. */
static size_t burst_end(const struct merge *m, size_t at, size_t end, int64_t widest)
{
    size_t last = at + 1;
    while (last < end && m->time[m->by_hash[last]] - m->time[m->by_hash[last - 1]] <= widest)
        last++;
    return last;
}

/* A burst that is one agreed packet: at most one packet of each capture, in tolerance of each other. */
static bool is_simple(const struct merge *m, size_t at, size_t end)
{
    uint32_t seen = 0;
    int64_t tolerance = 0;
    if (end - at > (size_t)m->captures)
        return false;
    for (size_t i = at; i < end; i++) {
        const int r = m->owner[m->by_hash[i]];
        if (seen & (1u << r))
            return false;
        seen |= 1u << r;
        tolerance = max64(tolerance, m->tolerance[r]);
    }
    return m->time[m->by_hash[end - 1]] - m->time[m->by_hash[at]] <= tolerance;
}

/* -- all together ------------------------------------------------------------------------------------ */

static void prepare(struct merge *m, const struct ftn_capture_view *views, int captures)
{
    int64_t earliest = INT64_MAX;
    m->captures = captures;
    for (int r = 0; r < captures; r++) {
        m->start[r + 1] = m->start[r] + views[r].count;
        m->tolerance[r] = views[r].tolerance;
        m->widest = max64(m->widest, views[r].tolerance);
        if (views[r].count)
            earliest = min64(earliest, views[r].time[0]);
    }
    while (m->widest >> m->scale >> SCORE_BITS)
        m->scale++;
    const size_t n = m->total = m->start[captures];
    int32_t **const numbers[] = {
        &m->by_hash, &m->after, &m->before, &m->sequence, &m->rank, &m->order, &m->low, &m->high,
        &m->pair_i, &m->pair_j, &m->places, &m->chain.at, &m->groups.at, &m->own.at, &m->merged.at,
    };
    int64_t **const times[] = {
        &m->time, &m->mean, &m->row, &m->above, &m->worth, &m->burst_time, &m->behind, &m->ahead,
    };
    uint8_t **const bytes[] = {&m->owner, &m->waiting, &m->done, &m->odd};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        *numbers[i] = take(m, n, sizeof(int32_t));
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        *times[i] = take(m, n, sizeof(int64_t));
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
        *bytes[i] = take(m, n, sizeof(uint8_t));
    m->first_of = take(m, n + 1, sizeof *m->first_of);
    m->chain_of = take(m, n + 1, sizeof *m->chain_of);
    m->member = take(m, n * captures, sizeof *m->member);
    m->group = take(m, n, sizeof *m->group);
    m->own_packet = take(m, n, sizeof *m->own_packet);
    m->move = take(m, BAND * n, sizeof *m->move);
    if (m->failed)
        return;
    for (int r = 0; r < captures; r++)
        for (size_t i = 0; i < views[r].count; i++) {
            m->owner[m->start[r] + i] = (uint8_t)r;
            m->time[m->start[r] + i] = views[r].time[i] - earliest;
        }
    sort_packets(m, views);
}

/* Sixteen times the logarithm to base 2 of `total / part`, 0 < part <= total; straight lines between powers. */
static int32_t surprise(int64_t part, int64_t total)
{
    const int64_t share = max64(part * ONE / total, 1);
    const int whole = 63 - __builtin_clzll((uint64_t)share);
    return (int32_t)(16 * 16 - 16 * whole - (((share << 4) >> whole) - 16));
}

/* Joins the simple bursts and makes the ruler of those whose hash occurs in no other. */
static void join_simple(struct merge *m)
{
    int64_t seen = 0, kept[FTN_MERGE_CAPTURES] = {0};
    m->chain.count = 0;
    for (size_t hash = 0; hash < m->hashes; hash++) {
        const size_t first = m->first_of[hash], last = m->first_of[hash + 1];
        const int64_t widest = widest_of(m, first, last);
        for (size_t at = first, end; at < last; at = end) {
            end = burst_end(m, at, last, widest);
            if (!is_simple(m, at, end))
                continue;
            const int32_t g = fused(m, m->by_hash + at, end - at, false);
            if (at != first || end != last)
                continue;
            seen++;
            for (int r = 0; r < m->captures; r++)
                kept[r] += members(m, g)[r] != NONE;
            if (m->group[g].holders > 1)
                m->chain.at[m->chain.count++] = g;
        }
    }
    const int32_t unknown = m->captures != 2 ? MOST_PAIRS * SURPRISES : UNKNOWN;
    for (int r = 0; r < m->captures; r++)
        m->surprise[r] = seen < SEEN ? unknown : surprise(seen + 1 - kept[r], seen + 1);
    ftn_make_ruler(m, m->chain);
}

static void pair_others(struct merge *m)
{
    m->chain.count = 0;
    for (size_t hash = 0; hash < m->hashes; hash++) {
        const size_t first = m->first_of[hash], last = m->first_of[hash + 1];
        const int64_t widest = widest_of(m, first, last);
        m->chain_of[hash] = (uint32_t)m->chain.count;
        for (size_t at = first, end; at < last; at = end) {
            end = burst_end(m, at, last, widest);
            if (is_simple(m, at, end))
                m->chain.at[m->chain.count++] = m->by_hash[at];
            else
                ftn_pair(m, at, end);
        }
    }
    m->chain_of[m->hashes] = (uint32_t)m->chain.count;
}

static ptrdiff_t put_out(struct merge *m, const struct ftn_capture_view *views, int64_t *place, int64_t *time,
                         uint8_t *flags)
{
    struct list all = {.at = m->by_hash};
    for (size_t i = 0; i < m->chain.count; i++)
        if (m->group[m->chain.at[i]].holders)
            all.at[all.count++] = m->chain.at[i];
    ftn_topological(m, all, m->order);
    int64_t latest = INT64_MIN, earliest = INT64_MAX;
    for (int r = 0; r < m->captures; r++)
        if (views[r].count)
            earliest = min64(earliest, views[r].time[0]);
    for (size_t i = 0; i < all.count; i++) {
        const int32_t g = m->order[i];
        for (int r = 0; r < m->captures; r++) {
            const int32_t x = members(m, g)[r];
            place[i * m->captures + r] = x == NONE ? -1 : x - (int64_t)m->start[r];
        }
        latest = max64(latest, m->mean[g]);
        time[i] = latest + earliest;
        flags[i] = m->group[g].flags;
    }
    return (ptrdiff_t)all.count;
}

ptrdiff_t ftn_merge(const struct ftn_capture_view *views, int captures, int64_t reorder_ns, int64_t reorder_places,
                    int64_t *place, int64_t *time, uint8_t *flags)
{
    struct merge m = {0};
    ptrdiff_t count = -1;
    prepare(&m, views, captures);
    if (!m.failed) {
        join_simple(&m);
        pair_others(&m);
        ftn_join_reordered(&m, reorder_ns, reorder_places);
        count = put_out(&m, views, place, time, flags);
    }
    for (int i = 0; i < m.blocks; i++)
        free(m.block[i]);
    return count;
}

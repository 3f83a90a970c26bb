/*
 * merge.c: the aligner.  `ftnids/sync/bursts.py` is its twin in Python, equal to the bit, and tells its theory;
 * the functions here bear the names of those there.
 *
 * A packet is a number: capture r's packet i is start[r] + i.  A group, one agreed packet in the making, bears the
 * number of one of its packets, so nothing is allocated for it.  Every array has one entry a packet, or one
 * for each capture of a packet.
 */
#include "merge.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    BAND = 16,       /* cells of the pairing programme for each packet of a burst; a wider band is paired greedily */
    SHORT = 4,       /* tolerances; in a longer burst the count of pairs does not come first */
    SCORE_BITS = 20, /* of a time in a score */
    MOST_PAIRS = 64, /* what a pair is worth where the count comes first, in tolerances squared */
    REALIGN = 64,    /* packets of a burst of more than two captures that is gone over once more */
    ONE = 1 << 16,   /* a share, in fixed point */
    EVIDENCE = 4,    /* reordered packets from which on reordering counts as seen */
    AMBIGUOUS = 1,   /* messages.Flag.AMBIGUOUS */
    NONE = -1,
    BEFORE_ALL = -1, /* places on the ruler */
    BEHIND_ALL = INT32_MAX,
    BLOCKS = 32,
};
enum move { UP, LEFT, DIAGONAL };

struct group {
    int64_t first, last, sum; /* of its packets' times */
    int64_t tolerance;        /* the widest */
    int32_t after, before;    /* places on the ruler */
    uint8_t holders, flags;
};

struct list {
    int32_t *at;
    size_t count;
};

struct merge {
    int captures;
    size_t total, start[FTN_MERGE_CAPTURES + 1];
    int64_t widest, tolerance[FTN_MERGE_CAPTURES];
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
    int64_t *mean, *row, *above, *silence, *burst_time;
    uint8_t *move;
    struct list groups, own, merged;

    void *block[BLOCKS];
    int blocks;
    bool failed;
};

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

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static int32_t max32(int32_t a, int32_t b) { return a > b ? a : b; }
static int32_t min32(int32_t a, int32_t b) { return a < b ? a : b; }

/* -- groups ------------------------------------------------------------------------------------------ */

static int64_t time_of(const struct merge *m, int32_t g)
{
    return m->group[g].sum / m->group[g].holders; /* never negative: times count from the earliest */
}

static int32_t *members(const struct merge *m, int32_t g) { return m->member + (size_t)g * m->captures; }

/* Makes packet x a group of its own, measured by the ruler if there is one. */
static void alone(struct merge *m, int32_t x, bool measured)
{
    const int64_t time = m->time[x];
    for (int r = 0; r < m->captures; r++)
        members(m, x)[r] = NONE;
    members(m, x)[m->owner[x]] = x;
    m->group[x] = (struct group){
        .first = time, .last = time, .sum = time, .tolerance = m->tolerance[m->owner[x]], .holders = 1,
        .after = measured ? m->after[x] : BEFORE_ALL, .before = measured ? m->before[x] : BEHIND_ALL,
    };
}

static void join(struct merge *m, int32_t g, int32_t h)
{
    struct group *a = &m->group[g], *b = &m->group[h];
    for (int r = 0; r < m->captures; r++)
        if (members(m, h)[r] != NONE)
            members(m, g)[r] = members(m, h)[r];
    a->first = min64(a->first, b->first);
    a->last = max64(a->last, b->last);
    a->sum += b->sum;
    a->holders += b->holders;
    a->tolerance = max64(a->tolerance, b->tolerance);
    a->after = max32(a->after, b->after);
    a->before = min32(a->before, b->before);
}

static bool contradicts(const struct group *a, const struct group *b)
{
    return max32(a->after, b->after) >= min32(a->before, b->before);
}

static bool fits(const struct group *a, const struct group *b)
{
    return max64(a->last, b->last) - min64(a->first, b->first) <= max64(a->tolerance, b->tolerance) &&
           !contradicts(a, b);
}

static bool precedes(const struct merge *m, int32_t g, int32_t h)
{
    const struct group *a = &m->group[g], *b = &m->group[h];
    return contradicts(a, b) ? a->before <= b->after : time_of(m, g) <= time_of(m, h);
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

/* Sorts the packets by hash (in order of appearance), then time, capture and index. */
static void sort_packets(struct merge *m, const struct ftn_capture_view *views)
{
    int bits = 4;
    while (((size_t)1 << bits) < 2 * m->total)
        bits++;
    const size_t slots = (size_t)1 << bits;
    uint32_t *table = calloc(slots, sizeof *table); /* hash number + 1 */
    uint64_t *known = malloc((m->total + 1) * sizeof *known);
    int32_t *number = m->rank, *scratch = m->sequence;
    if (!table || !known) {
        m->failed = true;
        goto out;
    }
    memset(m->first_of, 0, (m->total + 1) * sizeof *m->first_of);
    for (int r = 0; r < m->captures; r++)
        for (size_t i = 0; i < views[r].count; i++) {
            const uint64_t hash = views[r].hash[i];
            size_t slot = (hash * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - bits);
            while (table[slot] && known[table[slot] - 1] != hash)
                slot = (slot + 1) & (slots - 1);
            if (!table[slot]) {
                known[m->hashes++] = hash;
                table[slot] = (uint32_t)m->hashes;
            }
            number[m->start[r] + i] = (int32_t)(table[slot] - 1);
            m->first_of[table[slot]]++;
        }
    for (size_t h = 0; h < m->hashes; h++)
        m->first_of[h + 1] += m->first_of[h];
    for (size_t x = m->total; x-- > 0;)
        m->by_hash[--m->first_of[number[x] + 1]] = (int32_t)x;
    for (size_t h = 0; h < m->hashes; h++)
        m->first_of[h] = m->first_of[h + 1];
    m->first_of[m->hashes] = (uint32_t)m->total;
    for (size_t h = 0; h < m->hashes; h++) {
        int32_t *run = m->by_hash + m->first_of[h];
        const size_t count = m->first_of[h + 1] - m->first_of[h];
        for (size_t i = 1; i < count; i++)
            if (m->owner[run[i]] != m->owner[run[i - 1]]) {
                size_t end = i + 1;
                while (end < count && m->owner[run[end]] == m->owner[run[i]])
                    end++;
                merge_runs(m, run, i, end, scratch);
                i = end - 1;
            }
    }
out:
    free(table);
    free(known);
}

/* Where the burst ends that begins at packet `at` of by_hash; `end` is where its hash ends. */
static size_t burst_end(const struct merge *m, size_t at, size_t end)
{
    size_t last = at + 1;
    while (last < end && m->time[m->by_hash[last]] - m->time[m->by_hash[last - 1]] <= m->widest)
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

static int32_t fused(struct merge *m, const int32_t *packets, size_t count, bool measured)
{
    alone(m, packets[0], measured);
    for (size_t i = 1; i < count; i++) {
        alone(m, packets[i], measured);
        join(m, packets[0], packets[i]);
    }
    return packets[0];
}

/* -- order ------------------------------------------------------------------------------------------- */

/*
 * Orders `groups` so that each capture's order is kept, by time where no capture orders them.  Where captures
 * contradict each other the group that is furthest out of place gives way, and is marked odd.
 */
static void topological(struct merge *m, struct list groups, int32_t *order)
{
    size_t head[FTN_MERGE_CAPTURES], end[FTN_MERGE_CAPTURES], out = 0;
    for (size_t x = 0; x < m->total; x++)
        m->sequence[x] = NONE;
    for (size_t i = 0; i < groups.count; i++) {
        const int32_t g = groups.at[i];
        for (int r = 0; r < m->captures; r++)
            if (members(m, g)[r] != NONE)
                m->sequence[members(m, g)[r]] = g;
        m->mean[g] = time_of(m, g);
        m->waiting[g] = m->group[g].holders;
        m->done[g] = m->odd[g] = false;
    }
    for (int r = 0; r < m->captures; r++) {
        head[r] = end[r] = m->start[r];
        for (size_t x = m->start[r]; x < m->start[r + 1]; x++)
            if (m->sequence[x] != NONE) {
                m->rank[x] = (int32_t)end[r];
                m->sequence[end[r]++] = m->sequence[x];
            }
        if (head[r] < end[r])
            m->waiting[m->sequence[head[r]]]--;
    }
    for (;;) {
        int32_t chosen = NONE;
        bool heads = false, now = true;
        for (int r = 0; r < m->captures; r++) {
            if (head[r] == end[r])
                continue;
            const int32_t g = m->sequence[head[r]];
            heads = true;
            if (!m->waiting[g] && (chosen == NONE || m->mean[g] < m->mean[chosen]))
                chosen = g;
        }
        if (!heads)
            return;
        if (chosen == NONE) {
            size_t furthest = 0;
            for (int r = 0; r < m->captures; r++) {
                if (head[r] == end[r])
                    continue;
                const int32_t g = m->sequence[head[r]];
                size_t away = 0;
                for (int q = 0; q < m->captures; q++)
                    if (members(m, g)[q] != NONE && (size_t)m->rank[members(m, g)[q]] - head[q] > away &&
                        (size_t)m->rank[members(m, g)[q]] >= head[q])
                        away = (size_t)m->rank[members(m, g)[q]] - head[q];
                if (chosen == NONE || away > furthest) {
                    chosen = g;
                    furthest = away;
                }
            }
            for (int r = 0; r < m->captures; r++)
                if (head[r] < end[r] && m->sequence[head[r]] != chosen)
                    now = now && m->mean[chosen] <= m->mean[m->sequence[head[r]]];
            m->odd[chosen] = true;
        }
        if (now) {
            m->done[chosen] = true;
            order[out++] = chosen;
        }
        for (int r = 0; r < m->captures; r++) {
            if (head[r] == end[r] || m->sequence[head[r]] != chosen)
                continue;
            head[r]++;
            while (head[r] < end[r] && m->done[m->sequence[head[r]]])
                head[r]++;
            if (head[r] < end[r])
                m->waiting[m->sequence[head[r]]]--;
        }
    }
}

/* Puts the certain packets into one order and notes its places around every packet. */
static void make_ruler(struct merge *m, struct list certain)
{
    int32_t *place = m->order; /* of each group, NONE when it is not ruled */
    topological(m, certain, m->low);
    for (size_t x = 0; x < m->total; x++)
        place[x] = NONE;
    m->ruled = certain.count;
    for (size_t i = 0; i < certain.count; i++) {
        const int32_t g = m->low[i];
        m->broken += m->odd[g];
        for (int r = 0; r < m->captures && !m->odd[g]; r++)
            if (members(m, g)[r] != NONE)
                place[members(m, g)[r]] = (int32_t)i;
    }
    for (int r = 0; r < m->captures; r++) {
        int32_t last = BEFORE_ALL, next = BEHIND_ALL;
        for (size_t x = m->start[r]; x < m->start[r + 1]; x++) {
            m->after[x] = last;
            last = place[x] == NONE ? last : place[x];
        }
        for (size_t x = m->start[r + 1]; x-- > m->start[r];) {
            m->before[x] = next;
            next = place[x] == NONE ? next : place[x];
        }
    }
}

/* -- pairs ------------------------------------------------------------------------------------------- */

struct burst {
    const int32_t *packet; /* in time order */
    size_t count;
    bool is_short; /* little tells its packets apart: the most pairs win */
};

/* How many of the burst's packets come before `time`, or up to it. */
static size_t rank_of(const struct merge *m, const struct burst *burst, int64_t time, bool inclusive)
{
    size_t low = 0, high = burst->count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const int64_t there = m->time[burst->packet[middle]];
        if (there < time || (inclusive && there == time))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* For group g the longest time without a packet of the burst between it and each of own[low, high). */
static void silences(struct merge *m, const struct burst *burst, int32_t g, size_t low, size_t high)
{
    const int64_t here = time_of(m, g);
    size_t split = low, next = rank_of(m, burst, here, true), previous = rank_of(m, burst, here, false);
    int64_t longest = 0, at = here;
    while (split < high && m->group[m->own.at[split]].first < here)
        split++;
    for (size_t j = split; j < high; j++) {
        const int64_t there = m->group[m->own.at[j]].first;
        for (; next < burst->count && m->time[burst->packet[next]] < there; next++) {
            longest = max64(longest, m->time[burst->packet[next]] - at);
            at = m->time[burst->packet[next]];
        }
        m->silence[j - low] = max64(longest, there - at);
    }
    longest = 0, at = here;
    for (size_t j = split; j-- > low;) {
        const int64_t there = m->group[m->own.at[j]].first;
        for (; previous > 0 && m->time[burst->packet[previous - 1]] > there; previous--) {
            longest = max64(longest, at - m->time[burst->packet[previous - 1]]);
            at = m->time[burst->packet[previous - 1]];
        }
        m->silence[j - low] = max64(longest, at - there);
    }
}

static int64_t score(const struct merge *m, const struct burst *burst, int32_t g, int32_t h, int64_t silence)
{
    const int64_t between = time_of(m, g) - time_of(m, h);
    const int64_t tolerance = max64(m->group[g].tolerance, m->group[h].tolerance) >> m->scale;
    const int64_t distance = (between < 0 ? -between : between) >> m->scale;
    silence >>= m->scale;
    if (burst->is_short)
        return MOST_PAIRS * tolerance * tolerance - distance * distance;
    return 3 * tolerance * tolerance / 4 - distance * distance - 3 * silence * silence;
}

/* For each group the half-open range of `own` that clocks and ruler may allow; returns the programme's cells. */
static size_t bands(struct merge *m)
{
    size_t low = 0, high = 0, cells = 0;
    for (size_t i = 0; i < m->groups.count; i++) {
        const struct group *g = &m->group[m->groups.at[i]];
        for (; low < m->own.count; low++) {
            const struct group *h = &m->group[m->own.at[low]];
            if (g->last - h->first <= max64(g->tolerance, h->tolerance) && h->before > g->after)
                break;
        }
        if (high < low)
            high = low;
        for (; high < m->own.count; high++) {
            const struct group *h = &m->group[m->own.at[high]];
            if (h->first - g->first > max64(g->tolerance, h->tolerance) || h->after >= g->before)
                break;
        }
        m->low[i] = (int32_t)low;
        m->high[i] = (int32_t)high;
        cells += high - low + 1;
    }
    return cells;
}

/* Pairs each group with the first packet that is left in its band; returns the number of pairs. */
static size_t greedy(struct merge *m)
{
    size_t pairs = 0;
    int32_t left = 0;
    for (size_t i = 0; i < m->groups.count; i++) {
        const int32_t j = max32(m->low[i], left);
        if (j < m->high[i] && fits(&m->group[m->groups.at[i]], &m->group[m->own.at[j]])) {
            m->pair_i[pairs] = (int32_t)i;
            m->pair_j[pairs++] = j;
            left = j + 1;
        }
    }
    return pairs;
}

/* Pairs without crossings of the largest total score; returns their number. */
static size_t programme(struct merge *m, const struct burst *burst)
{
    int64_t *row = m->row, *above = m->above; /* totals for j = low, low + 1, ... of a group and of the one before */
    size_t above_low = 0, above_last = 0, pairs = 0;
    uint8_t *move = m->move;
    above[0] = 0;
    for (size_t i = 0; i < m->groups.count; i++) {
        const int32_t g = m->groups.at[i];
        const size_t low = (size_t)m->low[i], high = (size_t)m->high[i];
        if (!burst->is_short)
            silences(m, burst, g, low, high);
        for (size_t j = low; j <= high; j++) {
            int64_t best = above[(j - above_low < above_last ? j - above_low : above_last)];
            enum move how = UP;
            if (j > low) {
                const int32_t h = m->own.at[j - 1];
                if (row[j - 1 - low] > best) {
                    best = row[j - 1 - low];
                    how = LEFT;
                }
                if (fits(&m->group[g], &m->group[h])) {
                    const size_t from = j - 1 - above_low;
                    const int64_t total = above[from < above_last ? from : above_last] +
                                          score(m, burst, g, h, m->silence[j - 1 - low]);
                    if (total >= best) {
                        best = total;
                        how = DIAGONAL;
                    }
                }
            }
            row[j - low] = best;
            *move++ = (uint8_t)how;
        }
        int64_t *const swap = above;
        above = row, row = swap;
        above_low = low, above_last = high - low;
    }
    size_t j = m->own.count;
    for (size_t i = m->groups.count, at = (size_t)(move - m->move); i > 0;) {
        const size_t low = (size_t)m->low[i - 1], high = (size_t)m->high[i - 1];
        const uint8_t *moves = m->move + at - (high - low + 1);
        j = j < high ? j : high;
        const enum move how = moves[j - low];
        if (how == DIAGONAL) {
            m->pair_i[pairs] = (int32_t)(i - 1);
            m->pair_j[pairs++] = (int32_t)(j - 1);
        }
        j -= how != UP;
        if (how != LEFT) {
            i--;
            at -= high - low + 1;
        }
    }
    for (size_t a = 0, b = pairs; a + 1 < b; a++) {
        b--;
        const int32_t i = m->pair_i[a], k = m->pair_j[a];
        m->pair_i[a] = m->pair_i[b], m->pair_j[a] = m->pair_j[b];
        m->pair_i[b] = i, m->pair_j[b] = k;
    }
    return pairs;
}

/* Makes `groups` and the packets `own` of one more capture one sequence, pairs joined. */
static void matched(struct merge *m, const struct burst *burst)
{
    const size_t cells = bands(m);
    const bool wide = cells > BAND * (m->groups.count + m->own.count);
    const size_t pairs = wide ? greedy(m) : programme(m, burst);
    size_t i = 0, j = 0;
    m->merged.count = 0;
    for (size_t pair = 0; pair <= pairs; pair++) {
        const size_t pair_i = pair < pairs ? (size_t)m->pair_i[pair] : m->groups.count;
        const size_t pair_j = pair < pairs ? (size_t)m->pair_j[pair] : m->own.count;
        while (i < pair_i || j < pair_j) {
            const bool group = j == pair_j || (i < pair_i && precedes(m, m->groups.at[i], m->own.at[j]));
            m->merged.at[m->merged.count++] = group ? m->groups.at[i++] : m->own.at[j++];
        }
        if (pair < pairs) {
            join(m, m->groups.at[i], m->own.at[j++]);
            m->merged.at[m->merged.count++] = m->groups.at[i++];
        }
    }
    const struct list swap = m->groups;
    m->groups = m->merged;
    m->merged = swap;
}

/* Takes the packets of capture r out of the burst, each a group of its own. */
static bool own_packets(struct merge *m, const struct burst *burst, int r)
{
    m->own.count = 0;
    for (size_t i = 0; i < burst->count; i++)
        if (m->owner[burst->packet[i]] == r) {
            alone(m, burst->packet[i], true);
            m->own.at[m->own.count++] = burst->packet[i];
        }
    return m->own.count > 0;
}

/* Makes the groups whose members `kept` lists (captures a row), leaving out capture `without`. */
static void rebuild(struct merge *m, const int32_t *kept, size_t rows, int without)
{
    m->groups.count = 0;
    for (size_t row = 0; row < rows; row++) {
        int32_t packet[FTN_MERGE_CAPTURES];
        size_t count = 0;
        for (int r = 0; r < m->captures; r++)
            if (r != without && kept[row * m->captures + r] != NONE)
                packet[count++] = kept[row * m->captures + r];
        if (count)
            m->groups.at[m->groups.count++] = fused(m, packet, count, true);
    }
}

/* Matches capture r once more, now that all the others are there; undoes it if that leaves no fewer groups. */
static void realign(struct merge *m, const struct burst *burst, int r)
{
    int32_t kept[REALIGN * FTN_MERGE_CAPTURES];
    const size_t rows = m->groups.count;
    for (size_t row = 0; row < rows; row++)
        memcpy(kept + row * m->captures, members(m, m->groups.at[row]), m->captures * sizeof *kept);
    rebuild(m, kept, rows, r);
    if (own_packets(m, burst, r))
        matched(m, burst);
    if (m->groups.count >= rows)
        rebuild(m, kept, rows, NONE);
}

/* Finds the agreed packets of a burst in which some capture has several, and appends them to the chain. */
static void pair(struct merge *m, size_t at, size_t end)
{
    struct burst burst = {.packet = m->by_hash + at, .count = end - at};
    int64_t tolerance = 0;
    int taking_part = 0;
    for (size_t i = 0; i < burst.count; i++)
        tolerance = max64(tolerance, m->tolerance[m->owner[burst.packet[i]]]);
    burst.is_short = m->time[burst.packet[burst.count - 1]] - m->time[burst.packet[0]] <= SHORT * tolerance;
    m->groups.count = 0;
    for (int r = 0; r < m->captures; r++)
        if (own_packets(m, &burst, r)) {
            matched(m, &burst);
            taking_part++;
        }
    if (taking_part > 2 && burst.count <= REALIGN)
        for (int r = 0; r < m->captures; r++)
            realign(m, &burst, r);
    for (size_t i = 0; i < m->groups.count; i++) {
        const int32_t g = m->groups.at[i];
        if (m->group[g].holders < taking_part)
            m->group[g].flags |= AMBIGUOUS;
        m->chain.at[m->chain.count++] = g;
    }
}

/* -- reordering -------------------------------------------------------------------------------------- */

/* Whether g and h, in time order, may be one packet that some capture got out of order. */
static bool suspect(const struct merge *m, int32_t g, int32_t h, int64_t within, int64_t places)
{
    int32_t after = BEFORE_ALL, before = BEHIND_ALL;
    if (m->group[h].first - m->group[g].first > within)
        return false;
    for (int r = 0; r < m->captures; r++) {
        const int32_t x = members(m, g)[r], y = members(m, h)[r];
        if (x != NONE && y != NONE)
            return false; /* one capture has both */
        if (x != NONE || y != NONE) {
            after = max32(after, m->after[x != NONE ? x : y]);
            before = min32(before, m->before[x != NONE ? x : y]);
        }
    }
    const int64_t between = (int64_t)after - before + 1;
    return between > 0 && between <= places;
}

static void join_reordered(struct merge *m, int32_t g, int32_t h)
{
    join(m, g, h);
    m->group[g].sum = m->group[g].first * m->group[g].holders; /* reordering delays */
    m->group[g].flags = AMBIGUOUS;
    m->group[h].holders = 0; /* gone */
}

static int lowest_holder(const struct merge *m, int32_t g)
{
    int r = 0;
    while (members(m, g)[r] == NONE)
        r++;
    return r;
}

/* Whether groups i and i + 1 of a hash are closer to each other than to their other neighbours. */
static bool apart(const struct merge *m, const int32_t *chain, size_t count, size_t i)
{
    const int64_t here = m->group[chain[i]].first, there = m->group[chain[i + 1]].first, gap = there - here;
    return (i == 0 || here - m->group[chain[i - 1]].first > gap) &&
           (i + 2 == count || m->group[chain[i + 2]].first - there > gap);
}

/* Whether some capture has both. */
static bool share(const struct merge *m, int32_t g, int32_t h)
{
    for (int r = 0; r < m->captures; r++)
        if (members(m, g)[r] != NONE && members(m, h)[r] != NONE)
            return true;
    return false;
}

/* Whether there are more than twice as many suspects as loss makes of repeats; `repeats` are shown to be two. */
static bool outnumber(const struct merge *m, int64_t suspects, int64_t repeats, const int64_t *lacking, int64_t total)
{
    int64_t none = ONE, unseen = ONE; /* no capture has both packets; no capture has the first one */
    for (int r = 0; r < m->captures; r++) {
        const int64_t loss = lacking[r] * ONE / max64(total, 1);
        none = none * (ONE - (ONE - loss) * (ONE - loss) / ONE) / ONE;
        unseen = unseen * loss / ONE;
    }
    return suspects * (ONE - none) > 2 * repeats * max64(none - 2 * unseen + unseen * unseen / ONE, 0);
}

/* Joins packets that are left over in two captures where reordering explains them better than loss does. */
static void reordered(struct merge *m, int64_t reorder_ns, int64_t places)
{
    const int64_t total = (int64_t)m->chain.count;
    int64_t seen = (int64_t)m->broken, suspects = 0, repeats = 0, lacking[FTN_MERGE_CAPTURES] = {0};
    for (size_t i = 0; i < m->chain.count; i++)
        for (int r = 0; r < m->captures; r++)
            lacking[r] += members(m, m->chain.at[i])[r] == NONE;
    for (int joining = 0; joining < 2; joining++) {
        for (size_t hash = 0; hash < m->hashes; hash++) {
            const int32_t *g = m->chain.at + m->chain_of[hash];
            if (m->chain_of[hash + 1] - m->chain_of[hash] != 2 ||
                m->group[g[1]].first - m->group[g[0]].first > reorder_ns)
                continue;
            if (!joining && share(m, g[0], g[1]))
                repeats++;
            if (suspect(m, g[0], g[1], reorder_ns, places)) {
                if (joining)
                    join_reordered(m, g[0], g[1]);
                else
                    suspects++;
            }
        }
        if (!joining && !outnumber(m, suspects, repeats, lacking, total))
            break;
        seen += joining ? suspects : 0;
    }
    if (seen < EVIDENCE || 2 * (int64_t)m->ruled <= total)
        return;
    for (size_t hash = 0; hash < m->hashes; hash++) {
        const int32_t *chain = m->chain.at + m->chain_of[hash];
        const size_t count = m->chain_of[hash + 1] - m->chain_of[hash];
        size_t last = count; /* the latest that some capture lacks */
        for (size_t i = 0; i < count; i++) {
            const int32_t g = chain[i];
            if (!m->group[g].holders || m->group[g].holders == m->captures)
                continue;
            if (last == count) {
                last = i;
                continue;
            }
            const int32_t h = chain[last];
            const int64_t within = last + 1 == i && apart(m, chain, count, last) ? INT64_MAX : reorder_ns;
            if (suspect(m, h, g, within, places) &&
                seen * total * total > (int64_t)m->ruled * lacking[lowest_holder(m, h)] * lacking[lowest_holder(m, g)])
                join_reordered(m, h, g);
            else
                last = i;
        }
    }
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
        &m->pair_i, &m->pair_j, &m->chain.at, &m->groups.at, &m->own.at, &m->merged.at,
    };
    int64_t **const times[] = {&m->time, &m->mean, &m->row, &m->above, &m->silence};
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

/* Joins the simple bursts and makes the ruler of those whose hash occurs in no other. */
static void join_simple(struct merge *m)
{
    m->chain.count = 0;
    for (size_t hash = 0; hash < m->hashes; hash++) {
        const size_t first = m->first_of[hash], last = m->first_of[hash + 1];
        for (size_t at = first, end; at < last; at = end) {
            end = burst_end(m, at, last);
            if (!is_simple(m, at, end))
                continue;
            const int32_t g = fused(m, m->by_hash + at, end - at, false);
            if (at == first && end == last && m->group[g].holders > 1)
                m->chain.at[m->chain.count++] = g;
        }
    }
    make_ruler(m, m->chain);
}

static void pair_others(struct merge *m)
{
    m->chain.count = 0;
    for (size_t hash = 0; hash < m->hashes; hash++) {
        m->chain_of[hash] = (uint32_t)m->chain.count;
        for (size_t at = m->first_of[hash], end; at < m->first_of[hash + 1]; at = end) {
            end = burst_end(m, at, m->first_of[hash + 1]);
            if (is_simple(m, at, end))
                m->chain.at[m->chain.count++] = m->by_hash[at];
            else
                pair(m, at, end);
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
    topological(m, all, m->order);
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
        reordered(&m, reorder_ns, reorder_places);
        count = put_out(&m, views, place, time, flags);
    }
    for (int i = 0; i < m.blocks; i++)
        free(m.block[i]);
    return count;
}

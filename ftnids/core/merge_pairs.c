/*
 * merge_pairs.c: which packets of a burst are one, where some capture has several.
 */
#include "merge_state.h"

#include <string.h>

struct burst {
    const int32_t *packet; /* in time order */
    size_t count;
    bool is_short; /* little tells its packets apart: the most pairs win */
    int taking_part, order[FTN_MERGE_CAPTURES];
    size_t most; /* packets that one capture has of it */
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
    const int64_t surprise = min64(SURPRISE + m->group[g].surprise + m->group[h].surprise, MOST_PAIRS * SURPRISES);
    const int64_t away = (between < 0 ? -between : between) >> m->scale;
    const bool against = contradicts(&m->group[g], &m->group[h]);
    if (burst->is_short)
        return (MOST_PAIRS * tolerance * tolerance - away * away) >> against; /* the ruler may be wrong */
    silence >>= m->scale;
    return against ? -1 : surprise * tolerance * tolerance / SURPRISES - away * away - 3 * silence * silence;
}

/* For each group the half-open range of `own` that the clocks may allow; returns the programme's cells. */
static size_t bands(struct merge *m)
{
    size_t low = 0, high = 0, cells = 0;
    for (size_t i = 0; i < m->groups.count; i++) {
        const struct group *g = &m->group[m->groups.at[i]];
        for (; low < m->own.count; low++) {
            const struct group *h = &m->group[m->own.at[low]];
            if (g->last - h->first <= max64(g->tolerance, h->tolerance))
                break;
        }
        if (high < low)
            high = low;
        for (; high < m->own.count; high++) {
            const struct group *h = &m->group[m->own.at[high]];
            if (h->first - g->first > max64(g->tolerance, h->tolerance))
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

/* Counts what the captures have of the burst; above two, the fullest will be matched first. */
static void count_captures(const struct merge *m, struct burst *burst)
{
    size_t count[FTN_MERGE_CAPTURES] = {0};
    for (size_t i = 0; i < burst->count; i++)
        count[m->owner[burst->packet[i]]]++;
    for (int r = 0; r < m->captures; r++)
        burst->taking_part += count[r] > 0;
    for (int r = 0; r < m->captures; r++) {
        int k = r;
        for (; k > 0 && burst->taking_part > 2 && count[burst->order[k - 1]] < count[r]; k--)
            burst->order[k] = burst->order[k - 1];
        burst->order[k] = r;
        burst->most = count[r] > burst->most ? count[r] : burst->most;
    }
}

/* Finds the agreed packets of a burst in which some capture has several, and appends them to the chain. */
void ftn_pair(struct merge *m, size_t at, size_t end)
{
    struct burst burst = {.packet = m->by_hash + at, .count = end - at};
    int64_t tolerance = 0;
    for (size_t i = 0; i < burst.count; i++)
        tolerance = max64(tolerance, m->tolerance[m->owner[burst.packet[i]]]);
    burst.is_short = m->time[burst.packet[burst.count - 1]] - m->time[burst.packet[0]] <= SHORT * tolerance;
    count_captures(m, &burst);
    m->groups.count = 0;
    for (int k = 0; k < m->captures; k++)
        if (own_packets(m, &burst, burst.order[k]))
            matched(m, &burst);
    if (burst.taking_part > 2 && burst.count <= REALIGN && burst.count * burst.taking_part <= REALIGNED)
        for (int r = 0; r < m->captures && m->groups.count > burst.most; r++)
            realign(m, &burst, r);
    for (size_t i = 0; i < m->groups.count; i++) {
        const int32_t g = m->groups.at[i];
        if (m->group[g].holders < burst.taking_part || m->group[g].after >= m->group[g].before)
            m->group[g].flags |= AMBIGUOUS;
        m->chain.at[m->chain.count++] = g;
    }
}

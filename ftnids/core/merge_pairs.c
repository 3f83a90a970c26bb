/*
 * merge_pairs.c: which packets of a burst are one, where some capture has several.
 * `weigh` does for one group and all that it may be paired with what the twin's `_Scores.score` does for one pair.
 */
#include "merge_state.h"

#include <assert.h>
#include <string.h>

struct burst {
    const int32_t *packet; /* in time order */
    size_t count;
    bool is_short; /* little tells its packets apart: the most pairs win */
    int taking_part, order[FTN_MERGE_CAPTURES];
    size_t most; /* packets that one capture has of it */
    size_t start[FTN_MERGE_CAPTURES + 1]; /* where each capture's packets begin in m->places */
    int own;                              /* the capture that is being matched */
    size_t before, upto, split;           /* places near the last group's time, to search from */
};

/* How many of `count` times come before `time`; few steps where that is about `near`. */
static size_t rank_of(const int64_t *times, size_t count, int64_t time, size_t near)
{
    size_t low = near, high = near, step = 1;
    for (; low > 0 && times[low - 1] >= time; step *= 2) {
        high = low - 1;
        low -= low < step ? low : step;
    }
    for (; high < count && times[high] < time; step *= 2) {
        low = high + 1;
        high += count - high < step ? count - high : step;
    }
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (times[middle] < time)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int64_t square(int64_t a) { return a * a; }

/* What a silence costs a pair: the longest time without a packet of the burst. */
static int64_t cost(int64_t silence) { return 3 * square(silence); }

/*
 * Notes the longest silence, scaled: from each packet of the burst back to the one of `own` before it, or to the first,
 * and on to the one behind it, or to the last.  It is 0 for those of `own`; they get its cost back to the one before.
 */
static void silences(struct merge *m, const struct burst *burst)
{
    const int32_t *places = m->places + burst->start[burst->own];
    int64_t longest = 0;
    for (size_t k = 0, j = 0; k < burst->count; k++) {
        if (k > 0)
            longest = max64(longest, (m->burst_time[k] - m->burst_time[k - 1]) >> m->scale);
        if (j < m->own.count && (size_t)places[j] == k) {
            m->own_packet[j++].cost = cost(longest);
            longest = 0;
        }
        m->behind[k] = longest;
    }
    longest = 0;
    for (size_t k = burst->count, j = m->own.count; k-- > 0;) {
        if (k + 1 < burst->count)
            longest = max64(longest, (m->burst_time[k + 1] - m->burst_time[k]) >> m->scale);
        if (j > 0 && (size_t)places[j - 1] == k) {
            j--;
            longest = 0;
        }
        m->ahead[k] = longest;
    }
}

/*
 * What a pair of a group at `here` and each of own[low, high) is worth in a flood.  The silence grows from the packet
 * next to the group outwards, over those of `own` too that are not in the range.
 */
static void weigh_flood(struct merge *m, struct burst *burst, int64_t here, int64_t most, size_t low, size_t high)
{
    const struct own *own = m->own_packet;
    const int scale = m->scale;
    int64_t *worth = m->worth;
    size_t at = burst->split, behind, j;
    while (at > 0 && own[at - 1].time >= here)
        at--;
    while (at < m->own.count && own[at].time < here)
        at++;
    burst->split = at;
    for (behind = at; behind < m->own.count && own[behind].time == here; behind++)
        if (behind >= low && behind < high)
            worth[behind] = most;
    if (behind < high) {
        const size_t k = burst->upto = rank_of(m->burst_time, burst->count, here + 1, burst->upto);
        int64_t silence = cost(max64((m->burst_time[k] - here) >> scale, m->ahead[k]));
        for (j = behind; j < low; j++)
            silence = max64(silence, own[j + 1].cost);
        worth[j] = most - square((own[j].time - here) >> scale) - silence;
        for (j++; j < high; j++) {
            silence = max64(silence, own[j].cost);
            worth[j] = most - square((own[j].time - here) >> scale) - silence;
        }
    }
    if (at > low) {
        const size_t k = burst->before = rank_of(m->burst_time, burst->count, here, burst->before);
        int64_t silence = cost(max64((here - m->burst_time[k - 1]) >> scale, m->behind[k - 1]));
        for (j = at; j > high; j--)
            silence = max64(silence, own[j - 1].cost);
        for (; j > low; j--) {
            worth[j - 1] = most - square((here - own[j - 1].time) >> scale) - silence;
            silence = max64(silence, own[j - 1].cost);
        }
    }
}

/* What a pair of group g and each of own[low, high) is worth; NEVER where there must be none. */
static void weigh(struct merge *m, struct burst *burst, int32_t g, size_t low, size_t high)
{
    const struct group *group = &m->group[g];
    const struct own *own = m->own_packet;
    const int64_t here = time_of(m, g), apart = max64(group->tolerance, m->tolerance[burst->own]);
    const int64_t tolerance = apart >> m->scale;
    const int64_t surprise = min64(SURPRISE + group->surprise + m->surprise[burst->own], MOST_PAIRS * SURPRISES);
    const bool whole = group->last - group->first <= apart, ruled = group->after < group->before;
    for (; low < high && (!whole || group->last - own[low].time > apart); low++)
        m->worth[low] = NEVER;
    for (; low < high && own[high - 1].time - group->first > apart; high--)
        m->worth[high - 1] = NEVER;
    size_t first = low, end = high; /* what the ruler allows: places on it rise within a capture */
    for (; first < end && (!ruled || own[first].before <= group->after); first++)
        m->worth[first] = NEVER;
    for (; first < end && own[end - 1].after >= group->before; end--)
        m->worth[end - 1] = NEVER;
    if (burst->is_short) { /* the ruler may be wrong */
        for (size_t j = low; j < high; j++) {
            const int64_t between = here - own[j].time, away = between < 0 ? -between : between;
            m->worth[j] = (MOST_PAIRS * square(tolerance) - square(away >> m->scale)) >> (j < first || j >= end);
        }
    } else if (first < end) {
        weigh_flood(m, burst, here, surprise * square(tolerance) / SURPRISES, first, end);
    }
}

/* For each group the half-open range of `own` that the clocks may allow; returns the programme's cells. */
static size_t bands(struct merge *m, int64_t own_tolerance)
{
    size_t low = 0, high = 0, cells = 0;
    for (size_t i = 0; i < m->groups.count; i++) {
        const struct group *g = &m->group[m->groups.at[i]];
        const int64_t apart = max64(g->tolerance, own_tolerance);
        while (low < m->own.count && g->last - m->own_packet[low].time > apart)
            low++;
        high = max_size(high, low);
        while (high < m->own.count && m->own_packet[high].time - g->first <= apart)
            high++;
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

/*
 * One row of the programme, for j = low to high: its totals from those of the row above, which begins at low as well,
 * and what a pair with own[j - 1] is worth.
 */
static void fill(int64_t *row, const int64_t *above, const int64_t *worth, uint8_t *move, size_t cells)
{
    int64_t best = above[0], up = best;
    row[0] = best;
    move[0] = UP;
    for (size_t k = 1; k < cells; k++) {
        const int64_t total = up + worth[k - 1];
        up = above[k];
        const bool left = best > up;
        best = max64(best, up);
        const bool diagonal = total >= best;
        row[k] = best = max64(best, total);
        move[k] = (uint8_t)(left | diagonal << 1);
    }
}

/* Pairs without crossings of the largest total score; returns their number. */
static size_t programme(struct merge *m, struct burst *burst)
{
    int64_t *row = m->row, *above = m->above; /* totals for j = low, low + 1, ... of a group and of the one before */
    size_t above_low = 0, above_high = 0, pairs = 0;
    uint8_t *move = m->move;
    burst->before = burst->upto = burst->split = 0;
    if (!burst->is_short)
        silences(m, burst);
    above[0] = 0;
    for (size_t i = 0; i < m->groups.count; i++) {
        const size_t low = (size_t)m->low[i], high = (size_t)m->high[i];
        weigh(m, burst, m->groups.at[i], low, high);
        for (; above_high < high; above_high++)
            above[above_high + 1 - above_low] = above[above_high - above_low];
        fill(row, above + (low - above_low), m->worth + low, move, high - low + 1);
        move += high - low + 1;
        int64_t *const swap = above;
        above = row, row = swap;
        above_low = low, above_high = high;
    }
    size_t j = m->own.count;
    for (size_t i = m->groups.count, at = (size_t)(move - m->move); i > 0;) {
        const size_t low = (size_t)m->low[i - 1], high = (size_t)m->high[i - 1];
        const uint8_t *moves = m->move + at - (high - low + 1);
        j = j < high ? j : high;
        const bool left = moves[j - low] == LEFT;
        if (moves[j - low] & DIAGONAL) {
            m->pair_i[pairs] = (int32_t)(i - 1);
            m->pair_j[pairs++] = (int32_t)(j - 1);
        }
        j -= moves[j - low] != UP;
        if (!left) {
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
static void matched(struct merge *m, struct burst *burst)
{
    const size_t cells = bands(m, m->tolerance[burst->own]);
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
            join_packet(m, m->groups.at[i], m->own.at[j++]);
            m->merged.at[m->merged.count++] = m->groups.at[i++];
        }
    }
    const struct list swap = m->groups;
    m->groups = m->merged;
    m->merged = swap;
}

/* Takes the packets of capture r out of the burst, each a group of its own. */
static bool own_packets(struct merge *m, struct burst *burst, int r)
{
    burst->own = r;
    m->own.count = 0;
    for (size_t k = burst->start[r]; k < burst->start[r + 1]; k++) {
        const int32_t x = burst->packet[m->places[k]];
        alone(m, x, true);
        m->own_packet[m->own.count] = (struct own){.time = m->time[x], .after = m->after[x], .before = m->before[x]};
        m->own.at[m->own.count++] = x;
    }
    return m->own.count > 0;
}

/* Takes capture r's packet out of group g; returns the number that what is left bears, NONE where nothing is. */
static int32_t without(struct merge *m, int32_t g, int r)
{
    const int32_t *member = members(m, g);
    struct group left = {.first = INT64_MAX, .after = BEFORE_ALL, .before = BEHIND_ALL};
    int32_t number = NONE;
    if (member[r] == NONE)
        return g;
    for (int q = 0; q < m->captures; q++) {
        const int32_t x = member[q];
        if (x == NONE || q == r)
            continue;
        number = x;
        left.first = min64(left.first, m->time[x]);
        left.last = max64(left.last, m->time[x]);
        left.sum += m->time[x];
        left.tolerance = max64(left.tolerance, m->tolerance[q]);
        left.after = max32(left.after, m->after[x]);
        left.before = min32(left.before, m->before[x]);
        left.surprise += m->surprise[q];
        left.holders++;
    }
    if (number == NONE)
        return NONE;
    m->group[number] = left;
    if (number != g)
        memcpy(members(m, number), member, (size_t)m->captures * sizeof *member);
    members(m, number)[r] = NONE;
    return number;
}

/* Matches capture r once more, now that all the others are there; undoes it if that leaves no fewer groups. */
static void realign(struct merge *m, struct burst *burst, int r)
{
    int32_t at[REALIGN], member[REALIGN * FTN_MERGE_CAPTURES];
    struct group group[REALIGN];
    const size_t rows = m->groups.count, width = (size_t)m->captures;
    assert(rows > 0 && rows <= REALIGN);
    for (size_t row = 0; row < rows; row++) {
        at[row] = m->groups.at[row];
        group[row] = m->group[at[row]];
        memcpy(member + row * width, members(m, at[row]), width * sizeof *member);
    }
    m->groups.count = 0;
    for (size_t row = 0; row < rows; row++) {
        const int32_t g = without(m, at[row], r);
        if (g != NONE)
            m->groups.at[m->groups.count++] = g;
    }
    if (own_packets(m, burst, r))
        matched(m, burst);
    if (m->groups.count < rows)
        return;
    for (size_t row = 0; row < rows; row++) {
        m->groups.at[row] = at[row];
        m->group[at[row]] = group[row];
        memcpy(members(m, at[row]), member + row * width, width * sizeof *member);
    }
    m->groups.count = rows;
}

/* Sorts the burst's packets by capture; above two captures, the fullest will be matched first. */
static void part_captures(struct merge *m, struct burst *burst)
{
    size_t count[FTN_MERGE_CAPTURES] = {0};
    for (size_t i = 0; i < burst->count; i++)
        count[m->owner[burst->packet[i]]]++;
    for (int r = 0; r < m->captures; r++) {
        burst->taking_part += count[r] > 0;
        burst->start[r + 1] = burst->start[r] + count[r];
    }
    for (int r = 0; r < m->captures; r++) {
        int k = r;
        for (; k > 0 && burst->taking_part > 2 && count[burst->order[k - 1]] < count[r]; k--)
            burst->order[k] = burst->order[k - 1];
        burst->order[k] = r;
        burst->most = max_size(burst->most, count[r]);
    }
    for (size_t i = burst->count; i-- > 0;) {
        const int r = m->owner[burst->packet[i]];
        m->places[burst->start[r] + --count[r]] = (int32_t)i;
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
    part_captures(m, &burst);
    if (!burst.is_short)
        for (size_t i = 0; i < burst.count; i++)
            m->burst_time[i] = m->time[burst.packet[i]];
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

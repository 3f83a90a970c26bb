/*
 * merge_reorder.c: packets that some capture got out of order.
 */
#include "merge_state.h"

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

static void join_late(struct merge *m, int32_t g, int32_t h)
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
void ftn_join_reordered(struct merge *m, int64_t reorder_ns, int64_t places)
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
                    join_late(m, g[0], g[1]);
                else
                    suspects++;
            }
        }
        if (!joining && !outnumber(m, suspects, repeats, lacking, total))
            break;
        seen += joining ? suspects : 0;
    }
    if (seen < EVIDENCE || total < ENOUGH || 2 * (int64_t)m->ruled <= total)
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
                join_late(m, h, g);
            else
                last = i;
        }
    }
}

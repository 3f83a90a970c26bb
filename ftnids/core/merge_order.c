/*
 * merge_order.c: one order for packets that several captures hold.
 */
#include "merge_state.h"

/* Of the groups that captures stand before, the one that is furthest out of place in some capture. */
static int32_t furthest(const struct merge *m, const size_t *head, const size_t *end)
{
    int32_t chosen = NONE;
    size_t most = 0;
    for (int r = 0; r < m->captures; r++) {
        if (head[r] == end[r])
            continue;
        const int32_t g = m->sequence[head[r]];
        size_t away = 0;
        for (int q = 0; q < m->captures; q++) {
            const int32_t x = members(m, g)[q];
            if (x != NONE && (size_t)m->rank[x] > head[q] + away)
                away = (size_t)m->rank[x] - head[q];
        }
        if (chosen == NONE || away > most) {
            chosen = g;
            most = away;
        }
    }
    return chosen;
}

/*
 * Orders `groups` so that each capture's order is kept, by time where no capture orders them.  Where captures
 * contradict each other the group that is furthest out of place gives way, and is marked odd; so is the oldest, where
 * another one would overtake it by too much.
 */
void ftn_topological(struct merge *m, struct list groups, int32_t *order)
{
    size_t head[FTN_MERGE_CAPTURES], end[FTN_MERGE_CAPTURES], out = 0;
    int64_t apart = 0; /* twice what the stamps of one packet differ by */
    for (size_t x = 0; x < m->total; x++)
        m->sequence[x] = NONE;
    for (size_t i = 0; i < groups.count; i++) {
        const int32_t g = groups.at[i];
        for (int r = 0; r < m->captures; r++)
            if (members(m, g)[r] != NONE)
                m->sequence[members(m, g)[r]] = g;
        m->mean[g] = time_of(m, g);
        apart = max64(apart, 2 * (m->group[g].last - m->group[g].first));
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
        int32_t chosen = NONE, oldest = NONE;
        bool now = true;
        for (int r = 0; r < m->captures; r++) {
            if (head[r] == end[r])
                continue;
            const int32_t g = m->sequence[head[r]];
            if (oldest == NONE || m->mean[g] < m->mean[oldest])
                oldest = g;
            if (!m->waiting[g] && (chosen == NONE || m->mean[g] < m->mean[chosen]))
                chosen = g;
        }
        if (oldest == NONE)
            return;
        if (chosen == NONE) {
            chosen = furthest(m, head, end);
            for (int r = 0; r < m->captures; r++)
                if (head[r] < end[r] && m->sequence[head[r]] != chosen)
                    now = now && m->mean[chosen] <= m->mean[m->sequence[head[r]]];
            m->odd[chosen] = true;
        } else if (m->mean[chosen] - m->mean[oldest] > apart) {
            chosen = oldest;
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
void ftn_make_ruler(struct merge *m, struct list certain)
{
    int32_t *place = m->order; /* of each group, NONE when it is not ruled */
    ftn_topological(m, certain, m->low);
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

/*
 * merge_order.c: one order for packets that several captures hold.
 */
#include "merge_state.h"

/* The groups that one capture has, in its order, and the one that it stands before. */
struct queue {
    size_t head, end; /* in m->sequence */
    int32_t group;
    int64_t mean; /* of the group; INT64_MAX at the end */
};

/* Of the groups that captures stand before, the one that is furthest out of place in some capture. */
static int32_t furthest(const struct merge *m, const struct queue *queue)
{
    int32_t chosen = NONE;
    size_t most = 0;
    for (int r = 0; r < m->captures; r++) {
        if (queue[r].head == queue[r].end)
            continue;
        const int32_t g = queue[r].group;
        size_t away = 0;
        for (int q = 0; q < m->captures; q++) {
            const int32_t x = members(m, g)[q];
            if (x != NONE && (size_t)m->rank[x] > queue[q].head + away)
                away = (size_t)m->rank[x] - queue[q].head;
        }
        if (chosen == NONE || away > most) {
            chosen = g;
            most = away;
        }
    }
    return chosen;
}

/* Goes over what is done and stands before the next group. */
static void arrive(struct merge *m, struct queue *q)
{
    while (q->head < q->end && m->done[m->sequence[q->head]])
        q->head++;
    q->mean = INT64_MAX;
    if (q->head < q->end) {
        q->group = m->sequence[q->head];
        q->mean = m->mean[q->group];
        m->waiting[q->group]--;
    }
}

/* Notes what of `groups` each capture has; returns twice what the stamps of one packet differ by at most. */
static int64_t line_up(struct merge *m, struct list groups, struct queue *queue)
{
    int64_t apart = 0;
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
        queue[r].head = queue[r].end = m->start[r];
        for (size_t x = m->start[r]; x < m->start[r + 1]; x++)
            if (m->sequence[x] != NONE) {
                m->rank[x] = (int32_t)queue[r].end;
                m->sequence[queue[r].end++] = m->sequence[x];
            }
        arrive(m, &queue[r]);
    }
    return apart;
}

/* The capture that stands before the oldest group, NONE at the end; of the groups that are `ready`, where asked. */
static int first_of(const struct merge *m, const struct queue *queue, bool ready)
{
    int chosen = NONE;
    int64_t mean = INT64_MAX;
    for (int r = 0; r < m->captures; r++)
        if (queue[r].mean < mean && (!ready || !m->waiting[queue[r].group])) {
            mean = queue[r].mean;
            chosen = r;
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
    struct queue queue[FTN_MERGE_CAPTURES];
    const int64_t apart = line_up(m, groups, queue);
    size_t out = 0;
    for (int oldest; (oldest = first_of(m, queue, false)) != NONE;) {
        int32_t chosen = queue[oldest].group;
        bool now = true;
        if (m->waiting[chosen]) { /* some capture has others before it */
            const int ready = first_of(m, queue, true);
            if (ready == NONE) {
                chosen = furthest(m, queue);
                for (int r = 0; r < m->captures; r++)
                    if (queue[r].head < queue[r].end && queue[r].group != chosen)
                        now = now && m->mean[chosen] <= queue[r].mean;
                m->odd[chosen] = true;
            } else if (queue[ready].mean - queue[oldest].mean <= apart) {
                chosen = queue[ready].group;
            } else {
                m->odd[chosen] = true;
            }
        } else if (m->group[chosen].holders == 1) {
            m->done[chosen] = true;
            order[out++] = chosen;
            queue[oldest].head++;
            arrive(m, &queue[oldest]);
            continue;
        }
        if (now) {
            m->done[chosen] = true;
            order[out++] = chosen;
        }
        for (int r = 0; r < m->captures; r++)
            if (queue[r].head < queue[r].end && queue[r].group == chosen) {
                queue[r].head++;
                arrive(m, &queue[r]);
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

#include "capture.h"

#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS 1000000      /* longest sleep: how stale a link's watermark may be ... */
#define QUIET_TICK_NS 50000000 /* ... and a quiet one's, unless ftn_look is called */
#define QUIET_NS 50000000    /* without a packet a link is quiet */
#define GATHER_NS 1000000    /* on a busy link packets gather in the kernel's buffer for so long ... */
#define MANY 256             /* ... unless so many had come */
#define FULL_NS 200000       /* between two looks at a full ring */
#define PACE_NS 500000       /* by which a packet of a file may be late: each on time would keep a core busy */
#define STATS_NS 100000000   /* between two looks at the kernel's counters */
#define MAX_SECONDS 9000000000 /* later stamps would not fit in 63 bits of ns; they are cut to this */
#define BATCH 65536
#define SHARE_FROM 4         /* a ring is shared with its peers from one part in so many on */

/* What became of the pending packet. */
enum fate { DONE, WAITING, GATHER, NOT_DUE, FULL };

int64_t ftn_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t ftn_real_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t ftn_capture_clock_ns(const struct ftn_capture *c)
{
    return c->live ? ftn_monotonic_ns() + c->clock.base + c->skew.offset_ns : c->last_ns;
}

static void sleep_ns(int64_t ns)
{
    if (ns <= 0)
        return;
    const struct timespec wait = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    nanosleep(&wait, NULL);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* -- one packet ----------------------------------------------------------------------------------- */

static int64_t stamp_of(const struct ftn_capture *c, const struct pcap_pkthdr *header)
{
    int64_t seconds = header->ts.tv_sec;
    if (seconds < 0 || seconds > MAX_SECONDS)
        seconds = seconds < 0 ? 0 : MAX_SECONDS;
    return seconds * 1000000000 + (int64_t)header->ts.tv_usec % 1000000000 * c->tick_ns;
}

/* Decide a new packet's time and fate, once, in the order of the source. */
static void admit(struct ftn_capture *c, const struct pcap_pkthdr *header, const uint8_t *data)
{
    struct ftn_pending *p = &c->next;
    int64_t stamp = stamp_of(c, header);
    if (c->live)
        stamp = ftn_clock_convert(&c->clock, stamp, p->stamp_ns, c->now_ns);
    if (c->seen++ == 0) {
        c->began_ns = ftn_monotonic_ns();
        c->first_ns = stamp;
    }
    p->data = data;
    p->caplen = header->caplen < c->snaplen ? header->caplen : c->snaplen;
    p->wirelen = header->len < header->caplen ? header->caplen : header->len;
    p->stamp_ns = stamp;
    p->time_ns = ftn_skew_next(&c->skew, stamp);
    if (p->time_ns < c->last_ns)
        p->time_ns = c->last_ns;
    p->dropped = ftn_drop_next(&c->drop);
    p->here = true;
}

static int64_t due_ns(const struct ftn_capture *c)
{
    if (c->pace == FTN_PPS)
        return c->began_ns + (int64_t)(c->seen - 1) * c->interval_ns;
    return c->began_ns + c->next.stamp_ns - c->first_ns;
}

static bool put(struct ftn_capture *c)
{
    struct ftn_store *store = &c->ring->captured;
    const struct ftn_pending *p = &c->next;
    const uint64_t at = ftn_reserve(store, p->caplen);
    if (at == UINT64_MAX)
        return false;
    uint8_t *to = store->frames + at;
    if (p->caplen)
        memcpy(to, p->data, p->caplen);
    const uint64_t hash = ftn_hash_frame(c->hasher, to, p->caplen, p->wirelen); /* while it is in the cache */
    ftn_publish(store, at, p->caplen, p->wirelen, hash, p->time_ns);
    return true;
}

/* Whether the pending packet is one that a peer keeps, while the ring fills. */
static bool left_to_peer(const struct ftn_capture *c)
{
    const struct ftn_store *store = &c->ring->captured;
    const uint64_t share = ftn_load_acquire(c->share);
    const uint32_t shares = (uint32_t)(share >> 32);
    if (shares < 2 || !ftn_fuller_than(store, SHARE_FROM))
        return false;
    return ftn_hash_frame(c->hasher, c->next.data, c->next.caplen, c->next.wirelen) % shares != (uint32_t)share;
}

/* Bring the pending packet to where it belongs, if it can go there now. */
static enum fate settle(struct ftn_capture *c)
{
    struct ftn_pending *p = &c->next;
    if (c->pace != FTN_TOPSPEED && due_ns(c) > ftn_monotonic_ns())
        return NOT_DUE;
    if (p->dropped) {
        c->injected_drops++;
    } else if (c->live && left_to_peer(c)) {
        c->left_to_peers++;
    } else if (put(c)) {
        c->captured++;
        c->captured_bytes += p->wirelen;
    } else if (c->live) {
        c->ring_drops++;
        c->ring->captured.count->dropped++;
    } else {
        return FULL;
    }
    c->last_ns = p->time_ns;
    p->here = false;
    return DONE;
}

static void on_packet(u_char *user, const struct pcap_pkthdr *header, const u_char *data)
{
    struct ftn_capture *c = (struct ftn_capture *)(void *)user;
    admit(c, header, data);
    if (settle(c) != DONE)
        pcap_breakloop(c->pcap); /* it stays pending; its bytes stay libpcap's until the next read */
}

/* -- batches --------------------------------------------------------------------------------------- */

static void raise_watermark(struct ftn_capture *c, int64_t ns)
{
    if (ns > c->ring->header->watermark_ns)
        ftn_store_release(c->ring->header->watermark_ns, ns);
}

void ftn_update_stats(struct ftn_capture *c)
{
    struct pcap_stat stat;
    if (!c->live || pcap_stats(c->pcap, &stat) != 0)
        return;
    const uint32_t drops = stat.ps_drop + stat.ps_ifdrop;
    c->kernel_drops += (uint32_t)(drops - c->kernel_last);
    c->kernel_last = drops;
    c->stats_ns = ftn_monotonic_ns();
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* The end of a file; a record cut short or damaged ends it too.  What the machine fails at is no fault of the file. */
static enum fate finish(struct ftn_capture *c, bool failed)
{
    if (failed) {
        const char *reason = pcap_geterr(c->pcap);
        const unsigned long long at = c->seen;
        if (starts_with(reason, "error reading") || starts_with(reason, "malloc") || starts_with(reason, "out of memory")) {
            snprintf(c->error, sizeof c->error, "at packet %llu: %s", at, reason);
            return WAITING;
        }
        if (starts_with(reason, "truncated"))
            snprintf(c->warning, sizeof c->warning, "truncated at packet %llu; used what came before", at);
        else
            snprintf(c->warning, sizeof c->warning, "damaged at packet %llu (%.300s); used what came before", at, reason);
    }
    c->ended = true;
    raise_watermark(c, INT64_MAX);
    return DONE;
}

static enum fate read_file(struct ftn_capture *c, int count)
{
    if (c->next.here) {
        const enum fate fate = settle(c);
        if (fate != DONE)
            return fate;
        raise_watermark(c, c->last_ns);
        return DONE;
    }
    const int got = pcap_dispatch(c->pcap, count, on_packet, (u_char *)c);
    if (got == 0 || got == PCAP_ERROR)
        return finish(c, got == PCAP_ERROR);
    raise_watermark(c, c->last_ns);
    return DONE;
}

static enum fate read_live(struct ftn_capture *c, int count)
{
    const int64_t before = ftn_monotonic_ns(), real = ftn_real_ns(), after = ftn_monotonic_ns();
    if (ftn_clock_observe(&c->clock, before, real, after))
        snprintf(c->warning, sizeof c->warning, "the real-time clock was stepped (%llu times so far); compensated",
                 (unsigned long long)c->clock.steps);
    c->now_ns = before + c->clock.base;
    if (before - c->stats_ns > STATS_NS)
        ftn_update_stats(c);
    const int got = pcap_dispatch(c->pcap, count, on_packet, (u_char *)c);
    if (got < 0 && got != PCAP_ERROR_BREAK) {
        snprintf(c->error, sizeof c->error, "%s", pcap_geterr(c->pcap));
        return WAITING;
    }
    if (got > 0) {
        raise_watermark(c, c->last_ns);
        const bool busy = got < MANY && got < count && before - c->got_ns < 2 * GATHER_NS;
        c->got_ns = before;
        return busy ? GATHER : DONE;
    }
    c->clock.straddling = false;
    raise_watermark(c, c->now_ns - c->guard_ns + c->skew.offset_ns); /* jitter only makes later what is to come */
    return WAITING;
}

/* Sleep until there may be something to do; `left` ns at most. */
static void wait_for(struct ftn_capture *c, enum fate fate, int64_t left)
{
    if (fate == GATHER) { /* to be woken for each packet would cost more than the packet */
        sleep_ns(least(left, GATHER_NS));
        return;
    }
    if (fate == WAITING) {
        const bool quiet = ftn_monotonic_ns() - c->got_ns > QUIET_NS;
        const int64_t ns = least(left, quiet && c->look_fd >= 0 ? QUIET_TICK_NS : TICK_NS);
        const struct timespec wait = {.tv_nsec = (long)ns};
        struct pollfd either[] = {{.fd = c->fd, .events = POLLIN}, {.fd = c->look_fd, .events = POLLIN}};
        uint64_t looks;
        if (ppoll(either, 2, &wait, NULL) > 0 && either[1].revents & POLLIN && read(c->look_fd, &looks, sizeof looks) < 0)
            c->look_fd = -1; /* never: it would be ready for ever */
        return;
    }
    raise_watermark(c, c->next.time_ns - 1); /* nothing else comes before the pending packet */
    const int64_t due = due_ns(c) - ftn_monotonic_ns();
    sleep_ns(least(left, fate == FULL ? FULL_NS : due > PACE_NS ? due : PACE_NS));
}

long ftn_capture_run(struct ftn_capture *c, struct ftn_ring *ring, const struct ftn_hasher *hasher, long max,
                     int64_t timeout_ns)
{
    const uint64_t before = c->captured;
    const int64_t deadline = ftn_monotonic_ns() + timeout_ns;
    c->ring = ring;
    c->hasher = hasher;
    while (!c->ended && c->captured - before < (uint64_t)max) {
        const long room = max - (long)(c->captured - before);
        const int count = room < BATCH ? (int)room : BATCH;
        const enum fate fate = c->live ? read_live(c, count) : read_file(c, count);
        if (c->error[0])
            return FTN_FAILED;
        const int64_t left = (fate == DONE && !c->live) ? 1 : deadline - ftn_monotonic_ns();
        if (left <= 0)
            break;
        if (fate != DONE)
            wait_for(c, fate, left);
    }
    const long done = (long)(c->captured - before);
    if (done == 0)
        ftn_update_stats(c); /* quiet: the counters are up to date */
    return done == 0 && c->ended ? FTN_END : done;
}

void ftn_set_share(struct ftn_capture *c, uint32_t mine, uint32_t shares)
{
    ftn_store_release(c->share, (uint64_t)shares << 32 | mine);
}

void ftn_look(const struct ftn_capture *c)
{
    const uint64_t one = 1;
    if (c->look_fd >= 0 && write(c->look_fd, &one, sizeof one) < 0)
        return; /* it is ready already */
}

/*
 * ring.h: the shared-memory segment of one replica.
 *
 * Theory of operation
 *
 * One POSIX shared-memory segment (/dev/shm/ftnids-NAME) holds every packet that a replica still
 * needs.  The replica's process creates it and is its only writer; the feeds, and a DAQ module in
 * another process, read it.  It has three parts, laid out in this order after one page of header:
 *
 *   captured   packets as the capture loop took them from the link, numbered by position
 *   recovered  packets that this replica lost and a peer sent, numbered from 0
 *   agreed     the agreed index: for each seq a slot reference, a time and flags
 *
 * Captured and recovered are two instances of one structure, a store: an index of `slots` entries,
 * kept as one array for each field so that the hashes of consecutive packets lie side by side, and
 * an arena of `arena` bytes that holds the frames, each in one piece, 8-byte aligned.
 *
 * Numbers and wrap-around.  Packets and seqs are counted by 64-bit numbers that never wrap; number
 * n stands in entry n % slots (a power of two).  In the arena a frame that does not fit before the
 * end starts at 0.  Used entries are [tail, head), used bytes run from the oldest frame to `next`.
 *
 * Who writes what
 *
 *   capture thread  captured entries and bytes, captured head, next, dropped; watermark
 *   sync thread     captured tail; recovered entries, bytes, head, tail, next; the agreed index,
 *                   agreed, stable, ended, wake, speculative, epoch
 *   feed            fed, the number of agreed entries that the IDS has consumed (a reader that may not
 *                   write reports it to the replica by another way)
 *
 * Publication order.  A writer fills entry and bytes, then stores `head` (or `agreed`, `stable`)
 * with release; a reader loads that counter with acquire and only then looks below it.  So nobody sees
 * a half-written slot.  The watermark is stored after the head that it speaks of: read the watermark
 * first, then the head.  Space goes the other way: the consumer stores `tail` (or `fed`) with
 * release when it is done, the writer loads it with acquire before it writes over old entries.
 *
 * The life of a captured slot: written and published by the capture thread; hashed into reports and
 * sent to peers; named by the agreed index; fed to the IDS; freed by the sync thread once its decision
 * is stable and the IDS's last checkpoint is past it (retention).  Until then nothing moves it: an
 * entry in [fed, stable) of the agreed index and the slot that it names may be read without
 * another check.  When the store is full, the capture loop drops and counts (a file source waits).
 *
 * Waiting.  `wake` is a futex: it is bumped after every change of `stable` and `ended`, and its waiters
 * are woken.  Waiting works on a read-only mapping.
 *
 * Optimistic reading.  Entries of [stable, speculative) may be read by whoever can go back: they can still change.  When
 * one does, `epoch` is moved before anything is written over, so that a reader that finds the same epoch after it has
 * copied an entry as before has copied what was published.  `speculative` is 0 where nobody reads ahead.
 *
 * Trust.  The writer is trusted to keep the rules; a reader is protected from a segment that is
 * foreign, damaged or of another version: ftn_attach copies the description, checks all of it
 * against the mapped length, and from then on uses the copy; ftn_frame bounds every frame.
 */
#ifndef FTN_RING_H
#define FTN_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FTN_MAGIC UINT64_C(0x474e4952494e5446) /* "FTNIRING" in memory */
#define FTN_VERSION UINT32_C(1)
#define FTN_HEADER_BYTES UINT32_C(4096)
#define FTN_ALIGN UINT64_C(8)          /* of frames in an arena */
#define FTN_PAGE UINT64_C(4096)        /* of arrays and arenas in the segment */
#define FTN_MAX_SNAPLEN UINT32_C(262144)
#define FTN_MAX_SLOTS (UINT64_C(1) << 26)
#define FTN_MAX_ARENA (UINT64_C(1) << 37)
#define FTN_RECOVERED (INT64_C(1) << 62) /* in a slot reference: recovered packet, not position */
#define FTN_FLAG_VOID 8u                 /* agreed flag: no survivor has the bytes; there is no slot */

/* Where a store lies in the segment; all offsets from its start, in bytes. */
struct ftn_store_place {
    uint64_t slots;   /* entries, a power of two */
    uint64_t arena;   /* bytes, a multiple of FTN_PAGE */
    uint64_t hash;    /* uint64[slots]: packet hash */
    uint64_t time;    /* int64[slots]: capture time, ns; 0 in the recovered store */
    uint64_t at;      /* uint64[slots]: where the frame starts in the arena */
    uint64_t caplen;  /* uint32[slots]: bytes of the frame kept here */
    uint64_t wirelen; /* uint32[slots]: bytes of the frame on the link */
    uint64_t frames;  /* the arena */
};

/* What the segment is; written once, before the magic number. */
struct ftn_description {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;
    uint64_t total_bytes;
    uint64_t seed; /* of the packet hash */
    uint32_t linktype;
    uint32_t snaplen;
    struct ftn_store_place captured;
    struct ftn_store_place recovered;
    uint64_t agreed_slots; /* entries, a power of two */
    uint64_t agreed_ref;   /* int64[]: position, or FTN_RECOVERED | number; -1 when void */
    uint64_t agreed_time;  /* int64[]: us */
    uint64_t agreed_flags; /* uint8[] */
    uint64_t checksum;     /* FNV-1a of everything above */
};

/* Counters, each writer's on cache lines of its own. */
struct ftn_store_counters {
    _Alignas(64) uint64_t head; /* packets published */
    uint64_t next;              /* where the next frame goes in the arena; the writer's own */
    uint64_t dropped;           /* packets that found no room */
    uint64_t rejected;          /* packets that were not what they claimed to be */
    _Alignas(64) uint64_t tail; /* packets freed */
};

struct ftn_header {
    struct ftn_description is;
    _Alignas(512) struct ftn_store_counters captured;
    struct ftn_store_counters recovered;
    _Alignas(64) int64_t watermark_ns; /* all captured up to this time is published */
    _Alignas(64) uint64_t agreed;      /* entries published */
    uint64_t stable;                   /* entries that may be fed */
    uint32_t ended;                    /* 1: the stream ends at `agreed` */
    uint32_t wake;                     /* futex */
    uint64_t speculative;              /* entries that may be read ahead */
    uint64_t epoch;                    /* moves when published entries change */
    _Alignas(64) uint64_t fed;         /* entries that the reader is done with */
};

_Static_assert(sizeof(struct ftn_description) <= 512, "description outgrew its place");
_Static_assert(offsetof(struct ftn_header, captured) == 512, "layout changed: bump FTN_VERSION");
_Static_assert(offsetof(struct ftn_header, fed) == 896, "layout changed: bump FTN_VERSION");
_Static_assert(sizeof(struct ftn_header) <= FTN_HEADER_BYTES, "header outgrew its page");

/* -- a mapped segment, as one process sees it ---------------------------------------------------- */

struct ftn_store {
    uint64_t mask;  /* slots - 1 */
    uint64_t arena; /* bytes */
    struct ftn_store_counters *count;
    uint64_t *hash;
    int64_t *time;
    uint64_t *at;
    uint32_t *caplen, *wirelen;
    uint8_t *frames;
};

struct ftn_ring {
    struct ftn_header *header;
    struct ftn_description is; /* checked copy; the shared one is never looked at again */
    struct ftn_store captured, recovered;
    uint64_t agreed_mask;
    int64_t *agreed_ref, *agreed_time;
    uint8_t *agreed_flags;
};

/* One frame where it lies.  Valid until its slot is freed. */
struct ftn_frame {
    const uint8_t *data;
    uint32_t caplen, wirelen;
};

#define ftn_load_acquire(counter) __atomic_load_n(&(counter), __ATOMIC_ACQUIRE)
#define ftn_store_release(counter, value) __atomic_store_n(&(counter), (value), __ATOMIC_RELEASE)

/* -- layout and attaching --------------------------------------------------------------------------- */

static inline uint64_t ftn_take(uint64_t *end, uint64_t count, uint64_t size)
{
    const uint64_t start = *end;
    *end = (start + count * size + FTN_PAGE - 1) & ~(FTN_PAGE - 1);
    return start;
}

static inline void ftn_place_store(struct ftn_store_place *s, uint64_t *end)
{
    s->hash = ftn_take(end, s->slots, sizeof(uint64_t));
    s->time = ftn_take(end, s->slots, sizeof(int64_t));
    s->at = ftn_take(end, s->slots, sizeof(uint64_t));
    s->caplen = ftn_take(end, s->slots, sizeof(uint32_t));
    s->wirelen = ftn_take(end, s->slots, sizeof(uint32_t));
    s->frames = ftn_take(end, s->arena, 1);
}

/* Compute every offset and the total from the sizes.  The sizes must be within their limits. */
static inline void ftn_place(struct ftn_description *d)
{
    uint64_t end = FTN_HEADER_BYTES;
    ftn_place_store(&d->captured, &end);
    ftn_place_store(&d->recovered, &end);
    d->agreed_ref = ftn_take(&end, d->agreed_slots, sizeof(int64_t));
    d->agreed_time = ftn_take(&end, d->agreed_slots, sizeof(int64_t));
    d->agreed_flags = ftn_take(&end, d->agreed_slots, sizeof(uint8_t));
    d->total_bytes = end;
}

static inline uint64_t ftn_checksum(const struct ftn_description *d)
{
    const uint8_t *byte = (const uint8_t *)d;
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < offsetof(struct ftn_description, checksum); i++)
        sum = (sum ^ byte[i]) * UINT64_C(0x100000001b3);
    return sum;
}

static inline bool ftn_is_count(uint64_t n)
{
    return n != 0 && n <= FTN_MAX_SLOTS && (n & (n - 1)) == 0;
}

/* Every frame, even of snaplen bytes, must fit into an empty arena wherever `next` stands. */
static inline bool ftn_is_arena(uint64_t bytes, uint32_t snaplen)
{
    return bytes <= FTN_MAX_ARENA && bytes % FTN_PAGE == 0 && bytes >= 2 * (uint64_t)snaplen + FTN_ALIGN;
}

/* What is wrong with a description, NULL if nothing.  Sizes are bounded before anything is computed from them. */
static inline const char *ftn_ring_check(const struct ftn_description *d, size_t mapped)
{
    if (d->magic != FTN_MAGIC)
        return "not an ftnids ring (magic number)";
    if (d->version != FTN_VERSION)
        return "made by another version of ftnids";
    if (d->header_bytes != FTN_HEADER_BYTES)
        return "wrong header size";
    if (d->checksum != ftn_checksum(d))
        return "damaged header (checksum)";
    if (d->snaplen == 0 || d->snaplen > FTN_MAX_SNAPLEN)
        return "snaplen out of range";
    if (!ftn_is_count(d->captured.slots) || !ftn_is_count(d->recovered.slots) || !ftn_is_count(d->agreed_slots))
        return "number of slots out of range";
    if (!ftn_is_arena(d->captured.arena, d->snaplen) || !ftn_is_arena(d->recovered.arena, d->snaplen))
        return "arena size out of range";
    struct ftn_description right = *d;
    ftn_place(&right);
    if (memcmp(&right, d, sizeof right) != 0)
        return "offsets do not follow from the sizes";
    if (d->total_bytes > mapped)
        return "truncated";
    return NULL;
}

static inline void ftn_bind_store(struct ftn_store *s, const struct ftn_store_place *p,
                                  struct ftn_store_counters *count, uint8_t *base)
{
    s->mask = p->slots - 1;
    s->arena = p->arena;
    s->count = count;
    s->hash = (uint64_t *)(void *)(base + p->hash);
    s->time = (int64_t *)(void *)(base + p->time);
    s->at = (uint64_t *)(void *)(base + p->at);
    s->caplen = (uint32_t *)(void *)(base + p->caplen);
    s->wirelen = (uint32_t *)(void *)(base + p->wirelen);
    s->frames = base + p->frames;
}

/* Check the segment mapped at `base` and fill `ring`; NULL, or what is wrong with it.  Only reads the segment. */
static inline const char *ftn_attach(struct ftn_ring *ring, void *base, size_t mapped)
{
    struct ftn_header *header = (struct ftn_header *)base;
    if (mapped < FTN_HEADER_BYTES)
        return "too short for a header";
    (void)ftn_load_acquire(header->is.magic); /* stored last */
    memcpy(&ring->is, &header->is, sizeof ring->is);
    const char *fault = ftn_ring_check(&ring->is, mapped);
    if (fault)
        return fault;
    uint8_t *bytes = (uint8_t *)base;
    ring->header = header;
    ftn_bind_store(&ring->captured, &ring->is.captured, &header->captured, bytes);
    ftn_bind_store(&ring->recovered, &ring->is.recovered, &header->recovered, bytes);
    ring->agreed_mask = ring->is.agreed_slots - 1;
    ring->agreed_ref = (int64_t *)(void *)(bytes + ring->is.agreed_ref);
    ring->agreed_time = (int64_t *)(void *)(bytes + ring->is.agreed_time);
    ring->agreed_flags = bytes + ring->is.agreed_flags;
    return NULL;
}

/* -- reading ------------------------------------------------------------------------------------------ */

/* Frame `n` of a store; false if it is not there, or its entry points outside the arena. */
static inline bool ftn_store_frame(const struct ftn_store *s, uint64_t n, struct ftn_frame *frame)
{
    if (n < ftn_load_acquire(s->count->tail) || n >= ftn_load_acquire(s->count->head))
        return false;
    const uint64_t slot = n & s->mask, at = s->at[slot];
    frame->caplen = s->caplen[slot];
    frame->wirelen = s->wirelen[slot];
    if (at > s->arena || frame->caplen > s->arena - at)
        return false;
    frame->data = s->frames + at;
    return true;
}

/* The frame that a slot reference names; false if there is none. */
static inline bool ftn_frame(const struct ftn_ring *ring, int64_t ref, struct ftn_frame *frame)
{
    if (ref < 0)
        return false;
    if (ref & FTN_RECOVERED)
        return ftn_store_frame(&ring->recovered, (uint64_t)(ref & ~FTN_RECOVERED), frame);
    return ftn_store_frame(&ring->captured, (uint64_t)ref, frame);
}

/* -- writing (one writer a store) -------------------------------------------------------------------- */

/* Where a frame of `caplen` bytes goes, as its offset in the arena; UINT64_MAX if there is no room now. */
static inline uint64_t ftn_reserve(const struct ftn_store *s, uint32_t caplen)
{
    const uint64_t head = s->count->head, tail = ftn_load_acquire(s->count->tail), next = s->count->next;
    const uint64_t need = ((uint64_t)(caplen ? caplen : 1) + FTN_ALIGN - 1) & ~(FTN_ALIGN - 1);
    const bool before_end = next <= s->arena && need <= s->arena - next;
    if (head == tail)
        return before_end ? next : 0;
    if (head - tail > s->mask)
        return UINT64_MAX;
    const uint64_t oldest = s->at[tail & s->mask];
    if (next > oldest && before_end)
        return next;
    const uint64_t start = next > oldest ? 0 : next;
    return start <= oldest && need <= oldest - start ? start : UINT64_MAX;
}

/* Whether more than one part in `parts` of the slots or of the arena is taken. */
static inline bool ftn_fuller_than(const struct ftn_store *s, uint64_t parts)
{
    const uint64_t head = s->count->head, tail = ftn_load_acquire(s->count->tail), next = s->count->next;
    if (head == tail)
        return false;
    if (head - tail > (s->mask + 1) / parts)
        return true;
    const uint64_t oldest = s->at[tail & s->mask];
    return (next > oldest ? next - oldest : s->arena - oldest + next) > s->arena / parts;
}

/* Publish the frame whose bytes were written at `at` (from ftn_reserve). */
static inline void ftn_publish(struct ftn_store *s, uint64_t at, uint32_t caplen, uint32_t wirelen, uint64_t hash,
                               int64_t time)
{
    const uint64_t head = s->count->head, slot = head & s->mask;
    s->hash[slot] = hash;
    s->time[slot] = time;
    s->at[slot] = at;
    s->caplen[slot] = caplen;
    s->wirelen[slot] = wirelen;
    s->count->next = at + (((uint64_t)(caplen ? caplen : 1) + FTN_ALIGN - 1) & ~(FTN_ALIGN - 1));
    ftn_store_release(s->count->head, head + 1);
}

#endif

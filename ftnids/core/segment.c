#include "segment.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

size_t ftn_gather_bytes(const struct ftn_ring *ring, const int64_t *refs, size_t count, size_t *bad)
{
    size_t bytes = 0;
    struct ftn_frame frame;
    for (size_t i = 0; i < count; i++) {
        if (!ftn_frame(ring, refs[i], &frame)) {
            *bad = i;
            return SIZE_MAX;
        }
        bytes += frame.caplen;
    }
    return bytes;
}

static uint64_t hash_at(const struct ftn_ring *ring, int64_t ref)
{
    const bool recovered = (ref & FTN_RECOVERED) != 0;
    const struct ftn_store *store = recovered ? &ring->recovered : &ring->captured;
    return store->hash[(uint64_t)(ref & ~FTN_RECOVERED) & store->mask];
}

void ftn_gather(const struct ftn_ring *ring, const int64_t *refs, struct ftn_batch *batch)
{
    uint8_t *to = batch->data;
    size_t room = batch->bytes;
    for (size_t i = 0; i < batch->count; i++) {
        struct ftn_frame frame = {0};
        if (!ftn_frame(ring, refs[i], &frame) || frame.caplen > room)
            frame = (struct ftn_frame){0}; /* only where somebody else scribbles: the receiver's hash check fails */
        batch->hash[i] = hash_at(ring, refs[i]);
        batch->caplen[i] = frame.caplen;
        batch->wirelen[i] = frame.wirelen;
        if (frame.caplen)
            memcpy(to, frame.data, frame.caplen);
        to += frame.caplen;
        room -= frame.caplen;
    }
}

static bool lengths_add_up(const struct ftn_batch *batch)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < batch->count; i++)
        sum += batch->caplen[i]; /* 32-bit terms: no overflow below 2^32 packets */
    return sum == batch->bytes;
}

static int64_t store_one(struct ftn_ring *ring, const uint8_t *data, uint32_t caplen, uint32_t wirelen, uint64_t hash)
{
    struct ftn_store *store = &ring->recovered;
    const uint64_t at = ftn_reserve(store, caplen);
    if (at == UINT64_MAX) {
        store->count->dropped++;
        return FTN_NO_ROOM;
    }
    if (caplen)
        memcpy(store->frames + at, data, caplen);
    const int64_t ref = FTN_RECOVERED | (int64_t)store->count->head;
    ftn_publish(store, at, caplen, wirelen, hash, 0);
    return ref;
}

void ftn_store_recovered(struct ftn_ring *ring, const struct ftn_hasher *hasher, const struct ftn_batch *batch,
                         int64_t *refs)
{
    const bool sound = lengths_add_up(batch);
    const uint8_t *data = batch->data;
    for (size_t i = 0; i < batch->count; i++) {
        const uint32_t caplen = batch->caplen[i], wirelen = batch->wirelen[i];
        if (sound && caplen <= ring->is.snaplen && caplen <= wirelen &&
            ftn_hash_frame(hasher, data, caplen, wirelen) == batch->hash[i]) {
            refs[i] = store_one(ring, data, caplen, wirelen, batch->hash[i]);
        } else {
            ring->recovered.count->rejected++;
            refs[i] = FTN_MISMATCH;
        }
        data += sound ? caplen : 0;
    }
}

void ftn_wake(struct ftn_ring *ring)
{
    struct ftn_header *header = ring->header;
    __atomic_fetch_add(&header->wake, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &header->wake, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void ftn_set_stable(struct ftn_ring *ring, uint64_t seq)
{
    ftn_store_release(ring->header->stable, seq);
    ftn_wake(ring);
}

void ftn_set_speculative(struct ftn_ring *ring, uint64_t seq)
{
    ftn_store_release(ring->header->speculative, seq);
    ftn_wake(ring);
}

void ftn_retract(struct ftn_ring *ring, uint64_t seq)
{
    __atomic_fetch_add(&ring->header->epoch, 1, __ATOMIC_SEQ_CST);
    ftn_store_release(ring->header->speculative, seq);
#ifdef __SANITIZE_THREAD__ /* which knows no fences */
    __atomic_fetch_add(&ring->header->epoch, 0, __ATOMIC_SEQ_CST);
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

void ftn_set_end(struct ftn_ring *ring)
{
    ftn_store_release(ring->header->ended, 1);
    ftn_wake(ring);
}

static int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool at_end(const struct ftn_header *header, uint64_t stable)
{
    return ftn_load_acquire(header->ended) && stable == ftn_load_acquire(header->agreed);
}

uint64_t ftn_wait_stable(struct ftn_ring *ring, uint64_t seq, int64_t timeout_ns)
{
    return ftn_wait_news(ring, seq, UINT64_MAX, timeout_ns);
}

uint64_t ftn_wait_news(struct ftn_ring *ring, uint64_t seq, uint64_t ahead, int64_t timeout_ns)
{
    struct ftn_header *header = ring->header;
    const int64_t deadline = monotonic_ns() + timeout_ns;
    for (;;) {
        const uint32_t wake = __atomic_load_n(&header->wake, __ATOMIC_SEQ_CST); /* before what it announces */
        const uint64_t stable = ftn_load_acquire(header->stable);
        const int64_t left = deadline - monotonic_ns();
        if (stable > seq || ftn_load_acquire(header->speculative) > ahead || at_end(header, stable) || left <= 0)
            return stable;
        const struct timespec wait = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        syscall(SYS_futex, &header->wake, FUTEX_WAIT, wake, &wait, NULL, 0);
    }
}

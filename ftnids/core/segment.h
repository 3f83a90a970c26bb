/* segment.h: what the owner of a ring does to it, many packets a call. */
#ifndef FTN_SEGMENT_H
#define FTN_SEGMENT_H

#include "hash.h"
#include "ring.h"

/* Outcomes of ftn_store_recovered for one packet, in place of a slot reference. */
enum { FTN_MISMATCH = -1, FTN_NO_ROOM = -2 };

/* Packets by value; `data` holds the frames back to back. */
struct ftn_batch {
    size_t count;
    uint64_t *hash;
    uint32_t *caplen, *wirelen;
    uint8_t *data;
    size_t bytes;
};

/* Bytes of the frames that `refs` name; SIZE_MAX if one is not there, its index in `*bad`. */
size_t ftn_gather_bytes(const struct ftn_ring *ring, const int64_t *refs, size_t count, size_t *bad);
/* Copy the packets that `refs` name into `batch`, which is large enough. */
void ftn_gather(const struct ftn_ring *ring, const int64_t *refs, struct ftn_batch *batch);
/* Store packets that a peer sent; a slot reference or an outcome for each. */
void ftn_store_recovered(struct ftn_ring *ring, const struct ftn_hasher *hasher, const struct ftn_batch *batch,
                         int64_t *refs);

void ftn_set_stable(struct ftn_ring *ring, uint64_t seq);
void ftn_set_end(struct ftn_ring *ring);
/* Entries below `seq` may be read ahead. */
void ftn_set_speculative(struct ftn_ring *ring, uint64_t seq);
/* Entries from `seq` on were wrong: a new epoch, before any of them is written over. */
void ftn_retract(struct ftn_ring *ring, uint64_t seq);
void ftn_wake(struct ftn_ring *ring);
/* Wait until something below `seq` + 1 is stable, the end is reached, or the time is over; returns stable. */
uint64_t ftn_wait_stable(struct ftn_ring *ring, uint64_t seq, int64_t timeout_ns);
/* The same, or until something below `ahead` + 1 may be read ahead. */
uint64_t ftn_wait_news(struct ftn_ring *ring, uint64_t seq, uint64_t ahead, int64_t timeout_ns);

/*
 * Write agreed packets [first, last) to `fd` as classic pcap records; returns the seq after the last one written.
 * 0 in `*error`: all, or as many as a non-blocking descriptor took; else an errno, or EBADMSG for a missing slot.
 */
uint64_t ftn_export_pcap(struct ftn_ring *ring, int fd, uint64_t first, uint64_t last, int *error);

#endif

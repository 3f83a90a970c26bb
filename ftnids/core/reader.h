/*
 * reader.h: the segment through which a reader of a ring in another process tells the replica how far it is.
 *
 * Theory of operation
 *
 * A reader maps the ring read-only, so what it has to say stands in a page of its own, /dev/shm/ftnids-NAME+ids beside
 * the ring /dev/shm/ftnids-NAME (no replica can be called so).  The replica makes it anew for each run of its IDS, the
 * reader attaches to it with the ring.  It has three parts, each written by one side:
 *
 *   is       by the replica before the reader is started: which ring it goes with, where to begin, what is allowed
 *   orders   by the replica while the reader runs
 *   report   by the reader
 *
 * Packet n of the run, counted from 1, is seq start + n - 1, voids apart.  `taken` is where the reader goes on; all
 * below `fed` is done with for good, and the replica may free it: a packet counts as done when the IDS gave it back.
 * A reader that is started again begins at the `fed` of the one before.
 *
 * Speculation.  In mode FTN_FORK, and while `ahead` is set, the reader may go beyond `stable`, up to `speculative`.  Before the first
 * packet that is not stable, with all earlier ones done, it forks: it goes on itself, and the child sleeps on `order`,
 * the checkpoint.  While a checkpoint stands, `fed` stays at its seq.  When all that was taken is stable the reader ends
 * the child.  When the ring's `epoch` has moved, entries that were published have changed, and the reader hands out
 * nothing until the replica has looked at `taken` and written the epoch into `good_epoch`: nothing wrong was taken.
 * Otherwise the replica kills the reader, cuts the log to `log_bytes`, and lets the child go on, by a new number in
 * `order`.  A reader stores `taken` before it looks at `epoch` again, the replica moves `epoch` before it looks at
 * `taken`: one of them sees the other.
 *
 * Trust.  Each side checks what the other wrote: the reader all of `is`, the replica that the report's numbers are
 * in order and within the ring.
 */
#ifndef FTN_READER_H
#define FTN_READER_H

#include "ring.h"

#define FTN_READER_MAGIC UINT64_C(0x44414552494e5446) /* "FTNIREAD" in memory */
#define FTN_READER_VERSION UINT32_C(2)
#define FTN_READER_BYTES UINT32_C(4096)
#define FTN_READER_SUFFIX "+ids"
#define FTN_NO_SEQ UINT64_MAX

enum ftn_reader_mode { FTN_STABLE_ONLY = 0, FTN_FORK = 1 };

enum ftn_reader_state {
    FTN_READER_NEW = 0,     /* nobody has attached */
    FTN_READER_ATTACHED = 1,
    FTN_READER_READS = 2,   /* the IDS is ready for packets */
    FTN_READER_ENDED = 3,   /* it has seen the end of the stream */
    FTN_READER_FAILED = 4   /* it has given up; the IDS says why */
};

struct ftn_reader_description {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes;
    uint64_t ring_checksum; /* of the ring's description ... */
    uint64_t ring_inode;    /* ... and its file: it goes with this ring and no other */
    uint64_t start;         /* seq of the first packet to hand out */
    uint64_t span;          /* packets that may be handed out beyond a checkpoint */
    uint32_t mode;          /* enum ftn_reader_mode */
    uint32_t owner;         /* pid of the replica */
    uint64_t checksum;      /* FNV-1a of everything above */
};

struct ftn_reader_orders {
    uint32_t order; /* futex: a checkpoint that sleeps goes on when it moves */
    uint32_t ahead; /* 0: it is not to go beyond what is stable for now, though it may */
    uint64_t good_epoch; /* as of which nothing wrong was taken */
};

struct ftn_reader_report {
    uint32_t pid; /* 0: nobody; taken by compare-and-swap */
    uint32_t state;
    uint64_t taken;
    uint64_t fed;
    uint64_t checkpoint;     /* seq at which the checkpoint stands; FTN_NO_SEQ: there is none */
    uint32_t checkpoint_pid; /* the process that sleeps */
    uint32_t checkpoints;    /* taken so far */
    uint64_t log_bytes;      /* of the IDS's log when the checkpoint was taken */
};

struct ftn_reader {
    struct ftn_reader_description is;
    _Alignas(256) struct ftn_reader_orders orders;
    _Alignas(64) struct ftn_reader_report report;
};

_Static_assert(offsetof(struct ftn_reader, orders) == 256, "layout changed: bump FTN_READER_VERSION");
_Static_assert(offsetof(struct ftn_reader, report) == 320, "layout changed: bump FTN_READER_VERSION");
_Static_assert(sizeof(struct ftn_reader) <= FTN_READER_BYTES, "reader outgrew its page");

static inline uint64_t ftn_reader_checksum(const struct ftn_reader_description *d)
{
    const uint8_t *byte = (const uint8_t *)d;
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < offsetof(struct ftn_reader_description, checksum); i++)
        sum = (sum ^ byte[i]) * UINT64_C(0x100000001b3);
    return sum;
}

/* What is wrong with a description for a reader of `ring`, whose file has that inode; NULL if nothing. */
static inline const char *ftn_reader_check(const struct ftn_reader_description *d, const struct ftn_description *ring,
                                           uint64_t inode)
{
    if (d->magic != FTN_READER_MAGIC)
        return "not a reader's segment of ftnids (magic number)";
    if (d->version != FTN_READER_VERSION)
        return "made by another version of ftnids";
    if (d->bytes != FTN_READER_BYTES)
        return "wrong size";
    if (d->checksum != ftn_reader_checksum(d))
        return "damaged (checksum)";
    if (d->ring_checksum != ring->checksum || d->ring_inode != inode)
        return "goes with another ring";
    if (d->mode > FTN_FORK)
        return "unknown mode";
    if (d->mode != FTN_STABLE_ONLY && (d->span == 0 || d->span > ring->agreed_slots))
        return "span out of range";
    return NULL;
}

#endif

/* stream.h: the agreed stream of a ring, packet by packet, as a DAQ module of any version hands it on. */
#ifndef FTN_STREAM_H
#define FTN_STREAM_H

#include "reader.h"

#define STREAM_FAULT 320     /* bytes of a reason */
#define STREAM_MAX_NAME 64   /* bytes of a ring's name (limits.MAX_NAME) */
#define STREAM_WAIT_NS INT64_C(100000000) /* the longest wait: then the caller's caller may look around */

/* What came of asking for a packet. */
enum stream_result {
    STREAM_OK,
    STREAM_EMPTY, /* nothing now */
    STREAM_END,   /* nothing ever */
    STREAM_BROKEN /* `fault` says why */
};

struct stream {
    struct ftn_ring ring;
    struct ftn_reader *reader;
    void *ring_base;
    size_t ring_bytes;
    int ring_fd, reader_fd;
    uint32_t snaplen;     /* frames are cut to it */
    uint64_t position;    /* seq of the next packet */
    uint64_t limit;       /* packets below it may be handed out, as of the last look */
    int64_t last_us;      /* time of the last packet: times never decrease */
    bool idle;            /* the caller's word: it has given back all that it got */
    bool speculates;      /* mode FTN_FORK, until a fork fails */
    const char *log;      /* the IDS's, whose size a checkpoint notes; NULL: none */
    uint64_t epoch;       /* as of which `limit` is right */
    uint64_t checkpoint;  /* its seq, FTN_NO_SEQ without one */
    int child;            /* the process that is the checkpoint */
    bool forked;          /* this process was a checkpoint: of all threads, only this one is there */
    uint64_t done_position; /* where stream_begin was */
    int64_t done_us;
    uint32_t interrupted; /* another thread says so */
    char fault[STREAM_FAULT];
};

struct stream_packet {
    uint64_t seq;
    int64_t time_us;
    uint32_t caplen, wirelen;
};

/*
 * Attach to ring `name`, read-only, and to its reader's segment; `log` is the IDS's log, and must stay where it is.
 * False: `fault` says why, and nothing is held.
 */
bool stream_open(struct stream *s, const char *name, uint32_t snaplen, const char *log);
/* The IDS is ready for packets. */
void stream_start(struct stream *s);
/* Let go of everything; what was reported stays. */
void stream_close(struct stream *s);
/*
 * Packets are taken between stream_begin and stream_commit, and may be used after it; where it returns false some of
 * them have changed meanwhile, and are as if they had not been taken.
 */
void stream_begin(struct stream *s, bool idle);
bool stream_commit(struct stream *s);
/*
 * Copy the next packet to `to`, which has room for `snaplen` bytes.  Never waits.  In the process that a fork made, which
 * went on much later, as in the one that called it.
 */
enum stream_result stream_next(struct stream *s, uint8_t *to, struct stream_packet *packet);
/* Wait until there may be a packet, an end or an interrupt; at most timeout_ns and at most STREAM_WAIT_NS. */
enum stream_result stream_wait(struct stream *s, int64_t timeout_ns);
/* Tell the replica: handed out up to `position`, all below `fed` is done with. */
void stream_report(struct stream *s, uint64_t fed);
/* From any thread: the wait of another one ends soon, and stream_interrupted is true once. */
void stream_interrupt(struct stream *s);
bool stream_interrupted(struct stream *s);

#endif

/* export.c: agreed packets as classic pcap records, gathered by writev from where they lie. */
#include "segment.h"

#include <errno.h>
#include <poll.h>
#include <sys/uio.h>

#define RECORDS 512 /* in one writev: two pieces each, IOV_MAX is 1024 */

struct record {
    uint32_t seconds, microseconds, caplen, wirelen;
};

struct pieces {
    struct iovec io[2 * RECORDS];
    struct record head[RECORDS];
    uint64_t seq[RECORDS]; /* of each record */
    int count;             /* of records */
};

/* Describe the records of [first, last) that are not void; returns the seq after them. */
static uint64_t collect(struct ftn_ring *ring, uint64_t first, uint64_t last, struct pieces *out, int *error)
{
    uint64_t seq = first;
    for (out->count = 0; seq < last && out->count < RECORDS; seq++) {
        const uint64_t slot = seq & ring->agreed_mask;
        struct ftn_frame frame;
        if (ring->agreed_flags[slot] & FTN_FLAG_VOID)
            continue;
        if (!ftn_frame(ring, ring->agreed_ref[slot], &frame)) {
            *error = EBADMSG;
            break;
        }
        const uint64_t us = (uint64_t)ring->agreed_time[slot];
        const int i = out->count++;
        out->seq[i] = seq;
        out->head[i] = (struct record){(uint32_t)(us / 1000000), (uint32_t)(us % 1000000), frame.caplen, frame.wirelen};
        out->io[2 * i] = (struct iovec){&out->head[i], sizeof out->head[i]};
        out->io[2 * i + 1] = (struct iovec){(void *)(uintptr_t)frame.data, frame.caplen};
    }
    return seq;
}

/* Take `written` bytes off the front of `io`; returns how many pieces are done. */
static int advance(struct iovec *io, int count, size_t written)
{
    int done = 0;
    while (done < count && written >= io[done].iov_len)
        written -= io[done++].iov_len;
    if (done < count) {
        io[done].iov_base = (uint8_t *)io[done].iov_base + written;
        io[done].iov_len -= written;
    }
    return done;
}

static void wait_writable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLOUT};
    poll(&one, 1, 100);
}

/* Write all pieces.  A full non-blocking descriptor ends it between records, never inside one; returns records written. */
static int write_pieces(int fd, struct pieces *p, int *error)
{
    int piece = 0;
    bool inside = false;
    while (piece < 2 * p->count) {
        const ssize_t written = writev(fd, p->io + piece, 2 * p->count - piece);
        if (written >= 0) {
            piece += advance(p->io + piece, 2 * p->count - piece, (size_t)written);
            inside = piece < 2 * p->count && (piece % 2 || p->io[piece].iov_len < sizeof(struct record));
        } else if (errno == EAGAIN && inside) {
            wait_writable(fd);
        } else if (errno != EINTR) {
            *error = errno == EAGAIN ? 0 : errno;
            break;
        }
    }
    return piece / 2;
}

uint64_t ftn_export_pcap(struct ftn_ring *ring, int fd, uint64_t first, uint64_t last, int *error)
{
    struct pieces pieces;
    *error = 0;
    if (first < last && last - first > ring->agreed_mask + 1) /* a damaged counter: the index never held them all */
        *error = EBADMSG;
    while (first < last && *error == 0) {
        const uint64_t next = collect(ring, first, last, &pieces, error);
        int fault = 0;
        const int done = write_pieces(fd, &pieces, &fault);
        if (fault)
            *error = fault;
        if (done < pieces.count)
            return pieces.seq[done];
        first = next;
    }
    return first;
}

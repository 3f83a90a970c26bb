#include "stream.h"

#include "checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FOLDER "/dev/shm/ftnids-"

__attribute__((format(printf, 2, 3))) static enum stream_result broken(struct stream *s, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(s->fault, sizeof s->fault, format, arguments);
    va_end(arguments);
    if (s->reader)
        ftn_store_release(s->reader->report.state, FTN_READER_FAILED);
    return STREAM_BROKEN;
}

/* -- attaching ---------------------------------------------------------------------------------------- */

/* Map the file `path` whole; NULL, with a fault, when it is not there, no plain file, or shorter than `least`. */
static void *map_file(struct stream *s, const char *path, int flags, int protection, size_t least, int *fd,
                      struct stat *is)
{
    *fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0) {
        const char *hint = errno == ENOENT ? "is the replica running?" : "may this user read it [ring.group]?";
        broken(s, "%s: %s; %s", path, strerror(errno), hint);
        return NULL;
    }
    if (fstat(*fd, is) != 0 || !S_ISREG(is->st_mode) || (uint64_t)is->st_size < least) {
        broken(s, "%s: too short for a header, or no plain file; it is not of ftnids", path);
        return NULL;
    }
    void *base = mmap(NULL, (size_t)is->st_size, protection, MAP_SHARED, *fd, 0);
    if (base == MAP_FAILED) {
        broken(s, "%s: cannot be mapped: %s", path, strerror(errno));
        return NULL;
    }
    return base;
}

static bool attach_ring(struct stream *s, const char *name, struct stat *is)
{
    char path[sizeof FOLDER + STREAM_MAX_NAME + 8];
    snprintf(path, sizeof path, FOLDER "%s", name);
    void *base = map_file(s, path, O_RDONLY, PROT_READ, FTN_HEADER_BYTES, &s->ring_fd, is);
    if (base == NULL)
        return false;
    s->ring_base = base;
    s->ring_bytes = (size_t)is->st_size;
    const char *fault = ftn_attach(&s->ring, base, s->ring_bytes);
    if (fault)
        broken(s, "%s: %s", path, fault);
    return fault == NULL;
}

static bool attach_reader(struct stream *s, const char *name, const struct stat *ring)
{
    char path[sizeof FOLDER + STREAM_MAX_NAME + 8];
    struct stat is;
    snprintf(path, sizeof path, FOLDER "%s" FTN_READER_SUFFIX, name);
    void *base = map_file(s, path, O_RDWR, PROT_READ | PROT_WRITE, FTN_READER_BYTES, &s->reader_fd, &is);
    if (base == NULL)
        return false;
    struct ftn_reader *reader = base;
    (void)ftn_load_acquire(reader->is.magic); /* stored last */
    const struct ftn_reader_description d = reader->is;
    const char *fault = ftn_reader_check(&d, &s->ring.is, (uint64_t)ring->st_ino);
    uint32_t nobody = 0;
    if (fault == NULL && !__atomic_compare_exchange_n(&reader->report.pid, &nobody, (uint32_t)getpid(), false,
                                                      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        broken(s, "%s: process %u reads this ring already; the replica starts its IDS itself", path, nobody);
        munmap(base, (size_t)is.st_size);
        return false;
    }
    if (fault) {
        broken(s, "%s: %s", path, fault);
        munmap(base, (size_t)is.st_size);
        return false;
    }
    s->reader = reader;
    s->position = s->limit = d.start;
    return true;
}

bool stream_open(struct stream *s, const char *name, uint32_t snaplen, const char *log)
{
    *s = (struct stream){.ring_fd = -1, .reader_fd = -1, .last_us = INT64_MIN, .checkpoint = FTN_NO_SEQ, .log = log};
    const size_t length = name ? strlen(name) : 0;
    struct stat ring;
    if (length == 0 || length > STREAM_MAX_NAME || strchr(name, '/')) {
        broken(s, "ring name \"%.*s\": must be 1 to %d bytes without a slash", 80, name ? name : "",
               STREAM_MAX_NAME);
        return false;
    }
    if (!attach_ring(s, name, &ring) || !attach_reader(s, name, &ring)) {
        stream_close(s);
        return false;
    }
    s->snaplen = snaplen && snaplen < s->ring.is.snaplen ? snaplen : s->ring.is.snaplen;
    s->speculates = s->reader->is.mode == FTN_FORK;
    stream_report(s, s->position);
    ftn_store_release(s->reader->report.checkpoint, FTN_NO_SEQ);
    ftn_store_release(s->reader->report.state, FTN_READER_ATTACHED);
    return true;
}

void stream_start(struct stream *s)
{
    ftn_store_release(s->reader->report.state, FTN_READER_READS);
}

void stream_close(struct stream *s)
{
    if (s->reader && s->checkpoint != FTN_NO_SEQ)
        checkpoint_discard(s);
    if (s->reader)
        munmap(s->reader, FTN_READER_BYTES);
    if (s->ring_base)
        munmap(s->ring_base, s->ring_bytes);
    if (s->reader_fd >= 0)
        close(s->reader_fd);
    if (s->ring_fd >= 0)
        close(s->ring_fd);
    s->reader = NULL;
    s->ring_base = NULL;
    s->reader_fd = s->ring_fd = -1;
}

/* -- packets ------------------------------------------------------------------------------------------ */

/*
 * Beyond what is stable: what may be handed out with a checkpoint behind it.  That is taken as soon as there is a moment
 * for it, so that the next packet does not wait for it.
 */
static enum stream_result look_ahead(struct stream *s)
{
    if (s->checkpoint == FTN_NO_SEQ) {
        if (s->idle)
            s->speculates = checkpoint_take(s); /* where it cannot fork, it reads what is stable */
        return STREAM_EMPTY;                    /* the process that returns may be another one: look again */
    }
    const uint64_t speculative = ftn_load_acquire(s->ring.header->speculative);
    const uint64_t last = s->checkpoint + s->reader->is.span;
    if (speculative <= s->position || speculative - s->position > s->ring.agreed_mask + 1)
        return STREAM_EMPTY;
    s->limit = speculative < last ? speculative : last;
    return s->limit > s->position ? STREAM_OK : STREAM_EMPTY;
}

/* Look how far packets may be handed out. */
static enum stream_result look(struct stream *s)
{
    const struct ftn_header *header = s->ring.header;
    const bool ended = ftn_load_acquire(header->ended) != 0; /* before `agreed`, which then stands */
    const uint64_t stable = ftn_load_acquire(header->stable), freed = ftn_load_acquire(header->fed);
    if (s->reader->is.mode != FTN_STABLE_ONLY) {
        const uint64_t epoch = ftn_load_acquire(header->epoch); /* after `stable`: what is stable was right as of it */
        if (s->position != s->done_position && epoch != s->epoch)
            return STREAM_EMPTY; /* what was taken since stream_begin is of another: the replica does not know of it yet */
        s->epoch = epoch;
        if (epoch != ftn_load_acquire(s->reader->orders.good_epoch))
            return STREAM_EMPTY; /* until the replica has looked */
        if (s->checkpoint < s->position && stable >= s->position)
            checkpoint_discard(s);
    }
    if (freed > s->position) {
        if (s->position != s->reader->is.start) /* a ring that begins in mid-stream says so before its first packet */
            return broken(s, "the ring is damaged: it has freed seq %llu, which is not consumed",
                          (unsigned long long)s->position);
        s->position = freed;
    }
    if (stable > s->position) {
        if (stable - s->position > s->ring.agreed_mask + 1)
            return broken(s, "the ring is damaged: %llu packets wait, its index holds %llu",
                          (unsigned long long)(stable - s->position), (unsigned long long)s->ring.agreed_mask + 1);
        s->limit = stable;
        return STREAM_OK;
    }
    if (ended && stable >= s->position && s->position >= ftn_load_acquire(header->agreed)) {
        if (s->checkpoint != FTN_NO_SEQ)
            checkpoint_discard(s);
        ftn_store_release(s->reader->report.state, FTN_READER_ENDED);
        return STREAM_END;
    }
    return s->speculates && ftn_load_acquire(s->reader->orders.ahead) ? look_ahead(s) : STREAM_EMPTY;
}

void stream_begin(struct stream *s, bool idle)
{
    s->idle = idle;
    s->done_position = s->position;
    s->done_us = s->last_us;
    s->limit = s->position; /* look anew: what may be handed out may have changed */
}

bool stream_commit(struct stream *s)
{
    if (s->reader->is.mode == FTN_STABLE_ONLY)
        return true;
    __atomic_store_n(&s->reader->report.taken, s->position, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&s->ring.header->epoch, __ATOMIC_SEQ_CST) == s->epoch)
        return true;
    s->position = s->done_position;
    s->last_us = s->done_us;
    ftn_store_release(s->reader->report.taken, s->position);
    return false;
}

enum stream_result stream_next(struct stream *s, uint8_t *to, struct stream_packet *packet)
{
    for (;;) {
        if (s->position >= s->limit) {
            const enum stream_result found = look(s);
            if (found != STREAM_OK)
                return found;
        }
        const uint64_t seq = s->position, slot = seq & s->ring.agreed_mask;
        struct ftn_frame frame;
        if (s->ring.agreed_flags[slot] & FTN_FLAG_VOID) {
            s->position++;
            continue;
        }
        if (!ftn_frame(&s->ring, s->ring.agreed_ref[slot], &frame)) {
            if (s->checkpoint != FTN_NO_SEQ && ftn_load_acquire(s->ring.header->epoch) != s->epoch)
                return STREAM_EMPTY; /* it has changed under our eyes */
            return broken(s, "seq %llu names a packet that is not in the ring", (unsigned long long)seq);
        }
        packet->seq = seq;
        packet->caplen = frame.caplen < s->snaplen ? frame.caplen : s->snaplen;
        packet->wirelen = frame.wirelen;
        packet->time_us = s->ring.agreed_time[slot];
        if (packet->time_us < s->last_us)
            packet->time_us = s->last_us;
        s->last_us = packet->time_us;
        if (packet->caplen)
            memcpy(to, frame.data, packet->caplen);
        s->position++;
        s->idle = false;
        return STREAM_OK;
    }
}

void stream_report(struct stream *s, uint64_t fed)
{
    ftn_store_release(s->reader->report.taken, s->position);
    ftn_store_release(s->reader->report.fed, s->checkpoint < fed ? s->checkpoint : fed);
}

/* -- waiting ------------------------------------------------------------------------------------------ */

static int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The replica holds an exclusive lock on the ring for as long as it lives. */
bool stream_owner_is_gone(const struct stream *s)
{
    if (flock(s->ring_fd, LOCK_SH | LOCK_NB) != 0)
        return false;
    flock(s->ring_fd, LOCK_UN);
    return true;
}

enum stream_result stream_wait(struct stream *s, int64_t timeout_ns)
{
    struct ftn_header *header = s->ring.header;
    const int64_t deadline = monotonic_ns() + (timeout_ns < STREAM_WAIT_NS ? timeout_ns : STREAM_WAIT_NS);
    for (;;) {
        const uint32_t wake = __atomic_load_n(&header->wake, __ATOMIC_SEQ_CST); /* before what it announces */
        const enum stream_result found = look(s);
        if (found != STREAM_EMPTY || __atomic_load_n(&s->interrupted, __ATOMIC_SEQ_CST))
            return found;
        const int64_t left = deadline - monotonic_ns();
        if (left <= 0)
            break;
        const struct timespec wait = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        syscall(SYS_futex, &header->wake, FUTEX_WAIT, wake, &wait, NULL, 0);
    }
    if (stream_owner_is_gone(s))
        return broken(s, "the replica that made the ring is gone");
    return STREAM_EMPTY;
}

void stream_interrupt(struct stream *s)
{
    __atomic_store_n(&s->interrupted, 1, __ATOMIC_SEQ_CST);
    if (s->ring_base) /* one that is about to wait misses it, and waits STREAM_WAIT_NS */
        syscall(SYS_futex, &s->ring.header->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool stream_interrupted(struct stream *s)
{
    return __atomic_exchange_n(&s->interrupted, 0, __ATOMIC_SEQ_CST) != 0;
}

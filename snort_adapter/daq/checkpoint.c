#include "checkpoint.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* In the child: sleep until `order` moves.  It ends with the replica; when only the parent is gone, it is about to be told. */
static void sleep_until_told(const struct stream *s, uint32_t before)
{
    const struct timespec wait = {.tv_sec = STREAM_WAIT_NS / 1000000000, .tv_nsec = STREAM_WAIT_NS % 1000000000};
    uint32_t *order = &s->reader->orders.order;
    while (ftn_load_acquire(*order) == before) {
        if (syscall(SYS_futex, order, FUTEX_WAIT, before, &wait, NULL, 0) != 0 && errno == ETIMEDOUT &&
            stream_owner_is_gone(s))
            _exit(0);
    }
}

/* In the child, which is the IDS from now on: only the thread that called fork is there. */
static void take_over(struct stream *s)
{
    struct ftn_reader_report *report = &s->reader->report;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* the one before was tethered; a fork is not */
    if (getppid() != (pid_t)s->reader->is.owner)
        _exit(0);
    s->checkpoint = FTN_NO_SEQ;
    s->child = 0;
    s->forked = true;
    s->limit = s->position;
    stream_report(s, s->position);
    ftn_store_release(report->checkpoint_pid, 0);
    ftn_store_release(report->checkpoint, FTN_NO_SEQ);
    ftn_store_release(report->pid, (uint32_t)getpid()); /* last: now it is done */
}

bool checkpoint_take(struct stream *s)
{
    struct ftn_reader_report *report = &s->reader->report;
    struct stat log;
    const uint32_t order = ftn_load_acquire(s->reader->orders.order);
    ftn_store_release(report->log_bytes, s->log && stat(s->log, &log) == 0 ? (uint64_t)log.st_size : 0);
    const pid_t child = fork();
    if (child < 0)
        return false;
    if (child == 0) {
        sleep_until_told(s, order);
        take_over(s);
        return true;
    }
    s->child = child;
    s->checkpoint = s->position;
    ftn_store_release(report->checkpoint_pid, (uint32_t)child);
    ftn_store_release(report->checkpoint, s->checkpoint);
    ftn_store_release(report->checkpoints, report->checkpoints + 1);
    return true;
}

void checkpoint_discard(struct stream *s)
{
    ftn_store_release(s->reader->report.checkpoint, FTN_NO_SEQ);
    ftn_store_release(s->reader->report.checkpoint_pid, 0);
    s->checkpoint = FTN_NO_SEQ;
    kill(s->child, SIGKILL);
    while (waitpid(s->child, NULL, 0) < 0 && errno == EINTR)
        continue;
    s->child = 0;
}

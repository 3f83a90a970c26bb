/* capture.h: one libpcap source, live or a file, into one ring. */
#ifndef FTN_CAPTURE_H
#define FTN_CAPTURE_H

#include "clock.h"
#include "faults.h"
#include "segment.h"

#include <pcap/pcap.h>

#define FTN_TEXT 512 /* of a message to the operator */

enum ftn_pace { FTN_TOPSPEED, FTN_FILE_PACE, FTN_PPS };

/* A packet whose time and fate are known, on its way into the ring. */
struct ftn_pending {
    const uint8_t *data; /* libpcap's, until its next read */
    uint32_t caplen, wirelen;
    int64_t stamp_ns, time_ns; /* as the source says, without injected error; as it goes into the ring */
    bool here, dropped;
};

struct ftn_capture {
    pcap_t *pcap;
    bool live, ended;
    int fd; /* to wait on; -1: a file */
    int look_fd; /* eventfd: somebody wants the watermark; -1: a file, or there is none */
    uint32_t linktype, snaplen;
    int64_t tick_ns; /* unit of libpcap's fraction of a second */
    int64_t guard_ns; /* a live packet may show up this long after its stamp */
    int64_t got_ns;   /* when the last live packets were read, monotonic */

    struct ftn_clock clock;
    struct ftn_skew skew;
    struct ftn_drop drop;
    int64_t last_ns; /* time of the newest packet handed out */

    enum ftn_pace pace;
    int64_t interval_ns; /* FTN_PPS */
    int64_t began_ns, first_ns; /* monotonic time and stamp of packet 0 */
    uint64_t seen; /* packets before injected loss */

    uint64_t captured, kernel_drops, ring_drops, injected_drops, left_to_peers;
    uint64_t captured_bytes; /* of the captured packets, on the link */
    uint64_t share; /* what ftn_set_share said */
    uint32_t kernel_last; /* libpcap's counter wraps */
    int64_t stats_ns;

    /* of the running call */
    struct ftn_ring *ring;
    const struct ftn_hasher *hasher;
    int64_t now_ns; /* live: capture time when libpcap was asked, without injected error */
    struct ftn_pending next; /* or the last one, where none is here */

    char warning[FTN_TEXT], error[FTN_TEXT];
};

struct ftn_live_options {
    const char *interface, *bpf;
    int snaplen, buffer_bytes;
    bool promiscuous, immediate;
};

/* Open; 0, or -1 with the reason in `error`. */
int ftn_open_live(struct ftn_capture *c, const struct ftn_live_options *options);
int ftn_open_file(struct ftn_capture *c, const char *path, const char *bpf, uint32_t snaplen);
void ftn_close(struct ftn_capture *c);

enum { FTN_END = -1, FTN_FAILED = -2 };

/* Put up to `max` packets into the ring, at most `timeout_ns` long; how many, FTN_END, or FTN_FAILED with `error`. */
long ftn_capture_run(struct ftn_capture *c, struct ftn_ring *ring, const struct ftn_hasher *hasher, long max,
                     int64_t timeout_ns);

int64_t ftn_monotonic_ns(void);
int64_t ftn_real_ns(void);
/* Now on the capture clock of a live source; the newest packet's time of a file. */
int64_t ftn_capture_clock_ns(const struct ftn_capture *c);
/* Read the kernel's drop counters. */
void ftn_update_stats(struct ftn_capture *c);

/*
 * Keep share `mine` of `shares` alone of what comes while the ring is more than a quarter full: peers keep the others,
 * by the packets' hashes.  `shares` of 1 keeps all.  May be called while a live source runs in another thread.
 */
void ftn_set_share(struct ftn_capture *c, uint32_t mine, uint32_t shares);

/* Have a quiet live source that runs in another thread raise its watermark now. */
void ftn_look(const struct ftn_capture *c);

#endif

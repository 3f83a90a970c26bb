/*
 * pcap.c: a capture file of any content is read to its end or refused, and what it gives is whole.
 *
 *   byte 0      how it is read: bit 0 a filter, bit 1 a small snaplen, bit 2 faulty clock, bit 3 loss
 *   then        the file
 */
#include "capture.h"
#include "../../tests/core/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FILTER = 1, SHORT = 2, SKEW = 4, LOSS = 8, SLOTS = 64, SMALL = 100 };

static struct ftn_ring ring;
static struct ftn_hasher hasher;

static void make_ring(void)
{
    struct ftn_description d = {.magic = FTN_MAGIC, .version = FTN_VERSION, .header_bytes = FTN_HEADER_BYTES};
    void *base = NULL;
    d.seed = 7;
    d.linktype = 1;
    d.snaplen = FTN_MAX_SNAPLEN;
    d.captured.slots = d.recovered.slots = d.agreed_slots = SLOTS;
    d.captured.arena = d.recovered.arena = 3 * FTN_MAX_SNAPLEN;
    ftn_place(&d);
    d.checksum = ftn_checksum(&d);
    CHECK(posix_memalign(&base, FTN_PAGE, d.total_bytes) == 0);
    memset(base, 0, d.total_bytes);
    memcpy(base, &d, sizeof d);
    CHECK(ftn_attach(&ring, base, d.total_bytes) == NULL);
    ftn_hasher_init(&hasher, d.seed);
}

/* A file of the input's bytes, as a path. */
static const char *lay(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("capture", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    return path;
}

/* What came into the ring is within the snaplen, in time order, and hashes to what it says. */
static int64_t check_packets(int64_t last_ns, uint32_t snaplen)
{
    const struct ftn_store *store = &ring.captured;
    const uint64_t head = store->count->head;
    for (uint64_t n = store->count->tail; n < head; n++) {
        struct ftn_frame frame;
        CHECK(ftn_frame(&ring, (int64_t)n, &frame));
        CHECK(frame.caplen <= snaplen && frame.caplen <= frame.wirelen);
        CHECK(store->time[n & store->mask] >= last_ns);
        CHECK(store->hash[n & store->mask] == ftn_hash_frame(&hasher, frame.data, frame.caplen, frame.wirelen));
        last_ns = store->time[n & store->mask];
    }
    ftn_store_release(store->count->tail, head);
    return last_ns;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!ring.header)
        make_ring();
    const uint8_t how = size ? data[0] : 0;
    const uint32_t snaplen = how & SHORT ? SMALL : FTN_MAX_SNAPLEN;
    struct ftn_capture *c = calloc(1, sizeof *c);
    CHECK(c);
    ring.header->watermark_ns = INT64_MIN;
    if (ftn_open_file(c, lay(data + !!size, size - !!size), how & FILTER ? "ip or arp or tcp port 80" : "", snaplen) == 0) {
        if (how & SKEW)
            c->skew = (struct ftn_skew){.offset_ns = -1000000, .jitter_ns = 1000, .drift = 4294967, .seed = 3};
        if (how & LOSS)
            c->drop = (struct ftn_drop){.seed = 1, .after_kept = UINT64_C(1) << 51, .after_dropped = UINT64_C(1) << 52};
        int64_t last_ns = INT64_MIN;
        long got;
        uint64_t total = 0;
        while ((got = ftn_capture_run(c, &ring, &hasher, 16, 0)) >= 0) {
            last_ns = check_packets(last_ns, snaplen);
            total += (uint64_t)got;
            CHECK(total <= size); /* no file gives more packets than it has bytes */
        }
        CHECK(got == FTN_END ? ring.header->watermark_ns == INT64_MAX : c->error[0] != 0);
        check_packets(last_ns, snaplen);
    } else {
        CHECK(c->error[0] && !c->pcap);
    }
    ftn_close(c);
    free(c);
    return 0;
}

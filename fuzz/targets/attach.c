/*
 * attach.c: a segment that is foreign, damaged or hostile is refused or read within its bounds, and reading ends.
 *
 *   byte 0      FIX_* bits: what is put right, so that the fuzzer gets past the checks that it cannot guess
 *   bytes 1-2   how much is mapped, in units of 512 bytes
 *   then        a description, as it stands in the header
 *   then        writes anywhere into the segment: 3 bytes offset, 1 byte length (0 to 8), the bytes
 */
#include "segment.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { FIX_MAGIC = 1, FIX_OFFSETS = 2, FIX_CHECKSUM = 4, UNIT = 512, MOST = 2 << 20, LOOKS = 64 };

struct input {
    const uint8_t *data;
    size_t size;
};

static uint64_t take(struct input *in, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes && in->size > 0; i++, in->size--)
        value |= (uint64_t)*in->data++ << 8 * i;
    return value;
}

static void describe(struct input *in, uint64_t fix, struct ftn_description *d)
{
    memset(d, 0, sizeof *d);
    const size_t size = in->size < sizeof *d ? in->size : sizeof *d;
    memcpy(d, in->data, size);
    in->data += size;
    in->size -= size;
    if (fix & FIX_MAGIC) {
        d->magic = FTN_MAGIC;
        d->version = FTN_VERSION;
        d->header_bytes = FTN_HEADER_BYTES;
    }
    if (fix & FIX_OFFSETS) {
        d->captured.slots = UINT64_C(1) << d->captured.slots % 10;
        d->recovered.slots = UINT64_C(1) << d->recovered.slots % 10;
        d->agreed_slots = UINT64_C(1) << d->agreed_slots % 10;
        d->captured.arena = (1 + d->captured.arena % 16) * FTN_PAGE;
        d->recovered.arena = (1 + d->recovered.arena % 16) * FTN_PAGE;
        d->snaplen = 1 + d->snaplen % 2000;
        ftn_place(d);
    }
    if (fix & FIX_CHECKSUM)
        d->checksum = ftn_checksum(d);
}

static void scribble(struct input *in, uint8_t *base, size_t mapped)
{
    while (in->size >= 5) {
        const size_t at = take(in, 3);
        for (size_t i = 0, length = take(in, 1) % 9; i < length; i++) {
            const uint8_t byte = (uint8_t)take(in, 1);
            if (at + i < mapped)
                base[at + i] = byte;
        }
    }
}

static volatile uint64_t sum; /* so that nothing is optimised away */

static void read_frame(const struct ftn_ring *ring, int64_t ref)
{
    struct ftn_frame frame;
    size_t bad = 0;
    if (!ftn_frame(ring, ref, &frame))
        return;
    for (uint32_t i = 0; i < frame.caplen; i++)
        sum += frame.data[i];
    uint64_t hash;
    uint32_t caplen, wirelen;
    struct ftn_batch batch = {1, &hash, &caplen, &wirelen, NULL, ftn_gather_bytes(ring, &ref, 1, &bad)};
    batch.data = malloc(batch.bytes + 1);
    ftn_gather(ring, &ref, &batch);
    free(batch.data);
}

static void read_store(const struct ftn_ring *ring, const struct ftn_store *store, int64_t kind)
{
    const uint64_t tail = store->count->tail, head = store->count->head;
    for (uint64_t i = 0; i < LOOKS; i++) {
        read_frame(ring, (int64_t)((tail + i) & (uint64_t)INT64_MAX) | kind);
        read_frame(ring, (int64_t)((head - 1 - i) & (uint64_t)INT64_MAX) | kind);
    }
}

static void read_agreed(struct ftn_ring *ring, int null)
{
    const struct ftn_header *header = ring->header;
    int error = 0;
    ftn_export_pcap(ring, null, header->fed, header->stable, &error);
    ftn_export_pcap(ring, null, header->fed, header->fed + LOOKS, &error);
    ftn_wait_stable(ring, header->fed, 0);
    for (uint64_t seq = 0; seq <= ring->agreed_mask; seq++)
        read_frame(ring, ring->agreed_ref[seq]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int null = -1;
    if (null < 0)
        null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    struct input in = {data, size};
    struct ftn_description d;
    const uint64_t fix = take(&in, 1);
    size_t mapped = take(&in, 2) * UNIT;
    describe(&in, fix, &d);
    if (fix & FIX_OFFSETS && mapped % 1024 == 0)
        mapped = d.total_bytes;
    void *base = NULL;
    if (mapped > MOST || posix_memalign(&base, FTN_PAGE, mapped + !mapped) != 0) /* of exactly that size */
        return 0;
    memset(base, 0, mapped);
    memcpy(base, &d, sizeof d < mapped ? sizeof d : mapped);
    scribble(&in, base, mapped);
    struct ftn_ring ring;
    if (ftn_attach(&ring, base, mapped) == NULL) {
        read_store(&ring, &ring.captured, 0);
        read_store(&ring, &ring.recovered, FTN_RECOVERED);
        read_agreed(&ring, null);
    }
    free(base);
    return 0;
}

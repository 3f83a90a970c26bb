/*
 * torture.c: the C core under sanitizers, run by test_sanitized.py.
 *
 *   torture attach SEED      damaged headers and entries are refused, and read only within the segment
 *   torture threads SEED     a writer and a reader over a small ring
 *   torture capture SEED F   a capture file, whole and damaged, into a ring
 *   torture parts SEED       clock steps, hash kernels
 *
 * Ends with status 0, or says what failed and aborts.
 */
#include "capture.h"
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SLOTS = 64, ARENA = 1 << 14, SNAPLEN = 2000, PACKETS = 50000 };

static uint64_t state;

static uint64_t draw(void)
{
    return ftn_splitmix64(state++);
}

/* A formatted segment in memory of exactly its size, so that a read past its end is seen. */
static void *format(struct ftn_description *d)
{
    memset(d, 0, sizeof *d);
    d->magic = FTN_MAGIC;
    d->version = FTN_VERSION;
    d->header_bytes = FTN_HEADER_BYTES;
    d->seed = draw();
    d->linktype = 1;
    d->snaplen = SNAPLEN;
    d->captured.slots = d->recovered.slots = d->agreed_slots = SLOTS;
    d->captured.arena = d->recovered.arena = ARENA;
    ftn_place(d);
    d->checksum = ftn_checksum(d);
    void *base = aligned_alloc(FTN_PAGE, d->total_bytes);
    CHECK(base);
    memset(base, 0, d->total_bytes);
    memcpy(base, d, sizeof *d);
    return base;
}

/* -- attach ---------------------------------------------------------------------------------------- */

static void touch_store(const struct ftn_store *s)
{
    s->hash[s->mask] = s->at[s->mask] = 1;
    s->time[s->mask] = 1;
    s->caplen[s->mask] = s->wirelen[s->mask] = 1;
    s->frames[s->arena - 1] = 1;
}

/* Write to the last element of everything: the sanitizer sees what lies outside. */
static void touch(const struct ftn_ring *ring)
{
    touch_store(&ring->captured);
    touch_store(&ring->recovered);
    ring->agreed_ref[ring->agreed_mask] = ring->agreed_time[ring->agreed_mask] = 1;
    ring->agreed_flags[ring->agreed_mask] = 1;
}

static void attach_damaged(void)
{
    struct ftn_description sound, d;
    struct ftn_ring ring;
    void *base = format(&sound);
    CHECK(ftn_attach(&ring, base, sound.total_bytes) == NULL);
    for (size_t mapped = 0; mapped < sound.total_bytes; mapped += 509)
        CHECK(ftn_attach(&ring, base, mapped) != NULL);
    for (int i = 0; i < 8000; i++) {
        d = sound;
        const size_t at = draw() % (sizeof d / 8) * 8;
        uint64_t value = draw() >> draw() % 64;
        memcpy((uint8_t *)&d + at, &value, sizeof value);
        if (i % 2)
            d.checksum = ftn_checksum(&d); /* a right checksum over wrong values */
        memcpy(base, &d, sizeof d);
        if (ftn_attach(&ring, base, sound.total_bytes) == NULL)
            touch(&ring);
    }
    free(base);
}

static void read_damaged(void)
{
    struct ftn_description d;
    struct ftn_ring ring;
    void *base = format(&d);
    CHECK(ftn_attach(&ring, base, d.total_bytes) == NULL);
    uint64_t sum = 0;
    for (int i = 0; i < 8000; i++) {
        ring.header->captured.head = draw();
        ring.header->captured.tail = draw() % 2 ? ring.header->captured.head - 10 : draw();
        const uint64_t slot = draw() % SLOTS;
        ring.captured.at[slot] = draw() >> draw() % 64;
        ring.captured.caplen[slot] = (uint32_t)(draw() >> draw() % 64);
        struct ftn_frame frame;
        if (ftn_frame(&ring, (int64_t)((ring.header->captured.head - draw() % 16) & INT64_MAX), &frame))
            for (uint32_t n = 0; n < frame.caplen; n++)
                sum += frame.data[n];
    }
    fprintf(stderr, "read %llu\n", (unsigned long long)sum);
    free(base);
}

/* -- threads ----------------------------------------------------------------------------------------- */

static struct ftn_ring shared;
static struct ftn_hasher hasher;

static bool put(uint64_t n)
{
    uint8_t frame[SNAPLEN];
    const uint32_t caplen = (uint32_t)(ftn_splitmix64(n) % SNAPLEN);
    memset(frame, (int)n, caplen);
    const uint64_t at = ftn_reserve(&shared.captured, caplen);
    if (at == UINT64_MAX)
        return false;
    memcpy(shared.captured.frames + at, frame, caplen);
    ftn_publish(&shared.captured, at, caplen, SNAPLEN, ftn_hash_frame(&hasher, frame, caplen, SNAPLEN), (int64_t)n);
    return true;
}

static void *write_all(void *unused)
{
    for (uint64_t n = 0; n < PACKETS;) {
        ftn_store_release(shared.header->captured.tail, ftn_load_acquire(shared.header->fed));
        if (!put(n)) {
            sched_yield();
            continue;
        }
        shared.agreed_ref[n & shared.agreed_mask] = (int64_t)n;
        shared.agreed_time[n & shared.agreed_mask] = (int64_t)n;
        ftn_store_release(shared.header->agreed, ++n);
        ftn_set_stable(&shared, n);
    }
    ftn_set_end(&shared);
    return unused;
}

static void read_all(void)
{
    uint64_t seq = 0;
    while (seq < PACKETS) {
        const uint64_t stable = ftn_wait_stable(&shared, seq, INT64_C(20000000000));
        CHECK(stable > seq);
        for (; seq < stable; seq++) {
            struct ftn_frame frame;
            CHECK(ftn_frame(&shared, shared.agreed_ref[seq & shared.agreed_mask], &frame));
            CHECK(frame.caplen == ftn_splitmix64(seq) % SNAPLEN && frame.wirelen == SNAPLEN);
            CHECK(shared.captured.hash[seq & shared.captured.mask] ==
                  ftn_hash_frame(&hasher, frame.data, frame.caplen, frame.wirelen));
            CHECK(frame.caplen == 0 || frame.data[frame.caplen - 1] == (uint8_t)seq);
        }
        ftn_store_release(shared.header->fed, seq);
    }
    CHECK(ftn_wait_stable(&shared, seq, INT64_C(20000000000)) == PACKETS);
}

static void threads(void)
{
    struct ftn_description d;
    void *base = format(&d);
    CHECK(ftn_attach(&shared, base, d.total_bytes) == NULL);
    ftn_hasher_init(&hasher, d.seed);
    pthread_t writer;
    CHECK(pthread_create(&writer, NULL, write_all, NULL) == 0);
    read_all();
    pthread_join(writer, NULL);
    free(base);
}

/* -- capture ------------------------------------------------------------------------------------------- */

/* Read a file into a ring, send each packet through the recovered store, export all; how many packets. */
static uint64_t pass_through(const char *path)
{
    struct ftn_description d;
    struct ftn_ring ring;
    struct ftn_capture *c = calloc(1, sizeof *c);
    void *base = format(&d);
    const int null = open("/dev/null", O_WRONLY);
    uint64_t packets = 0;
    CHECK(c && null >= 0 && ftn_attach(&ring, base, d.total_bytes) == NULL);
    ftn_hasher_init(&hasher, d.seed);
    if (ftn_open_file(c, path, "", SNAPLEN) == 0) {
        c->skew = (struct ftn_skew){.offset_ns = -5, .jitter_ns = 1000, .drift = 12345, .seed = draw()};
        c->drop = (struct ftn_drop){.seed = draw(), .after_kept = UINT64_C(1) << 50, .after_dropped = UINT64_C(1) << 52};
        for (long got; (got = ftn_capture_run(c, &ring, &hasher, 7, 0)) >= 0 && packets < 100000;) {
            const uint64_t head = ring.header->captured.head;
            for (uint64_t n = ring.header->captured.tail; n < head; n++, packets++) {
                int64_t ref = (int64_t)n;
                size_t bad;
                uint8_t frame[SNAPLEN];
                uint64_t hash;
                uint32_t caplen, wirelen;
                struct ftn_batch batch = {1, &hash, &caplen, &wirelen, frame, ftn_gather_bytes(&ring, &ref, 1, &bad)};
                CHECK(batch.bytes <= SNAPLEN);
                ftn_gather(&ring, &ref, &batch);
                ftn_store_recovered(&ring, &hasher, &batch, &ref);
                CHECK(ref >= 0);
                ring.agreed_ref[packets & ring.agreed_mask] = ref;
                int error = 0;
                CHECK(ftn_export_pcap(&ring, null, packets, packets + 1, &error) == packets + 1 && error == 0);
                ftn_store_release(ring.header->recovered.tail, ring.header->recovered.head);
            }
            ftn_store_release(ring.header->captured.tail, head);
        }
    }
    ftn_close(c);
    close(null);
    free(base);
    free(c);
    return packets;
}

static void capture(const char *path)
{
    static uint8_t whole[1 << 20], damaged[1 << 20];
    char copy[4096];
    FILE *file = fopen(path, "rb");
    CHECK(file);
    const size_t size = fread(whole, 1, sizeof whole, file);
    fclose(file);
    CHECK(pass_through(path) > 0);
    snprintf(copy, sizeof copy, "%s.damaged", path);
    for (int turn = 0; turn < 300; turn++) {
        memcpy(damaged, whole, size);
        for (uint64_t flips = draw() % 8; flips > 0; flips--)
            damaged[draw() % (turn % 2 ? 64 : size)] = (uint8_t)draw();
        CHECK((file = fopen(copy, "wb")));
        fwrite(damaged, 1, turn % 3 ? size : draw() % size, file);
        fclose(file);
        pass_through(copy);
    }
}

/* -- parts ---------------------------------------------------------------------------------------------- */

static void clock_steps(void)
{
    struct ftn_clock clock;
    const int64_t real = INT64_C(1700000000000000000), second = 1000000000;
    ftn_clock_start(&clock, 1000, real, 1010);
    CHECK(clock.base == real - 1005);
    for (int64_t now = 0; now < 100; now++) /* a slow look at both clocks is no step */
        CHECK(!ftn_clock_observe(&clock, now * 1000, real + now * 1000 - 1005 + now, now * 1000 + 2 * now));
    CHECK(ftn_clock_convert(&clock, real + 5, 0, INT64_MAX) == real + 5);
    /* 200 ms later real time is set back an hour: stamps of both kinds come out on one scale */
    const int64_t before = second / 5, hour = 3600 * second, low = real, high = real - 1005 + before;
    CHECK(ftn_clock_observe(&clock, before, real - 1005 + before - hour, before + 10));
    CHECK(clock.steps == 1 && clock.straddling);
    CHECK(ftn_clock_convert(&clock, real + 1000, low, high) == real + 1000);
    CHECK(llabs(ftn_clock_convert(&clock, real + 2000 - hour, low, high) - (real + 2000)) <= 10);
    clock.straddling = false;
    CHECK(llabs(ftn_clock_convert(&clock, real + 2000 - hour, low, high) - (real + 2000)) <= 10);
    CHECK(!ftn_clock_observe(&clock, before + 100, real - 1005 + before + 100 - hour, before + 110));
}

ftn_xxh3 ftn_xxh3_baseline;

static void kernels(void)
{
    uint8_t data[4096];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)draw();
    ftn_hasher_init(&hasher, draw());
    for (size_t length = 0; length < sizeof data; length += 1 + length / 16) {
        uint8_t *exact = malloc(length ? length : 1); /* so that a read past the end is seen */
        memcpy(exact, data, length);
        const uint64_t plain = ftn_xxh3_baseline(exact, length, hasher.secret, hasher.seed);
        CHECK(hasher.xxh3(exact, length, hasher.secret, hasher.seed) == plain);
        free(exact);
    }
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    state = strtoull(argv[2], NULL, 0) << 32;
    if (strcmp(argv[1], "attach") == 0) {
        attach_damaged();
        read_damaged();
    } else if (strcmp(argv[1], "threads") == 0) {
        threads();
    } else if (strcmp(argv[1], "capture") == 0 && argc == 4) {
        capture(argv[3]);
    } else if (strcmp(argv[1], "parts") == 0) {
        clock_steps();
        kernels();
    } else {
        return 2;
    }
    puts("done");
    return 0;
}

/*
 * baseline.c: what the ring's way in is measured against: `baseline count|copy|kernel FILE`, one line of packets, bytes, seconds.
 *
 * count: a bare libpcap callback loop over the file.  copy: memcpy and XXH3-64 of the same frames from memory to a ring of
 * 64 MiB, which is all that capture has to do; nothing reads a file or hands over anything.
 */
#include <pcap/pcap.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define RING (64u << 20)

struct frames {
    uint8_t *data;
    uint32_t *lengths;
    size_t bytes, count, room, places;
};

static uint64_t packets, bytes;

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

static void count(u_char *user, const struct pcap_pkthdr *header, const u_char *data)
{
    (void)user, (void)data;
    packets++;
    bytes += header->caplen;
}

static void keep(u_char *user, const struct pcap_pkthdr *header, const u_char *data)
{
    struct frames *f = (struct frames *)(void *)user;
    if (f->bytes + header->caplen > f->room)
        f->data = realloc(f->data, f->room = 2 * f->room + header->caplen);
    if (f->count == f->places)
        f->lengths = realloc(f->lengths, (f->places = 2 * f->places + 1024) * sizeof *f->lengths);
    if (!f->data || !f->lengths)
        exit(1);
    memcpy(f->data + f->bytes, data, header->caplen);
    f->bytes += header->caplen;
    f->lengths[f->count++] = header->caplen;
}

/* XXH3 of each frame where it was copied to, as capture does while it is in the cache. */
static uint64_t copy(const struct frames *f)
{
    uint8_t *ring = aligned_alloc(4096, RING);
    uint64_t sum = 0;
    size_t from = 0, to = 0;
    if (!ring)
        exit(1);
    memset(ring, 0, RING);
    const double began = now();
    for (size_t i = 0; i < f->count; i++) {
        const uint32_t length = f->lengths[i];
        if (to + length > RING)
            to = 0;
        memcpy(ring + to, f->data + from, length);
        sum ^= XXH3_64bits_withSeed(ring + to, length, 42);
        from += length;
        to += (length + 7u) & ~7u;
    }
    printf("%zu %zu %.9f\n", f->count, f->bytes, now() - began);
    free(ring);
    return sum;
}

int main(int argc, char **argv)
{
    char reason[PCAP_ERRBUF_SIZE];
    if (argc != 3)
        return 2;
    pcap_t *file = pcap_open_offline(argv[2], reason);
    if (!file) {
        fprintf(stderr, "%s\n", reason);
        return 1;
    }
    if (strcmp(argv[1], "count") == 0) {
        const double began = now();
        if (pcap_loop(file, -1, count, NULL) != 0)
            return 1;
        printf("%llu %llu %.9f\n", (unsigned long long)packets, (unsigned long long)bytes, now() - began);
    } else {
        struct frames f = {0};
        if (pcap_loop(file, -1, keep, (u_char *)&f) != 0)
            return 1;
        fprintf(stderr, "%llx\n", (unsigned long long)copy(&f));
        free(f.data);
        free(f.lengths);
    }
    pcap_close(file);
    return 0;
}

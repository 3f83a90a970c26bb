/*
 * hash.h: the packet hash.
 *
 * XXH3-64 of the captured bytes under the cluster's seed, xored with a mix of the wire length where the
 * frame was cut, so that equal hashes mean equal bytes and equal length on the link.
 */
#ifndef FTN_HASH_H
#define FTN_HASH_H

#include <stddef.h>
#include <stdint.h>

#define FTN_SECRET_BYTES 192

typedef uint64_t ftn_xxh3(const void *data, size_t length, const void *secret, uint64_t seed);

struct ftn_hasher {
    uint8_t secret[FTN_SECRET_BYTES]; /* derived from the seed once, not once a packet */
    uint64_t seed;
    ftn_xxh3 *xxh3; /* the build of the kernel that suits this processor */
};

void ftn_hasher_init(struct ftn_hasher *hasher, uint64_t seed);

/* The finaliser of splitmix64 applied to x + the golden gamma: the x-th draw of a generator with state 0. */
static inline uint64_t ftn_splitmix64(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static inline uint64_t ftn_hash_frame(const struct ftn_hasher *hasher, const uint8_t *data, uint32_t caplen,
                                      uint32_t wirelen)
{
    const uint64_t hash = hasher->xxh3(data, caplen, hasher->secret, hasher->seed);
    return caplen == wirelen ? hash : hash ^ ftn_splitmix64(wirelen);
}

#endif

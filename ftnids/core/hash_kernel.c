/* XXH3-64 with a seed whose secret is at hand; compiled once for each instruction set that meson.build names. */
#define XXH_INLINE_ALL
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "hash.h"

ftn_xxh3 FTN_XXH3_NAME;

uint64_t FTN_XXH3_NAME(const void *data, size_t length, const void *secret, uint64_t seed)
{
    return XXH3_64bits_withSecretandSeed(data, length, secret, FTN_SECRET_BYTES, seed);
}

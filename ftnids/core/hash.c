#include "hash.h"

#define XXH_INLINE_ALL
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

_Static_assert(FTN_SECRET_BYTES == XXH3_SECRET_DEFAULT_SIZE, "xxhash changed the size of its secret");

ftn_xxh3 ftn_xxh3_baseline;
#ifdef FTN_HAVE_AVX2
ftn_xxh3 ftn_xxh3_avx2;
#endif

static ftn_xxh3 *best_kernel(void)
{
#ifdef FTN_HAVE_AVX2
    if (__builtin_cpu_supports("avx2"))
        return ftn_xxh3_avx2;
#endif
    return ftn_xxh3_baseline;
}

void ftn_hasher_init(struct ftn_hasher *hasher, uint64_t seed)
{
    hasher->seed = seed;
    hasher->xxh3 = best_kernel();
    XXH3_generateSecret_fromSeed(hasher->secret, seed);
}

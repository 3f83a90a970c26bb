/*
 * replay.c: runs a fuzz target without a fuzzer, for `make test` and for looking at one input.
 *
 *   TARGET ROUNDS SEED FILE...     each file as it is, then ROUNDS seeded mutations of it
 *
 * Each input lies in memory of exactly its size.  Ends with status 0 and "done N", N inputs; a failure aborts.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state;

static uint64_t draw(uint64_t below)
{
    state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = (state ^ state >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % below;
}

static void run(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size + !size);
    if (!exact)
        abort();
    memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

/* Flip, overwrite with a telling value, cut or repeat a stretch; returns the new size. */
static size_t mutate(uint8_t *data, size_t size)
{
    static const uint8_t telling[] = {0, 1, 0x7f, 0x80, 0xff};
    for (uint64_t left = 1 + draw(4); left > 0 && size > 0; left--) {
        const size_t at = draw(size), stretch = 1 + draw(size - at < 16 ? size - at : 16);
        switch (draw(4)) {
        case 0:
            data[at] ^= (uint8_t)(1 << draw(8));
            break;
        case 1:
            memset(data + at, telling[draw(sizeof telling)], stretch);
            break;
        case 2:
            size = draw(4) ? size : at;
            break;
        default:
            memmove(data + draw(size - stretch + 1), data + at, stretch);
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    static uint8_t whole[LARGEST], mutant[LARGEST];
    long inputs = 0;
    if (argc < 4)
        return 2;
    state = strtoull(argv[2], NULL, 0);
    for (int i = 3; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file)
            return 2;
        const size_t size = fread(whole, 1, sizeof whole, file);
        fclose(file);
        run(whole, size);
        for (long round = atol(argv[1]); round > 0; round--, inputs++) {
            memcpy(mutant, whole, size);
            run(mutant, mutate(mutant, size));
        }
        inputs++;
    }
    printf("done %ld\n", inputs);
    return 0;
}

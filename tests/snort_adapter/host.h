/*
 * host.h: what the DAQ hosts share: commands on standard input, one answer line each, flushed.
 *
 * A packet that was handed out is printed as " seq-in-run:time_us:caplen:wirelen:checksum".
 */
#ifndef FTN_HOST_H
#define FTN_HOST_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline uint64_t host_checksum(const uint8_t *data, uint32_t size)
{
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (uint32_t i = 0; i < size; i++)
        sum = (sum ^ data[i]) * UINT64_C(0x100000001b3);
    return sum;
}

static inline void host_print(const uint8_t *data, uint32_t caplen, uint32_t wirelen, int64_t seconds, int64_t us)
{
    printf(" %" PRId64 ":%u:%u:%016" PRIx64, seconds * 1000000 + us, caplen, wirelen, host_checksum(data, caplen));
}

/* Read "word [text] [number]" lines until the end of the input, and answer each. */
static inline void host_serve(void (*answer)(const char *word, const char *text, long number))
{
    char line[1024], word[32], text[512];
    while (fgets(line, sizeof line, stdin)) {
        long number = 0;
        text[0] = 0;
        if (sscanf(line, "%31s %511s %ld", word, text, &number) < 1)
            continue;
        answer(word, text, number);
        printf("\n");
        fflush(stdout);
    }
}

#endif

/* stream_host.c: takes packets of a stream one by one, so that a test can change the ring between two of them. */
#include "host.h"
#include "stream.h"

static struct stream stream;
static uint8_t data[65536];

static void answer(const char *word, const char *text, long number)
{
    struct stream_packet packet;
    (void)number;
    if (strcmp(word, "open") == 0)
        printf("%s", stream_open(&stream, text, 65535, NULL) ? "open" : stream.fault);
    else if (strcmp(word, "begin") == 0)
        stream_begin(&stream, true);
    else if (strcmp(word, "commit") == 0)
        printf("%s", stream_commit(&stream) ? "taken" : "not");
    else if (strcmp(word, "next") == 0 && stream_next(&stream, data, &packet) == STREAM_OK)
        printf("%llu", (unsigned long long)packet.seq);
    else if (strcmp(word, "close") == 0)
        stream_close(&stream);
    else
        printf("empty");
}

int main(void)
{
    host_serve(answer);
    return 0;
}

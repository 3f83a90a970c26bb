/*
 * dump.c: what `tcpdump -i INTERFACE -s SNAPLEN -B KIB -w /dev/null` does, for hosts without tcpdump: `dump INTERFACE SNAPLEN KIB`.
 *
 * The same libpcap calls with the same settings, and the same words at the end, after SIGTERM.
 */
#include <pcap/pcap.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static pcap_t *source;
static unsigned long long captured;

static void stop(int number)
{
    (void)number;
    pcap_breakloop(source);
}

static void dump(u_char *user, const struct pcap_pkthdr *header, const u_char *data)
{
    captured++;
    pcap_dump(user, header, data);
}

int main(int argc, char **argv)
{
    char reason[PCAP_ERRBUF_SIZE] = "usage: dump INTERFACE SNAPLEN KIB";
    if (argc != 4 || !(source = pcap_create(argv[1], reason))) {
        fprintf(stderr, "%s\n", reason);
        return 1;
    }
    pcap_set_snaplen(source, atoi(argv[2]));
    pcap_set_promisc(source, 1);
    pcap_set_timeout(source, 1000);
    pcap_set_buffer_size(source, atoi(argv[3]) * 1024);
    pcap_dumper_t *out = pcap_activate(source) < 0 ? NULL : pcap_dump_open(source, "/dev/null");
    if (!out) {
        fprintf(stderr, "%s: %s\n", argv[1], pcap_geterr(source));
        return 1;
    }
    const struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    fprintf(stderr, "listening on %s\n", argv[1]);
    struct pcap_stat stat = {0};
    const int status = pcap_loop(source, -1, dump, (u_char *)out);
    pcap_stats(source, &stat);
    fprintf(stderr, "%llu packets captured\n%u packets dropped by kernel\n", captured, stat.ps_drop);
    pcap_dump_close(out);
    pcap_close(source);
    return status == PCAP_ERROR;
}

/* source.c: opening and closing libpcap, with one clear line for whatever can go wrong. */
#include "capture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLOCK_TRIES 10 /* looks at the clocks at the start; the narrowest counts */

static int fail(struct ftn_capture *c, const char *what, const char *reason)
{
    snprintf(c->error, sizeof c->error, "%s%s", what, reason);
    ftn_close(c);
    return -1;
}

/* Link types as files name them; libpcap's own numbers differ for these. */
static uint32_t file_linktype(int dlt)
{
    switch (dlt) {
    case DLT_ATM_RFC1483:
        return 100;
    case DLT_RAW:
        return 101;
    case DLT_SLIP_BSDOS:
        return 102;
    case DLT_PPP_BSDOS:
        return 103;
    default:
        return (uint32_t)dlt;
    }
}

static int set_filter(struct ftn_capture *c, const char *bpf)
{
    struct bpf_program program;
    if (bpf[0] == '\0')
        return 0;
    if (pcap_compile(c->pcap, &program, bpf, 1, PCAP_NETMASK_UNKNOWN) != 0)
        return fail(c, "bad filter: ", pcap_geterr(c->pcap));
    const int failed = pcap_setfilter(c->pcap, &program);
    pcap_freecode(&program);
    return failed ? fail(c, "filter not accepted: ", pcap_geterr(c->pcap)) : 0;
}

static void start(struct ftn_capture *c, uint32_t snaplen)
{
    c->linktype = file_linktype(pcap_datalink(c->pcap));
    c->snaplen = snaplen;
    c->tick_ns = pcap_get_tstamp_precision(c->pcap) == PCAP_TSTAMP_PRECISION_NANO ? 1 : 1000;
    c->last_ns = INT64_MIN;
}

void ftn_close(struct ftn_capture *c)
{
    if (c->pcap)
        pcap_close(c->pcap);
    c->pcap = NULL;
    if (c->live && c->look_fd >= 0)
        close(c->look_fd);
    c->look_fd = -1;
}

/* -- a file --------------------------------------------------------------------------------------- */

static int open_error(struct ftn_capture *c, FILE *file, const char *reason)
{
    struct stat status;
    const bool known = fstat(fileno(file), &status) == 0;
    fclose(file);
    if (known && S_ISDIR(status.st_mode))
        return fail(c, "is a directory, not a capture file", "");
    if (known && S_ISREG(status.st_mode) && status.st_size == 0)
        return fail(c, "is empty, not a capture file", "");
    return fail(c, "is no capture file that can be read (pcap or pcapng): ", reason);
}

int ftn_open_file(struct ftn_capture *c, const char *path, const char *bpf, uint32_t snaplen)
{
    char reason[PCAP_ERRBUF_SIZE];
    FILE *file = fopen(path, "rbe");
    c->fd = c->look_fd = -1;
    if (!file)
        return fail(c, "cannot be opened: ", strerror(errno));
    c->pcap = pcap_fopen_offline_with_tstamp_precision(file, PCAP_TSTAMP_PRECISION_NANO, reason);
    if (!c->pcap)
        return open_error(c, file, reason);
    start(c, snaplen);
    return set_filter(c, bpf);
}

/* -- an interface ----------------------------------------------------------------------------------- */

static const char *activation_error(struct ftn_capture *c, int status)
{
    switch (status) {
    case PCAP_ERROR_NO_SUCH_DEVICE:
        return "there is no such interface; `ip link` lists them";
    case PCAP_ERROR_PERM_DENIED:
    case PCAP_ERROR_PROMISC_PERM_DENIED:
        return "no permission to capture; run as root or give the process CAP_NET_RAW";
    case PCAP_ERROR_IFACE_NOT_UP:
        return "the interface is down; `ip link set dev INTERFACE up` brings it up";
    default:
        return pcap_geterr(c->pcap)[0] ? pcap_geterr(c->pcap) : pcap_statustostr(status);
    }
}

static int activate(struct ftn_capture *c, const struct ftn_live_options *o)
{
    pcap_set_snaplen(c->pcap, o->snaplen);
    pcap_set_promisc(c->pcap, o->promiscuous);
    pcap_set_timeout(c->pcap, 1);
    pcap_set_immediate_mode(c->pcap, o->immediate);
    pcap_set_buffer_size(c->pcap, o->buffer_bytes);
    pcap_set_tstamp_precision(c->pcap, PCAP_TSTAMP_PRECISION_NANO); /* refused where there are only microseconds */
    const int status = pcap_activate(c->pcap);
    if (status > 0)
        snprintf(c->warning, sizeof c->warning, "%s", pcap_statustostr(status));
    return status < 0 ? fail(c, activation_error(c, status), "") : 0;
}

static void start_clock(struct ftn_capture *c)
{
    int64_t narrowest = INT64_MAX;
    for (int i = 0; i < CLOCK_TRIES; i++) {
        const int64_t before = ftn_monotonic_ns(), real = ftn_real_ns(), after = ftn_monotonic_ns();
        if (after - before < narrowest) {
            narrowest = after - before;
            ftn_clock_start(&c->clock, before, real, after);
        }
    }
}

int ftn_open_live(struct ftn_capture *c, const struct ftn_live_options *o)
{
    char reason[PCAP_ERRBUF_SIZE];
    c->live = true;
    c->fd = c->look_fd = -1;
    c->pcap = pcap_create(o->interface, reason);
    if (!c->pcap)
        return fail(c, reason, "");
    if (activate(c, o) != 0)
        return -1;
    if (pcap_setdirection(c->pcap, PCAP_D_IN) != 0)
        return fail(c, "cannot capture inbound packets only: ", pcap_geterr(c->pcap));
    if (pcap_setnonblock(c->pcap, 1, reason) != 0)
        return fail(c, "cannot be read without blocking: ", reason);
    c->fd = pcap_get_selectable_fd(c->pcap);
    c->look_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    start(c, (uint32_t)o->snaplen);
    start_clock(c);
    return set_filter(c, o->bpf);
}

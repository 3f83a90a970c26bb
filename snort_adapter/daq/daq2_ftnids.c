/*
 * daq2_ftnids.c: the same for libdaq 2, the API of Snort 2.9: packets go to a callback, one at a time.
 *
 * A packet is done with when the callback returns, so there is one buffer and no pool.
 */
#include "stream.h"

#include <daq_api.h>
#include <stdio.h>
#include <stdlib.h>

#define MODULE_VERSION 1
#define DEFAULT_SNAPLEN 262144

struct instance {
    struct stream stream;
    int64_t timeout_ns;
    uint8_t *data;
    DAQ_State state;
    DAQ_Stats_t stats;
    char error[STREAM_FAULT];
};

static void ftnids_shutdown(void *handle)
{
    struct instance *one = handle;
    stream_close(&one->stream);
    free(one->data);
    free(one);
}

static int ftnids_initialize(const DAQ_Config_t *config, void **handle, char *errbuf, size_t length)
{
    if (config->mode == DAQ_MODE_INLINE) {
        snprintf(errbuf, length, "ftnids: packets of a ring have passed already; run Snort without -Q");
        return DAQ_ERROR_NOTSUP;
    }
    struct instance *one = calloc(1, sizeof *one);
    if (one == NULL)
        return DAQ_ERROR_NOMEM;
    if (!stream_open(&one->stream, config->name, config->snaplen > 0 ? (uint32_t)config->snaplen : DEFAULT_SNAPLEN, NULL)) {
        snprintf(errbuf, length, "ftnids: %.200s", one->stream.fault);
        free(one);
        return DAQ_ERROR_NODEV;
    }
    one->data = malloc(one->stream.snaplen);
    if (one->data == NULL) {
        ftnids_shutdown(one);
        return DAQ_ERROR_NOMEM;
    }
    one->timeout_ns = config->timeout ? (int64_t)config->timeout * 1000000 : INT64_MAX;
    one->state = DAQ_STATE_INITIALIZED;
    *handle = one;
    return DAQ_SUCCESS;
}

static int ftnids_start(void *handle)
{
    struct instance *one = handle;
    one->state = DAQ_STATE_STARTED;
    stream_start(&one->stream);
    return DAQ_SUCCESS;
}

static int ftnids_stop(void *handle)
{
    struct instance *one = handle;
    one->state = DAQ_STATE_STOPPED;
    return DAQ_SUCCESS;
}

static int ftnids_breakloop(void *handle)
{
    struct instance *one = handle;
    stream_interrupt(&one->stream);
    return DAQ_SUCCESS;
}

static void call(struct instance *one, const struct stream_packet *packet, DAQ_Analysis_Func_t callback, void *user)
{
    const DAQ_PktHdr_t header = {
        .ts = {.tv_sec = packet->time_us / 1000000, .tv_usec = packet->time_us % 1000000},
        .caplen = packet->caplen,
        .pktlen = packet->wirelen,
        .ingress_index = DAQ_PKTHDR_UNKNOWN,
        .egress_index = DAQ_PKTHDR_UNKNOWN,
        .ingress_group = DAQ_PKTHDR_UNKNOWN,
        .egress_group = DAQ_PKTHDR_UNKNOWN,
        .flags = DAQ_PKT_FLAG_NOT_FORWARDING,
    };
    one->stats.packets_received++;
    const DAQ_Verdict verdict = callback(user, &header, one->data);
    one->stats.verdicts[verdict < MAX_DAQ_VERDICT ? verdict : DAQ_VERDICT_PASS]++;
}

static int ftnids_acquire(void *handle, int count, DAQ_Analysis_Func_t callback, DAQ_Meta_Func_t metaback, void *user)
{
    struct instance *one = handle;
    struct stream_packet packet;
    (void)metaback;
    int64_t waited = 0;
    for (int done = 0; count <= 0 || done < count;) {
        if (stream_interrupted(&one->stream))
            return 0;
        stream_begin(&one->stream, false); /* never speculates: this API tells no moment at which nothing is under way */
        enum stream_result found = stream_next(&one->stream, one->data, &packet);
        if (found == STREAM_OK) {
            stream_report(&one->stream, packet.seq); /* if the callback never returns, it is fed again */
            call(one, &packet, callback, user);
            stream_report(&one->stream, one->stream.position);
            done++;
            continue;
        }
        stream_report(&one->stream, one->stream.position); /* voids are behind it */
        if (found == STREAM_EMPTY && done == 0 && waited < one->timeout_ns) {
            const int64_t left = one->timeout_ns - waited;
            found = stream_wait(&one->stream, left);
            waited += left < STREAM_WAIT_NS ? left : STREAM_WAIT_NS;
        } else if (found == STREAM_EMPTY) {
            return 0;
        }
        if (found == STREAM_END)
            return DAQ_READFILE_EOF;
        if (found == STREAM_BROKEN) {
            snprintf(one->error, sizeof one->error, "ftnids: %.300s", one->stream.fault);
            return DAQ_ERROR;
        }
    }
    return 0;
}

/* The loader wants these three, and a reader has no use for them. */
static int ftnids_set_filter(void *handle, const char *filter)
{
    struct instance *one = handle;
    snprintf(one->error, sizeof one->error, "ftnids: no filter \"%.100s\" here: set capture.bpf of the replica", filter);
    return DAQ_ERROR_NOTSUP;
}

static int ftnids_inject(void *handle, const DAQ_PktHdr_t *header, const uint8_t *data, uint32_t length, int reverse)
{
    (void)handle, (void)header, (void)data, (void)length, (void)reverse;
    return DAQ_ERROR_NOTSUP;
}

static int ftnids_get_device_index(void *handle, const char *device)
{
    (void)handle, (void)device;
    return DAQ_ERROR_NOTSUP;
}

static DAQ_State ftnids_check_status(void *handle)
{
    const struct instance *one = handle;
    return one->state;
}

static int ftnids_get_stats(void *handle, DAQ_Stats_t *stats)
{
    const struct instance *one = handle;
    *stats = one->stats;
    stats->hw_packets_received = stats->packets_received;
    return DAQ_SUCCESS;
}

static void ftnids_reset_stats(void *handle)
{
    struct instance *one = handle;
    memset(&one->stats, 0, sizeof one->stats);
}

static int ftnids_get_snaplen(void *handle)
{
    const struct instance *one = handle;
    return (int)one->stream.snaplen;
}

static uint32_t ftnids_get_capabilities(void *handle)
{
    (void)handle;
    return DAQ_CAPA_BREAKLOOP | DAQ_CAPA_UNPRIV_START;
}

static int ftnids_get_datalink_type(void *handle)
{
    const struct instance *one = handle;
    return (int)one->stream.ring.is.linktype;
}

static const char *ftnids_get_errbuf(void *handle)
{
    const struct instance *one = handle;
    return one->error;
}

static void ftnids_set_errbuf(void *handle, const char *text)
{
    struct instance *one = handle;
    snprintf(one->error, sizeof one->error, "%s", text ? text : "");
}

__attribute__((visibility("default"))) const DAQ_Module_t DAQ_MODULE_DATA = {
    .api_version = DAQ_API_VERSION,
    .module_version = MODULE_VERSION,
    .name = "ftnids",
    .type = DAQ_TYPE_INTF_CAPABLE | DAQ_TYPE_FILE_CAPABLE,
    .initialize = ftnids_initialize,
    .set_filter = ftnids_set_filter,
    .start = ftnids_start,
    .acquire = ftnids_acquire,
    .inject = ftnids_inject,
    .breakloop = ftnids_breakloop,
    .stop = ftnids_stop,
    .shutdown = ftnids_shutdown,
    .check_status = ftnids_check_status,
    .get_stats = ftnids_get_stats,
    .reset_stats = ftnids_reset_stats,
    .get_snaplen = ftnids_get_snaplen,
    .get_capabilities = ftnids_get_capabilities,
    .get_datalink_type = ftnids_get_datalink_type,
    .get_errbuf = ftnids_get_errbuf,
    .set_errbuf = ftnids_set_errbuf,
    .get_device_index = ftnids_get_device_index,
};

/*
 * daq_ftnids.c: the DAQ 3 module that feeds the agreed stream of a ring to Snort 3.
 *
 * Theory of operation
 *
 * `-i NAME` names the ring.  Snort gets copies in messages of this module's own pool, because it may write to packet
 * data, and gives them back in any order, many receives later.  Those that are out stand in a list, oldest first: all
 * below the first one's seq is done with, which is what the replica is told after each call.  Packets come in
 * batches as large as there are; on an empty ring the call waits on the ring's futex and then says WOULD_BLOCK, never
 * TIMEOUT, by which Snort's packet clock would run on by itself.
 *
 * One instance, one packet thread: the order of the packets is what this is about.
 */
#include "stream.h"

#include <daq_module_api.h>
#include <stdlib.h>
#include <sys/mman.h>

#define MODULE_VERSION 1
#define DEFAULT_POOL 256u
#define MAX_POOL 65536u
#define DEFAULT_SNAPLEN 262144

struct message {
    DAQ_Msg_t msg; /* its `priv` is this structure */
    DAQ_PktHdr_t header;
    uint64_t seq;
    struct message *older, *newer; /* among those that are out; `older` links the free ones */
    bool out;
};

struct instance {
    struct stream stream;
    DAQ_ModuleInstance_h module;
    char *log; /* Snort's alert file */
    int64_t timeout_ns;
    uint32_t pool, available;
    struct message *messages, *unused, *oldest, *newest;
    uint8_t *data;
    size_t data_bytes, memory;
    DAQ_Stats_t stats;
};

static DAQ_BaseAPI_t daq;
static const DAQ_VariableDesc_t VARIABLES[] = {
    {"log", "The alert file, of which a checkpoint notes the size", DAQ_VAR_DESC_REQUIRES_ARGUMENT},
};

/* -- the pool ----------------------------------------------------------------------------------------- */

static bool make_pool(struct instance *one, uint32_t size)
{
    const size_t room = ((size_t)one->stream.snaplen + 63) & ~(size_t)63;
    one->messages = calloc(size, sizeof *one->messages);
    one->data_bytes = room * size;
    one->data = mmap(NULL, one->data_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (one->messages == NULL || one->data == MAP_FAILED) {
        one->data = one->data == MAP_FAILED ? NULL : one->data;
        return false;
    }
    for (uint32_t i = 0; i < size; i++) {
        struct message *m = &one->messages[i];
        m->msg = (DAQ_Msg_t){
            .hdr = &m->header,
            .hdr_len = sizeof m->header,
            .type = DAQ_MSG_TYPE_PACKET,
            .data = one->data + room * i,
            .owner = one->module,
            .priv = m,
        };
        m->older = one->unused;
        one->unused = m;
    }
    one->pool = one->available = size;
    one->memory = one->data_bytes + size * sizeof *one->messages;
    return true;
}

/* Put what was taken from the pool at the end of the list of those that are out. */
static void hand_out(struct instance *one, struct message *m)
{
    one->unused = m->older;
    one->available--;
    m->out = true;
    m->older = one->newest;
    m->newer = NULL;
    *(one->newest ? &one->newest->newer : &one->oldest) = m;
    one->newest = m;
}

static void take_back(struct instance *one, struct message *m)
{
    *(m->older ? &m->older->newer : &one->oldest) = m->newer;
    *(m->newer ? &m->newer->older : &one->newest) = m->older;
    m->out = false;
    m->older = one->unused;
    one->unused = m;
    one->available++;
}

static void report(struct instance *one)
{
    stream_report(&one->stream, one->oldest ? one->oldest->seq : one->stream.position);
}

/* -- module and instance ------------------------------------------------------------------------------ */

static int ftnids_load(const DAQ_BaseAPI_t *base)
{
    if (base->api_version != DAQ_BASE_API_VERSION || base->api_size != sizeof(DAQ_BaseAPI_t))
        return DAQ_ERROR;
    daq = *base;
    return DAQ_SUCCESS;
}

static int ftnids_unload(void)
{
    memset(&daq, 0, sizeof daq);
    return DAQ_SUCCESS;
}

static int ftnids_get_variable_descs(const DAQ_VariableDesc_t **table)
{
    *table = VARIABLES;
    return sizeof VARIABLES / sizeof *VARIABLES;
}

static void ftnids_destroy(void *handle)
{
    struct instance *one = handle;
    stream_close(&one->stream);
    if (one->data)
        munmap(one->data, one->data_bytes);
    free(one->messages);
    free(one->log);
    free(one);
}

static int ftnids_instantiate(const DAQ_ModuleConfig_h config, DAQ_ModuleInstance_h module, void **handle)
{
    if (daq.config_get_total_instances(config) > 1) {
        daq.set_errbuf(module, "ftnids: one packet thread, not %u: run Snort without -z, or with -z 1",
                       daq.config_get_total_instances(config));
        return DAQ_ERROR_NOTSUP;
    }
    if (daq.config_get_mode(config) == DAQ_MODE_INLINE) {
        daq.set_errbuf(module, "ftnids: packets of a ring have passed already; run Snort without -Q");
        return DAQ_ERROR_NOTSUP;
    }
    struct instance *one = calloc(1, sizeof *one);
    if (one == NULL) {
        daq.set_errbuf(module, "ftnids: out of memory");
        return DAQ_ERROR_NOMEM;
    }
    const uint32_t snaplen = daq.config_get_snaplen(config) > 0 ? (uint32_t)daq.config_get_snaplen(config) : DEFAULT_SNAPLEN;
    const char *log = daq.config_get_variable(config, VARIABLES[0].name);
    one->module = module;
    one->log = log ? strdup(log) : NULL;
    if (!stream_open(&one->stream, daq.config_get_input(config), snaplen, one->log)) {
        daq.set_errbuf(module, "ftnids: %s", one->stream.fault);
        free(one->log);
        free(one);
        return DAQ_ERROR_NODEV;
    }
    const unsigned timeout_ms = daq.config_get_timeout(config), wanted = daq.config_get_msg_pool_size(config);
    one->timeout_ns = timeout_ms ? (int64_t)timeout_ms * 1000000 : STREAM_WAIT_NS;
    if (!make_pool(one, wanted == 0 ? DEFAULT_POOL : wanted < MAX_POOL ? wanted : MAX_POOL)) {
        daq.set_errbuf(module, "ftnids: no memory for %u messages of %u bytes", wanted, one->stream.snaplen);
        ftnids_destroy(one);
        return DAQ_ERROR_NOMEM;
    }
    *handle = one;
    return DAQ_SUCCESS;
}

static int ftnids_start(void *handle)
{
    struct instance *one = handle;
    stream_start(&one->stream);
    return DAQ_SUCCESS;
}

/* Snort stops its source when its logs are closed.  What else it does at its end takes locks that a fork may hold for ever. */
static int ftnids_stop(void *handle)
{
    struct instance *one = handle;
    if (one->stream.forked) {
        stream_close(&one->stream);
        _exit(0);
    }
    return DAQ_SUCCESS;
}

static int ftnids_interrupt(void *handle)
{
    struct instance *one = handle;
    stream_interrupt(&one->stream);
    return DAQ_SUCCESS;
}

/* -- what can be asked -------------------------------------------------------------------------------- */

static int ftnids_get_stats(void *handle, DAQ_Stats_t *stats)
{
    struct instance *one = handle;
    *stats = one->stats;
    stats->hw_packets_received = stats->packets_received;
    stats->packets_outstanding = one->pool - one->available;
    return DAQ_SUCCESS;
}

static void ftnids_reset_stats(void *handle)
{
    struct instance *one = handle;
    memset(&one->stats, 0, sizeof one->stats);
}

static int ftnids_get_snaplen(void *handle)
{
    struct instance *one = handle;
    return (int)one->stream.snaplen;
}

static uint32_t ftnids_get_capabilities(void *handle)
{
    (void)handle;
    return DAQ_CAPA_INTERRUPT | DAQ_CAPA_UNPRIV_START;
}

static int ftnids_get_datalink_type(void *handle)
{
    struct instance *one = handle;
    return (int)one->stream.ring.is.linktype;
}

static int ftnids_get_msg_pool_info(void *handle, DAQ_MsgPoolInfo_t *info)
{
    struct instance *one = handle;
    *info = (DAQ_MsgPoolInfo_t){.size = one->pool, .available = one->available, .mem_size = one->memory};
    return DAQ_SUCCESS;
}

/* -- messages ----------------------------------------------------------------------------------------- */

static DAQ_RecvStatus status_of(struct instance *one, enum stream_result result)
{
    switch (result) {
    case STREAM_OK:
        return DAQ_RSTAT_OK;
    case STREAM_EMPTY:
        return DAQ_RSTAT_WOULD_BLOCK;
    case STREAM_END:
        return DAQ_RSTAT_EOF;
    case STREAM_BROKEN:
        break;
    }
    daq.set_errbuf(one->module, "ftnids: %s", one->stream.fault);
    return DAQ_RSTAT_ERROR;
}

/* Fill messages from the pool with what there is; returns how many, and what came after them.  Any call of it may fork. */
static unsigned collect(struct instance *one, unsigned most, const DAQ_Msg_t *msgs[], DAQ_RecvStatus *status)
{
    unsigned count = 0;
    *status = DAQ_RSTAT_OK;
    stream_begin(&one->stream, one->oldest == NULL);
    while (count < most) {
        struct message *m = one->unused;
        struct stream_packet packet;
        if (m == NULL) {
            *status = DAQ_RSTAT_NOBUF;
            break;
        }
        const enum stream_result found = stream_next(&one->stream, m->msg.data, &packet);
        if (found != STREAM_OK) {
            *status = status_of(one, found);
            break;
        }
        m->seq = packet.seq;
        m->msg.data_len = packet.caplen;
        m->header = (DAQ_PktHdr_t){
            .ts = {.tv_sec = packet.time_us / 1000000, .tv_usec = packet.time_us % 1000000},
            .pktlen = packet.wirelen,
            .ingress_index = DAQ_PKTHDR_UNKNOWN,
            .egress_index = DAQ_PKTHDR_UNKNOWN,
            .ingress_group = DAQ_PKTHDR_UNKNOWN,
            .egress_group = DAQ_PKTHDR_UNKNOWN,
            .flags = DAQ_PKT_FLAG_NOT_FORWARDING,
        };
        hand_out(one, m);
        msgs[count++] = &m->msg;
    }
    if (!stream_commit(&one->stream)) {
        while (count) {
            take_back(one, one->newest);
            count--;
        }
        *status = DAQ_RSTAT_WOULD_BLOCK;
    }
    one->stats.packets_received += count;
    return count;
}

static unsigned ftnids_msg_receive(void *handle, const unsigned max_recv, const DAQ_Msg_t *msgs[],
                                   DAQ_RecvStatus *status)
{
    struct instance *one = handle;
    *status = DAQ_RSTAT_OK;
    if (max_recv == 0)
        return 0;
    if (stream_interrupted(&one->stream)) {
        *status = DAQ_RSTAT_INTERRUPTED;
        return 0;
    }
    unsigned count = collect(one, max_recv, msgs, status);
    if (count == 0 && *status == DAQ_RSTAT_WOULD_BLOCK) {
        const enum stream_result found = stream_wait(&one->stream, one->timeout_ns);
        if (stream_interrupted(&one->stream))
            *status = DAQ_RSTAT_INTERRUPTED;
        else if (found == STREAM_OK)
            count = collect(one, max_recv, msgs, status);
        else
            *status = status_of(one, found);
    }
    if (count) /* what came after them comes next time */
        *status = DAQ_RSTAT_OK;
    report(one);
    return count;
}

static int ftnids_msg_finalize(void *handle, const DAQ_Msg_t *msg, DAQ_Verdict verdict)
{
    struct instance *one = handle;
    struct message *m = msg->priv;
    if (msg->owner != one->module || m == NULL || !m->out || verdict >= MAX_DAQ_VERDICT) {
        daq.set_errbuf(one->module, "ftnids: a message was given back that is not out, or with an unknown verdict");
        return DAQ_ERROR_INVAL;
    }
    one->stats.verdicts[verdict]++;
    const bool oldest = m == one->oldest;
    take_back(one, m);
    if (oldest)
        report(one);
    return DAQ_SUCCESS;
}

__attribute__((visibility("default"))) const DAQ_ModuleAPI_t DAQ_MODULE_DATA = {
    .api_version = DAQ_MODULE_API_VERSION,
    .api_size = sizeof(DAQ_ModuleAPI_t),
    .module_version = MODULE_VERSION,
    .name = "ftnids",
    .type = DAQ_TYPE_INTF_CAPABLE | DAQ_TYPE_FILE_CAPABLE,
    .load = ftnids_load,
    .unload = ftnids_unload,
    .get_variable_descs = ftnids_get_variable_descs,
    .instantiate = ftnids_instantiate,
    .destroy = ftnids_destroy,
    .start = ftnids_start,
    .interrupt = ftnids_interrupt,
    .stop = ftnids_stop,
    .get_stats = ftnids_get_stats,
    .reset_stats = ftnids_reset_stats,
    .get_snaplen = ftnids_get_snaplen,
    .get_capabilities = ftnids_get_capabilities,
    .get_datalink_type = ftnids_get_datalink_type,
    .msg_receive = ftnids_msg_receive,
    .msg_finalize = ftnids_msg_finalize,
    .get_msg_pool_info = ftnids_get_msg_pool_info,
};

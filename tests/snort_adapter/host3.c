/* host3.c: drives the DAQ 3 module through its API, in and out of order, as commands on standard input say. */
#include "host.h"

#include <daq_module_api.h>
#include <pthread.h>
#include <stdarg.h>

#define OUT 70000

extern const DAQ_ModuleAPI_t DAQ_MODULE_DATA;

static const char *const STATUS[] = {"ok", "would_block", "timeout", "eof", "interrupted", "nobuf", "error", "invalid"};
static const DAQ_ModuleAPI_t *module = &DAQ_MODULE_DATA;
static char input[512], error[512];
static int snaplen, pool, timeout_ms = 50, instances = 1;
static void *handle;
static const DAQ_Msg_t *out[OUT]; /* by the order in which they were handed out */
static unsigned handed_out;

static const char *get_input(DAQ_ModuleConfig_h config) { (void)config; return input; }
static int get_snaplen(DAQ_ModuleConfig_h config) { (void)config; return snaplen; }
static unsigned get_timeout(DAQ_ModuleConfig_h config) { (void)config; return (unsigned)timeout_ms; }
static unsigned get_pool(DAQ_ModuleConfig_h config) { (void)config; return (unsigned)pool; }
static unsigned get_instances(DAQ_ModuleConfig_h config) { (void)config; return (unsigned)instances; }
static DAQ_Mode get_mode(DAQ_ModuleConfig_h config) { (void)config; return DAQ_MODE_PASSIVE; }
static const char *get_variable(DAQ_ModuleConfig_h config, const char *key) { (void)config; (void)key; return NULL; }

__attribute__((format(printf, 2, 3))) static void set_error(DAQ_ModuleInstance_h instance, const char *format, ...)
{
    va_list arguments;
    (void)instance;
    va_start(arguments, format);
    vsnprintf(error, sizeof error, format, arguments);
    va_end(arguments);
}

static const DAQ_BaseAPI_t BASE = {
    .api_version = DAQ_BASE_API_VERSION,
    .api_size = sizeof(DAQ_BaseAPI_t),
    .config_get_input = get_input,
    .config_get_snaplen = get_snaplen,
    .config_get_timeout = get_timeout,
    .config_get_msg_pool_size = get_pool,
    .config_get_total_instances = get_instances,
    .config_get_mode = get_mode,
    .config_get_variable = get_variable,
    .set_errbuf = set_error,
};

static void *interrupt(void *unused)
{
    (void)unused;
    module->interrupt(handle);
    return NULL;
}

static void receive(unsigned most)
{
    static const DAQ_Msg_t *msgs[OUT];
    DAQ_RecvStatus status = DAQ_RSTAT_INVALID;
    const unsigned count = module->msg_receive(handle, most, msgs, &status);
    printf("%s", status == DAQ_RSTAT_ERROR ? error : STATUS[status]);
    for (unsigned i = 0; i < count; i++) {
        const DAQ_PktHdr_t *header = msgs[i]->hdr;
        if (msgs[i]->hdr_len != sizeof *header || msgs[i]->type != DAQ_MSG_TYPE_PACKET)
            abort();
        host_print(msgs[i]->data, msgs[i]->data_len, header->pktlen, header->ts.tv_sec, header->ts.tv_usec);
        memset(msgs[i]->data, 0xaa, msgs[i]->data_len); /* Snort may write to it */
        out[handed_out++ % OUT] = msgs[i];
    }
}

static void print_stats(void)
{
    DAQ_Stats_t stats;
    DAQ_MsgPoolInfo_t info;
    module->get_stats(handle, &stats);
    module->get_msg_pool_info(handle, &info);
    printf("received %" PRIu64 " outstanding %" PRIu64 " passed %" PRIu64 " blocked %" PRIu64 " pool %u available %u",
           stats.packets_received, stats.packets_outstanding, stats.verdicts[DAQ_VERDICT_PASS],
           stats.verdicts[DAQ_VERDICT_BLOCK], info.size, info.available);
    printf(" snaplen %d linktype %d", module->get_snaplen(handle), module->get_datalink_type(handle));
}

/* open NAME SNAPLEN, pool N, instances N: before it; receive N, finalize K, block K, interrupt, later, stats, close */
static void answer(const char *word, const char *text, long number)
{
    long n = number ? number : strtol(text, NULL, 10);
    if (!strcmp(word, "open")) {
        snprintf(input, sizeof input, "%s", text);
        snaplen = (int)number;
        const int status = module->instantiate(NULL, (DAQ_ModuleInstance_h)&input, &handle);
        printf("%s", status == DAQ_SUCCESS ? "open" : error);
    } else if (!strcmp(word, "pool")) {
        pool = (int)n;
    } else if (!strcmp(word, "instances")) {
        instances = (int)n;
    } else if (!strcmp(word, "timeout")) {
        timeout_ms = (int)n;
    } else if (!strcmp(word, "start")) {
        printf("%d", module->start(handle));
    } else if (!strcmp(word, "receive")) {
        receive((unsigned)n);
    } else if (!strcmp(word, "finalize")) {
        printf("%d", module->msg_finalize(handle, out[n % OUT], DAQ_VERDICT_PASS));
    } else if (!strcmp(word, "block")) {
        printf("%d", module->msg_finalize(handle, out[n % OUT], DAQ_VERDICT_BLOCK));
    } else if (!strcmp(word, "foreign")) {
        DAQ_Msg_t foreign = *out[n % OUT];
        foreign.owner = NULL;
        printf("%d", module->msg_finalize(handle, &foreign, DAQ_VERDICT_PASS));
    } else if (!strcmp(word, "interrupt")) { /* from another thread, while this one receives */
        pthread_t thread;
        pthread_create(&thread, NULL, interrupt, NULL);
        do {
            receive(1);
            printf(" ");
        } while (__atomic_load_n(&handed_out, __ATOMIC_RELAXED) == 0 && n-- > 0);
        pthread_join(thread, NULL);
    } else if (!strcmp(word, "stats")) {
        print_stats();
    } else if (!strcmp(word, "reset")) {
        module->reset_stats(handle);
    } else if (!strcmp(word, "close")) {
        printf("%d", module->stop(handle));
        module->destroy(handle);
        handle = NULL;
    } else {
        abort();
    }
}

int main(void)
{
    const DAQ_VariableDesc_t *variables;
    DAQ_BaseAPI_t old = BASE;
    old.api_version = 1;
    if (module->load(&old) == DAQ_SUCCESS || module->load(&BASE) != DAQ_SUCCESS)
        return 1;
    (void)module->get_variable_descs(&variables);
    host_serve(answer);
    return module->unload() == DAQ_SUCCESS ? 0 : 1;
}

/*
 * host2.c: drives the libdaq 2 module, as commands on standard input say.
 *
 * With FTN_LOADER it goes through libdaq itself, which loads what `load FOLDER` names; else it calls the module.
 */
#include "host.h"

#include <daq.h>
#include <daq_api.h>

static const char *const MODULE = "ftnids";
static const DAQ_Module_t *module;
static void *handle;
static char error[512];

#ifndef FTN_LOADER
extern const DAQ_Module_t DAQ_MODULE_DATA;
#endif

static DAQ_Verdict on_packet(void *user, const DAQ_PktHdr_t *header, const uint8_t *data)
{
    (void)user;
    host_print(data, header->caplen, header->pktlen, header->ts.tv_sec, header->ts.tv_usec);
    return DAQ_VERDICT_PASS;
}

static void load(const char *folder)
{
#ifdef FTN_LOADER
    const char *folders[] = {folder, NULL};
    printf("%d", daq_load_modules(folders));
    module = daq_find_module(MODULE);
#else
    (void)folder;
    printf("0");
    module = &DAQ_MODULE_DATA;
#endif
    printf(" %s", module && !strcmp(module->name, MODULE) ? MODULE : "not found");
}

static void acquire(int count)
{
    const int status = module->acquire(handle, count, on_packet, NULL, NULL);
    printf(" %s", status == 0 ? "ok" : status == DAQ_READFILE_EOF ? "eof" : module->get_errbuf(handle));
}

/* load FOLDER, open NAME SNAPLEN, start, acquire N, break, stats, close */
static void answer(const char *word, const char *text, long number)
{
    if (!strcmp(word, "load")) {
        load(text);
    } else if (!strcmp(word, "open")) {
        char name[512];
        snprintf(name, sizeof name, "%s", text);
        const DAQ_Config_t config = {.name = name, .snaplen = (int)number, .timeout = 50, .mode = DAQ_MODE_PASSIVE};
        const int status = module->initialize(&config, &handle, error, sizeof error);
        printf("%s", status == DAQ_SUCCESS ? "open" : error);
    } else if (!strcmp(word, "start")) {
        printf("%d", module->start(handle));
    } else if (!strcmp(word, "acquire")) {
        acquire(atoi(text));
    } else if (!strcmp(word, "break")) {
        printf("%d", module->breakloop(handle));
    } else if (!strcmp(word, "stats")) {
        DAQ_Stats_t stats;
        module->get_stats(handle, &stats);
        printf("received %" PRIu64 " passed %" PRIu64 " snaplen %d linktype %d", stats.packets_received,
               stats.verdicts[DAQ_VERDICT_PASS], module->get_snaplen(handle), module->get_datalink_type(handle));
    } else if (!strcmp(word, "close")) {
        printf("%d", module->stop(handle));
        module->shutdown(handle);
    } else {
        abort();
    }
}

int main(void)
{
    host_serve(answer);
#ifdef FTN_LOADER
    daq_unload_modules();
#endif
    return 0;
}

/* What an operation causes: what a run counted, less what another did, divided. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "compare/compare.h"

double compare_counted(const cJSON *stats, const cJSON *base, const char *group,
                       const char *name) {
    const cJSON *a = cJSON_GetObjectItem(cJSON_GetObjectItem(stats, group), name);
    const cJSON *b = cJSON_GetObjectItem(cJSON_GetObjectItem(base, group), name);

    return (a ? a->valuedouble : 0) - (b ? b->valuedouble : 0);
}

/* Not an event, or one that another says better. */
static bool is_event(const char *name) {
    static const char *const not [] = {
        "insns_retired",   "bt_guest_bytes",      "bt_host_bytes",   "uart_tx_bytes",
        "uart_tx_flushes", "bt_translator_ticks", "svm_entries",     "svm_emulated",
        "svm_pulls",       "direct_exit_ns",      "direct_order_ns", "direct_kticks"};

    for (unsigned n = 0; n < ARRAY_SIZE(not ); n++)
        if (!strcmp(name, not [n]))
            return false;
    return true;
}

/* Of what an engine alone counts: of cells (direct/). */
static bool is_cells(const char *name) {
    return !strncmp(name, "direct_", strlen("direct_"));
}

/* Keeps the most frequent ones, exits first. */
static void add_event(struct compare_figure *f, const char *name, bool exit,
                      double each) {
    unsigned at = 0;

    while (at < f->event_count &&
           (f->events[at].exit > exit ||
            (f->events[at].exit == exit && f->events[at].each >= each)))
        at++;
    if (at == COMPARE_EVENTS)
        return;
    if (f->event_count < COMPARE_EVENTS)
        f->event_count++;
    for (unsigned n = f->event_count - 1; n > at; n--)
        f->events[n] = f->events[n - 1];
    f->events[at] = (struct compare_event){.exit = exit, .each = each};
    snprintf(f->events[at].name, sizeof(f->events[at].name), "%s", name);
}

static void add_group(struct compare_figure *f, const cJSON *stats, const cJSON *base,
                      const char *group, double ops, double least) {
    bool engines = !strcmp(group, "engine_counters");
    const cJSON *item;

    cJSON_ArrayForEach(item, cJSON_GetObjectItem(stats, group)) {
        double each = compare_counted(stats, base, group, item->string) / ops;

        if (each >= least && is_event(item->string) &&
            (!engines || is_cells(item->string)))
            add_event(f, item->string, !strcmp(group, "exits"), each);
    }
}

void compare_add_events(struct compare_figure *f, const cJSON *stats, const cJSON *base,
                        double ops, double least) {
    add_group(f, stats, base, "exits", ops, least);
    add_group(f, stats, base, "counters", ops, least);
    add_group(f, stats, base, "engine_counters", ops, least);
}

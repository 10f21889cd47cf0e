/* Statistics of a run; see stats.h. Names come from the .def lists. */
#include "ctl/stats.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/os.h"

struct counter_desc {
    const char *name;
    size_t offset;
};

static const struct counter_desc counter_list[] = {
#define COUNTER(name, what) {#name, offsetof(struct counters, name)},
#include "base/counters.def"
#undef COUNTER
};

static void add_counters(cJSON *root, const struct counters *cnt) {
    cJSON *o = cJSON_AddObjectToObject(root, "counters");

    for (size_t i = 0; i < ARRAY_SIZE(counter_list); i++) {
        const void *at = (const char *)cnt + counter_list[i].offset;

        cJSON_AddNumberToObject(o, counter_list[i].name, (double)*(const uint64_t *)at);
    }
}

/* What the counters of the translator come to. */
static void add_translation(cJSON *root, const struct counters *cnt) {
    cJSON *o;

    if (!cnt->bt_translations)
        return;
    o = cJSON_AddObjectToObject(root, "translation");
    cJSON_AddNumberToObject(o, "expansion",
                            (double)cnt->bt_host_bytes / (double)cnt->bt_guest_bytes);
    cJSON_AddNumberToObject(o, "ident_share",
                            (double)cnt->bt_insns_ident / (double)cnt->bt_insns);
    cJSON_AddNumberToObject(o, "operand_share",
                            (double)cnt->bt_insns_operand / (double)cnt->bt_insns);
    cJSON_AddNumberToObject(o, "seconds",
                            (double)cnt->bt_translator_ticks / (double)os_tsc_hz());
}

static void add_exits(cJSON *root, const struct exit_counts *exits) {
    cJSON *o = cJSON_AddObjectToObject(root, "exits");
    uint64_t total = 0;

    for (unsigned r = 0; r < EXIT_COUNT; r++) {
        total += exits->n[r];
        cJSON_AddNumberToObject(o, exit_name((enum exit_reason)r), (double)exits->n[r]);
    }
    cJSON_AddNumberToObject(root, "exits_total", (double)total);
}

static void add_figure(void *arg, const char *name, uint64_t value) {
    cJSON_AddNumberToObject(arg, name, (double)value);
}

static int write_text(const char *text, struct output *o) {
    int rc;

    fprintf(output_begin(o), "%s\n", text);
    rc = output_end(o);
    if (!rc)
        return 0;
    log_error("cannot write statistics to '%s': %s", o->path ? o->path : "standard error",
              strerror(-rc));
    if (o->f != stderr)
        fprintf(stderr, "%s\n", text);
    return rc;
}

int stats_write(const struct machine *m, const struct stats_run *run, struct output *o) {
    const struct counters *cnt = machine_counters(m);
    cJSON *root = cJSON_CreateObject();
    struct rusage usage;
    char *text;
    int rc = -ENOMEM;

    getrusage(RUSAGE_SELF, &usage);
    cJSON_AddStringToObject(root, "engine", machine_engine_name(m));
    cJSON_AddStringToObject(root, "end", run->end);
    cJSON_AddNumberToObject(root, "wall_seconds", run->wall_seconds);
    cJSON_AddNumberToObject(root, "cpu_seconds", run->cpu_seconds);
    cJSON_AddNumberToObject(root, "resident_kib", (double)usage.ru_maxrss);
    if (run->cpu_seconds > 0)
        cJSON_AddNumberToObject(root, "insns_per_cpu_second",
                                (double)cnt->insns_retired / run->cpu_seconds);
    add_counters(root, cnt);
    add_translation(root, cnt);
    add_exits(root, machine_exits(m));
    machine_engine_stats(m, add_figure, cJSON_AddObjectToObject(root, "engine_counters"));
    text = cJSON_Print(root);
    if (text)
        rc = write_text(text, o);
    else
        log_error("out of memory while writing statistics");
    cJSON_free(text);
    cJSON_Delete(root);
    return rc;
}

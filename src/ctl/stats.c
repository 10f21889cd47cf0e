/* Statistics of a run; see stats.h. Names come from the .def lists. */
#include "ctl/stats.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/log.h"
#include "base/os.h"
#include "net/net.h"

struct counter_desc {
    const char *name;
    size_t offset;
};

static const struct counter_desc counter_list[] = {
#define COUNTER(name, what) {#name, offsetof(struct counters, name)},
#include "base/counters.def"
#undef COUNTER
};

/* An object that grows; cJSON forgets what it has no memory for. */
struct figures {
    cJSON *root;
    cJSON *part; /* of the root, where the next figure goes */
    bool incomplete;
};

static void add_figure(struct figures *f, const char *name, double value) {
    f->incomplete |= !cJSON_AddNumberToObject(f->part, name, value);
}

static void add_text(struct figures *f, const char *name, const char *text) {
    f->incomplete |= !cJSON_AddStringToObject(f->part, name, text);
}

/* From now on figures go there; NULL: to the root. */
static void part(struct figures *f, const char *name) {
    f->part = name ? cJSON_AddObjectToObject(f->root, name) : f->root;
    f->incomplete |= !f->part;
}

static void add_counters(struct figures *f, const struct counters *cnt) {
    part(f, "counters");
    for (size_t i = 0; i < ARRAY_SIZE(counter_list); i++) {
        const void *at = (const char *)cnt + counter_list[i].offset;

        add_figure(f, counter_list[i].name, (double)*(const uint64_t *)at);
    }
}

/* What the counters of the translator come to. */
static void add_translation(struct figures *f, const struct counters *cnt) {
    if (!cnt->bt_translations)
        return;
    part(f, "translation");
    add_figure(f, "expansion", (double)cnt->bt_host_bytes / (double)cnt->bt_guest_bytes);
    add_figure(f, "ident_share", (double)cnt->bt_insns_ident / (double)cnt->bt_insns);
    add_figure(f, "operand_share", (double)cnt->bt_insns_operand / (double)cnt->bt_insns);
    add_figure(f, "seconds", (double)cnt->bt_translator_ticks / (double)os_tsc_hz());
}

static void add_exits(struct figures *f, const struct exit_counts *exits) {
    uint64_t total = 0;

    part(f, "exits");
    for (unsigned r = 0; r < EXIT_COUNT; r++) {
        total += exits->n[r];
        add_figure(f, exit_name((enum exit_reason)r), (double)exits->n[r]);
    }
    part(f, NULL);
    add_figure(f, "exits_total", (double)total);
}

static void add_network(struct figures *f, const struct net_figures *net) {
    part(f, "network");
    add_figure(f, "frames_sent", (double)net->out_frames);
    add_figure(f, "bytes_sent", (double)net->out_bytes);
    add_figure(f, "frames_received", (double)net->in_frames);
    add_figure(f, "bytes_received", (double)net->in_bytes);
    add_figure(f, "frames_dropped", (double)net->dropped);
}

/* Each CPU's engine tells it: what is counted is added up, of what is measured, in
 * nanoseconds, the greatest is kept. */
static void add_engine_figure(void *arg, const char *name, uint64_t value) {
    struct figures *f = arg;
    cJSON *item = cJSON_GetObjectItemCaseSensitive(f->part, name);
    const char *unit = strrchr(name, '_');
    double now = (double)value, so_far = item ? item->valuedouble : 0;

    if (!item)
        add_figure(f, name, now);
    else if (unit && !strcmp(unit, "_ns"))
        cJSON_SetNumberValue(item, now > so_far ? now : so_far);
    else
        cJSON_SetNumberValue(item, now + so_far);
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

struct stats_run stats_so_far(uint64_t start_ns) {
    return (struct stats_run){
        .end = "still running",
        .wall_seconds = (double)(os_monotonic_ns() - start_ns) * 1e-9,
        .cpu_seconds = stats_cpu_seconds(),
    };
}

double stats_cpu_seconds(void) {
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

struct cJSON *stats_json(const struct machine *m, const struct stats_run *run) {
    const struct counters cnt = machine_counters(m);
    const struct exit_counts exits = machine_exits(m);
    const struct net_figures net = machine_net_figures(m);
    struct figures j = {.root = cJSON_CreateObject()};
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    part(&j, NULL);
    add_text(&j, "engine", machine_engine_name(m));
    add_text(&j, "end", run->end);
    add_figure(&j, "wall_seconds", run->wall_seconds);
    add_figure(&j, "cpu_seconds", run->cpu_seconds);
    add_figure(&j, "resident_kib", (double)usage.ru_maxrss);
    if (run->cpu_seconds > 0)
        add_figure(&j, "insns_per_cpu_second",
                   (double)cnt.insns_retired / run->cpu_seconds);
    add_counters(&j, &cnt);
    add_translation(&j, &cnt);
    add_exits(&j, &exits);
    add_network(&j, &net);
    part(&j, "engine_counters");
    machine_engine_stats(m, add_engine_figure, &j);
    if (!j.incomplete)
        return j.root;
    cJSON_Delete(j.root);
    return NULL;
}

int stats_write(const struct machine *m, const struct stats_run *run, struct output *o) {
    cJSON *root = stats_json(m, run);
    char *text = root ? cJSON_Print(root) : NULL;
    int rc = -ENOMEM;

    if (text)
        rc = write_text(text, o);
    else
        log_error("out of memory while writing statistics");
    cJSON_free(text);
    cJSON_Delete(root);
    return rc;
}

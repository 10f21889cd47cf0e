/*
 * The API's resources; see api.h. A table says which method and path is whose function; a
 * path may end with an id. Answers that are no content are 204; what cannot be done is
 * 400 and {"fault_message": one sentence}, as Firecracker has it.
 */
#include "api/api.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/api_int.h"
#include "api/config_kept.h"
#include "api/fields.h"
#include "api/gate.h"
#include "base/log.h"
#include "base/os_loop.h"

#define FOLLOWS "1.17.0" /* the version of Firecracker whose description this is */

/* --- what a machine is made of --- */

static void put_part(struct call *c, enum config_part part) {
    call_done(c,
              config_put(&c->api->config, part, c->id, c->body, c->why, sizeof(c->why)));
}

static void put_boot(struct call *c) {
    put_part(c, CONFIG_BOOT);
}

static void put_machine(struct call *c) {
    put_part(c, CONFIG_MACHINE);
}

static void patch_machine(struct call *c) {
    call_done(c, config_patch_machine(&c->api->config, c->body, c->why, sizeof(c->why)));
}

static void get_machine(struct call *c) {
    call_json(c, 200, config_machine(&c->api->config));
}

static void get_config(struct call *c) {
    call_json(c, 200, config_show(&c->api->config));
}

static void put_drive(struct call *c) {
    put_part(c, CONFIG_DRIVES);
}

static void put_net(struct call *c) {
    put_part(c, CONFIG_NETS);
}

static bool tell_machine(void *arg, const char *line) {
    struct call *c = arg;

    if (c->answer->status == 204) /* until one is refused */
        call_do(c, line);
    return c->answer->status == 204;
}

static void patch_device(struct call *c, enum config_part part) {
    const struct config_teller machine = {tell_machine, c};

    c->answer->status = 204;
    if (config_patch(&c->api->config, part, c->id, c->body, &machine, c->why,
                     sizeof(c->why)))
        call_refuse(c, "%s", c->why);
}

static void patch_drive(struct call *c) {
    patch_device(c, CONFIG_DRIVES);
}

static void patch_net(struct call *c) {
    patch_device(c, CONFIG_NETS);
}

static void put_vsock(struct call *c) {
    put_part(c, CONFIG_VSOCK);
}

static void put_entropy(struct call *c) {
    put_part(c, CONFIG_ENTROPY);
}

static void put_serial(struct call *c) {
    put_part(c, CONFIG_SERIAL);
}

static void put_cpu(struct call *c) {
    put_part(c, CONFIG_CPU);
}

static void put_settings(struct call *c) {
    put_part(c, CONFIG_SETTINGS);
}

static void put_balloon(struct call *c) {
    put_part(c, CONFIG_BALLOON);
}

/* --- the instance --- */

static bool is_paused(struct api *a) {
    static const char line[] = "{\"command\":\"about\"}";
    char *text = control_answer(&a->table, line, sizeof(line) - 1);
    cJSON *answer = text ? cJSON_Parse(text) : NULL;
    bool paused = cJSON_IsTrue(cJSON_GetObjectItem(answer, "paused"));

    cJSON_Delete(answer);
    free(text);
    return paused;
}

static void get_instance(struct call *c) {
    struct api *a = c->api;
    cJSON *o = cJSON_CreateObject();
    const char *state = !a->machine ? "Not started" : is_paused(a) ? "Paused" : "Running";
    bool good = cJSON_AddStringToObject(o, "app_name", "bivisor") &&
                cJSON_AddStringToObject(o, "id", a->about.id) &&
                cJSON_AddStringToObject(o, "state", state) &&
                cJSON_AddStringToObject(o, "vmm_version", a->about.version);

    if (!good) {
        cJSON_Delete(o);
        o = NULL;
    }
    call_json(c, 200, o);
}

static void get_version(struct call *c) {
    cJSON *o = cJSON_CreateObject();

    if (!cJSON_AddStringToObject(o, "firecracker_version", FOLLOWS)) {
        cJSON_Delete(o);
        o = NULL;
    }
    call_json(c, 200, o);
}

static void start_instance(struct call *c) {
    struct api *a = c->api;

    if (a->machine || a->starting) {
        call_refuse(c, "the machine runs already");
        return;
    }
    if (config_complete(&a->config, c->why, sizeof(c->why))) {
        call_refuse(c, "%s", c->why);
        return;
    }
    a->starting = a->described = true;
    a->starter = c->answer->ticket;
    c->answer->later = true;
    os_loop_stop(a->loop);
}

static const char *const actions[] = {"InstanceStart", "FlushMetrics", "SendCtrlAltDel",
                                      NULL};
static const struct field action_fields[] = {
    {"action_type", FIELD_TEXT, true, 0, 0, actions}, {0}};

static void put_action(struct call *c) {
    const char *action;

    if (fields_check(c->body, action_fields, c->why, sizeof(c->why))) {
        call_refuse(c, "%s", c->why);
        return;
    }
    action = fields_text(c->body, "action_type", "");
    if (!strcmp(action, "InstanceStart"))
        start_instance(c);
    else if (!c->api->machine)
        call_refuse(c, "the machine does not run yet");
    else if (!strcmp(action, "FlushMetrics"))
        api_metrics_flush(c);
    else
        call_do(c, "{\"command\":\"ctrl-alt-del\"}");
}

static const char *const states[] = {"Paused", "Resumed", NULL};
static const struct field vm_fields[] = {{"state", FIELD_TEXT, true, 0, 0, states}, {0}};

static void patch_vm(struct call *c) {
    if (fields_check(c->body, vm_fields, c->why, sizeof(c->why)))
        call_refuse(c, "%s", c->why);
    else if (!strcmp(fields_text(c->body, "state", ""), "Paused"))
        call_do(c, "{\"command\":\"pause\"}");
    else
        call_do(c, "{\"command\":\"resume\"}");
}

/* --- what is there in Firecracker and not here --- */

static void no_hinting(struct call *c) {
    call_refuse(c, "the balloon has no free page hinting here: the guest reports free "
                   "pages by itself");
}

static void no_pmem(struct call *c) {
    call_refuse(c, "there is no virtio-pmem here: PUT /drives/%s can have 'path_on_host'",
                c->id);
}

static void no_hotplug(struct call *c) {
    call_refuse(c, "there is no virtio-mem here: 'mem_size_mib' of /machine-config with "
                   "a balloon, or memory_mib of /bivisor/quota, is memory that comes "
                   "and goes");
}

/* --- the table --- */

enum when { ALWAYS, BEFORE, RUNNING };

static const struct resource {
    const char *method, *path; /* a path that ends with '/' goes on with an id */
    enum when when;
    bool body; /* there must be one */
    void (*run)(struct call *c);
} resources[] = {
    {"GET", "/", ALWAYS, false, get_instance},
    {"GET", "/version", ALWAYS, false, get_version},
    {"PUT", "/actions", ALWAYS, true, put_action},
    {"PUT", "/boot-source", BEFORE, true, put_boot},
    {"GET", "/machine-config", ALWAYS, false, get_machine},
    {"PUT", "/machine-config", BEFORE, true, put_machine},
    {"PATCH", "/machine-config", BEFORE, true, patch_machine},
    {"GET", "/vm/config", ALWAYS, false, get_config},
    {"PATCH", "/vm", RUNNING, true, patch_vm},
    {"PUT", "/drives/", BEFORE, true, put_drive},
    {"PUT", "/network-interfaces/", BEFORE, true, put_net},
    {"PATCH", "/drives/", RUNNING, true, patch_drive},
    {"PATCH", "/network-interfaces/", RUNNING, true, patch_net},
    {"PUT", "/vsock", BEFORE, true, put_vsock},
    {"PUT", "/entropy", BEFORE, true, put_entropy},
    {"PUT", "/serial", BEFORE, true, put_serial},
    {"PUT", "/logger", BEFORE, true, api_logger_put},
    {"PUT", "/metrics", BEFORE, true, api_metrics_put},
    {"GET", "/balloon", ALWAYS, false, api_balloon_get},
    {"PUT", "/balloon", BEFORE, true, put_balloon},
    {"PATCH", "/balloon", ALWAYS, true, api_balloon_patch},
    {"GET", "/balloon/statistics", RUNNING, false, api_balloon_get_statistics},
    {"PUT", "/bivisor/settings", BEFORE, true, put_settings},
    {"GET", "/bivisor/stats", RUNNING, false, api_stats_get},
    {"GET", "/bivisor/metrics", RUNNING, false, api_figures_get},
    {"GET", "/bivisor/screenshot", RUNNING, false, api_screenshot_get},
    {"PUT", "/bivisor/power", RUNNING, true, api_power_put},
    {"GET", "/bivisor/forwards", RUNNING, false, api_forwards_get},
    {"PUT", "/bivisor/forwards", RUNNING, true, api_forwards_put},
    {"DELETE", "/bivisor/forwards", RUNNING, true, api_forwards_delete},
    {"PUT", "/bivisor/exec", RUNNING, true, api_exec_put},
    {"PUT", "/bivisor/fork", RUNNING, true, api_fork_put},
    {"GET", "/bivisor/quota", RUNNING, false, api_quota_get},
    {"PUT", "/bivisor/quota", RUNNING, true, api_quota_put},
    {"PATCH", "/balloon/statistics", ALWAYS, true, api_balloon_patch_statistics},
    {"PATCH", "/balloon/hinting/", ALWAYS, false, no_hinting},
    {"GET", "/balloon/hinting/", ALWAYS, false, no_hinting},
    {"PUT", "/cpu-config", BEFORE, true, put_cpu},
    {"PUT", "/pmem/", ALWAYS, false, no_pmem},
    {"PATCH", "/pmem/", ALWAYS, false, no_pmem},
    {"GET", "/mmds", ALWAYS, false, api_mmds_get},
    {"PUT", "/mmds", ALWAYS, true, api_mmds_put},
    {"PATCH", "/mmds", ALWAYS, true, api_mmds_patch},
    {"PUT", "/mmds/config", BEFORE, true, api_mmds_configure},
    {"GET", "/hotplug/memory", ALWAYS, false, no_hotplug},
    {"PUT", "/hotplug/memory", ALWAYS, false, no_hotplug},
    {"PATCH", "/hotplug/memory", ALWAYS, false, no_hotplug},
    {"PUT", "/snapshot/create", RUNNING, true, api_snapshot_create},
    {"PUT", "/snapshot/load", BEFORE, true, api_snapshot_load},
};

static bool fits(const struct resource *r, const char *path, const char **id) {
    size_t len = strlen(r->path);

    *id = NULL;
    if (len == 1 || r->path[len - 1] != '/')
        return !strcmp(path, r->path);
    *id = path + len;
    return !strncmp(path, r->path, len) && path[len] && !strchr(path + len, '/');
}

static const struct resource *find(const struct http_request *q, const char **id) {
    for (size_t n = 0; n < ARRAY_SIZE(resources); n++)
        if (!strcmp(resources[n].method, q->method) && fits(&resources[n], q->path, id))
            return &resources[n];
    return NULL;
}

static void answer(struct call *c, const struct resource *r,
                   const struct http_request *q) {
    cJSON *body = NULL;

    if (r->when == BEFORE && (c->api->machine || c->api->starting)) {
        call_refuse(c, "this can only be said before the machine runs");
        return;
    }
    if (r->when == RUNNING && !c->api->machine) {
        call_refuse(c, "the machine does not run yet");
        return;
    }
    if (r->body) {
        body = fields_parse(q->body, q->body_len, c->why, sizeof(c->why));
        if (!body) {
            call_refuse(c, "%s", c->why);
            return;
        }
    }
    c->body = body;
    r->run(c);
    cJSON_Delete(body);
}

static void handle(void *arg, const struct http_request *q, struct api_answer *a) {
    struct call c = {.api = arg, .answer = a};
    const struct resource *r = find(q, &c.id);

    if (r)
        answer(&c, r, q);
    else
        call_refuse(&c, "there is no %s of this path", q->method);
    if (a->later)
        log_info("--api: %s %s is answered later", q->method, q->path);
    else
        log_info("--api: %s %s: %d", q->method, q->path, a->status);
}

/* --- lives --- */

int api_open(const char *path, const struct api_about *about, struct api **out, char *why,
             size_t why_size) {
    struct api *a = calloc(1, sizeof(*a));
    int rc = a ? 0 : -ENOMEM;

    if (rc) {
        snprintf(why, why_size, "out of memory");
        return rc;
    }
    a->about = *about;
    a->metrics = -1;
    if (!a->about.body_limit)
        a->about.body_limit = HTTP_BODY_MAX;
    a->mmds.limit = about->mmds_limit ? about->mmds_limit : a->about.body_limit;
    if (path)
        rc = api_server_open(path, a->about.body_limit, handle, a, &a->server, why,
                             why_size);
    if (rc)
        free(a);
    else
        *out = a;
    return rc;
}

void api_close(struct api *a) {
    if (!a)
        return;
    api_server_close(a->server);
    log_set_form(false, false, NULL); /* its module is in the configuration */
    mmds_free(&a->mmds);
    config_free(&a->config);
    cJSON_Delete(a->load);
    config_words_free(a->copy_words);
    if (a->metrics >= 0)
        close(a->metrics);
    free(a);
}

struct gate *api_gate(const struct api *a) {
    return a->server ? api_server_gate(a->server) : NULL;
}

/* Which drives are only read. */
static bool tell_readonly(struct api *a, struct gate *g) {
    bool good = gate_readonly(g, "", true);
    const cJSON *drive;

    cJSON_ArrayForEach(drive, a->config.part[CONFIG_DRIVES]) {
        if (good && fields_bool(drive, "is_read_only"))
            good = gate_readonly(g, fields_text(drive, "drive_id", ""), false);
    }
    return good;
}

bool api_settle(struct api *a) {
    struct gate *g = api_gate(a);

    if (!g || (tell_readonly(a, g) && gate_settle(g)))
        return true;
    log_error("--api: the process where clients come has ended");
    return false;
}

int api_configure(struct api *a, const char *text, char *why, size_t why_size) {
    int rc = config_load(&a->config, text, why, why_size);

    if (!rc && a->config.part[CONFIG_LOGGER])
        rc = api_logger_begin(a, why, why_size);
    if (!rc && a->config.part[CONFIG_METRICS] && a->metrics < 0)
        rc = api_metrics_begin(a, why, why_size);
    a->described = true;
    return rc ? rc : config_complete(&a->config, why, why_size);
}

int api_build(struct api *a) {
    int rc = os_loop_new(&a->loop);

    if (rc)
        return rc;
    a->starting = false;
    rc = api_server_start(a->server, a->loop);
    if (!rc)
        os_loop_run(a->loop);
    api_server_stop(a->server);
    os_loop_free(a->loop);
    a->loop = NULL;
    return rc;
}

const char *api_snapshot(const struct api *a) {
    return a->load ? fields_text(a->load, "snapshot_path", "") : NULL;
}

char **api_words(const struct api *a, int *count) {
    return a->load ? config_words_restore(&a->config, count)
                   : config_words(&a->config, a->about.pci, count);
}

void api_words_free(char **words) {
    config_words_free(words);
}

char *const *api_copy_words(struct api *a) {
    config_words_free(a->copy_words);
    a->copy_words = config_words_copies(&a->config);
    return a->copy_words;
}

void api_failed(struct api *a, const char *why) {
    struct api_answer answer = {.status = 500, .type = "application/json"};
    struct call c = {.api = a, .answer = &answer};

    a->machine = a->starting = a->described = false;
    a->table.count = 0;
    if (a->load)
        config_forget_kept(&a->config);
    cJSON_Delete(a->load);
    a->load = NULL;
    call_refuse(&c, "%s", why);
    if (a->server)
        api_server_answer(a->server, a->starter, &answer);
}

struct control_table *api_table(struct api *a) {
    return &a->table;
}

int api_start(struct api *a, struct os_loop *loop) {
    a->machine = true;
    a->loop = loop;
    return a->server ? api_server_start(a->server, loop) : 0;
}

static bool tell_quietly(void *arg, const char *line) {
    struct api_answer unseen = {.status = 500};
    struct call c = {.api = arg, .answer = &unseen};

    call_do(&c, line);
    free(unseen.body);
    return true;
}

void api_running(struct api *a) {
    const struct config_teller machine = {tell_quietly, a};
    struct api_answer answer = {.status = 204};

    if (a->load || !a->config.part[CONFIG_MACHINE])
        api_describe(a);
    if (a->described && a->load)
        api_snapshot_begin(a);
    if (a->described) {
        config_limits(&a->config, &machine);
        api_balloon_begin(a);
    }
    if (a->starting && a->server)
        api_server_answer(a->server, a->starter, &answer);
    a->starting = a->described = false;
}

void api_stop(struct api *a) {
    call_forget(a);
    if (a->server)
        api_server_stop(a->server);
    a->loop = NULL;
}

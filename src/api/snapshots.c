/*
 * Snapshots: made, and gone on from. A client names two files, anywhere: another process
 * makes them (gate.h). NAME and NAME.ram of the directory 'snapshots' are made there, as
 * the command `snapshot` does, so that machines can go on from them together.
 *
 * A snapshot has what the machine is made of, and what its devices are called here
 * (config_kept.h). So one is loaded before anything else of a machine has been said.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api_int.h"
#include "api/config_kept.h"
#include "api/fields.h"
#include "base/os_loop.h"

#define PATH_MOST 4095

/* --- made --- */

static const char *const types[] = {"Full", "Diff", NULL};
static const struct field create_fields[] = {
    {"snapshot_path", FIELD_TEXT, true, 1, PATH_MOST, NULL},
    {"mem_file_path", FIELD_TEXT, true, 1, PATH_MOST, NULL},
    {"snapshot_type", FIELD_TEXT, false, 0, 0, types},
    {0},
};

/* PATH without DIR; NULL: it is elsewhere. */
static const char *name_of(const char *path, const char *dir) {
    size_t len = dir ? strlen(dir) : 0;

    if (!strchr(path, '/'))
        return path;
    return len && !strncmp(path, dir, len) && path[len] == '/' &&
                   !strchr(path + len + 1, '/')
               ? path + len + 1
               : NULL;
}

/* The memory's file is called as the other, and .ram behind it. */
static bool are_a_pair(const char *state, const char *memory) {
    size_t len = strlen(state);

    return !strncmp(state, memory, len) && !strcmp(memory + len, ".ram");
}

/* NAME of the directory, or NULL and two files anywhere. */
static char *line_of(const char *name, const char *state, const char *memory,
                     bool incremental) {
    cJSON *o = cJSON_CreateObject();
    char *text = NULL;

    if (cJSON_AddStringToObject(o, "command", name ? "snapshot" : "snapshot-to") &&
        cJSON_AddStringToObject(o, name ? "name" : "state", name ? name : state) &&
        (name || cJSON_AddStringToObject(o, "memory", memory)) &&
        cJSON_AddBoolToObject(o, "incremental", incremental))
        text = cJSON_PrintUnformatted(o);
    cJSON_Delete(o);
    return text;
}

/* The command, the caller's; NULL with one sentence in C->why. */
static char *create_line(struct call *c) {
    const char *dir =
        fields_text(c->api->config.part[CONFIG_SETTINGS], "snapshots", NULL);
    const char *path = fields_text(c->body, "snapshot_path", "");
    const char *memory = fields_text(c->body, "mem_file_path", ""), *name;
    char *line;

    if (fields_check(c->body, create_fields, c->why, sizeof(c->why)))
        return NULL;
    name = dir && are_a_pair(path, memory) ? name_of(path, dir) : NULL;
    line = line_of(name, path, memory,
                   !strcmp(fields_text(c->body, "snapshot_type", "Full"), "Diff"));
    if (!line)
        snprintf(c->why, sizeof(c->why), "out of memory");
    return line;
}

void api_snapshot_create(struct call *c) {
    char *line = create_line(c);

    if (line)
        call_later(c, line, NULL);
    else
        call_refuse(c, "%s", c->why);
    free(line);
}

/* --- gone on from --- */

static const char *const backends[] = {"File", NULL};
static const struct field backend_fields[] = {
    {"backend_type", FIELD_TEXT, true, 0, 0, backends},
    {"backend_path", FIELD_TEXT, true, 1, PATH_MOST, NULL},
    {0},
};
/* What has changed is always known. */
static const struct field load_fields[] = {
    {"snapshot_path", FIELD_TEXT, true, 1, PATH_MOST, NULL},
    {"mem_file_path", FIELD_TEXT, false, 1, PATH_MOST, NULL},
    {"mem_backend", FIELD_OBJECT, false, 0, 0, NULL},
    {"resume_vm", FIELD_BOOL, false, 0, 0, NULL},
    {"enable_diff_snapshots", FIELD_BOOL, false, 0, 0, NULL},
    {"track_dirty_pages", FIELD_BOOL, false, 0, 0, NULL},
    {"clock_realtime", FIELD_BOOL, false, 0, 0, NULL},
    {"network_overrides", FIELD_ARRAY, false, 0, 0, NULL},
    {"vsock_override", FIELD_OBJECT, false, 0, 0, NULL},
    {0},
};

static int say(struct call *c, const char *text) {
    snprintf(c->why, sizeof(c->why), "%s", text);
    return -EINVAL;
}

/* Something that only a machine which boots can be made of has been said. */
static bool is_configured(const struct config *config) {
    for (unsigned n = 0; n < CONFIG_ALL; n++)
        if (config->part[n] && n != CONFIG_LOGGER && n != CONFIG_METRICS &&
            n != CONFIG_SETTINGS)
            return true;
    return false;
}

static int check_memory(struct call *c) {
    const cJSON *backend = cJSON_GetObjectItemCaseSensitive(c->body, "mem_backend");
    const char *file = fields_text(c->body, "mem_file_path", NULL);

    if (!cJSON_IsObject(backend) == !file)
        return say(c, "one of 'mem_backend' and 'mem_file_path' is wanted");
    if (!file && !strcmp(fields_text(backend, "backend_type", ""), "Uffd"))
        return say(c, "the memory comes from a file here ('File'): no other program "
                      "serves its pages");
    return file ? 0 : fields_check(backend, backend_fields, c->why, sizeof(c->why));
}

static int check_load(struct call *c) {
    int rc = fields_check(c->body, load_fields, c->why, sizeof(c->why));

    if (rc)
        return rc;
    if (is_configured(&c->api->config))
        return say(c, "a snapshot is loaded before anything else is said of the machine");
    if (fields_bool(c->body, "clock_realtime"))
        return say(c, "the guest's clock goes on where it was");
    return check_memory(c);
}

void api_snapshot_load(struct call *c) {
    struct api *a = c->api;

    if (check_load(c)) {
        call_refuse(c, "%s", c->why);
        return;
    }
    cJSON_Delete(a->load);
    a->load = cJSON_Duplicate(c->body, true);
    if (!a->load) {
        call_refuse(c, "out of memory");
        return;
    }
    a->starting = a->described = true;
    a->starter = c->answer->ticket;
    c->answer->later = true;
    os_loop_stop(a->loop);
}

const char *api_snapshot_memory(const struct api *a) {
    const cJSON *backend = cJSON_GetObjectItemCaseSensitive(a->load, "mem_backend");

    return fields_text(a->load, "mem_file_path",
                       fields_text(backend, "backend_path", NULL));
}

char *api_kept(const struct api *a) {
    return config_kept(&a->config);
}

int api_restored(struct api *a, const char *text, char *why, size_t why_size) {
    int rc = text ? config_take_kept(&a->config, text, why, why_size) : 0;

    if (!rc)
        rc = config_override(
            &a->config, cJSON_GetObjectItemCaseSensitive(a->load, "network_overrides"),
            cJSON_GetObjectItemCaseSensitive(a->load, "vsock_override"), why, why_size);
    a->described = !rc;
    return rc;
}

char **api_overrides(const struct api *a, int *count) {
    const cJSON *nets = cJSON_GetObjectItemCaseSensitive(a->load, "network_overrides");
    const cJSON *vsock = cJSON_GetObjectItemCaseSensitive(a->load, "vsock_override");

    return config_words_override(&a->config, cJSON_GetArraySize(nets),
                                 cJSON_IsObject(vsock), count);
}

void api_describe(struct api *a) {
    struct api_answer unseen = {.status = 500};
    struct call c = {.api = a, .answer = &unseen};
    cJSON *about = call_ask(&c, "{\"command\":\"about\"}");
    cJSON *machine = cJSON_CreateObject();
    double mib = cJSON_GetNumberValue(cJSON_GetObjectItem(about, "memory")) / (1 << 20);

    if (cJSON_AddNumberToObject(
            machine, "vcpu_count",
            cJSON_GetNumberValue(cJSON_GetObjectItem(about, "cpus"))) &&
        cJSON_AddNumberToObject(machine, "mem_size_mib", (double)(int64_t)mib))
        config_put(&a->config, CONFIG_MACHINE, NULL, machine, c.why, sizeof(c.why));
    cJSON_Delete(machine);
    cJSON_Delete(about);
    free(unseen.body);
}

void api_snapshot_begin(struct api *a) {
    struct api_answer unseen = {.status = 500};
    struct call c = {.api = a, .answer = &unseen};

    if (!fields_bool(a->load, "resume_vm"))
        call_do(&c, "{\"command\":\"pause\"}");
    free(unseen.body);
}

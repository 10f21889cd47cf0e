/* Names of snapshots: two paths there, one name here; see snapshot_line.h. The command
 * looks at the name itself. */
#include "api/snapshot_line.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "api/fields.h"

#define PATH_MOST 4095

static const char *const types[] = {"Full", NULL};
static const struct field fields[] = {
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

static char *line_of(const char *name) {
    cJSON *o = cJSON_CreateObject();
    char *text = NULL;

    if (cJSON_AddStringToObject(o, "command", "snapshot") &&
        cJSON_AddStringToObject(o, "name", name))
        text = cJSON_PrintUnformatted(o);
    cJSON_Delete(o);
    return text;
}

char *snapshot_line(const struct cJSON *body, const char *dir, char *why,
                    size_t why_size) {
    const char *path = fields_text(body, "snapshot_path", ""), *name;
    char *line;

    if (fields_check(body, fields, why, why_size))
        return NULL;
    name = name_of(path, dir);
    if (!name || !are_a_pair(path, fields_text(body, "mem_file_path", ""))) {
        snprintf(why, why_size,
                 "'snapshot_path' is NAME, or in the directory 'snapshots' of "
                 "/bivisor/settings, and 'mem_file_path' the same with .ram");
        return NULL;
    }
    line = line_of(name);
    if (!line)
        snprintf(why, why_size, "out of memory");
    return line;
}

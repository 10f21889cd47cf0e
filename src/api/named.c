/* What clients have named; see named.h. */
#include "api/named.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "api/fields.h"

#define MOST 16u

struct name {
    bool there;
    char id[NAMED_ID]; /* of a drive; empty: of a snapshot */
    char path[NAMED_PATH], memory[NAMED_PATH];
};

struct named {
    struct name name[MOST];
    unsigned next;
};

struct named *named_new(void) {
    return calloc(1, sizeof(struct named));
}

/* TEXT is not there, or fits. */
static bool copy(char *to, size_t size, const char *text) {
    if (!text || strlen(text) >= size)
        return false;
    strcpy(to, text);
    return true;
}

static void remember(struct named *n, const char *id, const char *path,
                     const char *memory) {
    struct name *place = &n->name[n->next];

    place->there = copy(place->id, sizeof(place->id), id) &&
                   copy(place->path, sizeof(place->path), path) &&
                   copy(place->memory, sizeof(place->memory), memory);
    if (place->there)
        n->next = (n->next + 1) % MOST;
}

void named_by(struct named *n, const struct http_request *q) {
    static const char drives[] = "/drives/", snapshot[] = "/snapshot/create";
    bool drive = !strcmp(q->method, "PATCH") &&
                 !strncmp(q->path, drives, sizeof(drives) - 1) &&
                 q->path[sizeof(drives) - 1];
    cJSON *body;
    char why[256];

    if (!drive && (strcmp(q->method, "PUT") != 0 || strcmp(q->path, snapshot) != 0))
        return;
    body = fields_parse(q->body, q->body_len, why, sizeof(why));
    if (body && drive)
        remember(n, q->path + sizeof(drives) - 1, fields_text(body, "path_on_host", NULL),
                 "");
    else if (body)
        remember(n, "", fields_text(body, "snapshot_path", NULL),
                 fields_text(body, "mem_file_path", NULL));
    cJSON_Delete(body);
}

void named_by_line(struct named *n, enum control_speech speech, const char *line,
                   size_t len) {
    char path[NAMED_PATH];

    if (control_name(speech, line, len, path, sizeof(path)))
        remember(n, NAMED_DISC, path, "");
}

static bool use_up(struct named *n, const char *id, const char *path,
                   const char *memory) {
    for (unsigned k = 0; k < MOST; k++) {
        struct name *name = &n->name[k];

        if (!name->there || strcmp(name->id, id) != 0 || strcmp(name->path, path) != 0 ||
            strcmp(name->memory, memory) != 0)
            continue;
        name->there = false;
        return true;
    }
    return false;
}

bool named_drive(struct named *n, const char *id, const char *path) {
    return *id && use_up(n, id, path, "");
}

bool named_snapshot(struct named *n, const char *state, const char *memory) {
    return use_up(n, "", state, memory);
}

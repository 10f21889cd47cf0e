/* Copies of a machine that runs; see copying.h. */
#include "ctl/copying.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "ctl/ask.h"
#include "ctl/ctl.h"
#include "ctl/forker.h"
#include "ctl/run_options.h"

#define FILE_NAME 32 /* of a snapshot */

/* --- the machine --- */

/* Where the snapshot NAME is; the caller's, or NULL. FILE is what the machine says, which
 * is believed as far as that something of this name can be read and removed. */
static char *path_of(const struct copying *c, const char *name, const cJSON *file) {
    const char *said = cJSON_IsString(file) ? file->valuestring : "";
    const char *last = strrchr(said, '/');
    char *path = NULL;

    if (c->dir)
        return asprintf(&path, "%s/%s", c->dir, name) < 0 ? NULL : path;
    return *said == '/' && last && !strcmp(last + 1, name) ? strdup(said) : NULL;
}

/* Asks for a snapshot. Its file, the caller's; NULL after a message. */
static char *freeze(struct copying *c, bool change) {
    char line[192], name[FILE_NAME], *path;
    const cJSON *pause;
    cJSON *answer;

    snprintf(name, sizeof(name), "fork-%d%s", (int)getpid(), change ? "-now" : "");
    snprintf(line, sizeof(line),
             "{\"command\":\"snapshot\",\"copies\":true,\"name\":\"%s\","
             "\"incremental\":%s}\n",
             name, change ? "true" : "false");
    answer = ask(c->fd, line);
    if (!answer)
        return NULL;
    pause = cJSON_GetObjectItem(answer, "pause_ms");
    c->pause_ms = cJSON_IsNumber(pause) ? pause->valuedouble : 0;
    path = path_of(c, name, cJSON_GetObjectItem(answer, "file"));
    if (!path)
        log_error("the machine does not say where its snapshot is");
    cJSON_Delete(answer);
    return path;
}

static bool ram_path(const char *path, char *out, size_t size) {
    return (size_t)snprintf(out, size, "%s.ram", path) < size;
}

static void drop(char *path) {
    char ram[4096];

    if (path)
        unlink(path);
    if (path && ram_path(path, ram, sizeof(ram)))
        unlink(ram);
    free(path);
}

/* --- the copies --- */

static bool names_engine(const struct copying *c) {
    for (int n = 0; n < c->options; n++)
        if (!strncmp(c->option[n], "--engine", 8))
            return true;
    return false;
}

/* What the machine says that it runs on, if that is an engine; or NULL. */
static const char *engine_of(struct copying *c) {
    cJSON *answer = ask(c->fd, "{\"command\":\"about\"}\n");
    const cJSON *said = cJSON_GetObjectItem(answer, "engine");
    const struct engine_ops *const *engines;
    const char *name = NULL;
    size_t count;

    engines = machine_engines(&count);
    for (size_t n = 0; n < count && cJSON_IsString(said); n++)
        if (!strcmp(engines[n]->name, said->valuestring))
            name = engines[n]->name;
    cJSON_Delete(answer);
    return name;
}

/* What the machine has found out of this host's KVM, none of the copies does again: it
 * takes each some time, and much where a hypervisor emulates it. */
static void take_engine(struct copying *c) {
    const char *engine = names_engine(c) ? NULL : engine_of(c);

    if (engine)
        c->own = calloc((size_t)c->options + 2, sizeof(*c->own));
    if (!engine || !c->own)
        return;
    c->own[0] = (char *)(uintptr_t) "--engine";
    c->own[1] = (char *)(uintptr_t)engine;
    if (c->options)
        memcpy(&c->own[2], c->option, (size_t)c->options * sizeof(*c->own));
    c->option = c->own;
    c->options += 2;
}

/* Those that cannot be prepared end; how many are. */
static int prepare(struct copying *c) {
    const struct copy_order order = {c->whole, c->option, c->options, c->front};
    int good = 0, started = 0;

    fflush(stdout); /* else children would say it once more */
    while (started < c->count && copy_prepare(c->copy, (unsigned)started, &order))
        started++;
    for (int n = 0; n < c->count; n++) {
        struct copy *copy = &c->copy[n];

        if (n < started && copy_hear(copy, COPY_WAITS))
            good++;
        else
            copy_end(copy);
    }
    return good;
}

static void tell_time(const struct copying *c, const struct copy *copy) {
    double ms = (double)(os_monotonic_ns() - c->asked_ns) * 1e-6;

    if (c->times)
        printf("%s: runs after %.2f ms, of which the machine stood for %.2f\n",
               copy->name, ms, c->pause_ms);
}

/* How many run. */
static int release(struct copying *c, int state, int ram) {
    int good = 0;

    for (int n = 0; n < c->count; n++)
        if (c->copy[n].socket >= 0)
            copy_tell(&c->copy[n], state, ram);
    for (int n = 0; n < c->count; n++)
        if (c->copy[n].socket >= 0 && copy_hear(&c->copy[n], COPY_RUNS))
            tell_time(c, &c->copy[n]);
    for (int n = 0; n < c->count; n++)
        if (c->copy[n].socket >= 0)
            good += c->copy[n].runs = copy_end(&c->copy[n]);
    return good;
}

/* The machine stands for a moment, and the copies run from there: how many. */
static int begin(struct copying *c) {
    char path[4096];
    int state, ram, good = 0;

    c->asked_ns = os_monotonic_ns();
    c->change = freeze(c, true);
    if (!c->change || !ram_path(c->change, path, sizeof(path)))
        return 0;
    state = open(c->change, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ram = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (state >= 0 && ram >= 0)
        good = release(c, state, ram);
    else
        log_error("cannot read '%s': %s", c->change, strerror(errno));
    if (state >= 0)
        close(state);
    if (ram >= 0)
        close(ram);
    return good;
}

int copying_run(struct copying *c) {
    int good = 0;

    take_engine(c);
    c->whole = freeze(c, false);
    if (c->whole && prepare(c)) {
        if (c->prepared)
            c->prepared();
        good = begin(c);
    }
    for (int n = 0; n < c->count; n++)
        if (c->copy[n].socket >= 0)
            copy_end(&c->copy[n]);
    drop(c->change);
    drop(c->whole);
    free(c->own);
    c->own = NULL;
    if (good && good < c->count) /* why, has been said */
        log_error("only %d of %d copies run", good, c->count);
    return good;
}

/* --- for clients of the API --- */

/* A copy is as locked up as what it is a copy of. */
static char **options_of(const struct forker_plan *plan, int *count) {
    static const char *const jails[] = {
        [JAIL_AUTO] = "auto", [JAIL_ON] = "require", [JAIL_OFF] = "off"};
    char **option;
    int n = 0;

    while (plan->option && plan->option[n])
        n++;
    option = calloc((size_t)n + 3, sizeof(*option));
    if (!option)
        return NULL;
    option[0] = (char *)(uintptr_t) "--jail";
    option[1] = (char *)(uintptr_t)jails[plan->of->jail];
    if (n)
        memcpy(&option[2], plan->option, (size_t)n * sizeof(*option));
    *count = n + 2;
    return option;
}

void copying_for_api(const struct forker_plan *plan, int socket, char *const *names,
                     bool *runs, char *const *apis, int count) {
    const struct ctl_front front = {.of = plan->of, .copies = copying_for_api};
    struct copying *c = calloc(1, sizeof(*c));
    char **given;

    if (c)
        c->option = options_of(plan, &c->options);
    given = c ? c->option : NULL;
    if (given) {
        c->fd = socket;
        c->dir = plan->dir;
        c->front = &front;
        for (; c->count < count; c->count++)
            c->copy[c->count] = (struct copy){
                .name = names[c->count], .api = apis[c->count], .socket = -1};
        copying_run(c);
        for (int n = 0; n < count; n++)
            runs[n] = c->copy[n].runs;
        free(given);
    } else {
        log_error("out of memory");
    }
    free(c);
}

/*
 * The control socket for programs that know QEMU's: "QEMU Machine Protocol
 * Specification". A client is greeted, sends
 *
 *     {"execute": "stop", "arguments": {}, "id": 7}
 *
 * and gets {"return": {}, "id": 7} or {"error": {"class": C, "desc": D}, "id": 7}. What
 * it asks for is done by commands of the table (control.h), so that there is one way in.
 * The client's own doings come back to it as events, those of others do not; resets and
 * the end of the run are told to all (control_event()).
 *
 * What it is not: all of QEMU's. What is missing is CommandNotFound, as of an older
 * QEMU's. The negotiation of capabilities, of which there are none, may be left out.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "control/control_int.h"

#define VERSION "{\"qemu\":{\"micro\":0,\"minor\":2,\"major\":7},\"package\":\"bivisor\"}"
#define CPUS_MAX 256
#define SHOWN_MAX 64 /* bytes of a name that is told back */
#define KEY_LETTERS "abcdefghijklmnopqrstuvwxyz0123456789_"

const char qmp_greeting[] = "{\"QMP\":{\"version\":" VERSION ",\"capabilities\":[]}}\r\n";

/* A request on its way: what the table said, and what the client is told. */
struct qmp {
    const struct control_table *table;
    const cJSON *args;
    cJSON *got;        /* the table's answer */
    const char *class; /* of an error; NULL: it went well */
    char why[512];
    const char *event; /* that it led to; NULL: none */
};

/* --- the table's commands --- */

static bool fail(struct qmp *q, const char *class, const char *format, const char *what) {
    q->class = class;
    snprintf(q->why, sizeof(q->why), format, what);
    return false;
}

/* Asks the table with LINE. False: it refuses. */
static bool ask_line(struct qmp *q, const char *line) {
    cJSON_Delete(q->got);
    q->got = control_ask(q->table, line, q->why, sizeof(q->why));
    q->class = q->got ? NULL : "GenericError";
    return q->got;
}

static bool ask(struct qmp *q, const char *command) {
    char line[64];

    snprintf(line, sizeof(line), "{\"command\":\"%s\"}", command);
    return ask_line(q, line);
}

static double number(const struct qmp *q, const char *name) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(q->got, name);

    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

static bool is_true(const struct qmp *q, const char *name) {
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(q->got, name));
}

static const char *text(const cJSON *object, const char *name) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, name);

    return cJSON_IsString(value) ? value->valuestring : NULL;
}

/* --- answers: NULL with a class when it was refused, or without when memory is short ---
 */

static cJSON *nothing(struct qmp *q) {
    return cJSON_CreateObject();
}

static cJSON *version(struct qmp *q) {
    return cJSON_Parse(VERSION);
}

static cJSON *status(struct qmp *q) {
    cJSON *o = ask(q, "about") ? cJSON_CreateObject() : NULL;
    bool paused = is_true(q, "paused");

    if (o && (!cJSON_AddStringToObject(o, "status", paused ? "paused" : "running") ||
              !cJSON_AddBoolToObject(o, "singlestep", false) ||
              !cJSON_AddBoolToObject(o, "running", !paused))) {
        cJSON_Delete(o);
        return NULL;
    }
    return o;
}

static cJSON *kvm(struct qmp *q) {
    bool enabled = ask(q, "about") && text(q->got, "engine") &&
                   !strcmp(text(q->got, "engine"), "kvm");
    char json[64];

    if (q->class)
        return NULL;
    snprintf(json, sizeof(json), "{\"enabled\":%s,\"present\":%s}",
             enabled ? "true" : "false", enabled ? "true" : "false");
    return cJSON_Parse(json);
}

static cJSON *name(struct qmp *q) {
    cJSON *o = ask(q, "about") ? cJSON_CreateObject() : NULL;
    const char *is = text(q->got, "name");

    if (o && is && !cJSON_AddStringToObject(o, "name", is)) {
        cJSON_Delete(o);
        return NULL;
    }
    return o;
}

static cJSON *uuid(struct qmp *q) {
    cJSON *o = ask(q, "about") ? cJSON_CreateObject() : NULL;
    const char *is = text(q->got, "uuid");

    if (!is) /* nobody gave it one */
        is = "00000000-0000-0000-0000-000000000000";
    if (o && !cJSON_AddStringToObject(o, "UUID", is)) {
        cJSON_Delete(o);
        return NULL;
    }
    return o;
}

static cJSON *memory(struct qmp *q) {
    char json[64];

    if (!ask(q, "about"))
        return NULL;
    snprintf(json, sizeof(json), "{\"base-memory\":%.0f}", number(q, "memory"));
    return cJSON_Parse(json);
}

static cJSON *cpus(struct qmp *q) {
    cJSON *list = ask(q, "about") ? cJSON_CreateArray() : NULL;
    char json[128];

    for (int n = 0; list && n < number(q, "cpus") && n < CPUS_MAX; n++) {
        snprintf(json, sizeof(json),
                 "{\"cpu-index\":%d,\"thread-id\":%.0f,\"target\":\"x86_64\","
                 "\"qom-path\":\"/machine/unattached/device[%d]\"}",
                 n, number(q, "pid"), n);
        if (!cJSON_AddItemToArray(list, cJSON_Parse(json))) {
            cJSON_Delete(list);
            return NULL;
        }
    }
    return list;
}

/* What has an answer of nothing. */
static cJSON *done(struct qmp *q, const char *command, const char *event) {
    if (!ask(q, command))
        return NULL;
    q->event = event;
    return cJSON_CreateObject();
}

static cJSON *stop(struct qmp *q) {
    return done(q, "pause", "STOP");
}

static cJSON *cont(struct qmp *q) {
    return done(q, "resume", "RESUME");
}

static cJSON *reset(struct qmp *q) {
    return done(q, "reset", NULL);
}

static cJSON *powerdown(struct qmp *q) {
    return done(q, "powerdown", "POWERDOWN");
}

static cJSON *quit(struct qmp *q) {
    return done(q, "quit", NULL);
}

/* How much is the guest's, in bytes; the table says how much it has given away. */
static cJSON *ballooned(struct qmp *q) {
    char json[64];
    double all;

    if (!ask(q, "about"))
        return NULL;
    all = number(q, "memory");
    if (!ask(q, "balloon"))
        return NULL;
    snprintf(json, sizeof(json), "{\"actual\":%.0f}", all - number(q, "pages") * 4096);
    return cJSON_Parse(json);
}

static cJSON *balloon(struct qmp *q) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(q->args, "value");
    char line[96];
    double away;

    if (!cJSON_IsNumber(value)) {
        fail(q, "GenericError", "%s", "Parameter 'value' is missing");
        return NULL;
    }
    if (!ask(q, "about"))
        return NULL;
    away = (number(q, "memory") - value->valuedouble) / (1 << 20);
    snprintf(line, sizeof(line), "{\"command\":\"balloon\",\"mib\":%.0f}",
             away > 0 ? away : 0);
    return ask_line(q, line) ? cJSON_CreateObject() : NULL;
}

/* Which CD-ROM drive QEMU's name means: 1 is where ide1-cd1 is. */
static unsigned drive_of(const struct qmp *q) {
    const char *id = text(q->args, "id");

    id = id ? id : text(q->args, "device");
    return id && !strcmp(id, "ide1-cd1");
}

static cJSON *move_tray(struct qmp *q, bool open) {
    char line[96];

    snprintf(line, sizeof(line),
             "{\"command\":\"tray\",\"drive\":%u,\"open\":%s,\"force\":%s}", drive_of(q),
             open ? "true" : "false",
             cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(q->args, "force")) ? "true"
                                                                              : "false");
    return ask_line(q, line) ? cJSON_CreateObject() : NULL;
}

static cJSON *open_tray(struct qmp *q) {
    return move_tray(q, true);
}

static cJSON *close_tray(struct qmp *q) {
    return move_tray(q, false);
}

static cJSON *change_medium(struct qmp *q) {
    const char *file = text(q->args, "filename");
    cJSON *request = cJSON_CreateObject();
    char *line = NULL;
    bool good;

    if (!file)
        fail(q, "GenericError", "%s", "Parameter 'filename' is missing");
    else if (request && cJSON_AddStringToObject(request, "command", "disc") &&
             cJSON_AddNumberToObject(request, "drive", drive_of(q)) &&
             cJSON_AddStringToObject(request, "path", file) &&
             cJSON_AddBoolToObject(
                 request, "force",
                 cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(q->args, "force"))))
        line = cJSON_PrintUnformatted(request);
    good = line && ask_line(q, line);
    cJSON_free(line);
    cJSON_Delete(request);
    return good ? cJSON_CreateObject() : NULL;
}

/* A list of {"type": "qcode", "data": NAME}, which are pressed at once. */
static cJSON *keys(struct qmp *q) {
    const cJSON *key, *list = cJSON_GetObjectItemCaseSensitive(q->args, "keys");
    char line[256] = "{\"command\":\"keys\",\"keys\":\"";
    size_t len = strlen(line);

    cJSON_ArrayForEach(key, list) {
        const char *name = text(key, "data");

        if (!name || strspn(name, KEY_LETTERS) != strlen(name) ||
            len + strlen(name) + 4 > sizeof(line)) {
            fail(
                q, "GenericError", "%s",
                "Parameter 'keys' is a list of keys by the names that they have (qcode)");
            return NULL;
        }
        len += (size_t)snprintf(line + len, sizeof(line) - len, "%s%s",
                                key == list->child ? "" : "-", name);
    }
    snprintf(line + len, sizeof(line) - len, "\"}");
    return ask_line(q, line) ? cJSON_CreateObject() : NULL;
}

static cJSON *screendump(struct qmp *q) {
    fail(q, "GenericError", "%s",
         "a machine that runs opens no files: `bivisor screenshot --control PATH` "
         "makes a picture");
    return NULL;
}

static cJSON *names(struct qmp *q);
static cJSON *human(struct qmp *q);

static const struct command {
    const char *name;
    cJSON *(*run)(struct qmp *q);
} commands[] = {
    {"qmp_capabilities", nothing},
    {"query-status", status},
    {"query-version", version},
    {"query-commands", names},
    {"query-kvm", kvm},
    {"query-name", name},
    {"query-uuid", uuid},
    {"query-cpus-fast", cpus},
    {"query-memory-size-summary", memory},
    {"stop", stop},
    {"cont", cont},
    {"system_reset", reset},
    {"system_powerdown", powerdown},
    {"quit", quit},
    {"query-balloon", ballooned},
    {"balloon", balloon},
    {"send-key", keys},
    {"eject", open_tray},
    {"blockdev-open-tray", open_tray},
    {"blockdev-close-tray", close_tray},
    {"blockdev-change-medium", change_medium},
    {"screendump", screendump},
    {"human-monitor-command", human},
};

static cJSON *names(struct qmp *q) {
    cJSON *list = cJSON_CreateArray();

    for (size_t n = 0; list && n < ARRAY_SIZE(commands); n++) {
        cJSON *o = cJSON_CreateObject();

        if (!o || !cJSON_AddStringToObject(o, "name", commands[n].name) ||
            !cJSON_AddItemToArray(list, o)) {
            cJSON_Delete(o);
            cJSON_Delete(list);
            return NULL;
        }
    }
    return list;
}

/* What the monitor would write. */
static cJSON *human(struct qmp *q) {
    const char *line = text(q->args, "command-line");
    cJSON *answer;
    char *words;

    if (!line) {
        fail(q, "GenericError", "%s", "Parameter 'command-line' is missing");
        return NULL;
    }
    words = control_words(q->table, line, &q->event);
    answer = words ? cJSON_CreateString(words) : NULL;
    free(words);
    return answer;
}

/* --- requests --- */

static cJSON *execute(struct qmp *q, const cJSON *request) {
    const char *what = text(request, "execute");

    q->args = cJSON_GetObjectItemCaseSensitive(request, "arguments");
    if (!what) {
        fail(q, "GenericError", "%s", "QMP input lacks member 'execute'");
        return NULL;
    }
    for (size_t n = 0; n < ARRAY_SIZE(commands); n++)
        if (!strcmp(commands[n].name, what))
            return commands[n].run(q);
    fail(q, "CommandNotFound", "The command %s has not been found",
         strlen(what) <= SHOWN_MAX ? what : "of so long a name");
    return NULL;
}

/* The line for RESULT, which is taken over, or for what went wrong. */
static char *line_of(const struct qmp *q, cJSON *result, const cJSON *id) {
    cJSON *o = cJSON_CreateObject(), *error;
    char *line = NULL;
    bool good = o;

    if (result) {
        if (!o || !cJSON_AddItemToObject(o, "return", result)) {
            cJSON_Delete(result);
            good = false;
        }
    } else {
        error = o ? cJSON_AddObjectToObject(o, "error") : NULL;
        good =
            error &&
            cJSON_AddStringToObject(error, "class",
                                    q->class ? q->class : "GenericError") &&
            cJSON_AddStringToObject(error, "desc", q->class ? q->why : "out of memory");
    }
    if (good && id)
        good = cJSON_AddItemToObject(o, "id", cJSON_Duplicate(id, true));
    if (good)
        line = cJSON_PrintUnformatted(o);
    cJSON_Delete(o);
    return line;
}

void qmp_event(char *to, size_t size, const char *event, const char *reason) {
    uint64_t us = os_realtime_ns() / 1000;
    char data[96] = "";

    if (reason)
        snprintf(data, sizeof(data), ",\"data\":{\"guest\":%s,\"reason\":\"%s\"}",
                 !strncmp(reason, "guest-", 6) ? "true" : "false", reason);
    snprintf(to, size,
             "{\"timestamp\":{\"seconds\":%llu,\"microseconds\":%llu},\"event\":"
             "\"%s\"%s}\r\n",
             (unsigned long long)(us / 1000000), (unsigned long long)(us % 1000000),
             event, data);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

char *qmp_answer(const struct control_table *t, const char *line, size_t len) {
    struct qmp q = {.table = t};
    char event[160] = "", *text, *whole = NULL;
    cJSON *request = NULL, *result = NULL;
    const char *why;

    for (; len && is_blank(*line); len--)
        line++;
    why = control_check(line, len);
    if (!why)
        request = cJSON_ParseWithLength(line, len);

    if (why || !cJSON_IsObject(request))
        fail(&q, "GenericError", "%s", why ? why : "QMP input must be a JSON object");
    else
        result = execute(&q, request);
    text = line_of(&q, result,
                   request ? cJSON_GetObjectItemCaseSensitive(request, "id") : NULL);
    if (q.event)
        qmp_event(event, sizeof(event), q.event, NULL);
    if (!text || asprintf(&whole, "%s%s\r\n", event, text) < 0)
        whole = NULL;
    cJSON_free(text);
    cJSON_Delete(q.got);
    cJSON_Delete(request);
    return whole;
}

/* --- where requests end --- */

/* Clients need not send a newline: an object ends with its bracket. What is no object
 * ends with its line. */
size_t qmp_length(const char *in, size_t len) {
    size_t at = 0, depth = 0;
    const char *end;
    bool quoted = false;

    while (at < len && is_blank(in[at]))
        at++;
    if (at < len && in[at] != '{') {
        end = memchr(in + at, '\n', len - at);
        return end ? (size_t)(end - in) + 1 : 0;
    }
    for (; at < len; at++) {
        if (quoted && in[at] == '\\')
            at++;
        else if (in[at] == '"')
            quoted = !quoted;
        else if (!quoted && (in[at] == '{' || in[at] == '['))
            depth++;
        else if (!quoted && (in[at] == '}' || in[at] == ']') && !--depth)
            return at + 1;
    }
    return 0;
}

/* What a request names, as execute() comes to it. */
static bool request_names(const cJSON *request, char *path, size_t size) {
    const cJSON *args = cJSON_GetObjectItemCaseSensitive(request, "arguments");
    const char *what = text(request, "execute"), *file = text(args, "filename");
    const char *line = text(args, "command-line");

    if (what && file && !strcmp(what, "blockdev-change-medium"))
        return (size_t)snprintf(path, size, "%s", file) < size;
    return what && line && !strcmp(what, "human-monitor-command") &&
           words_name(line, path, size);
}

bool qmp_name(const char *line, size_t len, char *path, size_t size) {
    cJSON *request;
    bool named;

    for (; len && is_blank(*line); len--)
        line++;
    if (control_check(line, len))
        return false;
    request = cJSON_ParseWithLength(line, len);
    named = request_names(request, path, size);
    cJSON_Delete(request);
    return named;
}

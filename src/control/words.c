/*
 * The words of QEMU's monitor: a line of them, and lines of text back, for users at a
 * terminal, scripts at a socket, and QMP's `human-monitor-command`. As with QMP, what
 * they ask for is done by commands of the table (control.h).
 */
#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/control_int.h"

#define LINE_MAX_SHOWN 64 /* bytes of a line that is told back */
#define WORDS_LINE 1024u  /* a longer one is cut */
#define OUT_SIZE 4096u    /* the longest answer is help's */

/* A line on its way. */
struct words {
    const struct control_table *table;
    const char *rest; /* what stands behind the command */
    const char *event;
    char out[OUT_SIZE];
    size_t len;
};

__attribute__((format(printf, 2, 3))) static void say(struct words *w, const char *format,
                                                      ...) {
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(w->out + w->len, sizeof(w->out) - w->len, format, args);
    va_end(args);
    if (n > 0 && (size_t)n < sizeof(w->out) - w->len)
        w->len += (size_t)n;
    w->out[w->len] = 0;
}

/* Asks the table for COMMAND with the arguments in REQUEST, which may be NULL. NULL: it
 * refuses, which is said. */
static cJSON *ask_all(struct words *w, const char *command, cJSON *request) {
    char *line = NULL, why[512] = "out of memory";
    cJSON *answer = NULL;

    if (request && cJSON_AddStringToObject(request, "command", command))
        line = cJSON_PrintUnformatted(request);
    if (line)
        answer = control_ask(w->table, line, why, sizeof(why));
    if (!answer)
        say(w, "Error: %s\r\n", why);
    cJSON_free(line);
    return answer;
}

/* The same with an argument, or none. */
static cJSON *ask(struct words *w, const char *command, const char *name, cJSON *value) {
    cJSON *request = cJSON_CreateObject(), *answer;

    if (request && name)
        cJSON_AddItemToObject(request, name, value);
    answer = ask_all(w, command, request);
    cJSON_Delete(request);
    return answer;
}

static double number(const cJSON *o, const char *name) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(o, name);

    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

static const char *text(const cJSON *o, const char *name) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(o, name);

    return cJSON_IsString(value) ? value->valuestring : "";
}

/* --- what is done --- */

static void tell(struct words *w, const char *command, const char *event) {
    cJSON *answer = ask(w, command, NULL, NULL);

    if (answer)
        w->event = event;
    cJSON_Delete(answer);
}

static void do_stop(struct words *w) {
    tell(w, "pause", "STOP");
}

static void do_cont(struct words *w) {
    tell(w, "resume", "RESUME");
}

static void do_reset(struct words *w) {
    tell(w, "reset", NULL);
}

static void do_powerdown(struct words *w) {
    tell(w, "powerdown", "POWERDOWN");
}

static void do_quit(struct words *w) {
    tell(w, "quit", NULL);
}

/* Keys, and perhaps for how long they are held, which they are not. */
static void do_sendkey(struct words *w) {
    char keys[128];

    snprintf(keys, sizeof(keys), "%.*s", (int)strcspn(w->rest, " "), w->rest);
    cJSON_Delete(ask(w, "keys", "keys", cJSON_CreateString(keys)));
}

/* [-f] DRIVE, by QEMU's names; what stands behind it. */
static const char *take_drive(const char *rest, bool *force, unsigned *drive) {
    size_t len;

    *force = !strncmp(rest, "-f ", 3);
    rest += *force ? 3 : 0;
    len = strcspn(rest, " ");
    *drive = len == 8 && !strncmp(rest, "ide1-cd1", len);
    return rest + len + strspn(rest + len, " ");
}

static cJSON *drive_request(bool force, unsigned drive) {
    cJSON *request = cJSON_CreateObject();

    if (request && cJSON_AddBoolToObject(request, "force", force) &&
        cJSON_AddNumberToObject(request, "drive", drive))
        return request;
    cJSON_Delete(request);
    return NULL;
}

static void do_eject(struct words *w) {
    cJSON *request;
    unsigned drive;
    bool force;

    take_drive(w->rest, &force, &drive);
    request = drive_request(force, drive);
    cJSON_Delete(ask_all(w, "tray", request));
    cJSON_Delete(request);
}

/* A file, in quotes if there are blanks in its name; what QEMU has behind it (its format)
 * says nothing of a disc. */
static void take_file(const char *from, char *file, size_t size) {
    bool quoted = *from == '"';

    from += quoted;
    snprintf(file, size, "%.*s", (int)strcspn(from, quoted ? "\"" : " "), from);
}

static void do_change(struct words *w) {
    char file[WORDS_LINE];
    cJSON *request;
    unsigned drive;
    bool force;

    take_file(take_drive(w->rest, &force, &drive), file, sizeof(file));
    if (!*file) {
        say(w, "change: FILE is missing\r\n");
        return;
    }
    request = drive_request(force, drive);
    if (request && cJSON_AddStringToObject(request, "path", file))
        cJSON_Delete(ask_all(w, "disc", request));
    cJSON_Delete(request);
}

/* QEMU says how much is the guest's, the table how much it gives away. */
static void do_balloon(struct words *w) {
    cJSON *about = ask(w, "about", NULL, NULL);
    double all = number(about, "memory") / (1 << 20), want = strtod(w->rest, NULL);

    if (about)
        cJSON_Delete(
            ask(w, "balloon", "mib",
                cJSON_CreateNumber(want < all ? (double)(int64_t)(all - want) : 0)));
    cJSON_Delete(about);
}

/* The host's side of a rule, [tcp|udp]:[ADDR]:PORT up to END or its end, as the table has
 * it: QEMU means all of the host's addresses where there is none. False: it is none. */
static bool host_side(const char *rule, const char *end, char *out, size_t size) {
    const char *addr = strchr(rule, ':'), *port = addr ? strchr(addr + 1, ':') : NULL;

    end = end ? end : rule + strlen(rule);
    if (!port || port >= end)
        return false;
    return snprintf(out, size, "%.*s:%.*s%.*s", addr == rule ? 3 : (int)(addr - rule),
                    addr == rule ? "tcp" : rule,
                    port == addr + 1 ? 7 : (int)(port - addr - 1),
                    port == addr + 1 ? "0.0.0.0" : addr + 1, (int)(end - port),
                    port) < (int)size;
}

/* The last word of the line, where a netdev's name may stand before it. */
static const char *rule_of(const struct words *w) {
    const char *rule = strrchr(w->rest, ' ');

    return rule ? rule + 1 : w->rest;
}

static void bad_rule(struct words *w) {
    say(w, "invalid host forwarding rule '%.*s'\r\n", LINE_MAX_SHOWN, rule_of(w));
}

/* The host's side, and -[GUESTADDR]:PORT. */
static void do_forward(struct words *w) {
    const char *rule = rule_of(w), *dash = strchr(rule, '-');
    const char *guest = dash ? strrchr(dash, ':') : NULL;
    char host[96], text[128];

    if (!guest || !host_side(rule, dash, host, sizeof(host))) {
        bad_rule(w);
        return;
    }
    snprintf(text, sizeof(text), "%s%s", host, guest);
    cJSON_Delete(ask(w, "forward", "add", cJSON_CreateString(text)));
}

/* The host's side alone. */
static void do_unforward(struct words *w) {
    const char *rule = rule_of(w), *found = NULL;
    const cJSON *f;
    char host[96];
    cJSON *all;

    if (!host_side(rule, NULL, host, sizeof(host) - 1)) {
        bad_rule(w);
        return;
    }
    strcat(host, ":");
    all = ask(w, "forward", NULL, NULL);
    cJSON_ArrayForEach(f, cJSON_GetObjectItemCaseSensitive(all, "forwards")) {
        if (!strncmp(text(f, "forward"), host, strlen(host)))
            found = text(f, "forward");
    }
    if (found)
        cJSON_Delete(ask(w, "forward", "drop", cJSON_CreateString(found)));
    if (all)
        say(w, "host forwarding rule for %s %s\r\n", rule,
            found ? "removed" : "not found");
    cJSON_Delete(all);
}

/* --- what is told --- */

static void do_status(struct words *w) {
    cJSON *about = ask(w, "about", NULL, NULL);

    if (about)
        say(w, "VM status: %s\r\n",
            cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(about, "paused")) ? "paused"
                                                                            : "running");
    cJSON_Delete(about);
}

static void do_kvm(struct words *w) {
    cJSON *about = ask(w, "about", NULL, NULL);

    if (about)
        say(w, "kvm support: %s\r\n",
            strcmp(text(about, "engine"), "kvm") ? "disabled" : "enabled");
    cJSON_Delete(about);
}

static void do_name(struct words *w) {
    cJSON *about = ask(w, "about", NULL, NULL);

    if (about && *text(about, "name"))
        say(w, "%s\r\n", text(about, "name"));
    cJSON_Delete(about);
}

static void do_cpus(struct words *w) {
    cJSON *about = ask(w, "about", NULL, NULL);

    for (int n = 0; about && n < number(about, "cpus"); n++)
        say(w, "%c CPU #%d: thread_id=%.0f\r\n", n ? ' ' : '*', n, number(about, "pid"));
    cJSON_Delete(about);
}

static void do_memory(struct words *w) {
    cJSON *about = ask(w, "about", NULL, NULL);

    if (about)
        say(w, "base memory: %.0f\r\nplugged memory: 0\r\n", number(about, "memory"));
    cJSON_Delete(about);
}

static void do_ballooned(struct words *w) {
    cJSON *about = ask(w, "about", NULL, NULL),
          *balloon = about ? ask(w, "balloon", NULL, NULL) : NULL;

    if (balloon)
        say(w, "balloon: actual=%.0f\r\n",
            (number(about, "memory") - number(balloon, "pages") * 4096) / (1 << 20));
    cJSON_Delete(balloon);
    cJSON_Delete(about);
}

static void do_version(struct words *w) {
    say(w, CONTROL_QEMU_VERSION " (bivisor)\r\n");
}

/* --- the table --- */

static void do_help(struct words *w);

static const struct word {
    const char *name, *other;
    void (*run)(struct words *w); /* NULL: it cannot be done, WHAT is what to do */
    const char *what;
    const char *args; /* NULL: it has none */
} list[] = {
    {"help", "?", do_help, "this list", NULL},
    {"info status", NULL, do_status, "whether the guest runs", NULL},
    {"info version", NULL, do_version, "whose words these are", NULL},
    {"info name", NULL, do_name, "the machine's name", NULL},
    {"info cpus", NULL, do_cpus, "its CPUs", NULL},
    {"info memory_size_summary", NULL, do_memory, "its memory", NULL},
    {"info balloon", NULL, do_ballooned, "how much of it the guest has", NULL},
    {"info kvm", NULL, do_kvm, "whether KVM runs the guest", NULL},
    {"stop", "s", do_stop, "the guest, and its time, stand still", NULL},
    {"cont", "c", do_cont, "they go on", NULL},
    {"balloon", NULL, do_balloon, "so many MiB are the guest's", "MIB"},
    {"eject", NULL, do_eject, "the disc is out; with -f though the guest holds it",
     "[-f] DRIVE"},
    {"change", NULL, do_change, "another disc is in; with -f though the guest holds it",
     "[-f] DRIVE FILE"},
    {"sendkey", NULL, do_sendkey, "presses keys, as ctrl-alt-f1", "KEYS"},
    {"hostfwd_add", NULL, do_forward, "a port of the host's leads to the guest", "RULE"},
    {"hostfwd_remove", NULL, do_unforward, "it leads there no more", "RULE"},
    {"system_reset", NULL, do_reset, "as the reset button", NULL},
    {"system_powerdown", NULL, do_powerdown,
     "as the power button: the guest may shut down", NULL},
    {"quit", "q", do_quit, "the run ends now", NULL},
    {"screendump", NULL, NULL, "`bivisor screenshot --control PATH` makes a picture",
     "FILE"},
    {"savevm", NULL, NULL, "`bivisor snapshot` freezes a machine", "NAME"},
    {"loadvm", NULL, NULL, "`bivisor restore` thaws a machine", "NAME"},
    {"migrate", NULL, NULL, "`bivisor snapshot` and `bivisor restore` move a machine",
     "URI"},
    {"device_add", NULL, NULL, "what the machine has it has from the beginning",
     "DEVICE"},
    {"device_del", NULL, NULL, "what the machine has it has to the end", "DEVICE"},
};

static void do_help(struct words *w) {
    for (size_t n = 0; n < ARRAY_SIZE(list); n++) {
        char left[48];

        if (!list[n].run)
            continue;
        snprintf(left, sizeof(left), "%s%s%s", list[n].name, list[n].args ? " " : "",
                 list[n].args ? list[n].args : "");
        say(w, "%-26s%s\r\n", left, list[n].what);
    }
}

/* LINE begins with NAME: what stands behind it, or NULL. */
static const char *behind(const char *line, const char *name) {
    size_t len = strlen(name);

    if (strncmp(line, name, len) != 0 || (line[len] && line[len] != ' '))
        return NULL;
    return line + len + strspn(line + len, " ");
}

static void execute(struct words *w, const char *line) {
    for (size_t n = 0; n < ARRAY_SIZE(list); n++) {
        const struct word *x = &list[n];

        w->rest = behind(line, x->name);
        if (!w->rest && x->other)
            w->rest = behind(line, x->other);
        if (!w->rest || (*w->rest && !x->args))
            continue;
        if (!x->run)
            say(w, "Error: %s is not possible here: %s\r\n", x->name, x->what);
        else if (x->args && !*w->rest)
            say(w, "%s: %s is missing\r\n", x->name, x->args);
        else
            x->run(w);
        return;
    }
    if (*line)
        say(w, "unknown command: '%.*s'; help lists them\r\n", LINE_MAX_SHOWN, line);
}

/* LINE without what is blank around it, and of visible characters. */
static void clean_line(const char *line, char clean[WORDS_LINE]) {
    size_t len;

    line += strspn(line, " \t");
    snprintf(clean, WORDS_LINE, "%s", line);
    for (len = strlen(clean); len && strchr(" \t\r\n", clean[len - 1]);)
        clean[--len] = 0;
    for (size_t n = 0; n < len; n++)
        if ((uint8_t)clean[n] < ' ' || (uint8_t)clean[n] > '~')
            clean[n] = '?';
}

char *control_words(const struct control_table *t, const char *line, const char **event) {
    struct words w = {.table = t};
    char clean[WORDS_LINE];

    clean_line(line, clean);
    execute(&w, clean);
    if (event)
        *event = w.event;
    return strdup(w.out);
}

bool words_name(const char *line, char *path, size_t size) {
    char clean[WORDS_LINE];
    const char *rest;
    unsigned drive;
    bool force;

    clean_line(line, clean);
    rest = behind(clean, "change");
    if (!rest)
        return false;
    take_file(take_drive(rest, &force, &drive), path, size);
    return *path;
}

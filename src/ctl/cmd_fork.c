/*
 * `bivisor fork`: copies of a machine that runs, each a process and a machine with a name
 * of its own.
 *
 * All that takes time happens while the machine goes on: a whole snapshot of it is made,
 * whose memory all copies will show, and the copies are prepared from that (ctl/copy.h).
 * Then an incremental one is made, for which the machine stands for a moment, and the
 * copies take over what it has. The files lose their names then, and are there as long
 * as one of the copies is.
 *
 * Nothing is done here that a user could not do by hand: the machine that is copied needs
 * nothing that its jail does not have.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/types.h"
#include "ctl/ask.h"
#include "ctl/copies.h"
#include "ctl/ctl.h"
#include "ctl/runtime.h"

#define COPIES_MAX 256

struct fork_order {
    struct ask_machine m;
    struct copy copy[COPIES_MAX];
    int count;
    char **option; /* of all of them */
    int options;
    bool waits; /* prepared, until somebody says so */
    bool times;
    int fd;               /* the machine's control socket */
    char *whole, *change; /* the snapshots' files */
    double pause_ms;
    uint64_t asked_ns;
};

static void print_help(void) {
    printf("usage: bivisor fork [--wait] [--times] NAME COPY... [-- OPTION...]\n"
           "\n"
           "Makes machines called COPY that go on where NAME is now, in the background. "
           "NAME\n"
           "goes on, too. It has been started with --snapshots DIR, where its state and "
           "memory\n"
           "are put meanwhile. OPTIONs are as for `bivisor restore`: what the copies "
           "cannot\n"
           "share with NAME (a disk that is written to, a port of this host) has to be\n"
           "replaced.\n"
           "\n"
           "NAME is what its `bivisor run` has by --name, or --control PATH.\n"
           "--wait   says 'prepared' when all copies are, and goes on with them when a "
           "line\n"
           "         comes at standard input: that takes a few milliseconds\n"
           "--times  says how many, of each copy, from the request on until it runs\n"
           "\n"
           "exit status: 0; 1 when not all copies run\n"
           "\n"
           "example: bivisor fork web web1 web2 -- --net user\n");
}

/* Takes the options of our own: how many words. */
static int take_flags(int argc, char **argv, struct fork_order *o) {
    int n = 0;

    for (; n < argc; n++) {
        if (!strcmp(argv[n], "--wait"))
            o->waits = true;
        else if (!strcmp(argv[n], "--times"))
            o->times = true;
        else
            break;
    }
    return n;
}

/* False after a message. */
static bool take(int argc, char **argv, struct fork_order *o) {
    int flags = take_flags(argc - 1, argv + 1, o), words;

    argc -= 1 + flags;
    argv += 1 + flags;
    words = ask_take_machine("fork", argc, argv, &o->m);
    if (words < 0)
        return false;
    for (; words < argc && strcmp(argv[words], "--") != 0; words++) {
        if (o->count == COPIES_MAX || !runtime_check_name(argv[words]))
            break;
        o->copy[o->count++] = (struct copy){.name = argv[words], .socket = -1};
    }
    if (words < argc && strcmp(argv[words], "--") != 0 && o->count < COPIES_MAX)
        return false; /* no name, which has been said */
    if (!o->count || (words < argc && strcmp(argv[words], "--") != 0)) {
        log_error("fork wants a machine and names for its copies, at most %d",
                  COPIES_MAX);
        return false;
    }
    o->option = argv + words + (words < argc);
    o->options = argc - words - (words < argc);
    return true;
}

/* --- the machine --- */

/* Asks for a snapshot. Its file, the caller's; NULL after a message. */
static char *freeze(struct fork_order *o, bool change) {
    char line[192], *path = NULL;
    const cJSON *file, *pause;
    cJSON *answer;

    snprintf(line, sizeof(line),
             "{\"command\":\"snapshot\",\"copies\":true,\"name\":\"fork-%d%s\","
             "\"incremental\":%s}\n",
             (int)getpid(), change ? "-now" : "", change ? "true" : "false");
    answer = ask(o->fd, line);
    if (!answer)
        return NULL;
    file = cJSON_GetObjectItem(answer, "file");
    pause = cJSON_GetObjectItem(answer, "pause_ms");
    o->pause_ms = cJSON_IsNumber(pause) ? pause->valuedouble : 0;
    if (cJSON_IsString(file) && file->valuestring[0] == '/')
        path = strdup(file->valuestring);
    else
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

/* Those that cannot be prepared end; how many are. */
static int prepare(struct fork_order *o) {
    int good = 0, started = 0;

    fflush(stdout); /* else children would say it once more */
    while (started < o->count &&
           copy_prepare(o->copy, (unsigned)started, o->whole, o->option, o->options))
        started++;
    for (int n = 0; n < o->count; n++) {
        struct copy *c = &o->copy[n];

        if (n < started && copy_hear(c, COPY_WAITS))
            good++;
        else
            copy_end(c);
    }
    return good;
}

static void wait_for_word(void) {
    char c;

    printf("prepared\n");
    fflush(stdout);
    while (read(STDIN_FILENO, &c, 1) == 1 && c != '\n')
        ;
}

static void tell_time(const struct fork_order *o, const struct copy *c) {
    double ms = (double)(os_monotonic_ns() - o->asked_ns) * 1e-6;

    if (o->times)
        printf("%s: runs after %.2f ms, of which the machine stood for %.2f\n", c->name,
               ms, o->pause_ms);
}

/* How many run. */
static int release(struct fork_order *o, int state, int ram) {
    int good = 0;

    for (int n = 0; n < o->count; n++)
        if (o->copy[n].socket >= 0)
            copy_tell(&o->copy[n], state, ram);
    for (int n = 0; n < o->count; n++)
        if (o->copy[n].socket >= 0 && copy_hear(&o->copy[n], COPY_RUNS))
            tell_time(o, &o->copy[n]);
    for (int n = 0; n < o->count; n++)
        good += o->copy[n].socket >= 0 && copy_end(&o->copy[n]);
    return good;
}

/* The machine stands for a moment, and the copies run from there: how many. */
static int begin(struct fork_order *o) {
    char path[4096];
    int state, ram, good = 0;

    o->asked_ns = os_monotonic_ns();
    o->change = freeze(o, true);
    if (!o->change || !ram_path(o->change, path, sizeof(path)))
        return 0;
    state = open(o->change, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ram = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (state >= 0 && ram >= 0)
        good = release(o, state, ram);
    else
        log_error("cannot read '%s': %s", o->change, strerror(errno));
    if (state >= 0)
        close(state);
    if (ram >= 0)
        close(ram);
    return good;
}

static int copy_machine(struct fork_order *o) {
    int good = 0;

    o->whole = freeze(o, false);
    if (o->whole && prepare(o)) {
        if (o->waits)
            wait_for_word();
        good = begin(o);
    }
    for (int n = 0; n < o->count; n++)
        if (o->copy[n].socket >= 0)
            copy_end(&o->copy[n]);
    drop(o->change);
    drop(o->whole);
    if (good && good < o->count) /* why, has been said */
        log_error("only %d of %d copies run", good, o->count);
    return good == o->count ? CTL_OK : CTL_HOST_FAILURE;
}

int ctl_cmd_fork(int argc, char **argv) {
    static struct fork_order o;
    int status;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        print_help();
        return CTL_OK;
    }
    if (!take(argc, argv, &o))
        return CTL_USAGE;
    o.fd = ask_connect(&o.m, 0);
    if (o.fd < 0)
        return CTL_HOST_FAILURE;
    status = copy_machine(&o);
    close(o.fd);
    return status;
}

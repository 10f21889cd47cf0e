/*
 * `bivisor fork`: copies of a machine that runs, each a process and a machine with a name
 * of its own. A snapshot is made for them, and each goes on from it by `bivisor restore`
 * in the background; all of them show the one file of memory, which loses its name when
 * the last has begun and is there as long as one of them is.
 *
 * Nothing is done here that a user could not do by hand: the machine that is copied needs
 * nothing that its jail does not have.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/types.h"
#include "ctl/ask.h"
#include "ctl/ctl.h"
#include "ctl/runtime.h"

#define COPIES_MAX 256

extern char **environ;

struct copies {
    struct ask_machine m;
    char **name;
    int count;
    char **option; /* of all of them */
    int options;
    char self[4096];
};

static void print_help(void) {
    printf("usage: bivisor fork NAME COPY... [-- OPTION...]\n"
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
           "\n"
           "exit status: 0; 1 when not all copies run\n"
           "\n"
           "example: bivisor fork web web1 web2 -- --net user\n");
}

/* False after a message. */
static bool take(int argc, char **argv, struct copies *c) {
    int words = ask_take_machine("fork", argc - 1, argv + 1, &c->m);

    if (words < 0)
        return false;
    c->name = argv + 1 + words;
    while (1 + words + c->count < argc && strcmp(c->name[c->count], "--") != 0)
        if (!runtime_check_name(c->name[c->count++]))
            return false;
    if (!c->count || c->count > COPIES_MAX) {
        log_error("fork wants a machine and names for its copies, at most %d",
                  COPIES_MAX);
        return false;
    }
    c->option = c->name + c->count;
    c->options = argc - 1 - words - c->count;
    if (c->options) { /* the `--` */
        c->option++;
        c->options--;
    }
    return true;
}

/* Asks for the snapshot. Its file, the caller's; NULL after a message. */
static char *freeze(const struct copies *c) {
    char line[128], *path = NULL;
    const cJSON *file;
    cJSON *answer;
    int fd = ask_connect(&c->m, 0);

    if (fd < 0)
        return NULL;
    snprintf(line, sizeof(line), "{\"command\":\"snapshot\",\"name\":\"fork-%d\"}\n",
             (int)getpid());
    answer = ask(fd, line);
    close(fd);
    if (!answer)
        return NULL;
    file = cJSON_GetObjectItem(answer, "file");
    if (cJSON_IsString(file) && file->valuestring[0] == '/')
        path = strdup(file->valuestring);
    else
        log_error("the machine does not say where its snapshot is");
    cJSON_Delete(answer);
    return path;
}

/* Waits until it runs. False after a message, which is its own. */
static bool start(const struct copies *c, char *path, char *name) {
    static char restore[] = "restore", named[] = "--name", daemon[] = "--daemon";
    char **argv = calloc((size_t)c->options + 7, sizeof(*argv));
    int rc, status, n = 0;
    pid_t pid;

    if (!argv) {
        log_error("out of memory");
        return false;
    }
    argv[n++] = (char *)(uintptr_t)c->self;
    argv[n++] = restore;
    argv[n++] = path;
    argv[n++] = named;
    argv[n++] = name;
    argv[n++] = daemon;
    for (int k = 0; k < c->options; k++)
        argv[n++] = c->option[k];
    rc = posix_spawn(&pid, c->self, NULL, NULL, argv, environ);
    free(argv);
    if (rc) {
        log_error("cannot start '%s': %s", name, strerror(rc));
        return false;
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    if (!WIFEXITED(status))
        log_error("'%s' has been killed", name);
    return WIFEXITED(status) && !WEXITSTATUS(status);
}

static void drop(const char *path) {
    char ram[4096];

    unlink(path);
    if ((size_t)snprintf(ram, sizeof(ram), "%s.ram", path) < sizeof(ram))
        unlink(ram);
}

int ctl_cmd_fork(int argc, char **argv) {
    struct copies c = {0};
    ssize_t len = readlink("/proc/self/exe", c.self, sizeof(c.self) - 1);
    char *path;
    int good = 0;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        print_help();
        return CTL_OK;
    }
    if (!take(argc, argv, &c))
        return CTL_USAGE;
    if (len <= 0) {
        log_error("cannot find this program's own file: %s", strerror(errno));
        return CTL_HOST_FAILURE;
    }
    path = freeze(&c);
    if (!path)
        return CTL_HOST_FAILURE;
    while (good < c.count && start(&c, path, c.name[good]))
        good++;
    drop(path);
    free(path);
    if (good && good < c.count) /* why, has been said */
        log_error("only %d of %d copies run", good, c.count);
    return good == c.count ? CTL_OK : CTL_HOST_FAILURE;
}

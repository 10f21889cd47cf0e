/* Asking a running machine; see ask.h. */
#include "ctl/ask.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "control/control.h"
#include "ctl/progress.h"
#include "ctl/runtime.h"

#define LOOKS_MS 200

int ask_take_machine(const char *command, int argc, char **argv, struct ask_machine *m) {
    char dir[RUNTIME_PATH];

    *m = (struct ask_machine){.name = NULL};
    if (argc >= 2 && !strcmp(argv[0], "--control")) {
        if (strlen(argv[1]) < sizeof(m->path)) {
            strcpy(m->path, argv[1]);
            return 2;
        }
        log_error("cannot connect to '%s': %s", argv[1], strerror(ENAMETOOLONG));
        return -1;
    }
    if (argc < 1 || argv[0][0] == '-') {
        log_error(
            "%s wants a machine: NAME, or --control PATH; `bivisor %s --help` tells "
            "more",
            command, command);
        return -1;
    }
    if (!runtime_check_name(argv[0]))
        return -1;
    m->name = argv[0];
    if (!runtime_dir(false, dir, sizeof(dir)))
        return 1; /* nothing runs: ask_connect() says so */
    return runtime_path(dir, m->name, RUNTIME_CONTROL, m->path) ? 1 : -1;
}

int ask_try(const char *path, unsigned seconds) {
    const struct timeval limit = {.tv_sec = seconds};
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

    if (fd < 0)
        return -errno;
    if (strlen(path) >= sizeof(a.sun_path)) {
        close(fd);
        return -ENAMETOOLONG;
    }
    memcpy(a.sun_path, path, strlen(path));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (!connect(fd, (const struct sockaddr *)&a, sizeof(a)))
        return fd;
    rc = -errno;
    close(fd);
    return rc;
}

/* Nobody listens, and nobody is about to. */
static void remove_dead(const char *name) {
    char dir[RUNTIME_PATH], path[RUNTIME_PATH];
    int lock, fd;

    if (!runtime_dir(false, dir, sizeof(dir)) ||
        !runtime_path(dir, name, RUNTIME_CONTROL, path))
        return;
    lock = runtime_lock(dir);
    if (lock < 0)
        return;
    fd = ask_try(path, 1);
    if (fd == -ECONNREFUSED)
        runtime_remove(dir, name);
    if (fd >= 0)
        close(fd);
    close(lock);
}

int ask_connect(const struct ask_machine *m, unsigned seconds) {
    int fd = *m->path ? ask_try(m->path, seconds) : -ENOENT;

    if (fd >= 0)
        return fd;
    if (!m->name)
        log_error("cannot connect to '%s': %s", m->path, strerror(-fd));
    else if (fd == -ENOENT || fd == -ECONNREFUSED)
        log_error("no machine called '%s' runs; `bivisor ps` lists those that do",
                  m->name);
    else
        log_error("cannot ask '%s': %s", m->name, strerror(-fd));
    if (m->name && fd == -ECONNREFUSED)
        remove_dead(m->name);
    return -1;
}

/* A line, up to what an answer has; NULL: it did not come, or there is no memory. */
static char *read_line(int fd) {
    size_t size = 0, len = 0;
    char *line = NULL;

    for (;;) {
        ssize_t n;

        if (len + 1 >= size) {
            size_t more = size ? 2 * size : 4096;
            char *longer = more > 2 * CONTROL_OUT_MAX ? NULL : realloc(line, more);

            if (!longer)
                break;
            line = longer;
            size = more;
        }
        n = read(fd, line + len, size - len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
        if (line[len - 1] == '\n') {
            line[len - 1] = 0;
            return line;
        }
    }
    free(line);
    return NULL;
}

cJSON *ask_hear(int fd) {
    char *line = read_line(fd);
    cJSON *answer = line ? cJSON_Parse(line) : NULL;

    free(line);
    return answer;
}

cJSON *ask_quietly(int fd, const char *request) {
    size_t len = strlen(request);

    errno = 0;
    return send(fd, request, len, MSG_NOSIGNAL) == (ssize_t)len ? ask_hear(fd) : NULL;
}

cJSON *ask_believe(cJSON *answer) {
    const cJSON *error = cJSON_GetObjectItem(answer, "error");

    if (!answer) {
        log_error(errno == EAGAIN ? "the machine has not answered"
                                  : "the machine has ended before it answered");
        return NULL;
    }
    if (!error && cJSON_IsObject(answer))
        return answer;
    log_error("the machine says: %s",
              cJSON_IsString(error) ? error->valuestring : "nothing that can be read");
    cJSON_Delete(answer);
    return NULL;
}

cJSON *ask(int fd, const char *request) {
    return ask_believe(ask_quietly(fd, request));
}

cJSON *ask_once(const struct ask_machine *m, const char *request) {
    int fd = ask_connect(m, 0);
    cJSON *answer = fd < 0 ? NULL : ask(fd, request);

    if (fd >= 0)
        close(fd);
    return answer;
}

/* --- what takes long --- */

static bool is_answered(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, LOOKS_MS) != 0;
}

static double number(const cJSON *o, const char *name) {
    const cJSON *n = cJSON_GetObjectItem(o, name);

    return cJSON_IsNumber(n) && n->valuedouble > 0 && n->valuedouble < 1e18
               ? n->valuedouble
               : 0;
}

/* What the machine does is one of ours: its own words do not get to the terminal. */
static void show(const cJSON *answer) {
    static const char *const steps[] = {"memory", "changes", "packing"};
    const cJSON *what = cJSON_GetObjectItem(answer, "what");

    for (unsigned n = 0; n < ARRAY_SIZE(steps); n++)
        if (cJSON_IsString(what) && !strcmp(what->valuestring, steps[n])) {
            char text[32];

            snprintf(text, sizeof(text), "snapshot: %s", steps[n]);
            progress_show(text, (uint64_t)number(answer, "done"),
                          (uint64_t)number(answer, "total"));
        }
}

static void show_until_answered(int fd, const struct ask_machine *m) {
    int other = -1;

    while (!is_answered(fd)) {
        cJSON *answer;

        if (other < 0)
            other = ask_try(m->path, 1);
        answer = other < 0 ? NULL : ask_quietly(other, "{\"command\":\"progress\"}\n");
        show(answer);
        cJSON_Delete(answer);
    }
    if (other >= 0)
        close(other);
    progress_end();
}

cJSON *ask_long(const struct ask_machine *m, const char *request) {
    size_t len = strlen(request);
    cJSON *answer;
    int fd;

    if (!isatty(STDERR_FILENO))
        return ask_once(m, request);
    fd = ask_connect(m, 0);
    if (fd < 0)
        return NULL;
    if (send(fd, request, len, MSG_NOSIGNAL) == (ssize_t)len)
        show_until_answered(fd, m);
    answer = ask_believe(ask_hear(fd));
    close(fd);
    return answer;
}

int ask_process(int fd) {
    struct ucred c;
    socklen_t len = sizeof(c);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) ? -1 : c.pid;
}

/* Copies for clients of the API; see forker.h. */
#include "ctl/forker.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "ctl/ask.h"
#include "ctl/runtime.h"

#define COPIES 256
#define SAYS_MAX (128u << 10)
#define WHY_MAX 512

struct forker {
    int fd;
    struct os_watch watch;
    struct control_table *table;
    struct control_request *r;        /* who waits for copies; NULL: nobody */
    struct control_request *snapshot; /* that the process waits for */
    bool disks_named;                 /* by the options for copies */
    bool exchanged; /* the process knows a disk by a file that it had before */
    size_t len;
    char in[SAYS_MAX];
};

/* --- in the process --- */

struct copies {
    int count;
    char *name[COPIES];
    char *api[COPIES];
    bool runs[COPIES];
};

static void forget(struct copies *c) {
    for (int n = 0; n < c->count; n++) {
        free(c->name[n]);
        free(c->api[n]);
    }
    *c = (struct copies){0};
}

/* False after a message. */
static bool take_one(struct copies *c, const cJSON *name) {
    char dir[RUNTIME_PATH], path[RUNTIME_PATH];
    int n = c->count;

    if (n == COPIES || !cJSON_IsString(name)) {
        log_error("copies have names, and are %d at most", COPIES);
        return false;
    }
    if (!runtime_check_name(name->valuestring) || !runtime_dir(true, dir, sizeof(dir)) ||
        !runtime_path(dir, name->valuestring, RUNTIME_API, path))
        return false;
    c->name[n] = strdup(name->valuestring);
    c->api[n] = strdup(path);
    c->count++;
    if (c->name[n] && c->api[n])
        return true;
    log_error("out of memory");
    return false;
}

static bool take(struct copies *c, const cJSON *order) {
    const cJSON *name;

    cJSON_ArrayForEach(name, cJSON_GetObjectItem(order, "copies")) {
        if (!take_one(c, name))
            return false;
    }
    return c->count;
}

/* Those that run, and WHY the others do not; false: nobody hears it. */
static bool say_end(int socket, const struct copies *c, const char *why) {
    cJSON *o = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(o, "end");
    char *text, sentence[WHY_MAX + 64];
    int runs = 0;
    bool good;

    for (int n = 0; n < c->count; n++) {
        cJSON *one = c->runs[n] ? cJSON_CreateObject() : NULL;

        runs += c->runs[n];
        cJSON_AddStringToObject(one, "name", c->name[n]);
        cJSON_AddStringToObject(one, "api", c->api[n]);
        cJSON_AddItemToArray(list, one);
    }
    snprintf(sentence, sizeof(sentence), "only %d of %d copies run: %s", runs, c->count,
             why);
    if (!runs || runs < c->count)
        cJSON_AddStringToObject(o, "error", runs ? sentence : why);
    text = cJSON_PrintUnformatted(o);
    good = text && dprintf(socket, "%s\n", text) > 0;
    cJSON_free(text);
    cJSON_Delete(o);
    return good;
}

/* What we and the copies complain of is kept, until they run, for who asked for them: the
 * first sentence of it, in WHY. */
static void heard(int kept, int terminal, char *why) {
    static const char head[] = "error: ";
    char text[4096];
    ssize_t n = pread(kept, text, sizeof(text) - 1, 0);
    const char *sentence;

    text[n > 0 ? n : 0] = 0;
    if (terminal >= 0 && n > 0)
        (void)!write(terminal, text, (size_t)n);
    sentence = strstr(text, head);
    sentence = sentence ? sentence + strlen(head) : "the copies do not run";
    snprintf(why, WHY_MAX, "%.*s", (int)strcspn(sentence, "\n"), sentence);
}

static bool serve(const struct forker_plan *plan, int socket, int terminal,
                  const cJSON *order) {
    struct copies c = {0};
    char why[WHY_MAX] = "out of memory";
    int kept = memfd_create("bivisor-said", MFD_CLOEXEC);
    bool good;

    if (kept >= 0)
        dup2(kept, STDERR_FILENO);
    if (take(&c, order))
        plan->make(plan, socket, c.name, c.runs, c.api, c.count);
    if (kept >= 0) {
        heard(kept, terminal, why);
        close(kept);
    }
    if (terminal >= 0)
        dup2(terminal, STDERR_FILENO);
    good = say_end(socket, &c, why);
    forget(&c);
    return good;
}

/* As a child that has nothing of the run, and is in no jail: what it starts is not to be
 * bounded by more than what started us was. It ends when the other end of SOCKET is gone,
 * and the files that it has asked for go before. */
static void be_forker(const struct forker_plan *plan, int socket) {
    const int keep[] = {socket, STDERR_FILENO};
    bool good = true;
    int terminal;

    setsid();
    prctl(PR_SET_NAME, "bivisor-forker");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    os_helper_keep(keep, ARRAY_SIZE(keep));
    if (open("/dev/null", O_RDWR) != STDIN_FILENO || dup(STDIN_FILENO) != STDOUT_FILENO)
        _exit(1);
    terminal = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    while (good) {
        cJSON *order = ask_hear(socket);

        good = order && serve(plan, socket, terminal, order);
        cJSON_Delete(order);
    }
    _exit(0);
}

/* --- in ours --- */

int forker_open(const struct forker_plan *plan, struct forker **out) {
    struct forker *f = calloc(1, sizeof(*f));
    int ends[2] = {-1, -1}, rc = 0;
    pid_t pid = -1;

    if (!f)
        return -ENOMEM;
    if (!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        pid = fork();
    if (!pid)
        be_forker(plan, ends[1]);
    if (pid < 0)
        rc = -errno;
    if (ends[1] >= 0)
        close(ends[1]);
    f->fd = ends[0];
    for (char *const *w = plan->option; *w; w++)
        f->disks_named |= !strncmp(*w, "--disk", 6);
    if (rc)
        forker_close(f);
    else
        *out = f;
    return rc;
}

void forker_stop(struct forker *f) {
    if (!f)
        return;
    if (f->snapshot)
        control_forget(f->snapshot);
    if (f->r) {
        control_forget(f->r);
        control_finish(f->r);
    }
    f->snapshot = f->r = NULL;
    os_watch_stop(&f->watch);
}

void forker_close(struct forker *f) {
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    free(f);
}

/* A line with its end. */
static void tell(struct forker *f, const char *line) {
    (void)!send(f->fd, line, strlen(line), MSG_NOSIGNAL); /* its end is heard of */
}

static void finish(struct forker *f, cJSON *end) {
    const cJSON *error = cJSON_GetObjectItem(end, "error");
    struct control_request *r = f->r;

    f->r = NULL;
    if (!r)
        return;
    if (!end)
        control_refuse(r, "the process that makes copies has ended");
    else if (cJSON_IsString(error))
        control_refuse(r, "%s", error->valuestring);
    else
        control_put(r, "copies", cJSON_DetachItemFromObject(end, "end"));
    control_finish(r);
}

static void on_snapshot(void *arg, char *text) {
    struct forker *f = arg;

    f->snapshot = NULL;
    tell(f, text ? text : "{\"error\":\"out of memory\"}\n");
    free(text);
}

/* A command of the process, or its last word. */
static void take_line(struct forker *f, const char *line, size_t len) {
    cJSON *said = cJSON_ParseWithLength(line, len);
    char *text;

    if (cJSON_HasObjectItem(said, "command")) {
        text = control_answer_or_wait(f->table, line, len, on_snapshot, f, &f->snapshot);
        if (!f->snapshot)
            on_snapshot(f, text);
    } else {
        finish(f, said);
    }
    cJSON_Delete(said);
}

static void on_ready(void *arg, unsigned ready) {
    struct forker *f = arg;
    ssize_t n = read(f->fd, f->in + f->len, sizeof(f->in) - f->len);
    char *end;

    (void)ready;
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) { /* it has ended, or says more than it should */
        os_watch_stop(&f->watch);
        finish(f, NULL);
        close(f->fd);
        f->fd = -1;
        return;
    }
    f->len += (size_t)n;
    end = memchr(f->in, '\n', f->len);
    if (!end)
        return;
    f->len = 0; /* who waits for an answer has said nothing more */
    take_line(f, f->in, (size_t)(end - f->in));
}

int forker_start(struct forker *f, struct os_loop *loop) {
    return f ? os_watch_start(&f->watch, loop, f->fd, OS_READ, on_ready, f) : 0;
}

void forker_exchanged(struct forker *f) {
    if (f)
        f->exchanged = !f->disks_named;
}

/* --- the command --- */

/* The order, the caller's; NULL after a refusal. */
static char *order_of(struct control_request *r) {
    cJSON *names = cJSON_Parse(control_text(r, "copies", "")), *o = cJSON_CreateObject();
    const cJSON *name;
    bool good = cJSON_GetArraySize(names) > 0 && cJSON_GetArraySize(names) <= COPIES;
    char *text = NULL;

    cJSON_ArrayForEach(name, names) {
        good = good && cJSON_IsString(name) && runtime_is_name(name->valuestring);
    }
    if (good && cJSON_AddItemToObject(o, "copies", names))
        text = cJSON_PrintUnformatted(o);
    else
        cJSON_Delete(names);
    if (!good)
        control_refuse(r,
                       "'copies' are 1 to %d names, each of 1 to %d letters, digits, "
                       "'-', '_' and '.', that begin with one of the first two",
                       COPIES, RUNTIME_NAME_MAX);
    else if (!text)
        control_refuse(r, "out of memory");
    cJSON_Delete(o);
    return text;
}

static void run_fork(void *arg, struct control_request *r) {
    struct forker *f = arg;
    char *order;

    if (!f || f->fd < 0) {
        control_refuse(r, f ? "the process that makes copies has ended"
                            : "copies want 'copies' and 'snapshots' of "
                              "/bivisor/settings, before the machine runs");
        return;
    }
    if (f->r || f->exchanged) {
        control_refuse(r, f->r ? "copies are being made already"
                               : "a drive has another file than it had: copies want "
                                 "their disks named, by 'copies' of /bivisor/settings");
        return;
    }
    order = order_of(r);
    if (!order)
        return;
    f->r = control_later(r);
    if (f->r) {
        tell(f, order);
        tell(f, "\n");
    } else {
        control_refuse(r, "who asks for copies waits until they run");
    }
    cJSON_free(order);
}

static const struct control_arg args[] = {
    {"copies", CONTROL_TEXT, true, 2, CONTROL_LINE_MAX, "their names, a JSON array"},
    {0},
};

static const struct control_command commands[] = {
    {.name = "fork",
     .what = "makes copies of the machine that go on by themselves",
     .args = args,
     .run = run_fork},
    {0},
};

void forker_add(struct forker *f, struct control_table *t) {
    if (f)
        f->table = t;
    control_add(t, commands, f);
}

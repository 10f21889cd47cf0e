/* Commands in the guest, for clients of the control socket; see remote.h. */
#include "ctl/remote.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "vsock/vsock.h"

#define WORDS_MOST 256
#define SECONDS 60 /* if nothing is said */

static char *const own_env[] = {(char *)(uintptr_t) "PATH=/usr/local/sbin:/usr/local/"
                                                    "bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                (char *)(uintptr_t) "HOME=/root"};

static void free_words(char **words) {
    for (char **w = words; w && *w; w++)
        free(*w);
    free(words);
}

static void free_job(struct remote_job *j) {
    free_words(j->argv);
    free_words(j->env);
    free(j->cwd);
    free(j->input);
    *j = (struct remote_job){.remote = j->remote};
}

/* Copies of the texts of TEXT, an array of JSON's, behind the COUNT of FIRST; ends with a
 * NULL. NULL: it is none, or there is no memory. */
static char **words_of(const char *text, char *const *first, size_t count) {
    cJSON *array = cJSON_Parse(text);
    const cJSON *v;
    char **words = calloc(WORDS_MOST + count + 1, sizeof(char *));
    bool good = words && cJSON_IsArray(array) && cJSON_GetArraySize(array) <= WORDS_MOST;
    size_t n = 0;

    for (; good && n < count; n++)
        good = (words[n] = strdup(first[n]));
    cJSON_ArrayForEach(v, array) {
        good = good && cJSON_IsString(v) && (words[n++] = strdup(v->valuestring));
    }
    cJSON_Delete(array);
    if (good)
        return words;
    free_words(words);
    return NULL;
}

/* --- while it runs --- */

static void put_output(struct control_request *r, const char *name,
                       const struct exec_text *t) {
    control_put_bytes(r, name, t->bytes, t->len);
}

static void on_done(void *arg, const struct exec_remote_end *end) {
    struct remote_job *j = arg;
    struct control_request *r = j->r;

    if (end->why)
        control_refuse(r, "%s", end->why);
    control_put_number(r, "status", end->status);
    put_output(r, "stdout", &end->out);
    put_output(r, "stderr", &end->err);
    control_put_bool(r, "cut", end->out.cut || end->err.cut);
    free_job(j);
    control_finish(r);
}

static void give_up(struct remote_job *j, const char *why) {
    const struct exec_remote_end end = {.why = why};

    on_done(j, &end);
}

/* The timer is for the next one. */
static void set_limit(struct remote *r) {
    uint64_t at = UINT64_MAX;

    for (unsigned n = 0; n < REMOTE_JOBS; n++)
        if (r->job[n].runs && r->job[n].until < at)
            at = r->job[n].until;
    os_timer_set(&r->limit, at);
}

static void on_limit(void *arg) {
    uint64_t now = os_monotonic_ns();
    struct remote *r = arg;

    for (unsigned n = 0; n < REMOTE_JOBS; n++) {
        struct remote_job *j = &r->job[n];

        if (!j->runs || j->until > now)
            continue;
        exec_remote_stop(j->runs);
        give_up(j, "the command took too long, and was given up");
    }
    set_limit(r);
}

static void on_connected(void *arg, int fd) {
    struct remote_job *j = arg;

    if (!j->r || j->runs) { /* who asked could not wait */
        if (fd >= 0)
            os_socket_close(fd);
        return;
    }
    if (fd >= 0)
        j->runs = exec_remote_start(j->remote->loop, fd, &j->order, on_done, j);
    if (j->runs)
        set_limit(j->remote);
    else
        give_up(j, fd < 0 ? "cannot connect to the guest" : "out of memory");
}

/* --- the command --- */

/* False after a refusal. */
static bool take(struct remote_job *j, struct control_request *r) {
    struct exec_command *c = &j->order.command;
    const char *input = control_text(r, "input", "");

    j->argv = words_of(control_text(r, "argv", ""), NULL, 0);
    j->env = words_of(control_text(r, "env", "[]"), own_env, ARRAY_SIZE(own_env));
    j->cwd = strdup(control_text(r, "cwd", "/"));
    j->input = strdup(input);
    if (!j->argv || !*j->argv || !j->env || !j->cwd || !j->input) {
        control_refuse(r, "a command and its environment are arrays of at most %d texts",
                       WORDS_MOST);
        return false;
    }
    *c = (struct exec_command){.argv = j->argv, .envp = j->env, .cwd = j->cwd};
    j->order.uid = (unsigned)control_number(r, "uid", 0);
    j->order.gid = (unsigned)control_number(r, "gid", j->order.uid);
    j->order.input = j->input;
    j->order.input_len = strlen(input);
    j->until =
        os_monotonic_ns() + (uint64_t)control_number(r, "seconds", SECONDS) * 1000000000u;
    return true;
}

static void run_exec(void *arg, struct control_request *r) {
    struct remote *remote = arg;
    struct remote_job *j = NULL;

    for (unsigned n = 0; n < REMOTE_JOBS && !j; n++)
        if (!remote->job[n].r)
            j = &remote->job[n];
    if (!remote->vsock) {
        control_refuse(r,
                       "the machine has no sockets to its guest: --vsock gives it some");
        return;
    }
    if (!j) {
        control_refuse(r, "%u commands run already", REMOTE_JOBS);
        return;
    }
    j->remote = remote;
    if (!take(j, r)) {
        free_job(j);
        return;
    }
    if (vsock_dial(remote->vsock, on_connected, j))
        control_refuse(r, "cannot connect to the guest");
    else
        j->r = control_later(r);
    if (!j->r)
        free_job(j);
}

static const struct control_arg exec_args[] = {
    {"argv", CONTROL_TEXT, true, 2, CONTROL_LINE_MAX, "the words, a JSON array as text"},
    {"env", CONTROL_TEXT, false, 0, CONTROL_LINE_MAX, "more NAME=VALUE, the same"},
    {"cwd", CONTROL_TEXT, false, 1, 4095, "where it starts (/)"},
    {"uid", CONTROL_NUMBER, false, 0, UINT32_MAX - 1, "whose it is (0)"},
    {"gid", CONTROL_NUMBER, false, 0, UINT32_MAX - 1, "its group's (uid)"},
    {"input", CONTROL_TEXT, false, 0, CONTROL_LINE_MAX, "what it reads"},
    {"seconds", CONTROL_NUMBER, false, 1, 86400, "then it is given up (60)"},
    {0},
};

static const struct control_command commands[] = {
    {.name = "exec",
     .what = "runs a command in a guest that has the agent",
     .args = exec_args,
     .run = run_exec},
    {0},
};

int remote_start(struct remote *r) {
    return os_timer_open(&r->limit, r->loop, on_limit, r);
}

void remote_add(struct remote *r, struct control_table *t) {
    control_add(t, commands, r);
}

void remote_end(struct remote *r) {
    os_timer_close(&r->limit);
    for (unsigned n = 0; n < REMOTE_JOBS; n++) {
        struct remote_job *j = &r->job[n];

        if (!j->r)
            continue;
        if (j->runs)
            exec_remote_stop(j->runs);
        control_forget(j->r);
        control_finish(j->r);
        free_job(j);
    }
}

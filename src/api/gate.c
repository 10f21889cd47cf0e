/* The machine's side of the process between clients and it; see gate.h. The process
 * itself: gate_process.c. */
#include "api/gate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/gate_int.h"
#include "base/os.h"

struct gate {
    struct os_listener *listener; /* NULL: it is a control socket's */
    int socket;
};

static const char *reason(int rc) {
    return rc == -EEXIST         ? "there is something that is no socket"
           : rc == -EADDRINUSE   ? "another program listens there"
           : rc == -ENAMETOOLONG ? "a socket's path has at most 107 bytes"
                                 : strerror(-rc);
}

/* 0 or -errno. */
static int start(struct gate *g, int listener, const struct gate_reader *reader) {
    int ends[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return -errno;
    pid = fork();
    if (!pid)
        gate_process(listener, ends[1], reader);
    g->socket = ends[0];
    close(ends[1]);
    return pid < 0 ? -errno : 0;
}

static struct gate *make(void) {
    struct gate *g = calloc(1, sizeof(*g));

    if (g)
        g->socket = -1;
    return g;
}

int gate_open(const char *path, size_t body_most, struct gate **out, char *why,
              size_t why_size) {
    const struct gate_reader reader = {
        .most = HTTP_HEAD_MAX + body_most, .http = true, .body_most = body_most};
    struct gate *g = make();
    int rc = g ? os_listener_open(path, &g->listener) : -ENOMEM;

    if (!rc)
        rc = start(g, os_listener_fd(g->listener), &reader);
    if (rc) {
        snprintf(why, why_size, "cannot listen at '%s': %s", path, reason(rc));
        gate_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

int gate_open_control(enum control_speech speech, int listener, struct gate **out) {
    const struct gate_reader reader = {.most = CONTROL_LINE_MAX + 1, .speech = speech};
    struct gate *g = make();
    int rc = g ? start(g, listener, &reader) : -ENOMEM;

    if (!rc && !gate_readonly(g, NAMED_DISC, true))
        rc = -EPIPE;
    if (rc) {
        gate_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

void gate_close(struct gate *g) {
    if (!g)
        return;
    if (g->socket >= 0)
        close(g->socket);
    os_listener_close(g->listener);
    free(g);
}

int gate_listener(const struct gate *g) {
    return os_listener_fd(g->listener);
}

int gate_socket(const struct gate *g) {
    return g->socket;
}

/* --- orders --- */

/* With a client, if FD is one. */
static bool send_order(struct gate *g, const struct gate_order *o, int fd) {
    union gate_room room = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                                       .cmsg_level = SOL_SOCKET,
                                       .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {(void *)(uintptr_t)o, sizeof(*o)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        memcpy(CMSG_DATA(&room.header), &fd, sizeof(fd));
        m.msg_control = room.bytes;
        m.msg_controllen = CMSG_SPACE(sizeof(int));
    }
    return sendmsg(g->socket, &m, MSG_NOSIGNAL) == sizeof(*o);
}

/* 0 or -errno; FD gets what comes with the answer. */
static int hear(struct gate *g, struct gate_answer *a, int fd[2]) {
    union gate_room room;
    struct iovec iov = {a, sizeof(*a)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = room.bytes,
                       .msg_controllen = sizeof(room.bytes)};
    struct cmsghdr *h;
    ssize_t n;

    do
        n = recvmsg(g->socket, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n != sizeof(*a))
        return -EPIPE;
    h = CMSG_FIRSTHDR(&m);
    if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS &&
        h->cmsg_len == CMSG_LEN(2 * sizeof(int)))
        memcpy(fd, CMSG_DATA(h), 2 * sizeof(int));
    a->why[sizeof(a->why) - 1] = 0;
    return a->rc;
}

static int ask_with(struct gate *g, const struct gate_order *o, int client,
                    struct gate_answer *a, int fd[2]) {
    int rc = -EPIPE;

    *a = (struct gate_answer){.why = "the process that opens files has ended"};
    if (send_order(g, o, client))
        rc = hear(g, a, fd);
    return rc;
}

static int ask(struct gate *g, const struct gate_order *o, struct gate_answer *a,
               int fd[2]) {
    return ask_with(g, o, -1, a, fd);
}

/* The same for two descriptors, which are there at success. */
static int ask_for_files(struct gate *g, const struct gate_order *o,
                         struct gate_answer *a, int fd[2], char *why, size_t why_size) {
    int rc;

    fd[0] = fd[1] = -1;
    rc = ask(g, o, a, fd);
    if (!rc && fd[1] < 0)
        rc = -EPIPE;
    if (rc)
        snprintf(why, why_size, "%s", a->why);
    return rc;
}

int gate_pass(struct gate *g, int fd) {
    const struct gate_order o = {.what = GATE_CLIENT};
    int ours[2] = {-1, -1}, rc;
    struct gate_answer a;

    rc = ask_with(g, &o, fd, &a, ours);
    close(fd);
    if (!rc && ours[1] < 0)
        rc = -EPIPE;
    if (rc)
        return rc;
    close(ours[1]); /* the same */
    return ours[0];
}

int gate_accept(struct gate *g) {
    int fd = os_listener_accept(g->listener);

    return fd < 0 ? fd : gate_pass(g, fd);
}

static bool fits(char *to, size_t size, const char *text) {
    return (size_t)snprintf(to, size, "%s", text) < size;
}

bool gate_readonly(struct gate *g, const char *id, bool first) {
    struct gate_order o = {.what = first ? GATE_READONLY_FIRST : GATE_READONLY};
    struct gate_answer a;
    int none[2];

    return fits(o.id, sizeof(o.id), id) && !ask(g, &o, &a, none);
}

bool gate_settle(struct gate *g) {
    const struct gate_order o = {.what = GATE_SETTLE};
    struct gate_answer a;
    int none[2];

    return !ask(g, &o, &a, none);
}

int gate_drive(struct gate *g, const char *id, const char *path, int fd[2],
               struct block_facts *facts, char *why, size_t why_size) {
    struct gate_order o = {.what = GATE_DRIVE};
    struct gate_answer a;
    int rc;

    if (!fits(o.id, sizeof(o.id), id) || !fits(o.path, sizeof(o.path), path)) {
        snprintf(why, why_size, "the path is too long");
        return -ENAMETOOLONG;
    }
    rc = ask_for_files(g, &o, &a, fd, why, why_size);
    *facts = a.facts;
    return rc;
}

int gate_disc(struct gate *g, const char *path, int fd[2], struct block_facts *facts,
              char *why, size_t why_size) {
    return gate_drive(g, NAMED_DISC, path, fd, facts, why, why_size);
}

int gate_begin(struct gate *g, const char *state, const char *memory, int fd[2],
               char *why, size_t why_size) {
    struct gate_order o = {.what = GATE_BEGIN};
    struct gate_answer a;

    if (!fits(o.path, sizeof(o.path), state) ||
        !fits(o.memory, sizeof(o.memory), memory)) {
        snprintf(why, why_size, "the path is too long");
        return -ENAMETOOLONG;
    }
    return ask_for_files(g, &o, &a, fd, why, why_size);
}

int gate_end(struct gate *g, bool whole) {
    const struct gate_order o = {.what = whole ? GATE_KEEP : GATE_DROP};
    struct gate_answer a;
    int none[2];

    return ask(g, &o, &a, none);
}

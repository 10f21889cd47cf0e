/*
 * Connections of the host's side; see vsock.h.
 *
 * A link is a socket and what is wanted of it. It belongs to the connection whose number
 * it has; or to nobody yet: a client that has not said what it wants; or to nobody any
 * more, and then it is dead, until the loop's thread buries it. Watches are the loop
 * thread's alone: who wants something of them posts `update`.
 */
#include "vsock/vsock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/os_connector.h"
#include "base/os_loop.h"

#define LINE 32u        /* "CONNECT 4294967295\n" is shorter */
#define SELF UINT32_MAX /* no guest's port: VMADDR_PORT_ANY */
#define DIALS 4u
#define GREETERS 16u /* clients that have not said yet what they want */

struct link {
    struct vsock *v;
    struct link *next;
    int fd; /* -1: the connector is asked */
    uint32_t token;
    int n; /* the connection's number; -1: it has none */
    bool dead, opened;
    bool broken; /* seen by the device's thread: the loop's ends it */
    bool want_read, want_write;
    struct os_watch watch;
    char line[LINE];
    size_t len;
};

/* Of vsock_dial(). */
struct dial {
    void (*got)(void *arg, int fd); /* NULL: nobody waits */
    void *arg;
    uint32_t token;
};

struct vsock {
    struct os_listener *listener;
    int connector; /* makes the connections that the guest wants */
    struct vsock_user user;
    struct vsock_guard guard;
    struct os_loop *loop; /* NULL: not started */
    struct os_watch listen, answers;
    struct os_task update;
    struct link *links; /* all of them */
    struct link *of[VSOCK_CONNECTIONS];
    struct dial dial[DIALS];
    unsigned greeters;
    uint32_t tokens;
};

/* --- links --- */

static void post(struct vsock *v) {
    if (v->loop)
        os_task_post(&v->update, v->loop);
}

static struct link *add_link(struct vsock *v, int fd) {
    struct link *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    *l = (struct link){.v = v, .fd = fd, .n = -1, .token = ++v->tokens, .next = v->links};
    v->links = l;
    return l;
}

static void kill_link(struct link *l) {
    if (l->n >= 0)
        l->v->of[l->n] = NULL;
    else
        l->v->greeters -= !l->dead && !l->opened;
    l->n = -1;
    l->dead = true;
    post(l->v);
}

/* On the loop's thread, or when it does not turn. */
static void bury(struct vsock *v) {
    struct link **at = &v->links;

    while (*at) {
        struct link *l = *at;

        if (!l->dead) {
            at = &l->next;
            continue;
        }
        os_watch_stop(&l->watch);
        if (l->fd >= 0)
            os_socket_close(l->fd);
        *at = l->next;
        free(l);
    }
}

/* The other side is gone. */
static void lose(struct link *l) {
    int n = l->n;

    kill_link(l);
    if (n >= 0)
        l->v->user.lost(l->v->user.arg, (unsigned)n);
}

/* --- clients --- */

/* "CONNECT PORT\n": true and the port. */
static bool parse(const char *line, uint32_t *port) {
    unsigned long long value;
    char *end;

    if (strncmp(line, "CONNECT ", 8) != 0 || line[8] < '0' || line[8] > '9')
        return false;
    value = strtoull(line + 8, &end, 10);
    *port = (uint32_t)value;
    return *end == '\n' && value <= UINT32_MAX;
}

/* Reads a byte at a time: what follows the line is the guest's. */
static void greet(struct link *l) {
    uint32_t port;
    int n;

    for (;;) {
        n = os_socket_read(l->fd, l->line + l->len, 1);
        if (n == -EAGAIN || n == -EINTR)
            return;
        if (n <= 0 || l->len + 2 > LINE) {
            kill_link(l);
            return;
        }
        if (l->line[l->len++] == '\n')
            break;
    }
    if (!parse(l->line, &port)) {
        kill_link(l);
        return;
    }
    l->v->greeters--;
    l->opened = true;
    l->want_read = false;
    n = l->v->user.open(l->v->user.arg, port);
    if (n < 0) {
        kill_link(l);
        return;
    }
    l->n = n;
    l->v->of[n] = l;
}

static void on_ready(void *arg, unsigned ready) {
    struct link *l = arg;
    struct vsock *v = l->v;

    v->guard.enter(v->guard.arg);
    if (!l->dead && !l->opened) {
        greet(l);
    } else if (!l->dead && l->n >= 0) {
        if (ready & OS_WRITE && l->want_write) {
            l->want_write = false;
            v->user.writable(v->user.arg, (unsigned)l->n);
        }
        if (ready & OS_READ && l->want_read && l->n >= 0) {
            l->want_read = false;
            v->user.readable(v->user.arg, (unsigned)l->n);
        }
    }
    post(v);
    v->guard.leave(v->guard.arg);
}

static void set_watch(struct link *l) {
    unsigned events = (l->want_read ? OS_READ : 0) | (l->want_write ? OS_WRITE : 0);

    if (!events || l->fd < 0)
        os_watch_stop(&l->watch);
    else if (l->watch.loop)
        os_watch_events(&l->watch, events);
    else if (os_watch_start(&l->watch, l->v->loop, l->fd, events, on_ready, l))
        lose(l);
}

static void on_update(void *arg) {
    struct vsock *v = arg;

    v->guard.enter(v->guard.arg);
    for (struct link *l = v->links; l; l = l->next)
        if (!l->dead && l->broken)
            lose(l);
        else if (!l->dead)
            set_watch(l);
    bury(v);
    v->guard.leave(v->guard.arg);
}

static void on_client(void *arg, unsigned ready) {
    struct vsock *v = arg;
    int fd = os_listener_accept(v->listener);
    struct link *l = NULL;

    if (fd < 0)
        return;
    v->guard.enter(v->guard.arg);
    if (v->greeters < GREETERS)
        l = add_link(v, fd);
    if (l) {
        v->greeters++;
        l->want_read = true;
        post(v);
    } else {
        os_socket_close(fd);
    }
    v->guard.leave(v->guard.arg);
}

/* The connector has connected, or not. */
static void take_answer(struct vsock *v, uint32_t token, int fd) {
    struct link *l = v->links;
    int n;

    while (l && (l->token != token || l->dead))
        l = l->next;
    if (!l) {
        if (fd >= 0)
            os_socket_close(fd);
        return;
    }
    n = l->n;
    l->fd = fd;
    if (fd < 0)
        kill_link(l);
    v->user.answer(v->user.arg, (unsigned)n, fd >= 0);
}

/* False: nobody in this process waits for TOKEN. */
static bool take_dialled(struct vsock *v, uint32_t token, int fd) {
    for (unsigned n = 0; n < DIALS; n++) {
        struct dial d = v->dial[n];

        if (!d.got || d.token != token)
            continue;
        v->dial[n].got = NULL;
        v->guard.leave(v->guard.arg);
        d.got(d.arg, fd);
        v->guard.enter(v->guard.arg);
        return true;
    }
    return false;
}

/* Nobody connects any more. */
static void lose_connector(struct vsock *v) {
    log_error("the process that connects the guest to its host's sockets has ended");
    os_watch_stop(&v->answers);
    for (struct link *l = v->links; l; l = l->next)
        if (!l->dead && l->fd < 0)
            lose(l);
    for (unsigned n = 0; n < DIALS; n++)
        take_dialled(v, v->dial[n].token, -1);
}

static void on_answer(void *arg, unsigned ready) {
    struct vsock *v = arg;
    uint32_t token;
    int fd, rc;

    v->guard.enter(v->guard.arg);
    while (!(rc = os_socket_handed(v->connector, &token, &fd)))
        if (!take_dialled(v, token, fd))
            take_answer(v, token, fd);
    if (rc == -EPIPE)
        lose_connector(v);
    v->guard.leave(v->guard.arg);
}

/* --- life --- */

/* In the connector's process: the socket of PATH for a port, or PATH itself. */
static int dial(const void *path, uint32_t port) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd, len = snprintf(to.sun_path, sizeof(to.sun_path),
                           port == SELF ? "%s" : "%s_%u", (const char *)path, port);

    if (len < 0 || (size_t)len >= sizeof(to.sun_path))
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int vsock_open(const char *path, enum jail_want jail, struct vsock **out, char *why,
               size_t why_size) {
    const struct os_dial how = {.dial = dial, .to = path, .family = AF_UNIX};
    struct vsock *v = calloc(1, sizeof(*v));
    int rc;

    if (!v) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    v->connector = os_connector_open(&how, jail);
    rc = v->connector < 0 ? v->connector : os_listener_open(path, &v->listener);
    if (rc) {
        snprintf(why, why_size, "cannot listen at '%s': %s", path, strerror(-rc));
        vsock_close(v);
        return rc;
    }
    *out = v;
    return 0;
}

void vsock_close(struct vsock *v) {
    if (!v)
        return;
    for (struct link *l = v->links; l; l = l->next)
        l->dead = true;
    bury(v);
    if (v->connector >= 0)
        os_socket_close(v->connector);
    os_listener_close(v->listener);
    free(v);
}

int vsock_listener(const struct vsock *v) {
    return os_listener_fd(v->listener);
}

int vsock_connector(const struct vsock *v) {
    return v->connector;
}

void vsock_plug(struct vsock *v, const struct vsock_user *user) {
    v->user = *user;
}

int vsock_start(struct vsock *v, struct os_loop *loop, const struct vsock_guard *guard) {
    int rc;

    v->loop = loop;
    v->guard = *guard;
    v->update = (struct os_task){.fn = on_update, .arg = v};
    rc = os_watch_start(&v->listen, loop, os_listener_fd(v->listener), OS_READ, on_client,
                        v);
    if (!rc)
        rc = os_watch_start(&v->answers, loop, v->connector, OS_READ, on_answer, v);
    return rc;
}

void vsock_stop(struct vsock *v) {
    os_watch_stop(&v->listen);
    os_watch_stop(&v->answers);
    for (struct link *l = v->links; l; l = l->next)
        os_watch_stop(&l->watch);
    v->loop = NULL;
}

int vsock_dial(struct vsock *v, void (*got)(void *arg, int fd), void *arg) {
    struct dial *d = NULL;

    v->guard.enter(v->guard.arg);
    for (unsigned n = 0; n < DIALS && !d; n++)
        if (!v->dial[n].got)
            d = &v->dial[n];
    if (d) {
        *d = (struct dial){got, arg, ++v->tokens};
        if (!os_connector_ask(v->connector, d->token, SELF)) {
            d->got = NULL;
            d = NULL;
        }
    }
    v->guard.leave(v->guard.arg);
    return d ? 0 : -EBUSY;
}

/* --- what the device does --- */

bool vsock_connect(struct vsock *v, unsigned n, uint32_t port) {
    struct link *l = port == SELF ? NULL : add_link(v, -1);

    if (!l)
        return false;
    if (!os_connector_ask(v->connector, l->token, port)) {
        v->links = l->next;
        free(l);
        return false;
    }
    l->n = (int)n;
    l->opened = true;
    v->of[n] = l;
    return true;
}

void vsock_opened(struct vsock *v, unsigned n, bool ok, uint32_t port) {
    struct link *l = v->of[n];
    char text[LINE];
    int len;

    if (!l)
        return;
    if (!ok) {
        kill_link(l);
        return;
    }
    len = snprintf(text, sizeof(text), "OK %u\n", port);
    os_socket_write(l->fd, text, (size_t)len); /* the first bytes: there is room */
    l->want_read = true;
    post(v);
}

size_t vsock_write(struct vsock *v, unsigned n, const uint8_t *bytes, size_t len) {
    struct link *l = v->of[n];
    int rc;

    if (!l || l->fd < 0)
        return 0;
    rc = os_socket_write(l->fd, bytes, len);
    if (rc >= 0 && (size_t)rc == len)
        return len;
    if (rc < 0 && rc != -EAGAIN && rc != -EINTR) {
        l->broken = true; /* nobody will read */
        post(v);
        return len;
    }
    l->want_write = true;
    post(v);
    return rc < 0 ? 0 : (size_t)rc;
}

int vsock_read(struct vsock *v, unsigned n, uint8_t *buf, size_t len) {
    struct link *l = v->of[n];
    int rc;

    if (!l || l->fd < 0)
        return 0;
    rc = os_socket_read(l->fd, buf, len);
    if (rc > 0)
        return rc;
    if (rc != -EAGAIN && rc != -EINTR)
        return -1;
    l->want_read = true;
    post(v);
    return 0;
}

void vsock_end(struct vsock *v, unsigned n) {
    struct link *l = v->of[n];

    if (l && l->fd >= 0)
        shutdown(l->fd, SHUT_WR);
}

void vsock_forget(struct vsock *v, unsigned n) {
    if (v->of[n])
        kill_link(v->of[n]);
}

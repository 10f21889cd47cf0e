/*
 * The user network's process. libslirp makes sockets when the guest asks for a
 * connection, and reads what strangers send: neither is for the machine's process, whose
 * jail knows no sockets. So a process is forked before there is anything to be seen in
 * ours, sets the network up, locks itself up in a jail of its own (os_jail_network()),
 * which has sockets of the Internet and nothing else, and says that it is ready. What it
 * has in common with us is a socket, over which frames go as between any two peers
 * (stream.c), and a pipe that ends with it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "net/net_int.h"

/* What the process says before the first frame. */
struct word {
    int rc;      /* 0 or -errno */
    int forward; /* that cannot be; -1: none */
    bool jail;   /* it was the jail's fault */
};

/* --- in the process --- */

static int lock_up(const struct net_config *cfg) {
    int rc = cfg->jail == JAIL_OFF ? 0 : os_jail_network(cfg->tftp);

    return cfg->jail == JAIL_ON ? rc : 0; /* our own jail will warn */
}

static void be_network(const struct net_config *cfg, int fd, int orders, int gone) {
    const int ends[] = {fd, orders, gone, STDERR_FILENO};
    struct word w = {.forward = -1};
    struct net_slirp *s;

    os_helper_begin("bivisor-net", ends, ARRAY_SIZE(ends));
    signal(SIGPIPE, SIG_IGN);
    w.rc = net_slirp_new(cfg, fd, orders, &s, &w.forward);
    if (!w.rc) {
        w.rc = lock_up(cfg);
        w.jail = w.rc;
    }
    if (write(fd, &w, sizeof(w)) == sizeof(w) && !w.rc &&
        !fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK)) {
        net_slirp_run(s);
        /* Before GONE is closed: who has waited for that may want the ports again. */
        net_slirp_free(s);
    }
    _exit(0);
}

/* --- in ours --- */

static void tell(const struct net_config *cfg, const struct word *w, char *why,
                 size_t why_size) {
    const struct net_forward *f = &cfg->forward[w->forward < 0 ? 0 : w->forward];

    if (w->jail)
        snprintf(why, why_size, "the user network cannot be locked up: %s",
                 jail_why(w->rc));
    else if (w->rc == -ENOSYS)
        snprintf(why, why_size,
                 "this bivisor was built without libslirp, and has no user network");
    else if (w->forward >= 0)
        snprintf(why, why_size, "cannot forward %s port %u of %u.%u.%u.%u: %s",
                 f->udp ? "UDP" : "TCP", f->port, f->address[0], f->address[1],
                 f->address[2], f->address[3], strerror(-w->rc));
    else
        snprintf(why, why_size, "cannot make the user network: %s", strerror(-w->rc));
}

/* Its word. */
static int hear(struct net *n, char *why, size_t why_size) {
    struct word w = {.rc = -EPIPE, .forward = -1};
    ssize_t got;

    do
        got = recv(n->fd, &w, sizeof(w), MSG_WAITALL);
    while (got < 0 && errno == EINTR);
    if (got != sizeof(w))
        w = (struct word){.rc = got < 0 ? -errno : -EPIPE, .forward = -1};
    if (w.rc)
        tell(&n->cfg, &w, why, why_size);
    return w.rc;
}

static int make_process(struct net *n) {
    const int kind = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK;
    int ends[2] = {-1, -1}, gone[2] = {-1, -1}, orders[2] = {-1, -1}, rc = 0;
    pid_t pid = -1;

    if (!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) &&
        !socketpair(AF_UNIX, kind, 0, orders) && !pipe2(gone, O_CLOEXEC))
        pid = fork();
    if (!pid)
        be_network(&n->cfg, ends[1], orders[1], gone[1]);
    if (pid < 0)
        rc = -errno;
    n->fd = ends[0]; /* net_close() has them */
    n->gone = gone[0];
    n->orders = orders[0];
    if (ends[1] >= 0)
        close(ends[1]);
    if (orders[1] >= 0)
        close(orders[1]);
    if (gone[1] >= 0)
        close(gone[1]);
    return rc;
}

/* The directory that is served, by its real path. */
static int find_directory(const char *name, char path[PATH_MAX], char *why,
                          size_t why_size) {
    struct stat st;
    int rc = realpath(name, path) && !stat(path, &st) ? 0 : -errno;

    if (!rc && !S_ISDIR(st.st_mode))
        rc = -ENOTDIR;
    if (rc)
        snprintf(why, why_size, "tftp=%s: %s", name, strerror(-rc));
    return rc;
}

int net_user_open(struct net *n, char *why, size_t why_size) {
    char directory[PATH_MAX];
    int rc = net_stream_buffers(n);

    if (rc)
        return rc;
    n->ops = &net_user_ops;
    snprintf(n->what, sizeof(n->what), "user");
    if (n->cfg.tftp) {
        rc = find_directory(n->cfg.tftp, directory, why, why_size);
        if (rc)
            return rc;
        n->cfg.tftp = directory;
    }
    rc = make_process(n);
    n->cfg.tftp = NULL; /* it was the process's */
    if (rc) {
        snprintf(why, why_size, "cannot make a process for the user network: %s",
                 strerror(-rc));
        return rc;
    }
    rc = hear(n, why, why_size);
    if (!rc && fcntl(n->fd, F_SETFL, fcntl(n->fd, F_GETFL) | O_NONBLOCK))
        rc = -errno;
    return rc;
}

/* --- forwards, while it runs --- */

static bool is_same(const struct net_forward *a, const struct net_forward *b) {
    return a->udp == b->udp && a->port == b->port && !memcmp(a->address, b->address, 4);
}

/* The place of F; `forwards`: it is not there. */
static unsigned find_forward(const struct net *n, const struct net_forward *f) {
    unsigned k = 0;

    while (k < n->cfg.forwards && !is_same(&n->cfg.forward[k], f))
        k++;
    return k;
}

static void keep_change(struct net *n) {
    unsigned k = find_forward(n, &n->change.forward);

    if (n->change.add)
        n->cfg.forward[n->cfg.forwards++] = n->change.forward;
    else
        n->cfg.forward[k] = n->cfg.forward[--n->cfg.forwards];
}

void net_user_changed(struct net *n, int rc) {
    void (*done)(void *arg, int rc) = n->change.done;

    if (!done)
        return;
    if (!rc)
        keep_change(n);
    n->change.done = NULL;
    done(n->change.arg, rc);
}

void net_user_told(void *arg, unsigned ready) {
    struct net *n = arg;
    int rc, got = os_socket_read(n->orders, &rc, sizeof(rc));

    if (got == -EAGAIN || got == -EINTR)
        return;
    if (got != sizeof(rc)) {
        os_watch_stop(&n->told);
        rc = -EPIPE;
    }
    net_user_changed(n, rc > 0 ? -EPROTO : rc);
}

int net_forward_change(struct net *n, const struct net_forward *f, bool add,
                       void (*done)(void *arg, int rc), void *arg) {
    const struct net_order order = {add, *f};
    bool there = find_forward(n, f) < n->cfg.forwards;

    if (n->cfg.kind != NET_USER)
        return -EOPNOTSUPP;
    if (n->change.done)
        return -EBUSY;
    if (there == add)
        return add ? -EEXIST : -ENOENT;
    if (add && n->cfg.forwards == NET_FORWARDS)
        return -ENOSPC;
    if (os_socket_write(n->orders, &order, sizeof(order)) != sizeof(order))
        return -EPIPE;
    n->change.forward = *f;
    n->change.add = add;
    n->change.done = done;
    n->change.arg = arg;
    return 0;
}

unsigned net_forwards(const struct net *n, const struct net_forward **list) {
    *list = n->cfg.forward;
    return n->cfg.forwards;
}

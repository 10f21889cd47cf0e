/*
 * A process that connects to a disk's server for one that may not. It is made, before the
 * jail, with the server's address, and goes nowhere else: it takes a token, connects, and
 * answers with the token and a descriptor. It ends when the other end of its socket is
 * closed. Its jail (os_jail_connector()) lets it do no more than that.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/os.h"
#include "block/nbd/nbd_int.h"

#define DIAL_SECONDS 5 /* a host that answers nothing */

/* --- in the process --- */

static int dial(const struct sockaddr_storage *to, socklen_t length) {
    const struct timeval patience = {.tv_sec = DIAL_SECONDS};
    int fd = socket(to->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (to->ss_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (const struct sockaddr *)to, length) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void serve(int socket, const struct sockaddr_storage *to, socklen_t length,
                  enum jail_want jail) {
    const int ends[] = {socket, STDERR_FILENO};
    uint32_t token;
    ssize_t n;

    os_helper_begin(ends, ARRAY_SIZE(ends));
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Where it cannot be, our parent's cannot either, and that tells. */
    if (jail != JAIL_OFF && os_jail_connector(to->ss_family) && jail == JAIL_ON)
        _exit(0);
    while ((n = read(socket, &token, sizeof(token))) == sizeof(token) ||
           (n < 0 && errno == EINTR)) {
        int fd;

        if (n < 0)
            continue;
        fd = dial(to, length);
        if (!os_socket_hand(socket, token, fd))
            break;
        if (fd >= 0)
            close(fd);
    }
    _exit(0);
}

/* --- in ours --- */

int nbd_connector_open(struct nbd_connector *c, const struct sockaddr_storage *to,
                       socklen_t length, enum jail_want jail) {
    int ends[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return -errno;
    pid = fork();
    if (!pid)
        serve(ends[1], to, length, jail);
    close(ends[1]);
    c->fd = ends[0];
    return pid < 0 ? -errno : 0;
}

void nbd_connector_close(struct nbd_connector *c) {
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

int nbd_connector_dial(struct nbd_connector *c, const struct nbd_patience *p) {
    struct pollfd poll_fd = {.fd = c->fd, .events = POLLIN};
    uint32_t token;
    int fd = -1, rc;

    c->token++;
    if (send(c->fd, &c->token, sizeof(c->token), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return -EPIPE;
    for (;;) {
        rc = os_socket_handed(c->fd, &token, &fd);
        if (!rc && token == c->token)
            return fd < 0 ? -ECONNREFUSED : fd;
        if (fd >= 0)
            close(fd); /* of a call that had given up */
        if (rc && rc != -EAGAIN)
            return rc;
        if (rc) {
            rc = nbd_patience_over(p, os_monotonic_ns());
            if (rc)
                return rc;
            poll(&poll_fd, 1, NBD_GLANCE_MS);
        }
    }
}

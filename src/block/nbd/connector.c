/*
 * Connections for a disk whose server has gone: a process of base/os_connector.h makes
 * them, which was given the server's address before the jail. An answer may come when
 * nobody waits for it any more: each call has a token.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_connector.h"
#include "block/nbd/nbd_int.h"

#define DIAL_SECONDS 5 /* a host that answers nothing */

struct server {
    const struct sockaddr_storage *address;
    socklen_t length;
};

/* In the process. */
static int dial(const void *to, uint32_t unused) {
    const struct server *s = to;
    const struct timeval patience = {.tv_sec = DIAL_SECONDS};
    int fd = socket(s->address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    (void)unused;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (s->address->ss_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (const struct sockaddr *)s->address, s->length) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int nbd_connector_open(struct nbd_connector *c, const struct sockaddr_storage *to,
                       socklen_t length, enum jail_want jail) {
    const struct server server = {to, length};
    const struct os_dial how = {.dial = dial, .to = &server, .family = to->ss_family};

    c->fd = os_connector_open(&how, jail);
    return c->fd < 0 ? c->fd : 0;
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
    if (!os_connector_ask(c->fd, c->token, 0))
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

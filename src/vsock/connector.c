/*
 * A process that connects to unix sockets for one that may not. It takes two numbers, a
 * token and a port, and nothing else; it answers with the token and a descriptor. It ends
 * when the other end of its socket is closed. Its jail (os_jail_connector()) lets it do
 * no more than that.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/os.h"
#include "vsock/vsock_int.h"

struct order {
    uint32_t token, port;
};

/* --- in the process --- */

static int connect_to(const char *path, uint32_t port) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd, len = snprintf(to.sun_path, sizeof(to.sun_path), "%s_%u", path, port);

    if (len < 0 || (size_t)len >= sizeof(to.sun_path))
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void serve(int socket, const char *path, enum jail_want jail) {
    const int ends[] = {socket, STDERR_FILENO};
    struct order order;
    ssize_t n;

    os_helper_begin(ends, ARRAY_SIZE(ends));
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Where it cannot be, our parent's cannot either, and that tells. */
    if (jail != JAIL_OFF && os_jail_connector(AF_UNIX) && jail == JAIL_ON)
        _exit(0);
    while ((n = read(socket, &order, sizeof(order))) == sizeof(order) ||
           (n < 0 && errno == EINTR)) {
        int fd;

        if (n < 0)
            continue;
        fd = connect_to(path, order.port);
        if (!os_socket_hand(socket, order.token, fd))
            break;
        if (fd >= 0)
            close(fd);
    }
    _exit(0);
}

/* --- in ours --- */

int connector_open(struct connector *c, const char *path, enum jail_want jail) {
    int ends[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return -errno;
    pid = fork();
    if (!pid)
        serve(ends[1], path, jail);
    close(ends[1]);
    c->fd = ends[0];
    return pid < 0 ? -errno : 0;
}

void connector_close(struct connector *c) {
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

bool connector_ask(struct connector *c, uint32_t token, uint32_t port) {
    const struct order order = {token, port};

    /* A guest can ask faster than anybody connects, and must not wait with the lock. */
    return send(c->fd, &order, sizeof(order), MSG_DONTWAIT | MSG_NOSIGNAL) ==
           sizeof(order);
}

int connector_take(struct connector *c, uint32_t *token, int *fd) {
    return os_socket_handed(c->fd, token, fd);
}

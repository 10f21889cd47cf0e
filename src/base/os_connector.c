/*
 * A process that connects to sockets for one that may not; see
 * os_connector.h. It is made before the jail, with all that it may connect to, and goes
 * nowhere else: it takes a token and a number, connects, and answers with the token and a
 * descriptor. It ends when the other end of its socket is closed. Its jail
 * (os_jail_connector()) lets it do no more than that.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_connector.h"

struct order {
    uint32_t token, number;
};

static void serve(int socket, const struct os_dial *how, enum jail_want jail) {
    const int ends[] = {socket, STDERR_FILENO};
    struct order order;
    ssize_t n;

    os_helper_begin("bivisor-connect", ends, ARRAY_SIZE(ends));
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Where it cannot be, our parent's cannot either, and that tells. */
    if (jail != JAIL_OFF && os_jail_connector(how->family) && jail == JAIL_ON)
        _exit(0);
    while ((n = read(socket, &order, sizeof(order))) == sizeof(order) ||
           (n < 0 && errno == EINTR)) {
        int fd;

        if (n < 0)
            continue;
        fd = how->dial(how->to, order.number);
        if (!os_socket_hand(socket, order.token, fd))
            break;
        if (fd >= 0)
            close(fd);
    }
    _exit(0);
}

int os_connector_open(const struct os_dial *how, enum jail_want jail) {
    int ends[2], rc;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return -errno;
    /* Ours alone does not wait. */
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
        pid = -1;
    else
        pid = fork();
    if (!pid)
        serve(ends[1], how, jail);
    rc = pid < 0 ? -errno : ends[0];
    close(ends[1]);
    if (rc < 0)
        close(ends[0]);
    return rc;
}

bool os_connector_ask(int connector, uint32_t token, uint32_t number) {
    const struct order order = {token, number};

    return os_socket_write(connector, &order, sizeof(order)) == sizeof(order);
}

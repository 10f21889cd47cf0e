/*
 * The process between clients of the API and the machine; see gate.h. One thread, which
 * waits with poll(2) for all of them and for the machine.
 *
 * Each client has a socket to it and one to the machine, and a lane each way: a buffer
 * that is filled when it is empty. What a client sends is read along, as the machine's
 * own server will read it (http.h), before it is passed on: so who has named a file is
 * known here when the machine comes to the request. An end is passed on as well.
 *
 * Of those who read requests along no one can hold up another: nothing waits but poll(2),
 * and opening a file.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/gate_files.h"
#include "base/os.h"

#define CLIENTS 48u /* more than the machine's server takes, which says so */
#define LANE 16384u

struct lane {
    size_t len, at;
    bool ended, told; /* nothing more comes; the other side knows */
    char bytes[LANE];
};

struct client {
    int outside, machine;    /* -1: it is free */
    struct lane up, down;    /* to the machine, and back */
    bool outside_left, left; /* the other end is closed altogether */
    bool lost;               /* what it sends cannot be read any more */
    size_t request_len;
    char *request; /* what has come of one */
};

struct gate_process {
    int socket;                      /* to the machine */
    struct sockaddr_storage address; /* that clients have come to */
    socklen_t address_len;
    struct gate_reader reader;
    struct named *named;
    struct gate_files *orders;
    struct client client[CLIENTS];
};

/* --- reading along --- */

static void drop_front(struct client *k, size_t len) {
    k->request_len -= len;
    memmove(k->request, k->request + len, k->request_len);
}

/* False: there is no whole request. */
static bool read_http(struct gate_process *p, struct client *k) {
    struct http_request q;
    const char *why;
    int status;

    switch (
        http_parse(k->request, k->request_len, p->reader.body_most, &q, &why, &status)) {
    case HTTP_BAD:
        k->lost = true;
        return false;
    case HTTP_WHOLE:
        named_by(p->named, &q);
        drop_front(k, q.size);
        return true;
    default:
        return false;
    }
}

/* The same. */
static bool read_line(struct gate_process *p, struct client *k) {
    size_t len = control_line_length(p->reader.speech, k->request, k->request_len);

    if (!len)
        return false;
    named_by_line(p->named, p->reader.speech, k->request, len);
    drop_front(k, len);
    return true;
}

static bool read_one(struct gate_process *p, struct client *k) {
    return p->reader.http ? read_http(p, k) : read_line(p, k);
}

static void read_along(struct gate_process *p, struct client *k, const char *bytes,
                       size_t len) {
    while (len && !k->lost) {
        size_t room = p->reader.most - k->request_len, n = len < room ? len : room;

        memcpy(k->request + k->request_len, bytes, n);
        k->request_len += n;
        bytes += n;
        len -= n;
        while (k->request_len && read_one(p, k))
            ;
        k->lost |= !n; /* it is longer than any may be */
    }
}

/* --- lanes --- */

static bool is_empty(const struct lane *l) {
    return l->at == l->len;
}

/* How many bytes are new. */
static size_t fill(struct lane *l, int from) {
    int n = os_socket_read(from, l->bytes, sizeof(l->bytes));

    l->at = 0;
    l->len = n > 0 ? (size_t)n : 0;
    l->ended |= n == 0 || (n < 0 && n != -EAGAIN && n != -EINTR);
    return l->len;
}

static void drain(struct lane *l, int to) {
    if (os_socket_write_rest(to, l->bytes, l->len, &l->at)) {
        l->at = l->len; /* nobody reads it */
        l->ended = true;
    }
    if (is_empty(l) && l->ended && !l->told) {
        l->told = true;
        (void)os_socket_end(to);
    }
}

/* --- clients --- */

static void leave(struct client *k) {
    close(k->outside);
    close(k->machine);
    free(k->request);
    *k = (struct client){.outside = -1, .machine = -1};
}

static void serve(struct gate_process *p, struct client *k, short outside,
                  short machine) {
    if (is_empty(&k->up) && !k->up.ended && outside & (POLLIN | POLLHUP | POLLERR))
        read_along(p, k, k->up.bytes, fill(&k->up, k->outside));
    if (is_empty(&k->down) && !k->down.ended && machine & (POLLIN | POLLHUP | POLLERR))
        fill(&k->down, k->machine);
    drain(&k->up, k->machine);
    drain(&k->down, k->outside);
    k->outside_left |= k->up.ended && outside & (POLLHUP | POLLERR);
    k->left |= k->down.ended && machine & (POLLHUP | POLLERR);
    if ((k->up.told && k->down.told) || (k->outside_left && k->up.told) ||
        (k->left && k->down.told))
        leave(k);
}

static short events_of(const struct lane *in, const struct lane *out) {
    return (short)((is_empty(in) && !in->ended ? POLLIN : 0) |
                   (is_empty(out) ? 0 : POLLOUT));
}

static struct client *find_place(struct gate_process *p) {
    for (unsigned n = 0; n < CLIENTS; n++)
        if (p->client[n].outside < 0)
            return &p->client[n];
    return NULL;
}

/* Both families have it in the same place (Linux, ipv6(7)). */
static in_port_t port_of(const struct sockaddr_storage *a) {
    return ((const struct sockaddr_in *)(const void *)a)->sin_port;
}

/* Who has come to our socket, and is no other that the machine has. */
static bool is_client(const struct gate_process *p, int fd) {
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof(a);

    if (getsockname(fd, (struct sockaddr *)&a, &len) ||
        a.ss_family != p->address.ss_family)
        return false;
    /* Of a port that is there at all addresses clients come to one. */
    if (a.ss_family == AF_INET || a.ss_family == AF_INET6)
        return port_of(&a) == port_of(&p->address);
    return len == p->address_len && !memcmp(&a, &p->address, len);
}

/* FD, which is taken over, is one from now on; the machine's end of it, or -errno. */
static int take_client(struct gate_process *p, int fd) {
    struct client *k = find_place(p);
    int ends[2];

    if (!k || fd < 0 || !is_client(p, fd) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends)) {
        if (fd >= 0)
            close(fd);
        return -ECONNABORTED;
    }
    k->outside = fd;
    k->machine = ends[0];
    k->request = malloc(p->reader.most);
    if (k->request)
        return ends[1];
    close(ends[1]);
    leave(k);
    return -ENOMEM;
}

/* --- orders --- */

/* False: the machine has ended. */
static bool answer(int socket, const struct gate_answer *a, const int fd[2]) {
    union gate_room room = {.header = {.cmsg_len = CMSG_LEN(2 * sizeof(int)),
                                       .cmsg_level = SOL_SOCKET,
                                       .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {(void *)(uintptr_t)a, sizeof(*a)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (!a->rc && fd[1] >= 0) {
        memcpy(CMSG_DATA(&room.header), fd, 2 * sizeof(int));
        m.msg_control = room.bytes;
        m.msg_controllen = sizeof(room.bytes);
    }
    return sendmsg(socket, &m, MSG_NOSIGNAL) >= 0;
}

/* How many bytes; FD gets what comes with them, or -1. */
static ssize_t hear(int socket, struct gate_order *o, int *fd) {
    union gate_room room;
    struct iovec iov = {o, sizeof(*o)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = room.bytes,
                       .msg_controllen = CMSG_SPACE(sizeof(int))};
    ssize_t n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
    struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

    *fd = -1;
    if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS &&
        h->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(fd, CMSG_DATA(h), sizeof(*fd));
    return n;
}

static void obey_one(struct gate_process *p, struct gate_order *o, int given,
                     struct gate_answer *a, int fd[2]) {
    if (o->what == GATE_CLIENT) {
        fd[0] = fd[1] = take_client(p, given);
        a->rc = fd[0] < 0 ? fd[0] : 0;
        return;
    }
    if (given >= 0)
        close(given);
    gate_files_do(p->orders, o, a, fd);
}

/* False: the machine has ended. */
static bool obey(struct gate_process *p) {
    struct gate_answer a = {0};
    struct gate_order o;
    int fd[2], given;
    ssize_t n = hear(p->socket, &o, &given);
    bool good;

    if (n < 0 && errno == EINTR)
        return true;
    if (n != sizeof(o))
        return false;
    obey_one(p, &o, given, &a, fd);
    good = answer(p->socket, &a, fd);
    for (unsigned k = 0; k < 2; k++)
        if (fd[k] >= 0 && (!k || fd[k] != fd[0]))
            close(fd[k]);
    return good;
}

/* --- the process --- */

/* False: the machine has ended. */
static bool turn(struct gate_process *p) {
    struct pollfd fd[1 + 2 * CLIENTS] = {{.fd = p->socket, .events = POLLIN}};

    for (unsigned n = 0; n < CLIENTS; n++) {
        struct client *k = &p->client[n];

        fd[1 + 2 * n] = (struct pollfd){.fd = k->outside_left ? -1 : k->outside,
                                        .events = events_of(&k->up, &k->down)};
        fd[2 + 2 * n] = (struct pollfd){.fd = k->left ? -1 : k->machine,
                                        .events = events_of(&k->down, &k->up)};
    }
    if (poll(fd, ARRAY_SIZE(fd), -1) < 0)
        return errno == EINTR;
    for (unsigned n = 0; n < CLIENTS; n++)
        if (p->client[n].outside >= 0)
            serve(p, &p->client[n], fd[1 + 2 * n].revents, fd[2 + 2 * n].revents);
    return !fd[0].revents || obey(p);
}

void gate_process(int listener, int socket, const struct gate_reader *reader) {
    const int ends[] = {socket, STDERR_FILENO};
    struct gate_process *p = calloc(1, sizeof(*p));

    if (!p || !(p->named = named_new()) || !(p->orders = gate_files_new(p->named)))
        _exit(1);
    p->address_len = sizeof(p->address);
    if (getsockname(listener, (struct sockaddr *)&p->address, &p->address_len))
        _exit(1);
    os_helper_begin("bivisor-api", ends, ARRAY_SIZE(ends));
    os_thread_prompt(); /* clients wait for it while CPUs compute */
    p->socket = socket;
    p->reader = *reader;
    for (unsigned n = 0; n < CLIENTS; n++)
        p->client[n].outside = p->client[n].machine = -1;
    /* Where it cannot be, our parent's cannot either, and that tells. */
    (void)os_jail_gate();
    while (turn(p))
        ;
    gate_files_end(p->orders);
    _exit(0);
}

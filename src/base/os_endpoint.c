/* Where sockets are, as users write it; see os.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/os.h"

#define TCP "tcp:"
#define TCP_LENGTH 4
#define CONNECT_SECONDS 10

/* ADDR:PORT; the last colon counts, and an address with colons stands in brackets. */
static int parse_tcp(const char *text, char *host, size_t size, uint16_t *port) {
    const char *colon = strrchr(text, ':'), *end = colon;
    unsigned long number;
    char *rest;

    if (!colon || colon == text || colon[1] < '0' || colon[1] > '9')
        return -EINVAL;
    number = strtoul(colon + 1, &rest, 10);
    if (*rest || number > UINT16_MAX)
        return -EINVAL;
    if (*text == '[' && colon[-1] == ']') {
        text++;
        end--;
    }
    if (end <= text || (size_t)(end - text) >= size)
        return -EINVAL;
    snprintf(host, size, "%.*s", (int)(end - text), text);
    *port = (uint16_t)number;
    return 0;
}

int os_endpoint_listen(const char *where, struct os_listener **out) {
    char host[INET6_ADDRSTRLEN];
    uint16_t port;
    int rc;

    if (strncmp(where, TCP, TCP_LENGTH) != 0)
        return os_listener_open(where, out);
    rc = parse_tcp(where + TCP_LENGTH, host, sizeof(host), &port);
    return rc ? rc : os_listener_open_tcp(host, port, out);
}

/* --- connecting --- */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

static int resolve_tcp(const char *text, union address *a, socklen_t *len) {
    char host[INET6_ADDRSTRLEN];
    uint16_t port;
    int rc = parse_tcp(text, host, sizeof(host), &port);

    if (rc)
        return rc;
    if (inet_pton(AF_INET, host, &a->v4.sin_addr) == 1) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons(port);
        *len = sizeof(a->v4);
        return 0;
    }
    if (inet_pton(AF_INET6, host, &a->v6.sin6_addr) != 1)
        return -EINVAL;
    a->v6.sin6_family = AF_INET6;
    a->v6.sin6_port = htons(port);
    *len = sizeof(a->v6);
    return 0;
}

static int resolve(const char *where, union address *a, socklen_t *len) {
    *a = (union address){0};
    if (!strncmp(where, TCP, TCP_LENGTH))
        return resolve_tcp(where + TCP_LENGTH, a, len);
    if (strlen(where) >= sizeof(a->local.sun_path))
        return -ENAMETOOLONG;
    a->local.sun_family = AF_UNIX;
    strcpy(a->local.sun_path, where);
    *len = sizeof(a->local);
    return 0;
}

/* A peer at a path takes us at once or not at all; one at a port within some seconds. */
static int prepare(int fd, const union address *a) {
    const struct timeval limit = {.tv_sec = CONNECT_SECONDS};
    int on = 1;

    if (a->any.sa_family == AF_UNIX)
        return fcntl(fd, F_SETFL, O_NONBLOCK);
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) ||
           setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

int os_endpoint_connect(const char *where) {
    union address a;
    socklen_t len;
    int rc = resolve(where, &a, &len), fd;

    if (rc)
        return rc;
    fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (prepare(fd, &a) || connect(fd, &a.any, len) || fcntl(fd, F_SETFL, O_NONBLOCK)) {
        rc = errno == EINPROGRESS ? -ETIMEDOUT : -errno;
        close(fd);
        return rc;
    }
    return fd;
}

const char *os_endpoint_reason(int rc) {
    switch (rc) {
    case -EINVAL:
        return "an address is numbers, such as tcp:127.0.0.1:4444 or tcp:[::1]:4444";
    case -EEXIST:
        return "there is something that is no socket";
    case -EADDRINUSE:
        return "another program listens there";
    case -ENAMETOOLONG:
        return "a socket's path has at most 107 bytes";
    case -EAGAIN:
        return "its program takes nobody now";
    case -ECONNREFUSED:
        return "no program listens there";
    default:
        return strerror(-rc);
    }
}

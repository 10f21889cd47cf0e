/*
 * Sockets that listen, and their clients; see os.h.
 *
 * The path of a unix socket outlives the jail, which lets nothing be removed. So a
 * process that is forked before it, and does nothing else, keeps it: it sleeps until its
 * pipe from us ends, which it also does when we are killed, removes the path if it is
 * still ours, and ends. A second pipe tells us that it has.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/os.h"

#define BACKLOG 16

struct os_listener {
    int fd;
    int held, gone; /* the keeper's pipes: ends with us, ends with it */
};

/* --- the path --- */

static int address_of(const char *path, struct sockaddr_un *a) {
    size_t len = strlen(path);

    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (!len)
        return -ENOENT;
    if (len >= sizeof(a->sun_path))
        return -ENAMETOOLONG;
    memcpy(a->sun_path, path, len);
    return 0;
}

/* Removes a socket that nobody listens at any more. -EEXIST: it is something else;
 * -EADDRINUSE: somebody does. */
static int clear_stale(const struct sockaddr_un *a) {
    struct stat st;
    int fd, rc;

    if (lstat(a->sun_path, &st))
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    rc = connect(fd, (const struct sockaddr *)a, sizeof(*a)) ? -errno : -EADDRINUSE;
    close(fd);
    if (rc == -EAGAIN) /* it has many who wait */
        rc = -EADDRINUSE;
    if (rc != -ECONNREFUSED)
        return rc;
    return unlink(a->sun_path) ? -errno : 0;
}

/* The mode is the mask's from the first moment on. */
static int bind_privately(int fd, const struct sockaddr_un *a) {
    mode_t old = umask(0177);
    int rc = bind(fd, (const struct sockaddr *)a, sizeof(*a)) ? -errno : 0;

    umask(old);
    return rc;
}

/* --- its keeper --- */

/* The directory that PATH is in, as a descriptor; -1. NAME is PATH's in it. */
static int open_directory(const char *path, const char **name) {
    const char *slash = strrchr(path, '/');
    char dir[sizeof(((struct sockaddr_un *)NULL)->sun_path)] = ".";

    if (slash)
        snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path) + 1, path);
    *name = slash ? slash + 1 : path;
    return open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Of a socket that has been made since, the inode may be the same. */
static bool is_same(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void keep(const char *path, const struct stat *ours, int held, int gone) {
    const char *name;
    const int dir = open_directory(path, &name), kept[] = {held, gone, dir};
    struct stat st;
    char byte;

    os_helper_begin("bivisor-path", kept, ARRAY_SIZE(kept));
    /* Where it cannot be, our parent's cannot either, and that tells. */
    (void)os_jail_remover(dir);
    while (read(held, &byte, 1) < 0 && errno == EINTR)
        ;
    if (!fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) && is_same(&st, ours))
        unlinkat(dir, name, 0);
    _exit(0);
}

static int start_keeper(struct os_listener *l, const char *path) {
    int held[2], gone[2];
    struct stat ours;
    pid_t pid;

    if (lstat(path, &ours) || pipe2(held, O_CLOEXEC))
        return -errno;
    if (pipe2(gone, O_CLOEXEC)) {
        int rc = -errno;

        close(held[0]);
        close(held[1]);
        return rc;
    }
    pid = fork();
    if (!pid)
        keep(path, &ours, held[0], gone[1]);
    l->held = held[1];
    l->gone = gone[0];
    close(held[0]);
    close(gone[1]);
    return pid < 0 ? -errno : 0;
}

/* --- listening --- */

static void close_one(int fd) {
    if (fd >= 0)
        close(fd);
}

int os_listener_open(const char *path, struct os_listener **out) {
    struct os_listener *l = malloc(sizeof(*l));
    struct sockaddr_un a;
    bool bound = false;
    int rc;

    if (!l)
        return -ENOMEM;
    *l = (struct os_listener){-1, -1, -1};
    rc = address_of(path, &a);
    if (!rc)
        rc = clear_stale(&a);
    if (!rc) {
        l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        rc = l->fd < 0 ? -errno : bind_privately(l->fd, &a);
        bound = !rc;
    }
    if (!rc && listen(l->fd, BACKLOG))
        rc = -errno;
    if (!rc)
        rc = start_keeper(l, path);
    if (rc) {
        if (bound)
            unlink(path);
        os_listener_close(l);
        return rc;
    }
    *out = l;
    return 0;
}

/* Small answers are sent at once. */
static int bind_tcp(int fd, const char *address, uint16_t port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    bool v4 = inet_pton(AF_INET, address, &a.sin_addr) == 1;
    int on = 1;

    if (!v4 && inet_pton(AF_INET6, address, &a6.sin6_addr) != 1)
        return -EINVAL;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) ||
        bind(fd, v4 ? (const struct sockaddr *)&a : (const struct sockaddr *)&a6,
             v4 ? sizeof(a) : sizeof(a6)) ||
        listen(fd, BACKLOG))
        return -errno;
    return 0;
}

int os_listener_open_tcp(const char *address, uint16_t port, struct os_listener **out) {
    struct os_listener *l = malloc(sizeof(*l));
    int rc;

    if (!l)
        return -ENOMEM;
    *l = (struct os_listener){-1, -1, -1};
    l->fd = socket(strchr(address, ':') ? AF_INET6 : AF_INET,
                   SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    rc = l->fd < 0 ? -errno : bind_tcp(l->fd, address, port);
    if (rc) {
        os_listener_close(l);
        return rc;
    }
    *out = l;
    return 0;
}

void os_listener_close(struct os_listener *l) {
    char byte;

    if (!l)
        return;
    close_one(l->fd);
    close_one(l->held);
    while (l->gone >= 0 && read(l->gone, &byte, 1) < 0 && errno == EINTR)
        ;
    close_one(l->gone);
    free(l);
}

int os_listener_fd(const struct os_listener *l) {
    return l->fd;
}

int os_listener_accept(const struct os_listener *l) {
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

/* --- clients. read(2) and write(2), which the jail allows anyway --- */

int os_socket_read(int fd, void *buf, size_t size) {
    ssize_t n = read(fd, buf, size < INT32_MAX ? size : INT32_MAX);

    return n < 0 ? -errno : (int)n;
}

int os_socket_write(int fd, const void *buf, size_t len) {
    ssize_t n = write(fd, buf, len < INT32_MAX ? len : INT32_MAX);

    return n < 0 ? -errno : (int)n;
}

int os_socket_write_rest(int fd, const void *bytes, size_t len, size_t *at) {
    while (*at < len) {
        int n = os_socket_write(fd, (const uint8_t *)bytes + *at, len - *at);

        if (n == -EAGAIN)
            return 0;
        if (n < 0 && n != -EINTR)
            return n;
        *at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int os_socket_end(int fd) {
    return shutdown(fd, SHUT_WR) ? -errno : 0;
}

void os_socket_close(int fd) {
    close(fd);
}

/* --- handing over --- */

/* A control message that has one descriptor. */
union room {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

bool os_socket_hand(int socket, uint32_t token, int fd) {
    union room room = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                                  .cmsg_level = SOL_SOCKET,
                                  .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {&token, sizeof(token)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        memcpy(CMSG_DATA(&room.header), &fd, sizeof(fd));
        m.msg_control = room.bytes;
        m.msg_controllen = sizeof(room.bytes);
    }
    return sendmsg(socket, &m, MSG_NOSIGNAL) >= 0;
}

int os_socket_handed(int socket, uint32_t *token, int *fd) {
    union room room;
    struct iovec iov = {token, sizeof(*token)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = room.bytes,
                       .msg_controllen = sizeof(room.bytes)};
    struct cmsghdr *h;
    ssize_t n;

    *fd = -1;
    n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n != sizeof(*token))
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? -EAGAIN : -EPIPE;
    h = CMSG_FIRSTHDR(&m);
    if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
        memcpy(fd, CMSG_DATA(h), sizeof(*fd));
    return 0;
}

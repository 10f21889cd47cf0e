/*
 * One connection to a server: see nbd_int.h. libnbd, which is loaded when it is wanted,
 * speaks the protocol; here is who waits. Its own functions that wait do so with a lock
 * held, one command at a time. So commands are begun (aio), and one of the threads that
 * have some waits in poll(2) without any lock, and lets libnbd receive; the others sleep
 * until something was received. Who begins a command wakes the one who waits, because
 * what is to be waited for may be another thing now.
 *
 * The socket is libnbd's, and closed by it at the moment that the connection ends; so it
 * is used with the lock held only, but for poll(2), which the number of another
 * descriptor does no harm.
 */
#ifdef HAVE_LIBNBD

#include <dlfcn.h>
#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/os.h"
#include "block/nbd/nbd_int.h"

#define LIBRARY "libnbd.so.0"

/* What of the library is used. */
#define CALLS(X)                                                                         \
    X(aio_command_completed)                                                             \
    X(aio_connect_socket)                                                                \
    X(aio_disconnect)                                                                    \
    X(aio_flush)                                                                         \
    X(aio_get_direction)                                                                 \
    X(aio_get_fd)                                                                        \
    X(aio_is_closed)                                                                     \
    X(aio_is_dead)                                                                       \
    X(aio_is_ready)                                                                      \
    X(aio_notify_read)                                                                   \
    X(aio_notify_write)                                                                  \
    X(aio_pread)                                                                         \
    X(aio_pwrite)                                                                        \
    X(aio_trim)                                                                          \
    X(aio_zero)                                                                          \
    X(can_flush)                                                                         \
    X(can_multi_conn)                                                                    \
    X(can_trim)                                                                          \
    X(can_zero)                                                                          \
    X(close)                                                                             \
    X(connect_uri)                                                                       \
    X(create)                                                                            \
    X(get_block_size)                                                                    \
    X(get_errno)                                                                         \
    X(get_error)                                                                         \
    X(get_export_name)                                                                   \
    X(get_size)                                                                          \
    X(is_read_only)                                                                      \
    X(set_export_name)                                                                   \
    X(set_uri_allow_tls)                                                                 \
    X(set_uri_allow_transports)

/* The library's functions, set once. */
static struct {
#define FIELD(name) __typeof__(&nbd_##name) name;
    CALLS(FIELD)
#undef FIELD
} call;

int nbd_library(char *why, size_t why_size) {
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

#define FIND(name) *(void **)&call.name = library ? dlsym(library, "nbd_" #name) : NULL;
    CALLS(FIND)
#undef FIND
#define MISSING(name) || !call.name
    if (!library CALLS(MISSING)) {
        snprintf(why, why_size,
                 "nbd:// needs libnbd, which is not installed or too old (%s); the "
                 "package is libnbd0",
                 dlerror() ?: LIBRARY);
        return -ENOTSUP;
    }
#undef MISSING
    return 0;
}

/* The error of the call that this thread has made last. */
static int error_now(void) {
    int error = call.get_errno();

    return error ? -error : -EIO;
}

/* --- making and ending --- */

int nbd_line_init(struct nbd_line *l) {
    pthread_condattr_t monotonic;

    *l = (struct nbd_line){.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    if (l->wake < 0)
        return -errno;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&l->moved, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return 0;
}

static void drop_handle(struct nbd_line *l) {
    if (!l->handle)
        return;
    call.aio_disconnect(l->handle, 0); /* without waiting for the answer */
    call.close(l->handle);
    l->handle = NULL;
}

void nbd_line_done(struct nbd_line *l) {
    drop_handle(l);
    pthread_cond_destroy(&l->moved);
    pthread_mutex_destroy(&l->lock);
    close(l->wake);
}

int nbd_line_connect(struct nbd_line *l, const char *uri, char *why, size_t why_size) {
    int rc = 0;

    l->handle = call.create();
    if (!l->handle ||
        call.set_uri_allow_transports(l->handle, LIBNBD_ALLOW_TRANSPORT_TCP |
                                                     LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 ||
        call.set_uri_allow_tls(l->handle, LIBNBD_TLS_DISABLE) < 0 ||
        call.connect_uri(l->handle, uri) < 0) {
        rc = error_now();
        snprintf(why, why_size, "cannot connect to '%s': %s", uri,
                 call.get_error() ?: strerror(-rc));
    }
    return rc;
}

char *nbd_line_name(struct nbd_line *l) {
    return call.get_export_name(l->handle);
}

int nbd_line_peer(struct nbd_line *l, struct sockaddr_storage *out) {
    socklen_t length = sizeof(*out);

    if (getpeername(call.aio_get_fd(l->handle), (struct sockaddr *)out, &length) < 0)
        return -errno;
    return (int)length;
}

int nbd_line_ask(struct nbd_line *l, struct nbd_export *out) {
    struct nbd_handle *h = l->handle;
    int64_t size = call.get_size(h);
    int64_t least = call.get_block_size(h, LIBNBD_SIZE_MINIMUM);
    int64_t most = call.get_block_size(h, LIBNBD_SIZE_MAXIMUM);

    if (size < 0)
        return -EINVAL;
    *out = (struct nbd_export){
        .size = (uint64_t)size / BLOCK_SECTOR * BLOCK_SECTOR,
        .most = most >= 65536 && most < 32 << 20 ? (uint64_t)most & ~4095ull : 32u << 20,
        .flush = call.can_flush(h) > 0,
        .trim = call.can_trim(h) > 0,
        .zero = call.can_zero(h) > 0,
        .readonly = call.is_read_only(h) > 0,
        .many = call.can_multi_conn(h) > 0,
        .small = least <= (int64_t)BLOCK_SECTOR,
    };
    return 0;
}

/* --- waiting; the lock is held --- */

static bool ended(const struct nbd_line *l) {
    return call.aio_is_dead(l->handle) > 0 || call.aio_is_closed(l->handle) > 0;
}

static void poke(struct nbd_line *l) {
    const uint64_t one = 1;

    if (l->waiting && write(l->wake, &one, sizeof(one)) < 0)
        l->waiting = true; /* it is full: it wakes as well */
}

/* What has come of it: libnbd reads and writes. */
static void notify(struct nbd_line *l, short events) {
    unsigned direction = call.aio_get_direction(l->handle);

    if (direction & LIBNBD_AIO_DIRECTION_READ && events & ~POLLOUT)
        call.aio_notify_read(l->handle);
    else if (direction & LIBNBD_AIO_DIRECTION_WRITE && events)
        call.aio_notify_write(l->handle);
}

/* Waits for the server, at most MS (-1: for ever), and does what there is to do. */
static void wait_here(struct nbd_line *l, int ms) {
    unsigned direction = call.aio_get_direction(l->handle);
    struct pollfd fds[] = {{.fd = call.aio_get_fd(l->handle)},
                           {.fd = l->wake, .events = POLLIN}};
    uint64_t drained;
    int n;

    if (direction & LIBNBD_AIO_DIRECTION_READ)
        fds[0].events |= POLLIN;
    if (direction & LIBNBD_AIO_DIRECTION_WRITE)
        fds[0].events |= POLLOUT;
    l->waiting = true;
    pthread_mutex_unlock(&l->lock);
    n = poll(fds, ARRAY_SIZE(fds), ms);
    pthread_mutex_lock(&l->lock);
    l->waiting = false;
    if (n > 0 && fds[1].revents && read(l->wake, &drained, sizeof(drained)) < 0)
        n = 0; /* cannot be */
    if (n > 0 && fds[0].revents && !ended(l))
        notify(l, fds[0].revents);
    pthread_cond_broadcast(&l->moved);
}

/* The same, or until who waits has done so. END: 0, never. False: it is over. */
static bool wait_once(struct nbd_line *l, uint64_t end) {
    uint64_t now = end ? os_monotonic_ns() : 0;
    const struct timespec until = {.tv_sec = (time_t)(end / 1000000000u),
                                   .tv_nsec = (long)(end % 1000000000u)};

    if (end && now >= end)
        return false;
    if (!l->waiting)
        wait_here(l, end ? (int)((end - now) / 1000000 + 1) : -1);
    else if (end)
        pthread_cond_timedwait(&l->moved, &l->lock, &until);
    else
        pthread_cond_wait(&l->moved, &l->lock);
    return true;
}

int nbd_line_attach(struct nbd_line *l, int fd, const char *name,
                    const struct nbd_patience *p) {
    int rc = 0;

    pthread_mutex_lock(&l->lock);
    drop_handle(l);
    l->handle = call.create();
    if (!l->handle || call.set_export_name(l->handle, name) < 0) {
        rc = -ENOMEM;
        close(fd);
    } else if (call.aio_connect_socket(l->handle, fd) < 0) {
        rc = -EIO;
    }
    while (!rc && call.aio_is_ready(l->handle) <= 0) {
        uint64_t now = os_monotonic_ns(), glance = now + NBD_GLANCE_MS * 1000000ull;

        rc = ended(l) ? -EIO : nbd_patience_over(p, now);
        if (!rc)
            wait_once(l, glance < p->end ? glance : p->end);
    }
    pthread_mutex_unlock(&l->lock);
    return rc;
}

/* --- commands --- */

static int64_t begin(struct nbd_handle *h, const struct nbd_command *c) {
    const nbd_completion_callback none = NBD_NULL_COMPLETION;

    switch (c->way) {
    case NBD_READ:
        return call.aio_pread(h, c->buf, c->len, c->offset, none, 0);
    case NBD_WRITE:
        return call.aio_pwrite(h, c->buf, c->len, c->offset, none, 0);
    case NBD_TRIM:
        return call.aio_trim(h, c->len, c->offset, none, 0);
    case NBD_ZERO:
        return call.aio_zero(h, c->len, c->offset, none, 0);
    case NBD_ZERO_KEEP:
        return call.aio_zero(h, c->len, c->offset, none, LIBNBD_CMD_FLAG_NO_HOLE);
    case NBD_FLUSH:
        return call.aio_flush(h, none, 0);
    }
    return -1;
}

/* Until the command of that COOKIE is done; the lock is held. */
static int finish(struct nbd_line *l, uint64_t cookie, uint64_t end) {
    for (;;) {
        int done = call.aio_command_completed(l->handle, cookie), rc;

        if (done > 0)
            return 0;
        rc = done ? error_now() : 0;
        if (ended(l))
            return NBD_LOST;
        if (done)
            return rc;
        if (!wait_once(l, end))
            return -ETIMEDOUT;
    }
}

int nbd_line_do(struct nbd_line *l, const struct nbd_command *c, uint64_t end) {
    int64_t cookie;
    int rc;

    pthread_mutex_lock(&l->lock);
    cookie = begin(l->handle, c);
    rc = cookie < 0 ? error_now() : 0;
    if (cookie < 0 && ended(l))
        rc = NBD_LOST;
    poke(l);
    if (!rc)
        rc = finish(l, (uint64_t)cookie, end);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

void nbd_line_cut(struct nbd_line *l) {
    int fd;

    pthread_mutex_lock(&l->lock);
    fd = l->handle && !ended(l) ? call.aio_get_fd(l->handle) : -1;
    if (fd >= 0)
        shutdown(fd, SHUT_RDWR);
    poke(l);
    pthread_mutex_unlock(&l->lock);
}

#endif

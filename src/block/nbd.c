/*
 * A disk that a server has: the network block device, nbd:// and nbd+unix://, through
 * libnbd, which is loaded when it is wanted. What the server serves is the disk, raw.
 *
 * Connections are made before the jail: as many as there are workers, if the server says
 * that what is flushed on one is flushed on all, else one. A request takes a connection
 * that is free, or waits for one. A connection that is lost stays lost: the guest sees
 * errors of its disk.
 *
 * The server is not trusted: it can give wrong data and errors, and keep us waiting;
 * abandon() ends that, and the end of the disk waits BLOCK_PATIENCE, not for ever.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/block_int.h"

#ifdef HAVE_LIBNBD

#include <dlfcn.h>
#include <libnbd.h>
#include <pthread.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/os.h"

#define LIBRARY "libnbd.so.0"

/* What of the library is used. */
#define CALLS(X)                                                                         \
    X(aio_command_completed)                                                             \
    X(aio_disconnect)                                                                    \
    X(aio_flush)                                                                         \
    X(aio_get_fd)                                                                        \
    X(can_flush)                                                                         \
    X(can_multi_conn)                                                                    \
    X(can_trim)                                                                          \
    X(can_zero)                                                                          \
    X(close)                                                                             \
    X(connect_uri)                                                                       \
    X(create)                                                                            \
    X(flush)                                                                             \
    X(get_block_size)                                                                    \
    X(get_errno)                                                                         \
    X(get_error)                                                                         \
    X(get_size)                                                                          \
    X(is_read_only)                                                                      \
    X(poll)                                                                              \
    X(pread)                                                                             \
    X(pwrite)                                                                            \
    X(set_uri_allow_tls)                                                                 \
    X(set_uri_allow_transports)                                                          \
    X(trim)                                                                              \
    X(zero)

struct calls {
#define FIELD(name) __typeof__(&nbd_##name) name;
    CALLS(FIELD)
#undef FIELD
};

struct nbd {
    struct image image;
    struct calls call;
    void *library;
    pthread_mutex_t lock;
    pthread_cond_t freed;
    struct nbd_handle *connection[BLOCK_WORKERS];
    int fd[BLOCK_WORKERS]; /* of each, libnbd's */
    bool taken[BLOCK_WORKERS];
    unsigned connections;
    uint64_t most; /* bytes in a request */
    bool can_flush, can_trim, can_zero;
};

static struct nbd *nbd_from(struct image *i) {
    return container_of(i, struct nbd, image);
}

/* --- requests --- */

static unsigned take(struct nbd *d) {
    unsigned n;

    pthread_mutex_lock(&d->lock);
    for (;;) {
        for (n = 0; n < d->connections && d->taken[n];)
            n++;
        if (n < d->connections)
            break;
        pthread_cond_wait(&d->freed, &d->lock);
    }
    d->taken[n] = true;
    pthread_mutex_unlock(&d->lock);
    return n;
}

static void give(struct nbd *d, unsigned n) {
    pthread_mutex_lock(&d->lock);
    d->taken[n] = false;
    pthread_cond_signal(&d->freed);
    pthread_mutex_unlock(&d->lock);
}

/* What a call that returned RC means; the thread's last error is the call's. EINVAL is
 * libnbd's for a connection that is lost. */
static int result(const struct nbd *d, int rc) {
    int error = rc < 0 ? d->call.get_errno() : 0;

    return rc < 0 ? -(error && error != EINVAL ? error : EIO) : 0;
}

enum way { READ, WRITE, TRIM, ZERO, ZERO_KEEP };

static int one(struct nbd *d, struct nbd_handle *h, enum way way, void *buf, size_t len,
               uint64_t offset) {
    switch (way) {
    case READ:
        return d->call.pread(h, buf, len, offset, 0);
    case WRITE:
        return d->call.pwrite(h, buf, len, offset, 0);
    case TRIM:
        return d->call.trim(h, len, offset, 0);
    case ZERO:
        return d->call.zero(h, len, offset, 0);
    case ZERO_KEEP:
        return d->call.zero(h, len, offset, LIBNBD_CMD_FLAG_NO_HOLE);
    }
    return -1;
}

/* In requests that are not larger than the server takes. */
static int all(struct nbd *d, enum way way, void *buf, uint64_t len, uint64_t offset) {
    unsigned n = take(d);
    uint8_t *at = buf;
    int rc = 0;

    while (len && !rc) {
        size_t here = len < d->most ? len : d->most;

        rc = result(d, one(d, d->connection[n], way, at, here, offset));
        at = at ? at + here : NULL;
        offset += here;
        len -= here;
    }
    give(d, n);
    return rc;
}

static int nbd_move(struct nbd *d, bool write, uint64_t offset, const struct iovec *iov,
                    unsigned count) {
    size_t len = iov_length(iov, count);
    uint8_t *buf;
    int rc;

    if (count == 1)
        return all(d, write ? WRITE : READ, iov->iov_base, len, offset);
    buf = malloc(len);
    if (!buf)
        return -ENOMEM;
    if (write)
        iov_copy(iov, count, 0, buf, len);
    rc = all(d, write ? WRITE : READ, buf, len, offset);
    if (!rc && !write)
        iov_fill(iov, count, 0, buf, len);
    free(buf);
    return rc;
}

static int nbd_read(struct image *i, uint64_t offset, const struct iovec *iov,
                    unsigned count) {
    return nbd_move(nbd_from(i), false, offset, iov, count);
}

static int nbd_write(struct image *i, uint64_t offset, const struct iovec *iov,
                     unsigned count) {
    return nbd_move(nbd_from(i), true, offset, iov, count);
}

static int flush(struct image *i) {
    struct nbd *d = nbd_from(i);
    unsigned n;
    int rc;

    if (!d->can_flush)
        return 0;
    n = take(d);
    rc = result(d, d->call.flush(d->connection[n], 0));
    give(d, n);
    return rc;
}

static int discard(struct image *i, uint64_t offset, uint64_t length) {
    struct nbd *d = nbd_from(i);

    return d->can_trim ? all(d, TRIM, NULL, length, offset) : 0;
}

static int zeroes(struct image *i, uint64_t offset, uint64_t length, bool unmap) {
    struct nbd *d = nbd_from(i);

    return d->can_zero ? all(d, unmap ? ZERO : ZERO_KEEP, NULL, length, offset)
                       : image_write_zeroes(i, offset, length);
}

static void abandon(struct image *i) {
    struct nbd *d = nbd_from(i);

    for (unsigned n = 0; n < d->connections; n++)
        shutdown(d->fd[n], SHUT_RDWR); /* not through libnbd: a call holds its lock */
}

static unsigned sockets(const struct image *i, int *out, unsigned room) {
    const struct nbd *d = container_of(i, const struct nbd, image);
    unsigned n;

    for (n = 0; n < d->connections && n < room; n++)
        out[n] = d->fd[n];
    return n;
}

/* The last flush: the server has its time for it, and no more. */
static int last_flush(struct nbd *d) {
    uint64_t end = os_monotonic_ns() + BLOCK_PATIENCE * 1000000000ull, now;
    struct nbd_handle *h = d->connection[0];
    int64_t cookie = d->call.aio_flush(h, NBD_NULL_COMPLETION, 0);
    int done = 0;

    if (cookie < 0)
        return result(d, -1);
    while (!done && (now = os_monotonic_ns()) < end) {
        if (d->call.poll(h, (int)((end - now) / 1000000 + 1)) < 0)
            return result(d, -1);
        done = d->call.aio_command_completed(h, (uint64_t)cookie);
    }
    return done ? result(d, done) : -ETIMEDOUT;
}

static int close_all(struct image *i) {
    struct nbd *d = nbd_from(i);
    int rc = i->readonly || !d->can_flush ? 0 : last_flush(d);

    for (unsigned n = 0; n < d->connections; n++) {
        d->call.aio_disconnect(d->connection[n], 0); /* without waiting for the answer */
        d->call.close(d->connection[n]);
    }
    pthread_cond_destroy(&d->freed);
    pthread_mutex_destroy(&d->lock);
    image_done(i);
    free(d);
    return rc;
}

static const struct image_ops ops = {.read = nbd_read,
                                     .write = nbd_write,
                                     .flush = flush,
                                     .discard = discard,
                                     .zeroes = zeroes,
                                     .abandon = abandon,
                                     .sockets = sockets,
                                     .close = close_all};

/* --- opening --- */

static int load(struct nbd *d, char *why, size_t why_size) {
    d->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
#define FIND(name)                                                                       \
    *(void **)&d->call.name = d->library ? dlsym(d->library, "nbd_" #name) : NULL;
    CALLS(FIND)
#undef FIND
#define MISSING(name) || !d->call.name
    if (!d->library CALLS(MISSING)) {
        snprintf(why, why_size,
                 "nbd:// needs libnbd, which is not installed or too old (%s); the "
                 "package is libnbd0",
                 dlerror() ?: LIBRARY);
        return -ENOTSUP;
    }
#undef MISSING
    return 0;
}

static int connect_one(struct nbd *d, const char *uri) {
    struct nbd_handle *h = d->call.create();

    if (!h)
        return result(d, -1);
    d->connection[d->connections++] = h;
    if (d->call.set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_TCP |
                                                LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 ||
        d->call.set_uri_allow_tls(h, LIBNBD_TLS_DISABLE) < 0 ||
        d->call.connect_uri(h, uri) < 0)
        return result(d, -1);
    d->fd[d->connections - 1] = d->call.aio_get_fd(h);
    return 0;
}

/* 0, or -errno after a sentence. */
static int ask(struct nbd *d, const char *uri, char *why, size_t why_size) {
    struct nbd_handle *h = d->connection[0];
    int64_t size = d->call.get_size(h);
    int64_t least = d->call.get_block_size(h, LIBNBD_SIZE_MINIMUM);
    int64_t most = d->call.get_block_size(h, LIBNBD_SIZE_MAXIMUM);

    d->can_flush = d->call.can_flush(h) > 0;
    d->can_trim = d->call.can_trim(h) > 0;
    d->can_zero = d->call.can_zero(h) > 0;
    d->most = most >= 65536 && most < 32 << 20 ? (uint64_t)most & ~4095ull : 32u << 20;
    d->image.size = size > 0 ? (uint64_t)size / BLOCK_SECTOR * BLOCK_SECTOR : 0;
    d->image.granule = 4096;
    if (size < 0 || least > BLOCK_SECTOR) {
        snprintf(why, why_size, "the server of '%s' %s", uri,
                 size < 0 ? "does not say how large its disk is"
                          : "takes no requests as small as a sector; nbdkit's filter "
                            "'blocksize' helps");
        return -EINVAL;
    }
    if (!d->image.readonly && d->call.is_read_only(h) > 0) {
        snprintf(why, why_size,
                 "'%s' cannot be written to; ',readonly' or ',overlay=temp' leaves it "
                 "alone",
                 uri);
        return -EROFS;
    }
    if (!d->image.readonly && !d->can_flush)
        log_warn("the server of '%s' does not know of flushes: what the guest flushes is "
                 "as durable as what it writes there",
                 uri);
    return 0;
}

static int start(struct nbd *d, const char *uri, char *why, size_t why_size) {
    unsigned want = 1;
    int rc = load(d, why, why_size);

    if (rc)
        return rc;
    for (unsigned n = 0; n < want && !rc; n++) {
        rc = connect_one(d, uri);
        if (rc)
            snprintf(why, why_size, "cannot connect to '%s': %s", uri,
                     d->call.get_error() ?: strerror(-rc));
        if (!rc && !n) {
            rc = ask(d, uri, why, why_size);
            want = d->call.can_multi_conn(d->connection[0]) > 0 ? BLOCK_WORKERS : 1;
        }
    }
    return rc;
}

int nbd_open(const char *uri, bool readonly, struct image **out, char *why,
             size_t why_size) {
    struct nbd *d = calloc(1, sizeof(*d));
    int rc = d ? image_init(&d->image, &ops, uri) : -ENOMEM;

    if (rc) {
        snprintf(why, why_size, "out of memory");
        free(d);
        return rc;
    }
    d->image.readonly = readonly;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->freed, NULL);
    rc = start(d, uri, why, why_size);
    if (rc) {
        d->image.readonly = true; /* there is nothing to flush */
        close_all(&d->image);
        return rc;
    }
    *out = &d->image;
    return 0;
}

#else

int nbd_open(const char *uri, bool readonly, struct image **out, char *why,
             size_t why_size) {
    snprintf(why, why_size,
             "'%s': this bivisor was built without libnbd; install libnbd-dev and build "
             "it again",
             uri);
    return -ENOTSUP;
}

#endif

bool block_is_server(const char *path) {
    return !strncmp(path, "nbd://", 6) || !strncmp(path, "nbd+unix://", 11);
}

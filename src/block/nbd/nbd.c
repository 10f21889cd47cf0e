/*
 * A disk that a server has: the network block device, nbd:// and nbd+unix://, through
 * libnbd. What the server serves is the disk, raw.
 *
 * Connections are made before the jail: as many as there are workers, if the server says
 * that what is flushed on one is flushed on all, else one. Requests of all workers are on
 * them at once.
 *
 * A server that has gone is connected to again, through a process that may do that
 * (connector.c); requests wait for it meanwhile, `reconnect` seconds, and then fail until
 * it is back. Nothing is lost by it: a request that was not answered is made once more,
 * and what was acknowledged and not yet flushed is in the journal, and is written again
 * before anything else. The journal ends at a flush; when it has grown to JOURNAL_MAX the
 * disk flushes by itself.
 *
 *     UP      requests go out; `inside` counts them
 *     LOST    a connection has ended, all are cut: when nobody is inside any more ...
 *     MENDING ... one thread connects anew and writes the journal; the others wait
 *
 * `lock` has the state, the journal and the counts; it is not held while anybody waits
 * for the server.
 *
 * The server is not trusted: it can give wrong data and errors, and keep us waiting;
 * abandon() ends that, and the end of the disk waits BLOCK_PATIENCE, not for ever.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_LIBNBD

#include <sys/un.h>

#include "base/log.h"
#include "base/os.h"
#include "block/nbd/nbd_int.h"

#define SECOND 1000000000ull
#define JOURNAL_MAX (32u << 20) /* bytes */
#define AGAIN_MS 200            /* between two attempts to connect */
#define HANDSHAKE 5u            /* seconds; a server that accepts and says nothing */

enum state { UP, LOST, MENDING };

struct nbd {
    struct image image;
    struct nbd_line line[BLOCK_WORKERS];
    unsigned busy[BLOCK_WORKERS]; /* commands on each */
    unsigned lines;
    struct nbd_export server;
    char *name; /* of the export */
    struct nbd_connector connector;
    unsigned reconnect; /* seconds */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* the state, or what one waits for in it */
    enum state state;
    unsigned inside;
    uint64_t lost_at, tried_at; /* os_monotonic_ns() */
    uint64_t last;      /* when the disk's end waits no more; 0: it is not ending */
    unsigned abandoned; /* how often abandon() was called */
    struct nbd_journal journal;
    int spoiled; /* -errno: what was acknowledged could not be written again */
    bool told;   /* that it has gone for good, or is another's now */
};

static struct nbd *nbd_from(struct image *i) {
    return container_of(i, struct nbd, image);
}

/* --- when the server has gone --- */

/* What it serves now is what it was. */
static bool same(const struct nbd *d, const struct nbd_export *now) {
    return now->size == d->server.size && now->most >= d->server.most &&
           now->flush >= d->server.flush && now->trim >= d->server.trim &&
           now->zero >= d->server.zero && (d->image.readonly || !now->readonly) &&
           (d->lines == 1 || now->many);
}

static int redial(struct nbd *d, struct nbd_line *l, unsigned abandoned, uint64_t end) {
    uint64_t handshake = os_monotonic_ns() + HANDSHAKE * SECOND;
    const struct nbd_patience p = {.end = handshake > end && d->last ? end : handshake,
                                   .stop = &d->abandoned,
                                   .as_it_is = abandoned};
    struct nbd_export now;
    int fd, rc;

    fd = nbd_connector_dial(&d->connector, &p);
    rc = fd < 0 ? fd : nbd_line_attach(l, fd, d->name, &p);
    if (!rc)
        rc = nbd_line_ask(l, &now);
    if (rc || same(d, &now))
        return rc;
    if (!d->told)
        log_error("the server of '%s' is back with another disk; it is left alone",
                  d->image.path);
    d->told = true;
    return -EINVAL;
}

/* What the server had, and may have lost. */
static int write_again(struct nbd *d, uint64_t end) {
    int rc = 0;

    for (struct nbd_entry *e = d->journal.first; e && !rc; e = e->next) {
        rc = nbd_line_do(&d->line[0], &e->c, d->last ? end : 0);
        if (rc >= 0)
            continue;
        if (!d->spoiled)
            log_error("what the guest had written to '%s' cannot be written to it again: "
                      "%s; it sees an error when it wants it durable",
                      d->image.path, strerror(-rc));
        d->spoiled = rc;
        rc = 0;
    }
    return rc;
}

/* One attempt. The state is MENDING: all of it is ours, without the lock. */
static int mend_once(struct nbd *d, unsigned abandoned, uint64_t end) {
    int rc = 0;

    for (unsigned n = 0; n < d->lines && !rc; n++)
        rc = redial(d, &d->line[n], abandoned, end);
    return rc ? rc : write_again(d, end);
}

static uint64_t patience_end(const struct nbd *d) {
    uint64_t end = d->lost_at + d->reconnect * SECOND;

    return d->last && d->last < end ? d->last : end;
}

/* Waits a while, or until somebody says something; the lock is held. */
static void pause_for(struct nbd *d, unsigned ms) {
    uint64_t at = os_monotonic_ns() + ms * 1000000ull;
    const struct timespec until = {.tv_sec = (time_t)(at / SECOND),
                                   .tv_nsec = (long)(at % SECOND)};

    pthread_cond_timedwait(&d->changed, &d->lock, &until);
}

/* Until it is UP, or nobody waits any more; the lock is held. */
static void mend(struct nbd *d) {
    const unsigned abandoned = d->abandoned;
    uint64_t end = patience_end(d);
    int rc;

    d->state = MENDING;
    for (;;) {
        d->tried_at = os_monotonic_ns();
        pthread_mutex_unlock(&d->lock);
        rc = mend_once(d, abandoned, end);
        pthread_mutex_lock(&d->lock);
        if (!rc || d->abandoned != abandoned || os_monotonic_ns() >= end)
            break;
        pause_for(d, AGAIN_MS);
    }
    d->state = rc ? LOST : UP;
    if (!rc) {
        log_warn("the server of '%s' is back", d->image.path);
        d->told = false;
    } else if (!d->told) {
        log_error("the server of '%s' has gone: the guest sees errors of its disk until "
                  "it is back",
                  d->image.path);
        d->told = true;
    }
    pthread_cond_broadcast(&d->changed);
}

/* A connection has ended: what is on the others comes back as well, so that all can be
 * made anew. The lock is held. */
static void lose(struct nbd *d) {
    if (d->state != UP)
        return;
    d->state = LOST;
    d->lost_at = os_monotonic_ns();
    if (d->reconnect)
        log_warn("the server of '%s' has gone; requests wait for it, %u seconds",
                 d->image.path, d->reconnect);
    for (unsigned n = 0; n < d->lines; n++)
        nbd_line_cut(&d->line[n]);
}

/* --- requests --- */

static unsigned least_busy(const struct nbd *d) {
    unsigned best = 0;

    for (unsigned n = 1; n < d->lines; n++)
        if (d->busy[n] < d->busy[best])
            best = n;
    return best;
}

/* Comes inside, when that can be: 0 with the line for it, and the number that the journal
 * has reached; or -errno. The lock is held. ABANDONED is what it was at the start. */
static int come_in(struct nbd *d, unsigned abandoned, unsigned *line) {
    while (d->state != UP) {
        if (d->abandoned != abandoned)
            return -EIO;
        if (d->state == MENDING || d->inside) {
            pthread_cond_wait(&d->changed, &d->lock);
            continue;
        }
        if (os_monotonic_ns() >= patience_end(d) &&
            os_monotonic_ns() < d->tried_at + SECOND)
            return -EIO;
        mend(d);
        if (d->state == LOST && os_monotonic_ns() >= patience_end(d))
            return -EIO;
    }
    if (d->abandoned != abandoned)
        return -EIO;
    *line = least_busy(d);
    d->busy[*line]++;
    d->inside++;
    return 0;
}

/* The lock is held. True: C is done, as RC says; else it is to be made again. */
static bool go_out(struct nbd *d, unsigned line, int rc) {
    d->busy[line]--;
    d->inside--;
    if (rc == NBD_LOST)
        lose(d);
    if (d->state != UP)
        pthread_cond_broadcast(&d->changed);
    return rc != NBD_LOST;
}

static bool changes(const struct nbd_command *c) {
    return c->way != NBD_READ && c->way != NBD_FLUSH;
}

/* C with the server gone and back in between, as it may be. ENTRY, if it is not NULL, is
 * the journal's when it is done; for a flush *NUMBER is what the journal had at its
 * beginning. */
static int command(struct nbd *d, const struct nbd_command *c, struct nbd_entry *entry,
                   uint64_t *number) {
    unsigned abandoned, line;
    bool done = false;
    int rc;

    pthread_mutex_lock(&d->lock);
    abandoned = d->abandoned;
    do {
        rc = come_in(d, abandoned, &line);
        if (rc)
            break;
        if (number)
            *number = d->journal.number;
        pthread_mutex_unlock(&d->lock);
        rc = nbd_line_do(&d->line[line], c, d->last);
        pthread_mutex_lock(&d->lock);
        done = go_out(d, line, rc);
    } while (!done);
    if (entry && !rc)
        nbd_journal_add(&d->journal, entry);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

static int flush_now(struct nbd *d) {
    const struct nbd_command c = {.way = NBD_FLUSH};
    uint64_t number = 0;
    int rc = command(d, &c, NULL, &number);

    pthread_mutex_lock(&d->lock);
    if (!rc)
        nbd_journal_forget(&d->journal, number);
    if (d->spoiled)
        rc = d->spoiled;
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/* The journal's limit, or no memory for an entry of it: then it is made durable here. */
static int one(struct nbd *d, const struct nbd_command *c) {
    bool keeps = changes(c) && d->server.flush;
    struct nbd_entry *e = keeps ? nbd_journal_entry(c) : NULL;
    bool full = keeps && !e;
    int rc = command(d, c, e, NULL);

    if (rc) {
        free(e);
        return rc;
    }
    if (e) {
        pthread_mutex_lock(&d->lock);
        full = d->journal.bytes > JOURNAL_MAX;
        pthread_mutex_unlock(&d->lock);
    }
    return full ? flush_now(d) : 0;
}

/* In requests that are not larger than the server takes. */
static int all(struct nbd *d, enum nbd_way way, void *buf, uint64_t len,
               uint64_t offset) {
    struct nbd_command c = {.way = way, .buf = buf, .offset = offset};
    int rc = 0;

    while (len && !rc) {
        c.len = len < d->server.most ? len : d->server.most;
        rc = one(d, &c);
        c.buf = buf ? (uint8_t *)c.buf + c.len : NULL;
        c.offset += c.len;
        len -= c.len;
    }
    return rc;
}

static int nbd_move(struct nbd *d, bool write, uint64_t offset, const struct iovec *iov,
                    unsigned count) {
    enum nbd_way way = write ? NBD_WRITE : NBD_READ;
    size_t len = iov_length(iov, count);
    uint8_t *buf;
    int rc;

    if (count == 1)
        return all(d, way, iov->iov_base, len, offset);
    buf = malloc(len);
    if (!buf)
        return -ENOMEM;
    if (write)
        iov_copy(iov, count, 0, buf, len);
    rc = all(d, way, buf, len, offset);
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

    return d->server.flush ? flush_now(d) : 0;
}

static int discard(struct image *i, uint64_t offset, uint64_t length) {
    struct nbd *d = nbd_from(i);

    return d->server.trim ? all(d, NBD_TRIM, NULL, length, offset) : 0;
}

static int zeroes(struct image *i, uint64_t offset, uint64_t length, bool unmap) {
    struct nbd *d = nbd_from(i);

    return d->server.zero ? all(d, unmap ? NBD_ZERO : NBD_ZERO_KEEP, NULL, length, offset)
                          : image_write_zeroes(i, offset, length);
}

static void abandon(struct image *i) {
    struct nbd *d = nbd_from(i);

    pthread_mutex_lock(&d->lock);
    __atomic_fetch_add(&d->abandoned, 1, __ATOMIC_RELAXED);
    for (unsigned n = 0; n < d->lines; n++)
        nbd_line_cut(&d->line[n]);
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
}

static unsigned sockets(const struct image *i, int *out, unsigned room) {
    const struct nbd *d = container_of(i, const struct nbd, image);

    if (!room || d->connector.fd < 0)
        return 0;
    *out = d->connector.fd;
    return 1;
}

/* The last flush: the server has its time for it, and no more. */
static int close_all(struct image *i) {
    struct nbd *d = nbd_from(i);
    int rc = 0;

    d->last = os_monotonic_ns() + BLOCK_PATIENCE * SECOND;
    if (!i->readonly && d->server.flush)
        rc = flush_now(d);
    nbd_connector_close(&d->connector);
    while (d->lines)
        nbd_line_done(&d->line[--d->lines]);
    nbd_journal_forget(&d->journal, UINT64_MAX);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    image_done(i);
    free(d->name);
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

/* 0, or -errno after a sentence. */
static int ask(struct nbd *d, const char *uri, char *why, size_t why_size) {
    int rc = nbd_line_ask(&d->line[0], &d->server);

    if (rc || !d->server.small) {
        snprintf(why, why_size, "the server of '%s' %s", uri,
                 rc ? "does not say how large its disk is"
                    : "takes no requests as small as a sector; nbdkit's filter "
                      "'blocksize' helps");
        return -EINVAL;
    }
    d->image.size = d->server.size;
    d->image.granule = 4096;
    if (!d->image.readonly && d->server.readonly) {
        snprintf(why, why_size,
                 "'%s' cannot be written to; ',readonly' or ',overlay=temp' leaves it "
                 "alone",
                 uri);
        return -EROFS;
    }
    if (!d->image.readonly && !d->server.flush)
        log_warn("the server of '%s' does not know of flushes: what the guest flushes is "
                 "as durable as what it writes there",
                 uri);
    return 0;
}

static int hexadecimal(char c) {
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 0x20) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* The socket that URI names, into OUT; its address's length, or -errno. Asking the socket
 * would give the path as the server sees it. */
static int unix_address(const char *uri, struct sockaddr_storage *out) {
    struct sockaddr_un *un = (struct sockaddr_un *)(void *)out;
    const char *at = strpbrk(uri, "?");
    size_t len = 0;

    while (at && strncmp(at + 1, "socket=", 7) != 0)
        at = strchr(at + 1, '&');
    if (!at)
        return -EINVAL;
    *un = (struct sockaddr_un){.sun_family = AF_UNIX};
    for (at += 8; *at && *at != '&' && len < sizeof(un->sun_path) - 1; at++) {
        int high = *at == '%' ? hexadecimal(at[1]) : -1;
        int low = high >= 0 ? hexadecimal(at[2]) : -1;

        un->sun_path[len++] = low >= 0 ? (char)(high << 4 | low) : *at;
        at += low >= 0 ? 2 : 0;
    }
    return (int)sizeof(*un);
}

/* The process that connects again. */
static int prepare(struct nbd *d, const char *uri, enum jail_want jail, char *why,
                   size_t why_size) {
    struct sockaddr_storage to = {0};
    int rc = !strncmp(uri, "nbd+unix:", 9) ? unix_address(uri, &to)
                                           : nbd_line_peer(&d->line[0], &to);

    if (rc > 0)
        rc = nbd_connector_open(&d->connector, &to, (socklen_t)rc, jail);
    d->name = rc ? NULL : nbd_line_name(&d->line[0]);
    if (!rc && !d->name)
        rc = -ENOMEM;
    if (rc)
        snprintf(why, why_size, "cannot prepare to connect to '%s' again: %s", uri,
                 strerror(-rc));
    return rc;
}

static int start(struct nbd *d, const char *uri, enum jail_want jail, char *why,
                 size_t why_size) {
    unsigned want = 1;
    int rc = nbd_library(why, why_size);

    for (unsigned n = 0; n < want && !rc; n++) {
        rc = nbd_line_init(&d->line[n]);
        if (rc) {
            snprintf(why, why_size, "cannot connect to '%s': %s", uri, strerror(-rc));
            break;
        }
        d->lines++;
        rc = nbd_line_connect(&d->line[n], uri, why, why_size);
        if (!rc && !n) {
            rc = ask(d, uri, why, why_size);
            want = d->server.many ? BLOCK_WORKERS : 1;
        }
    }
    return rc ? rc : prepare(d, uri, jail, why, why_size);
}

static struct nbd *make(const char *uri) {
    struct nbd *d = calloc(1, sizeof(*d));
    pthread_condattr_t monotonic;

    if (!d || image_init(&d->image, &ops, uri)) {
        free(d);
        return NULL;
    }
    d->connector.fd = -1;
    nbd_journal_init(&d->journal);
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&d->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return d;
}

int nbd_open(const struct block_spec *spec, bool readonly, struct image **out, char *why,
             size_t why_size) {
    struct nbd *d = make(spec->path);
    int rc;

    if (!d) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    d->image.readonly = readonly;
    d->reconnect = spec->reconnect;
    rc = start(d, spec->path, spec->jail, why, why_size);
    if (rc) {
        d->image.readonly = true; /* there is nothing to flush */
        close_all(&d->image);
        return rc;
    }
    *out = &d->image;
    return 0;
}

#else

#include "block/block_int.h"

int nbd_open(const struct block_spec *spec, bool readonly, struct image **out, char *why,
             size_t why_size) {
    snprintf(why, why_size,
             "'%s': this bivisor was built without libnbd; install libnbd-dev and build "
             "it again",
             spec->path);
    return -ENOTSUP;
}

#endif

bool block_is_server(const char *path) {
    return !strncmp(path, "nbd://", 6) || !strncmp(path, "nbd+unix://", 11);
}

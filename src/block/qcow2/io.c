/*
 * Reading and writing the guest's disk.
 *
 * A read holds its range shared. A read, or a write in place, that must not wait holds
 * the lock instead, all the time: it only copies. Any other write goes piece by piece:
 * what can be written in place is, with the range shared; else the range becomes
 * exclusive, clusters are allocated, everything is written to them (what the guest did
 * not write comes from where it lay before), and only then the table says so. Nothing but
 * the range is held while data is read and written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2/qcow2_int.h"

/* A piece of a request: LEN bytes of the disk from OFFSET on, at byte SKIP of IOV. */
struct piece {
    uint64_t offset;
    size_t len;
    const struct iovec *iov;
    unsigned count;
    size_t skip;
};

static struct qcow2 *from_image(struct image *i) {
    return container_of(i, struct qcow2, image);
}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t cluster_of(const struct qcow2 *q, uint64_t offset) {
    return offset >> q->cluster_bits;
}

static size_t inside(const struct qcow2 *q, uint64_t offset) {
    return offset & (q->cluster_size - 1);
}

/* Guest clusters that it touches. */
static uint64_t clusters_of(const struct qcow2 *q, const struct piece *p) {
    return cluster_of(q, p->offset + p->len - 1) - cluster_of(q, p->offset) + 1;
}

/* How much of it lies in the first COUNT of them. */
static size_t part_in(const struct qcow2 *q, const struct piece *p, uint64_t count) {
    return least(p->len, (count << q->cluster_bits) - inside(q, p->offset));
}

/* LEN bytes of it are done. */
static void go_on(struct piece *p, size_t len) {
    p->offset += len;
    p->skip += len;
    p->len -= len;
}

/* Both locks that a change needs. */
static void lock_tables(struct qcow2 *q) {
    pthread_mutex_lock(&q->alloc);
    pthread_mutex_lock(&q->lock);
}

static void unlock_tables(struct qcow2 *q) {
    pthread_mutex_unlock(&q->lock);
    pthread_mutex_unlock(&q->alloc);
}

static void enter(struct qcow2 *q, struct range *r, uint64_t first, uint64_t last,
                  bool exclusive) {
    pthread_mutex_lock(&q->lock);
    range_enter(q, r, first, last, exclusive);
    pthread_mutex_unlock(&q->lock);
}

static void leave(struct qcow2 *q, struct range *r) {
    pthread_mutex_lock(&q->lock);
    range_leave(q, r);
    pthread_mutex_unlock(&q->lock);
}

/* --- reading --- */

static int read_backing(const struct qcow2 *q, uint64_t offset, const struct iovec *iov,
                        unsigned count, size_t len) {
    struct iovec part[BLOCK_IOV_MAX];
    size_t there = 0;

    if (q->backing && offset < q->backing->size)
        there = least(len, q->backing->size - offset);
    if (there < len)
        iov_zero(iov, count, there, len - there);
    if (!there)
        return 0;
    count = iov_part(iov, count, 0, there, part);
    return q->backing->ops->read(q->backing, offset, part, count);
}

static int read_run(struct qcow2 *q, const struct run *r, uint64_t offset,
                    const struct iovec *iov, unsigned count, size_t len) {
    switch (r->kind) {
    case RUN_NONE:
        return read_backing(q, offset, iov, count, len);
    case RUN_ZERO:
        iov_zero(iov, count, 0, len);
        return 0;
    case RUN_DATA:
        return q->file->ops->read(q->file, r->host + inside(q, offset), iov, count);
    case RUN_COMPRESSED:
        return compressed_read(q, r->entry, inside(q, offset), iov, count, len);
    }
    return -EINVAL;
}

/* The range is held. */
static int read_all(struct qcow2 *q, struct piece p) {
    struct iovec part[BLOCK_IOV_MAX];
    int rc = 0;

    while (p.len && !rc) {
        struct run r;
        size_t here;
        unsigned count;

        pthread_mutex_lock(&q->lock);
        rc = map_find(q, cluster_of(q, p.offset), clusters_of(q, &p), &r);
        pthread_mutex_unlock(&q->lock);
        if (rc)
            break;
        here = part_in(q, &p, r.count);
        count = iov_part(p.iov, p.count, p.skip, here, part);
        rc = read_run(q, &r, p.offset, part, count, here);
        go_on(&p, here);
    }
    return rc;
}

int io_read(struct image *i, uint64_t offset, const struct iovec *iov, unsigned count) {
    struct qcow2 *q = from_image(i);
    struct piece p = {offset, iov_length(iov, count), iov, count, 0};
    struct range r;
    int rc;

    if (!p.len)
        return 0;
    enter(q, &r, cluster_of(q, offset), cluster_of(q, offset + p.len - 1), false);
    rc = read_all(q, p);
    leave(q, &r);
    return rc;
}

/* --- what takes no waiting --- */

static int backing_now(const struct qcow2 *q, uint64_t offset, const struct iovec *iov,
                       unsigned count, size_t len) {
    if (!q->backing || offset >= q->backing->size) {
        iov_zero(iov, count, 0, len);
        return 0;
    }
    if (len > q->backing->size - offset || !q->backing->ops->read_now)
        return -EAGAIN;
    return q->backing->ops->read_now(q->backing, offset, iov, count);
}

static int run_now(struct qcow2 *q, const struct run *r, uint64_t offset,
                   const struct iovec *iov, unsigned count, size_t len) {
    if (r->kind == RUN_NONE)
        return backing_now(q, offset, iov, count, len);
    if (r->kind == RUN_DATA && q->file->ops->read_now)
        return q->file->ops->read_now(q->file, r->host + inside(q, offset), iov, count);
    if (r->kind == RUN_COMPRESSED)
        return compressed_now(q, r->entry, inside(q, offset), iov, count, len);
    if (r->kind != RUN_ZERO)
        return -EAGAIN;
    iov_zero(iov, count, 0, len);
    return 0;
}

static bool in_place(const struct qcow2 *q, const struct run *r) {
    if (r->kind != RUN_DATA || !r->own)
        return false;
    for (uint64_t n = 0; n < r->count; n++)
        if (refcount_is_root(q, (r->host >> q->cluster_bits) + n))
            return false;
    return true;
}

static int run_write_now(struct qcow2 *q, const struct run *r, uint64_t offset,
                         const struct iovec *iov, unsigned count) {
    if (!in_place(q, r) || !q->file->ops->write_now)
        return -EAGAIN;
    return q->file->ops->write_now(q->file, r->host + inside(q, offset), iov, count);
}

/* LOCK is held, and nobody changes these clusters. */
static int all_now(struct qcow2 *q, bool write, struct piece p) {
    struct iovec part[BLOCK_AT_ONCE_PIECES];
    int rc = 0;

    while (p.len && !rc) {
        uint64_t c = cluster_of(q, p.offset);
        struct run r;
        size_t here;
        unsigned count;

        if (!map_cached(q, c) || map_find(q, c, clusters_of(q, &p), &r))
            return -EAGAIN;
        here = part_in(q, &p, r.count);
        count = iov_part(p.iov, p.count, p.skip, here, part);
        rc = write ? run_write_now(q, &r, p.offset, part, count)
                   : run_now(q, &r, p.offset, part, count, here);
        go_on(&p, here);
    }
    return rc;
}

static int now(struct image *i, bool write, uint64_t offset, const struct iovec *iov,
               unsigned count) {
    struct qcow2 *q = from_image(i);
    struct piece p = {offset, iov_length(iov, count), iov, count, 0};
    int rc = -EAGAIN;

    /* Who has it may be reading a table. */
    if (!p.len || count > BLOCK_AT_ONCE_PIECES || pthread_mutex_trylock(&q->lock))
        return rc;
    if (range_free(q, cluster_of(q, offset), cluster_of(q, offset + p.len - 1), false))
        rc = all_now(q, write, p);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int io_read_now(struct image *i, uint64_t offset, const struct iovec *iov,
                unsigned count) {
    return now(i, false, offset, iov, count);
}

int io_write_now(struct image *i, uint64_t offset, const struct iovec *iov,
                 unsigned count) {
    return now(i, true, offset, iov, count);
}

/* --- writing --- */

static int write_at(struct qcow2 *q, uint64_t host, const struct piece *p, size_t len) {
    struct iovec part[BLOCK_IOV_MAX];
    unsigned count = iov_part(p->iov, p->count, p->skip, len, part);

    return q->file->ops->write(q->file, host, part, count);
}

/* Where a piece that cannot be written in place goes. */
struct target {
    struct run old; /* of its first cluster */
    uint64_t host;
    uint64_t count; /* clusters */
    bool fresh;     /* reads as zero */
    bool allocated;
};

/* Finds one; both locks are held. */
static int allocate(struct qcow2 *q, const struct piece *p, struct target *t) {
    uint64_t c = cluster_of(q, p->offset), cluster = 0;
    int rc = writeback_some(q);

    if (!rc)
        rc = map_prepare(q, c);
    if (!rc)
        rc = map_find(q, c, least(clusters_of(q, p), map_page_rest(q, c)), &t->old);
    if (!rc && t->old.host && refcount_is_root(q, cluster_of(q, t->old.host)))
        rc = -EUCLEAN;
    if (rc)
        return rc;
    if (t->old.kind == RUN_ZERO && t->old.own && t->old.host) {
        t->host = t->old.host; /* it was kept for this */
        t->count = 1;
        return 0;
    }
    rc = refcount_allocate(q, t->old.count, &cluster, &t->count, &t->fresh);
    t->host = cluster << q->cluster_bits;
    t->allocated = !rc;
    return rc;
}

/* LEN bytes from OFFSET on, which the guest does not write, get to HOST. */
static int carry_over(struct qcow2 *q, const struct target *t, uint64_t offset,
                      size_t len, uint64_t host) {
    bool zero = t->old.kind == RUN_ZERO ||
                (t->old.kind == RUN_NONE && (!q->backing || offset >= q->backing->size));
    struct piece p = {.offset = offset, .len = len, .count = 1};
    struct iovec iov;
    int rc;

    if (!len || (zero && t->fresh))
        return 0;
    if (zero)
        return image_write_zeroes(q->file, host, len);
    iov = (struct iovec){malloc(len), len};
    p.iov = &iov;
    rc = iov.iov_base ? read_all(q, p) : -ENOMEM;
    if (!rc)
        rc = q->file->ops->write(q->file, host, &iov, 1);
    free(iov.iov_base);
    return rc;
}

/* All of the target's clusters; LEN bytes of them are the guest's. */
static int write_clusters(struct qcow2 *q, const struct piece *p, const struct target *t,
                          size_t len) {
    size_t head = inside(q, p->offset), end = head + len;
    size_t all = t->count << q->cluster_bits;
    int rc = carry_over(q, t, p->offset - head, head, t->host);

    if (!rc)
        rc = write_at(q, t->host + head, p, len);
    if (!rc)
        rc = carry_over(q, t, p->offset + len, all - end, t->host + end);
    return rc;
}

/* The range is exclusive. */
static int write_new(struct qcow2 *q, const struct piece *p, size_t *done) {
    struct target t = {0};
    int rc;

    lock_tables(q);
    rc = allocate(q, p, &t);
    unlock_tables(q);
    if (rc)
        return rc;
    *done = part_in(q, p, t.count);
    rc = write_clusters(q, p, &t, *done);
    lock_tables(q);
    if (!rc)
        rc = map_set(q, cluster_of(q, p->offset), t.count, t.host);
    if (rc && t.allocated)
        refcount_give_back(q, cluster_of(q, t.host), t.count);
    unlock_tables(q);
    return rc;
}

/* Writes some of P, *DONE bytes. */
static int write_piece(struct qcow2 *q, const struct piece *p, size_t *done) {
    uint64_t c = cluster_of(q, p->offset);
    uint64_t count = least(clusters_of(q, p), map_page_rest(q, c));
    struct range r;
    struct run run;
    bool direct;
    int rc;

    pthread_mutex_lock(&q->lock);
    range_enter(q, &r, c, c + count - 1, false);
    rc = map_find(q, c, count, &run);
    direct = !rc && in_place(q, &run);
    if (!rc && !direct) {
        range_leave(q, &r);
        range_enter(q, &r, c, c + count - 1, true);
        /* Somebody may have been quicker. */
        rc = map_find(q, c, count, &run);
        direct = !rc && in_place(q, &run);
    }
    pthread_mutex_unlock(&q->lock);
    if (direct) {
        *done = part_in(q, p, run.count);
        rc = write_at(q, run.host + inside(q, p->offset), p, *done);
    } else if (!rc) {
        struct piece part = *p;

        part.len = part_in(q, p, count);
        rc = write_new(q, &part, done);
    }
    leave(q, &r);
    return rc;
}

int io_write(struct image *i, uint64_t offset, const struct iovec *iov, unsigned count) {
    struct qcow2 *q = from_image(i);
    struct piece p = {offset, iov_length(iov, count), iov, count, 0};
    int rc = 0;

    while (p.len && !rc) {
        size_t done = 0;

        rc = write_piece(q, &p, &done);
        go_on(&p, done);
    }
    return rc;
}

int io_flush(struct image *i) {
    struct qcow2 *q = from_image(i);
    int rc;

    if (q->fleeting)
        return 0;
    lock_tables(q);
    rc = writeback(q);
    unlock_tables(q);
    return rc;
}

/* --- zeros --- */

/* What becomes of the clusters' entries. */
struct zeroing {
    bool keep; /* the space */
    uint64_t plain_entry;
};

/* Some of the clusters from C on, at most MAX: *DONE. */
static int zero_some(struct qcow2 *q, uint64_t c, uint64_t max, const struct zeroing *z,
                     uint64_t *done) {
    uint64_t some = least(max, map_page_rest(q, c));
    struct range r;
    struct run run;
    int rc;

    enter(q, &r, c, c + max - 1, true);
    lock_tables(q);
    rc = map_find(q, c, max, &run);
    if (!rc && (run.kind == RUN_NONE && !q->backing)) {
        *done = run.count; /* as it is */
    } else if (!rc) {
        *done = some;
        rc = writeback_some(q);
        if (!rc)
            rc = map_prepare(q, c);
        if (!rc)
            rc = map_set_zero(q, c, some, z->keep, z->plain_entry);
    }
    unlock_tables(q);
    leave(q, &r);
    return rc;
}

static int zero_clusters(struct qcow2 *q, uint64_t c, uint64_t end,
                         const struct zeroing *z) {
    int rc = 0;

    while (c < end && !rc) {
        uint64_t done = 0;

        rc = zero_some(q, c, end - c, z, &done);
        c += done;
    }
    return rc;
}

/* Whole clusters of the LENGTH bytes from OFFSET on; the disk's last may be cut short. */
static bool whole(const struct qcow2 *q, uint64_t offset, uint64_t length,
                  uint64_t *first, uint64_t *end) {
    uint64_t to = offset + length;

    *first = cluster_of(q, offset + q->cluster_size - 1);
    *end =
        to >= q->image.size ? cluster_of(q, to + q->cluster_size - 1) : cluster_of(q, to);
    return *first < *end;
}

int io_discard(struct image *i, uint64_t offset, uint64_t length) {
    struct qcow2 *q = from_image(i);
    const struct zeroing z = {.plain_entry = q->backing ? QCOW2_ZERO : 0};
    uint64_t first, end;

    /* Without an entry for "zero" what lies behind would be seen again. */
    if (!whole(q, offset, length, &first, &end) || (q->backing && q->header.version < 3))
        return 0;
    return zero_clusters(q, first, end, &z);
}

/* A part of a cluster. */
static int zero_part(struct qcow2 *q, uint64_t offset, uint64_t length) {
    struct run r;
    int rc;

    if (!length)
        return 0;
    pthread_mutex_lock(&q->lock);
    rc = map_find(q, cluster_of(q, offset), 1, &r);
    pthread_mutex_unlock(&q->lock);
    if (rc || r.kind == RUN_ZERO || (r.kind == RUN_NONE && !q->backing))
        return rc;
    return image_write_zeroes(&q->image, offset, length);
}

int io_zeroes(struct image *i, uint64_t offset, uint64_t length, bool unmap) {
    struct qcow2 *q = from_image(i);
    const struct zeroing z = {.keep = !unmap && q->header.version >= 3,
                              .plain_entry = q->backing ? QCOW2_ZERO : 0};
    uint64_t first, end, to = offset + length;
    int rc;

    if (q->backing && q->header.version < 3)
        return image_write_zeroes(i, offset, length);
    if (!whole(q, offset, length, &first, &end)) {
        uint64_t middle = least(to, first << q->cluster_bits);

        rc = zero_part(q, offset, middle - offset);
        return rc ? rc : zero_part(q, middle, to - middle);
    }
    rc = zero_part(q, offset, (first << q->cluster_bits) - offset);
    if (!rc)
        rc = zero_clusters(q, first, end, &z);
    if (!rc && to > end << q->cluster_bits)
        rc = zero_part(q, end << q->cluster_bits, to - (end << q->cluster_bits));
    return rc;
}

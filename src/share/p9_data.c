/* 9P2000.L: what is in files and directories, and locks; see p9_int.h. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "share/p9_int.h"

int p9_lopen(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct statx s;
    struct fid *f;
    int rc = p9_take_fid(p, in, &f), flags = (int)wire_get32(in), fd;

    if (rc)
        return rc;
    if (in->bad)
        return -EPROTO;
    if (f->fd >= 0)
        return -EBADF;
    fd = files_open(p->tree, f->node, flags);
    if (fd < 0)
        return fd;
    rc = files_stat(p->tree, f->node, &s);
    if (rc) {
        close(fd);
        return rc;
    }
    f->fd = fd;
    f->write = (flags & O_ACCMODE) != O_RDONLY;
    p9_put_qid(p, out, f->node, &s);
    wire_put32(out, 0); /* as much at once as a message has room for */
    return 0;
}

/* --- reading and writing --- */

static int take_any(struct p9 *p, struct wire_in *in, struct fid **out) {
    *out = p9_fid(p, wire_get32(in));
    return in->bad ? -EPROTO : *out ? 0 : -EBADF;
}

static long read_some(const struct fid *f, uint64_t at, uint8_t *to, uint32_t len) {
    uint32_t left;
    ssize_t n;

    if (f->kind == FID_XATTR_READ) {
        left = at < f->value_size ? f->value_size - (uint32_t)at : 0;
        left = left < len ? left : len;
        memcpy(to, f->value + (left ? at : 0), left);
        return left;
    }
    if (f->kind != FID_FILE || f->fd < 0)
        return -EBADF;
    if (at > INT64_MAX)
        return -EINVAL;
    do
        n = pread(f->fd, to, len, (off_t)at);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int p9_read(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct fid *f;
    int rc = take_any(p, in, &f);
    uint64_t at = wire_get64(in);
    uint32_t len = wire_get32(in);
    uint8_t *count = wire_room(out, 4);
    long got;

    if (rc)
        return rc;
    if (in->bad || !count)
        return -EPROTO;
    len = len < out->left ? len : (uint32_t)out->left;
    got = read_some(f, at, out->at, len);
    if (got < 0)
        return (int)got;
    memcpy(count, &(uint32_t){(uint32_t)got}, 4);
    wire_room(out, (size_t)got);
    return 0;
}

static long write_some(const struct fid *f, uint64_t at, const uint8_t *from,
                       uint32_t len) {
    ssize_t n;

    if (f->kind == FID_XATTR_WRITE) {
        if (at > f->value_size || len > f->value_size - at)
            return -ENOSPC;
        memcpy(f->value + at, from, len);
        return len;
    }
    if (f->kind != FID_FILE || f->fd < 0)
        return -EBADF;
    if (at > INT64_MAX)
        return -EINVAL;
    do
        n = pwrite(f->fd, from, len, (off_t)at);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int p9_write(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct fid *f;
    int rc = take_any(p, in, &f);
    uint64_t at = wire_get64(in);
    uint32_t len = wire_get32(in);
    const uint8_t *from = wire_bytes(in, len);
    long put;

    if (rc)
        return rc;
    if (!from)
        return -EPROTO;
    put = write_some(f, at, from, len);
    if (put < 0)
        return (int)put;
    wire_put32(out, (uint32_t)put);
    return 0;
}

int p9_fsync(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct fid *f;
    int rc = p9_take_open(p, in, &f);
    bool data = wire_get32(in);

    if (rc)
        return rc;
    return (data ? fdatasync(f->fd) : fsync(f->fd)) ? -errno : 0;
}

/* --- directories --- */

struct reading {
    struct wire_out *out;
    bool full;
};

static bool put_entry(void *arg, uint64_t number, uint64_t next, unsigned type,
                      const char *name) {
    const unsigned directory = 4, link = 10; /* DT_DIR, DT_LNK */
    struct reading *r = arg;
    size_t len = strlen(name);

    if (r->out->left < 13 + 8 + 1 + 2 + len) {
        r->full = true;
        return false;
    }
    wire_put8(r->out, type == directory ? 0x80 : type == link ? 0x02 : 0);
    wire_put32(r->out, 0);
    wire_put64(r->out, number);
    wire_put64(r->out, next);
    wire_put8(r->out, (uint8_t)type);
    wire_put_text(r->out, name, len);
    return true;
}

int p9_readdir(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct fid *f;
    int rc = p9_take_open(p, in, &f);
    uint64_t at = wire_get64(in);
    uint32_t len = wire_get32(in);
    uint8_t *count = wire_room(out, 4);
    struct wire_out entries;
    struct reading r = {.out = &entries};

    if (rc)
        return rc;
    if (in->bad || !count)
        return -EPROTO;
    if (node_type(f->node) != S_IFDIR)
        return -ENOTDIR;
    len = len < out->left ? len : (uint32_t)out->left;
    entries = (struct wire_out){.at = out->at, .left = len};
    rc = files_entries(p->tree, f->node, f->fd, at, put_entry, &r);
    if (rc)
        return rc;
    len -= (uint32_t)entries.left;
    if (!len && r.full)
        return -EINVAL; /* for ever the same entry */
    memcpy(count, &len, 4);
    wire_room(out, len);
    return 0;
}

/* --- locks --- */

enum { LOCK_SUCCESS, LOCK_BLOCKED, LOCK_ERROR };
static const short lock_types[] = {F_RDLCK, F_WRLCK, F_UNLCK};

/* The range, as both messages have it, and the process that it is of. */
static int take_range(struct wire_in *in, unsigned type, struct flock *f,
                      uint64_t *owner) {
    uint64_t start = wire_get64(in), len = wire_get64(in);
    char client[NAME_SIZE];

    *owner = wire_get32(in);
    wire_text(in, client, sizeof(client));
    if (in->bad)
        return -EPROTO;
    if (type >= ARRAY_SIZE(lock_types) || start > INT64_MAX || len > INT64_MAX)
        return -EINVAL;
    *f = (struct flock){
        .l_type = lock_types[type], .l_start = (off_t)start, .l_len = (off_t)len};
    return 0;
}

int p9_lock(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct flock range;
    uint64_t owner;
    struct fid *f;
    int rc = p9_take_open(p, in, &f);
    unsigned type = wire_get8(in);

    if (rc)
        return rc;
    wire_get32(in); /* whether the guest will wait: it asks again */
    rc = take_range(in, type, &range, &owner);
    if (rc)
        return rc;
    rc = locks_set(p->locks, p->tree, f->node, owner, &range);
    wire_put8(out, rc == -EAGAIN ? LOCK_BLOCKED : rc ? LOCK_ERROR : LOCK_SUCCESS);
    return 0;
}

int p9_getlock(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct flock range;
    uint64_t owner;
    struct fid *f;
    int rc = p9_take_open(p, in, &f);
    unsigned type = wire_get8(in);

    if (rc)
        return rc;
    rc = take_range(in, type, &range, &owner);
    if (!rc)
        rc = locks_get(p->locks, p->tree, f->node, owner, &range);
    if (rc)
        return rc;
    wire_put8(out, range.l_type == F_RDLCK ? 0 : range.l_type == F_WRLCK ? 1 : 2);
    wire_put64(out, (uint64_t)range.l_start);
    wire_put64(out, (uint64_t)range.l_len);
    wire_put32(out, range.l_type == F_UNLCK ? (uint32_t)owner : 0);
    wire_put_text(out, "host", 4);
    return 0;
}

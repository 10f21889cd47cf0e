/* FUSE: what is in files and directories; see fuse_int.h. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "share/fuse_int.h"

static int open_it(struct fuse *f, struct request *r, int more, uint32_t how) {
    struct fuse_open_in a;
    struct fuse_open_out out = {.open_flags = how};
    int fd, rc;

    FUSE_TAKE(r, a);
    if (r->in.bad)
        return -EINVAL;
    fd = files_open(f->tree, r->node, (int)a.flags | more);
    if (fd < 0)
        return fd;
    rc = fuse_handle_new(f, r->node, fd, (a.flags & O_ACCMODE) != O_RDONLY, &out.fh);
    if (!rc)
        FUSE_PUT(r, out);
    return rc;
}

/* The guest's cache is good until the file's time or size is another. With -ENOSYS it
 * tells of no open any more. */
int fuse_open(struct fuse *f, struct request *r) {
    if (f->unopened)
        return -ENOSYS;
    return open_it(f, r, 0, FOPEN_KEEP_CACHE);
}

int fuse_opendir(struct fuse *f, struct request *r) {
    return open_it(f, r, O_DIRECTORY, 0);
}

int fuse_release(struct fuse *f, struct request *r) {
    struct fuse_release_in a;
    struct handle *h;

    FUSE_TAKE(r, a);
    h = r->in.bad ? NULL : fuse_handle(f, a.fh);
    if (!h)
        return -EBADF;
    fuse_handle_end(f, h);
    return 0;
}

int fuse_read(struct fuse *f, struct request *r) {
    struct fuse_read_in a;
    ssize_t n;
    int fd;

    FUSE_TAKE(r, a);
    fd = r->in.bad ? -EBADF : fuse_reading(f, r->node, a.fh);
    if (fd < 0)
        return fd;
    if (a.offset > INT64_MAX)
        return -EINVAL;
    if (a.size > r->out.left)
        a.size = (uint32_t)r->out.left;
    do
        n = pread(fd, r->out.at, a.size, (off_t)a.offset);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    wire_room(&r->out, (size_t)n);
    return 0;
}

int fuse_write(struct fuse *f, struct request *r) {
    struct fuse_write_in a;
    struct fuse_write_out out = {0};
    struct handle *h;
    const uint8_t *from;
    ssize_t n;

    if (f->unopened)
        return -EROFS;
    FUSE_TAKE(r, a);
    h = r->in.bad ? NULL : fuse_handle(f, a.fh);
    if (!h)
        return -EBADF;
    from = wire_bytes(&r->in, a.size);
    if (!from || a.offset > INT64_MAX)
        return -EINVAL;
    do
        n = pwrite(h->fd, from, a.size, (off_t)a.offset);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    out.size = (uint32_t)n;
    FUSE_PUT(r, out);
    return 0;
}

int fuse_fsync(struct fuse *f, struct request *r) {
    struct fuse_fsync_in a;
    struct handle *h;

    if (f->unopened) /* there is nothing to be written */
        return -ENOSYS;
    FUSE_TAKE(r, a);
    h = r->in.bad ? NULL : fuse_handle(f, a.fh);
    if (!h)
        return -EBADF;
    return (a.fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(h->fd) : fsync(h->fd))
               ? -errno
               : 0;
}

int fuse_fallocate(struct fuse *f, struct request *r) {
    struct fuse_fallocate_in a;
    struct handle *h;

    if (f->unopened)
        return -EROFS;
    FUSE_TAKE(r, a);
    h = r->in.bad ? NULL : fuse_handle(f, a.fh);
    if (!h)
        return -EBADF;
    if (a.offset > INT64_MAX || a.length > INT64_MAX)
        return -EFBIG;
    return fallocate(h->fd, (int)a.mode, (off_t)a.offset, (off_t)a.length) ? -errno : 0;
}

int fuse_lseek(struct fuse *f, struct request *r) {
    struct fuse_lseek_in a;
    struct fuse_lseek_out out;
    off_t at;
    int fd;

    FUSE_TAKE(r, a);
    fd = r->in.bad ? -EBADF : fuse_reading(f, r->node, a.fh);
    if (fd < 0)
        return fd;
    if (a.offset > INT64_MAX || (a.whence != SEEK_DATA && a.whence != SEEK_HOLE))
        return -EINVAL;
    at = lseek(fd, (off_t)a.offset, (int)a.whence);
    if (at < 0)
        return -errno;
    out.offset = (uint64_t)at;
    FUSE_PUT(r, out);
    return 0;
}

/* --- directories --- */

struct reading {
    struct fuse *f;
    struct node *dir;
    struct wire_out *out;
    bool plus, full;
};

/* Of files that cannot be told of now, the guest looks later. */
static void put_node(struct reading *r, const char *name) {
    struct fuse_entry_out entry = {0};
    struct node *n;

    if (strcmp(name, ".") && strcmp(name, "..") &&
        !tree_lookup(r->f->tree, r->dir, name, &n)) {
        if (fuse_entry(r->f, n, &entry))
            entry = (struct fuse_entry_out){0};
        node_release(r->f->tree, n, 1);
    }
    wire_put(r->out, &entry, sizeof(entry));
}

static bool put_entry(void *arg, uint64_t number, uint64_t next, unsigned type,
                      const char *name) {
    static const uint8_t zeros[8];
    struct reading *r = arg;
    const struct fuse_dirent d = {
        .ino = number, .off = next, .namelen = (uint32_t)strlen(name), .type = type};
    size_t pad = -(FUSE_NAME_OFFSET + d.namelen) & 7;

    if (r->out->left < (r->plus ? sizeof(struct fuse_entry_out) : 0) + FUSE_NAME_OFFSET +
                           d.namelen + pad) {
        r->full = true;
        return false;
    }
    if (r->plus)
        put_node(r, name);
    wire_put(r->out, &d, FUSE_NAME_OFFSET);
    wire_put(r->out, name, d.namelen);
    wire_put(r->out, zeros, pad);
    return true;
}

static int read_entries(struct fuse *f, struct request *r, bool plus) {
    struct fuse_read_in a;
    struct wire_out out;
    struct reading reading = {.f = f, .out = &out, .plus = plus};
    struct handle *h;
    uint32_t len;
    int rc;

    FUSE_TAKE(r, a);
    h = r->in.bad ? NULL : fuse_handle(f, a.fh);
    if (!h)
        return -EBADF;
    if (node_type(h->node) != S_IFDIR)
        return -ENOTDIR;
    len = a.size < r->out.left ? a.size : (uint32_t)r->out.left;
    out = (struct wire_out){.at = r->out.at, .left = len};
    reading.dir = h->node;
    rc = files_entries(f->tree, h->node, h->fd, a.offset, put_entry, &reading);
    if (rc)
        return rc;
    len -= (uint32_t)out.left;
    if (!len && reading.full)
        return -EINVAL;
    wire_room(&r->out, len);
    return 0;
}

int fuse_readdir(struct fuse *f, struct request *r) {
    return read_entries(f, r, false);
}

int fuse_readdirplus(struct fuse *f, struct request *r) {
    return read_entries(f, r, true);
}

/* 9P2000.L: attributes of files; see p9_int.h. */
#include <errno.h>
#include <stdlib.h>
#include <sys/sysmacros.h>

#include "share/p9_int.h"

/* "getattr", "setattr": bits of valid. */
#define GETATTR_BASIC 0x7ffu
#define SET_MODE 0x1u
#define SET_UID 0x2u
#define SET_GID 0x4u
#define SET_SIZE 0x8u
#define SET_ATIME 0x10u
#define SET_MTIME 0x20u
#define SET_CTIME 0x40u
#define SET_ATIME_TO 0x80u
#define SET_MTIME_TO 0x100u

int p9_statfs(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct statfs s;
    struct fid *f;
    int rc = p9_take_fid(p, in, &f);
    uint64_t id;

    if (!rc)
        rc = files_statfs(p->tree, f->node, &s);
    if (rc)
        return rc;
    memcpy(&id, &s.f_fsid, sizeof(id));
    wire_put32(out, (uint32_t)s.f_type);
    wire_put32(out, (uint32_t)s.f_bsize);
    wire_put64(out, s.f_blocks);
    wire_put64(out, s.f_bfree);
    wire_put64(out, s.f_bavail);
    wire_put64(out, s.f_files);
    wire_put64(out, s.f_ffree);
    wire_put64(out, id);
    wire_put32(out, NAME_SIZE - 1);
    return 0;
}

static void put_time(struct wire_out *out, const struct statx_timestamp *t) {
    wire_put64(out, (uint64_t)t->tv_sec);
    wire_put64(out, t->tv_nsec);
}

int p9_getattr(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct statx s;
    struct fid *f;
    int rc = p9_take_fid(p, in, &f);

    if (!rc)
        rc = files_stat(p->tree, f->node, &s);
    if (rc)
        return rc;
    wire_put64(out, GETATTR_BASIC);
    p9_put_qid(p, out, f->node, &s);
    wire_put32(out, s.stx_mode);
    wire_put32(out, s.stx_uid);
    wire_put32(out, s.stx_gid);
    wire_put64(out, s.stx_nlink);
    wire_put64(out, makedev(s.stx_rdev_major, s.stx_rdev_minor));
    wire_put64(out, s.stx_size);
    wire_put64(out, s.stx_blksize);
    wire_put64(out, s.stx_blocks);
    put_time(out, &s.stx_atime);
    put_time(out, &s.stx_mtime);
    put_time(out, &s.stx_ctime);
    put_time(out, &s.stx_btime);
    wire_put64(out, 0); /* generation */
    wire_put64(out, 0); /* version of the data */
    return 0;
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t to, uint64_t sec,
                               uint64_t nsec) {
    if (!(valid & set))
        return (struct timespec){.tv_nsec = UTIME_OMIT};
    if (!(valid & to))
        return (struct timespec){.tv_nsec = UTIME_NOW};
    return (struct timespec){.tv_sec = (time_t)sec,
                             .tv_nsec = nsec < 1000000000u ? (long)nsec : 0};
}

int p9_setattr(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct fid *f;
    int rc = p9_take_fid(p, in, &f);
    uint32_t valid = wire_get32(in);
    struct change c = {.mode = valid & SET_MODE,
                       .owner = valid & (SET_UID | SET_GID) || valid == SET_CTIME,
                       .size = valid & SET_SIZE,
                       .times = valid & (SET_ATIME | SET_MTIME)};
    uint64_t sec, nsec;

    if (rc)
        return rc;
    c.to_mode = wire_get32(in);
    c.to_uid = wire_get32(in);
    c.to_gid = wire_get32(in);
    c.to_size = wire_get64(in);
    if (!(valid & SET_UID))
        c.to_uid = ~0u;
    if (!(valid & SET_GID))
        c.to_gid = ~0u;
    sec = wire_get64(in);
    nsec = wire_get64(in);
    c.to_times[0] = time_of(valid, SET_ATIME, SET_ATIME_TO, sec, nsec);
    sec = wire_get64(in);
    nsec = wire_get64(in);
    c.to_times[1] = time_of(valid, SET_MTIME, SET_MTIME_TO, sec, nsec);
    if (in->bad)
        return -EPROTO;
    return files_change(p->tree, f->node, f->write ? f->fd : -1, &c);
}

/* --- extended attributes --- */

/* Room for SIZE bytes of an attribute of F. */
static int make_value(struct p9 *p, struct fid *f, size_t size) {
    if (size > P9_XATTR_MAX)
        return -E2BIG;
    if (p->xattrs + size > P9_XATTRS_MAX)
        return -ENOSPC;
    f->value = malloc(size ? size : 1);
    if (!f->value)
        return -ENOMEM;
    memset(f->value, 0, size);
    f->value_size = (uint32_t)size;
    p->xattrs += size;
    return 0;
}

/* The attribute NAME, or with "" the list of names. */
static long read_value(struct p9 *p, struct node *n, const char *name, void *buf,
                       size_t size) {
    return *name ? files_getxattr(p->tree, n, name, buf, size)
                 : files_listxattr(p->tree, n, buf, size);
}

/* Reads it whole, for a fid of its own. */
int p9_xattrwalk(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    char name[NAME_SIZE];
    struct fid *f, *x;
    int rc = p9_take_fid(p, in, &f);
    uint32_t number = wire_get32(in);
    long len;

    if (rc)
        return rc;
    wire_text(in, name, sizeof(name));
    if (in->bad)
        return -EPROTO;
    len = read_value(p, f->node, name, NULL, 0);
    if (len < 0)
        return (int)len;
    rc = p9_fid_new(p, number, f->uid, f->node, &x);
    if (rc)
        return rc;
    node_hold(f->node);
    rc = make_value(p, x, (size_t)len);
    if (!rc) {
        x->kind = FID_XATTR_READ;
        len = len ? read_value(p, x->node, name, x->value, (size_t)len) : 0;
        rc = len < 0 ? (int)len : 0;
    }
    if (rc) {
        p9_fid_end(p, x);
        return rc;
    }
    p->xattrs -= x->value_size - (uint32_t)len;
    x->value_size = (uint32_t)len;
    wire_put64(out, (uint64_t)len);
    return 0;
}

/* The fid is the attribute's from now on, which is written when the fid is clunked. */
int p9_xattrcreate(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct fid *f;
    int rc = p9_take_fid(p, in, &f);
    uint64_t size;

    if (rc)
        return rc;
    if (f->fd >= 0)
        return -EBADF;
    wire_text(in, f->name, sizeof(f->name));
    size = wire_get64(in);
    f->value_flags = (int)wire_get32(in);
    if (in->bad)
        return -EPROTO;
    if (tree_readonly(p->tree))
        return -EROFS;
    rc = make_value(p, f, size < SIZE_MAX ? (size_t)size : SIZE_MAX);
    if (!rc)
        f->kind = FID_XATTR_WRITE;
    return rc;
}

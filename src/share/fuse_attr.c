/* FUSE: attributes of files; see fuse_int.h. */
#include <errno.h>
#include <stdlib.h>

#include "share/fuse_int.h"

#define XATTR_MAX 65536u

/* As the interface has them, in 32 bits. */
static uint32_t device(uint32_t major, uint32_t minor) {
    return (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}

int fuse_attributes(struct fuse *f, struct node *n, struct fuse_attr *out) {
    struct statx s;
    int rc = files_stat(f->tree, n, &s);

    if (rc)
        return rc;
    *out = (struct fuse_attr){
        .ino = node_number(f->tree, n),
        .size = s.stx_size,
        .blocks = s.stx_blocks,
        .atime = (uint64_t)s.stx_atime.tv_sec,
        .mtime = (uint64_t)s.stx_mtime.tv_sec,
        .ctime = (uint64_t)s.stx_ctime.tv_sec,
        .atimensec = s.stx_atime.tv_nsec,
        .mtimensec = s.stx_mtime.tv_nsec,
        .ctimensec = s.stx_ctime.tv_nsec,
        .mode = s.stx_mode,
        .nlink = s.stx_nlink,
        .uid = s.stx_uid,
        .gid = s.stx_gid,
        .rdev = device(s.stx_rdev_major, s.stx_rdev_minor),
        .blksize = s.stx_blksize,
    };
    return 0;
}

int fuse_entry(struct fuse *f, struct node *n, struct fuse_entry_out *out) {
    *out = (struct fuse_entry_out){
        .nodeid = node_id(n), .entry_valid = f->valid, .attr_valid = f->valid};
    int rc = fuse_attributes(f, n, &out->attr);

    if (!rc)
        node_look(n);
    return rc;
}

static int answer_attributes(struct fuse *f, struct request *r) {
    struct fuse_attr_out out = {.attr_valid = f->valid};
    int rc = fuse_attributes(f, r->node, &out.attr);

    if (!rc)
        FUSE_PUT(r, out);
    return rc;
}

int fuse_getattr(struct fuse *f, struct request *r) {
    return answer_attributes(f, r);
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t now, uint64_t sec,
                               uint32_t nsec) {
    if (valid & now)
        return (struct timespec){.tv_nsec = UTIME_NOW};
    if (!(valid & set))
        return (struct timespec){.tv_nsec = UTIME_OMIT};
    return (struct timespec){.tv_sec = (time_t)sec,
                             .tv_nsec = nsec < 1000000000u ? (long)nsec : 0};
}

int fuse_setattr(struct fuse *f, struct request *r) {
    struct fuse_setattr_in a;
    struct change c;
    struct handle *h;
    int rc;

    FUSE_TAKE(r, a);
    if (r->in.bad)
        return -EINVAL;
    c = (struct change){
        .mode = a.valid & FATTR_MODE,
        .owner = a.valid & (FATTR_UID | FATTR_GID),
        .size = a.valid & FATTR_SIZE,
        .times = a.valid & (FATTR_ATIME | FATTR_MTIME),
        .to_mode = a.mode,
        .to_uid = a.valid & FATTR_UID ? a.uid : ~0u,
        .to_gid = a.valid & FATTR_GID ? a.gid : ~0u,
        .to_size = a.size,
        .to_times = {
            time_of(a.valid, FATTR_ATIME, FATTR_ATIME_NOW, a.atime, a.atimensec),
            time_of(a.valid, FATTR_MTIME, FATTR_MTIME_NOW, a.mtime, a.mtimensec)}};
    h = a.valid & FATTR_FH ? fuse_handle(f, a.fh) : NULL;
    rc = files_change(f->tree, r->node, h && h->write && h->node == r->node ? h->fd : -1,
                      &c);
    return rc ? rc : answer_attributes(f, r);
}

int fuse_statfs(struct fuse *f, struct request *r) {
    struct fuse_statfs_out out = {0};
    struct statfs s;
    int rc = files_statfs(f->tree, r->node, &s);

    if (rc)
        return rc;
    out.st = (struct fuse_kstatfs){.blocks = s.f_blocks,
                                   .bfree = s.f_bfree,
                                   .bavail = s.f_bavail,
                                   .files = s.f_files,
                                   .ffree = s.f_ffree,
                                   .bsize = (uint32_t)s.f_bsize,
                                   .namelen = NAME_SIZE - 1,
                                   .frsize = (uint32_t)s.f_frsize};
    FUSE_PUT(r, out);
    return 0;
}

/* --- extended attributes --- */

int fuse_setxattr(struct fuse *f, struct request *r) {
    char name[NAME_SIZE];
    uint32_t size = wire_get32(&r->in), flags = wire_get32(&r->in);
    const uint8_t *value;

    wire_string(&r->in, name, sizeof(name));
    if (r->in.bad)
        return -ERANGE;
    value = wire_bytes(&r->in, size);
    if (!value || size > XATTR_MAX)
        return -E2BIG;
    return files_setxattr(f->tree, r->node, name, value, size, (int)flags);
}

/* NAME NULL: the list of names. How long it is, or all of it. */
static int answer_xattr(struct fuse *f, struct request *r, const char *name,
                        uint32_t size) {
    struct fuse_getxattr_out out = {0};
    uint8_t *to = size ? r->out.at : NULL;
    long len;

    if (size > r->out.left)
        return -EMSGSIZE;
    len = name ? files_getxattr(f->tree, r->node, name, to, size)
               : files_listxattr(f->tree, r->node, to, size);
    if (len < 0)
        return (int)len;
    if (size) {
        wire_room(&r->out, (size_t)len);
    } else {
        out.size = (uint32_t)len;
        FUSE_PUT(r, out);
    }
    return 0;
}

int fuse_getxattr(struct fuse *f, struct request *r) {
    char name[NAME_SIZE];
    struct fuse_getxattr_in a;

    FUSE_TAKE(r, a);
    wire_string(&r->in, name, sizeof(name));
    return r->in.bad ? -ERANGE : answer_xattr(f, r, name, a.size);
}

int fuse_listxattr(struct fuse *f, struct request *r) {
    struct fuse_getxattr_in a;

    FUSE_TAKE(r, a);
    return r->in.bad ? -EINVAL : answer_xattr(f, r, NULL, a.size);
}

int fuse_removexattr(struct fuse *f, struct request *r) {
    char name[NAME_SIZE];

    wire_string(&r->in, name, sizeof(name));
    return r->in.bad ? -ERANGE : files_removexattr(f->tree, r->node, name);
}

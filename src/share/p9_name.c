/* 9P2000.L: finding, making, moving and removing files; see p9_int.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "share/p9_int.h"

#define NAMES_MAX 16u /* of a walk */
#define UNLINK_DIRECTORY 0x200u

#define QID_DIR 0x80u
#define QID_LINK 0x02u

void p9_put_qid(struct p9 *p, struct wire_out *out, const struct node *n,
                const struct statx *s) {
    mode_t type = node_type(n);

    wire_put8(out, type == S_IFDIR ? QID_DIR : type == S_IFLNK ? QID_LINK : 0);
    /* "version": another when the contents are others. */
    wire_put32(out, (uint32_t)((uint64_t)s->stx_mtime.tv_sec ^ s->stx_mtime.tv_nsec ^
                               s->stx_size << 8));
    wire_put64(out, node_number(p->tree, n));
}

/* With a look at the file. */
static int put_qid(struct p9 *p, struct wire_out *out, struct node *n) {
    struct statx s;
    int rc = files_stat(p->tree, n, &s);

    if (!rc)
        p9_put_qid(p, out, n, &s);
    return rc;
}

/* The answer to what has made NAME. */
static int made(struct p9 *p, struct wire_out *out, struct fid *dir, const char *name) {
    struct node *n;
    int rc = tree_lookup(p->tree, dir->node, name, &n);

    if (rc)
        return rc;
    rc = put_qid(p, out, n);
    node_release(p->tree, n, 1);
    return rc;
}

/* --- walking --- */

/* The fid NUMBER, which may be F itself, is at NODE from now on. */
static int arrive(struct p9 *p, struct fid *f, uint32_t number, struct node *node) {
    struct fid *new;

    if (number == f->number) {
        node_release(p->tree, f->node, 1);
        f->node = node;
        return 0;
    }
    return p9_fid_new(p, number, f->uid, node, &new);
}

/* From *N, which is released, to the file of the next name; *N is that then. */
static int step(struct p9 *p, struct wire_in *in, struct wire_out *out, struct node **n) {
    char name[NAME_SIZE];
    struct node *next;
    int rc;

    wire_text(in, name, sizeof(name));
    if (in->bad)
        return -ENAMETOOLONG;
    tree_turn(p->tree);
    rc = tree_lookup(p->tree, *n, name, &next);
    if (rc)
        return rc;
    rc = put_qid(p, out, next);
    if (rc) {
        node_release(p->tree, next, 1);
        return rc;
    }
    node_release(p->tree, *n, 1);
    *n = next;
    return 0;
}

int p9_walk(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct fid *f;
    int rc = p9_take_fid(p, in, &f);
    uint32_t number = wire_get32(in);
    unsigned names = wire_get16(in), done = 0;
    uint8_t *count = wire_room(out, 2);
    struct node *n;

    if (rc)
        return rc;
    if (in->bad || names > NAMES_MAX || !count)
        return -EPROTO;
    if (number == f->number ? f->fd >= 0 : p9_fid(p, number) != NULL)
        return -EBADF;
    n = f->node;
    node_hold(n);
    while (done < names && !(rc = step(p, in, out, &n)))
        done++;
    memcpy(count, &(uint16_t){(uint16_t)done}, 2);
    /* "Twalk": some way is an answer, no way at all an error; the new fid is only there
     * when all was walked. */
    if (!rc)
        rc = arrive(p, f, number, n);
    else if (done)
        rc = 0;
    else {
        node_release(p->tree, n, 1);
        return rc;
    }
    if (rc || done < names)
        node_release(p->tree, n, 1);
    return rc;
}

/* --- making --- */

int p9_lcreate(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    char name[NAME_SIZE];
    struct fid *f;
    struct node *n;
    int rc = p9_take_fid(p, in, &f), fd, flags;
    uint32_t mode;
    struct owner owner;

    if (rc)
        return rc;
    wire_text(in, name, sizeof(name));
    flags = (int)wire_get32(in);
    mode = wire_get32(in);
    owner = (struct owner){f->uid, wire_get32(in)};
    if (in->bad)
        return -EPROTO;
    if (f->fd >= 0)
        return -EBADF;
    fd = files_create(p->tree, f->node, name, flags, mode, &owner, &n);
    if (fd < 0)
        return fd;
    node_release(p->tree, f->node, 1);
    f->node = n;
    f->fd = fd;
    f->write = (flags & O_ACCMODE) != O_RDONLY;
    rc = put_qid(p, out, n);
    wire_put32(out, 0); /* as much at once as a message has room for */
    return rc;
}

int p9_symlink(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    char name[NAME_SIZE], to[PATH_MAX];
    struct fid *f;
    int rc = p9_take_fid(p, in, &f);
    struct owner owner;

    if (rc)
        return rc;
    wire_text(in, name, sizeof(name));
    wire_text(in, to, sizeof(to));
    owner = (struct owner){f->uid, wire_get32(in)};
    if (in->bad)
        return -EPROTO;
    rc = files_symlink(p->tree, f->node, name, to, &owner);
    return rc ? rc : made(p, out, f, name);
}

int p9_mknod(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    char name[NAME_SIZE];
    struct fid *f;
    int rc = p9_take_fid(p, in, &f);
    uint32_t mode;
    struct owner owner;

    if (rc)
        return rc;
    wire_text(in, name, sizeof(name));
    mode = wire_get32(in);
    wire_get64(in); /* a device's numbers: none is made */
    owner = (struct owner){f->uid, wire_get32(in)};
    if (in->bad)
        return -EPROTO;
    rc = files_mknod(p->tree, f->node, name, mode, &owner);
    return rc ? rc : made(p, out, f, name);
}

int p9_mkdir(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    char name[NAME_SIZE];
    struct fid *f;
    int rc = p9_take_fid(p, in, &f);
    uint32_t mode;
    struct owner owner;

    if (rc)
        return rc;
    wire_text(in, name, sizeof(name));
    mode = wire_get32(in);
    owner = (struct owner){f->uid, wire_get32(in)};
    if (in->bad)
        return -EPROTO;
    rc = files_mkdir(p->tree, f->node, name, mode, &owner);
    return rc ? rc : made(p, out, f, name);
}

int p9_link(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    char name[NAME_SIZE];
    struct fid *dir, *f;
    int rc = p9_take_fid(p, in, &dir);

    if (!rc)
        rc = p9_take_fid(p, in, &f);
    if (rc)
        return rc;
    wire_text(in, name, sizeof(name));
    return in->bad ? -EPROTO : files_link(p->tree, f->node, dir->node, name);
}

int p9_readlink(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    char to[PATH_MAX];
    struct fid *f;
    int rc = p9_take_fid(p, in, &f);

    if (rc)
        return rc;
    rc = files_readlink(p->tree, f->node, to, sizeof(to));
    if (rc < 0)
        return rc;
    wire_put_text(out, to, (size_t)rc);
    return 0;
}

/* --- moving and removing --- */

int p9_renameat(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    char old[NAME_SIZE], new[NAME_SIZE];
    struct fid *from, *to;
    int rc = p9_take_fid(p, in, &from);

    if (rc)
        return rc;
    wire_text(in, old, sizeof(old));
    rc = p9_take_fid(p, in, &to);
    if (rc)
        return rc;
    wire_text(in, new, sizeof(new));
    return in->bad ? -EPROTO : files_rename(p->tree, from->node, old, to->node, new, 0);
}

/* Where the file of F is still found by the name that it was found by: messages that
 * name a file by its fid alone are about that name. */
static int place_of(struct p9 *p, struct fid *f, struct node **dir, const char **name) {
    struct node *n;
    int rc;

    *dir = node_place(f->node, name);
    if (!*dir)
        return -EBUSY;
    rc = tree_lookup(p->tree, *dir, *name, &n);
    if (rc)
        return rc;
    if (n != f->node)
        rc = -ENOENT;
    node_release(p->tree, n, 1);
    return rc;
}

int p9_rename(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    char new[NAME_SIZE], old[NAME_SIZE];
    struct fid *f, *to;
    struct node *dir;
    const char *name;
    int rc = p9_take_fid(p, in, &f);

    if (!rc)
        rc = p9_take_fid(p, in, &to);
    if (rc)
        return rc;
    wire_text(in, new, sizeof(new));
    if (in->bad)
        return -EPROTO;
    rc = place_of(p, f, &dir, &name);
    if (rc)
        return rc;
    memcpy(old, name, strlen(name) + 1); /* the node's is another afterwards */
    return files_rename(p->tree, dir, old, to->node, new, 0);
}

int p9_unlinkat(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    char name[NAME_SIZE];
    struct fid *dir;
    int rc = p9_take_fid(p, in, &dir);
    uint32_t flags;

    if (rc)
        return rc;
    wire_text(in, name, sizeof(name));
    flags = wire_get32(in);
    if (in->bad)
        return -EPROTO;
    return files_unlink(p->tree, dir->node, name, flags & UNLINK_DIRECTORY);
}

/* The fid is gone, whether the file is or not. */
int p9_remove(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct fid *f;
    struct node *dir;
    const char *name;
    int rc = p9_take_fid(p, in, &f);

    if (rc)
        return rc;
    rc = place_of(p, f, &dir, &name);
    if (!rc)
        rc = files_unlink(p->tree, dir, name, node_type(f->node) == S_IFDIR);
    p9_fid_end(p, f);
    return rc;
}

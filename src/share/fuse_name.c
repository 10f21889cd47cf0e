/* FUSE: finding, making, moving and removing files; see fuse_int.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "share/fuse_int.h"

static struct owner owner_of(const struct request *r) {
    return (struct owner){r->h.uid, r->h.gid};
}

/* The answer is the file NAME of the request's directory. */
static int answer_entry(struct fuse *f, struct request *r, const char *name) {
    struct fuse_entry_out entry;
    struct node *n;
    int rc = tree_lookup(f->tree, r->node, name, &n);

    if (rc)
        return rc;
    if (r->out.left < sizeof(entry))
        rc = -EMSGSIZE;
    else
        rc = fuse_entry(f, n, &entry);
    node_release(f->tree, n, 1);
    if (!rc)
        FUSE_PUT(r, entry);
    return rc;
}

int fuse_lookup(struct fuse *f, struct request *r) {
    char name[NAME_SIZE];

    const struct fuse_entry_out none = {.entry_valid = f->valid};
    int rc;

    wire_string(&r->in, name, sizeof(name));
    rc = r->in.bad ? -ENAMETOOLONG : answer_entry(f, r, name);
    if (rc != -ENOENT || r->out.left < sizeof(none))
        return rc;
    FUSE_PUT(r, none); /* the node 0: that, too, is believed for a while */
    return 0;
}

int fuse_readlink(struct fuse *f, struct request *r) {
    char to[PATH_MAX];
    int len = files_readlink(f->tree, r->node, to, sizeof(to));

    if (len < 0)
        return len;
    wire_put(&r->out, to, (size_t)len);
    return 0;
}

/* --- making --- */

int fuse_symlink(struct fuse *f, struct request *r) {
    char name[NAME_SIZE], to[PATH_MAX];
    const struct owner owner = owner_of(r);
    int rc;

    wire_string(&r->in, name, sizeof(name));
    wire_string(&r->in, to, sizeof(to));
    if (r->in.bad)
        return -ENAMETOOLONG;
    rc = files_symlink(f->tree, r->node, name, to, &owner);
    return rc ? rc : answer_entry(f, r, name);
}

int fuse_mknod(struct fuse *f, struct request *r) {
    char name[NAME_SIZE];
    const struct owner owner = owner_of(r);
    struct fuse_mknod_in a;
    int rc;

    FUSE_TAKE(r, a);
    wire_string(&r->in, name, sizeof(name));
    if (r->in.bad)
        return -ENAMETOOLONG;
    rc = files_mknod(f->tree, r->node, name, a.mode, &owner);
    return rc ? rc : answer_entry(f, r, name);
}

int fuse_mkdir(struct fuse *f, struct request *r) {
    char name[NAME_SIZE];
    const struct owner owner = owner_of(r);
    struct fuse_mkdir_in a;
    int rc;

    FUSE_TAKE(r, a);
    wire_string(&r->in, name, sizeof(name));
    if (r->in.bad)
        return -ENAMETOOLONG;
    rc = files_mkdir(f->tree, r->node, name, a.mode, &owner);
    return rc ? rc : answer_entry(f, r, name);
}

int fuse_link(struct fuse *f, struct request *r) {
    char name[NAME_SIZE];
    struct fuse_link_in a;
    struct node *n;
    int rc;

    FUSE_TAKE(r, a);
    wire_string(&r->in, name, sizeof(name));
    if (r->in.bad)
        return -ENAMETOOLONG;
    n = tree_find(f->tree, a.oldnodeid);
    if (!n)
        return -ESTALE;
    rc = files_link(f->tree, n, r->node, name);
    return rc ? rc : answer_entry(f, r, name);
}

int fuse_create(struct fuse *f, struct request *r) {
    char name[NAME_SIZE];
    const struct owner owner = owner_of(r);
    struct fuse_create_in a;
    struct fuse_open_out open = {.open_flags = FOPEN_KEEP_CACHE};
    struct fuse_entry_out entry;
    struct node *n;
    int fd, rc;

    FUSE_TAKE(r, a);
    wire_string(&r->in, name, sizeof(name));
    if (r->in.bad)
        return -ENAMETOOLONG;
    if (r->out.left < sizeof(open) + sizeof(entry))
        return -EMSGSIZE;
    fd = files_create(f->tree, r->node, name, (int)a.flags, a.mode, &owner, &n);
    if (fd < 0)
        return fd;
    rc = fuse_handle_new(f, n, fd, (a.flags & O_ACCMODE) != O_RDONLY, &open.fh);
    if (!rc) {
        rc = fuse_entry(f, n, &entry);
        if (rc)
            fuse_handle_end(f, fuse_handle(f, open.fh));
    }
    node_release(f->tree, n, 1);
    if (!rc) {
        FUSE_PUT(r, entry);
        FUSE_PUT(r, open);
    }
    return rc;
}

/* --- moving and removing --- */

static int remove_name(struct fuse *f, struct request *r, bool directory) {
    char name[NAME_SIZE];

    wire_string(&r->in, name, sizeof(name));
    return r->in.bad ? -ENAMETOOLONG : files_unlink(f->tree, r->node, name, directory);
}

int fuse_unlink(struct fuse *f, struct request *r) {
    return remove_name(f, r, false);
}

int fuse_rmdir(struct fuse *f, struct request *r) {
    return remove_name(f, r, true);
}

static int rename_to(struct fuse *f, struct request *r, uint64_t dir, unsigned flags) {
    char old[NAME_SIZE], new[NAME_SIZE];
    struct node *to = tree_find(f->tree, dir);
    int rc;

    wire_string(&r->in, old, sizeof(old));
    wire_string(&r->in, new, sizeof(new));
    if (r->in.bad)
        return -ENAMETOOLONG;
    if (!to)
        return -ESTALE;
    node_hold(to);
    rc = files_rename(f->tree, r->node, old, to, new, flags);
    node_release(f->tree, to, 1);
    return rc;
}

int fuse_rename(struct fuse *f, struct request *r) {
    struct fuse_rename_in a;

    FUSE_TAKE(r, a);
    return rename_to(f, r, a.newdir, 0);
}

int fuse_rename2(struct fuse *f, struct request *r) {
    struct fuse_rename2_in a;

    FUSE_TAKE(r, a);
    return rename_to(f, r, a.newdir, a.flags);
}

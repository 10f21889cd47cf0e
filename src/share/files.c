/*
 * What is done with files; see share_int.h. All of it goes by descriptors: of a
 * directory, and a name in it that is checked here; or of the file, by its link in
 * /proc/self/fd, which leads to that file and nowhere else.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "share/share_int.h"

/* Which flags of open(2) may come from a guest. */
#define GOOD_FLAGS (O_ACCMODE | O_TRUNC | O_APPEND | O_DSYNC | O_SYNC | O_DIRECTORY)
#define ALWAYS (O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

struct link {
    char path[32];
};

/* The file's own link; -errno. */
static int link_of(struct tree *t, struct node *n, struct link *l) {
    int fd = node_fd(t, n);

    if (fd < 0)
        return fd;
    snprintf(l->path, sizeof(l->path), "/proc/self/fd/%d", fd);
    return 0;
}

static bool good_name(const char *name) {
    return *name && strcmp(name, ".") && strcmp(name, "..") && !strchr(name, '/');
}

/* The descriptor of a directory in which NAME is going to be changed. */
static int place(struct tree *t, struct node *dir, const char *name) {
    if (tree_readonly(t))
        return -EROFS;
    if (!good_name(name))
        return -EINVAL;
    if (node_shut(dir))
        return -EACCES;
    return node_fd(t, dir);
}

/* --- looking --- */

int files_stat(struct tree *t, struct node *n, struct statx *out) {
    int fd = node_fd(t, n);

    if (fd < 0)
        return fd;
    return statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME,
                 out)
               ? -errno
               : 0;
}

int files_statfs(struct tree *t, struct node *n, struct statfs *out) {
    int fd = node_fd(t, n);

    return fd < 0 ? fd : fstatfs(fd, out) ? -errno : 0;
}

int files_readlink(struct tree *t, struct node *n, char *buf, size_t size) {
    int fd = node_fd(t, n), len;

    if (fd < 0)
        return fd;
    len = (int)readlinkat(fd, "", buf, size);
    return len < 0 ? -errno : len;
}

/* --- opening --- */

int files_open(struct tree *t, struct node *n, int flags) {
    bool write = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
    struct link l;
    int rc, fd;

    if (node_type(n) != S_IFREG && node_type(n) != S_IFDIR)
        return node_type(n) == S_IFLNK ? -ELOOP : -ENXIO;
    if (node_shut(n) && node_type(n) != S_IFDIR)
        return -EACCES;
    if (write && tree_readonly(t))
        return -EROFS;
    rc = link_of(t, n, &l);
    if (rc)
        return rc;
    fd = open(l.path, (flags & GOOD_FLAGS) | ALWAYS);
    return fd < 0 ? -errno : fd;
}

/* --- making --- */

/* Whose it is: the server may be allowed to say so. In a directory with that bit set the
 * group comes from there. AT and NAME, or with NAME "" what AT is open at. */
static void give_to(int dir, int at, const char *name, const struct owner *o) {
    struct stat s;
    gid_t gid = o->gid;

    if (geteuid())
        return;
    if (fstat(dir, &s))
        return;
    if (s.st_mode & S_ISGID)
        gid = (gid_t)-1;
    if (fchownat(at, name, o->uid, gid, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return; /* a file system that knows no owners */
}

/* The new file, and FD, which is open at it and is closed if this fails. */
static int found(struct tree *t, struct node *dir, const char *name, int fd,
                 struct node **out) {
    struct stat a;
    struct statx b;
    int rc = tree_lookup(t, dir, name, out);

    if (!rc) {
        rc = files_stat(t, *out, &b);
        /* The host may have put another there. */
        if (!rc && (fstat(fd, &a) || a.st_ino != b.stx_ino))
            rc = -ESTALE;
        if (rc)
            node_release(t, *out, 1);
    }
    if (rc)
        close(fd);
    return rc ? rc : fd;
}

int files_create(struct tree *t, struct node *dir, const char *name, int flags,
                 mode_t mode, const struct owner *owner, struct node **out) {
    int at = place(t, dir, name), fd, rc;

    if (at < 0)
        return at;
    fd = openat(at, name, (flags & GOOD_FLAGS) | ALWAYS | O_CREAT | O_EXCL | O_NOFOLLOW,
                mode & 07777);
    if (fd >= 0) {
        give_to(at, fd, "", owner);
        if (mode & (S_ISUID | S_ISGID) && fchmod(fd, mode & 07777)) {
            /* chown(2) has taken the bits, and they are the caller's to miss */
        }
        return found(t, dir, name, fd, out);
    }
    if (errno != EEXIST || flags & O_EXCL)
        return -errno;
    rc = tree_lookup(t, dir, name, out);
    if (rc)
        return rc;
    fd = files_open(t, *out, flags);
    if (fd < 0)
        node_release(t, *out, 1);
    return fd;
}

int files_mkdir(struct tree *t, struct node *dir, const char *name, mode_t mode,
                const struct owner *owner) {
    int at = place(t, dir, name);

    if (at < 0)
        return at;
    if (mkdirat(at, name, mode & 07777))
        return -errno;
    give_to(at, at, name, owner);
    return 0;
}

int files_mknod(struct tree *t, struct node *dir, const char *name, mode_t mode,
                const struct owner *owner) {
    mode_t type = mode & S_IFMT ? mode & S_IFMT : S_IFREG;
    int at = place(t, dir, name);

    if (at < 0)
        return at;
    /* Devices are the host's business. */
    if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK)
        return -EPERM;
    if (mknodat(at, name, type | (mode & 07777), 0))
        return -errno;
    give_to(at, at, name, owner);
    return 0;
}

int files_symlink(struct tree *t, struct node *dir, const char *name, const char *to,
                  const struct owner *owner) {
    int at = place(t, dir, name);

    if (at < 0)
        return at;
    if (symlinkat(to, at, name))
        return -errno;
    give_to(at, at, name, owner);
    return 0;
}

int files_link(struct tree *t, struct node *n, struct node *dir, const char *name) {
    int at = place(t, dir, name), rc;
    struct link l;

    if (at < 0)
        return at;
    if (node_shut(n))
        return -EXDEV;
    rc = link_of(t, n, &l);
    if (rc)
        return rc;
    at = node_fd(t, dir);
    return linkat(AT_FDCWD, l.path, at, name, AT_SYMLINK_FOLLOW) ? -errno : 0;
}

/* --- removing and moving --- */

int files_unlink(struct tree *t, struct node *dir, const char *name, bool directory) {
    int at = place(t, dir, name);

    if (at < 0)
        return at;
    return unlinkat(at, name, directory ? AT_REMOVEDIR : 0) ? -errno : 0;
}

/* Who holds what was moved finds it at its new place. */
static void moved(struct tree *t, struct node *dir, const char *name) {
    struct node *n;

    if (!tree_lookup(t, dir, name, &n))
        node_release(t, n, 1);
}

int files_rename(struct tree *t, struct node *from, const char *old, struct node *to,
                 const char *new, unsigned flags) {
    int at = place(t, from, old), there = place(t, to, new);

    if (at < 0 || there < 0)
        return at < 0 ? at : there;
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    /* renameat2(3) makes another call where there are no flags */
    if (syscall(SYS_renameat2, at, old, there, new, flags))
        return -errno;
    moved(t, to, new);
    if (flags & RENAME_EXCHANGE)
        moved(t, from, old);
    return 0;
}

/* --- changing --- */

static int set_size(struct tree *t, struct node *n, int fd, uint64_t size) {
    int own = -1, rc;

    if (size > INT64_MAX)
        return -EFBIG;
    if (fd < 0)
        fd = own = files_open(t, n, O_WRONLY);
    if (fd < 0)
        return fd;
    rc = ftruncate(fd, (off_t)size) ? -errno : 0;
    if (own >= 0)
        close(own);
    return rc;
}

int files_change(struct tree *t, struct node *n, int fd, const struct change *c) {
    struct link l;
    int at, rc;

    if (tree_readonly(t))
        return -EROFS;
    if (node_shut(n))
        return -EACCES;
    rc = link_of(t, n, &l);
    if (rc)
        return rc;
    at = node_fd(t, n);
    if (c->owner && fchownat(at, "", c->to_uid, c->to_gid, AT_EMPTY_PATH))
        return -errno;
    if (c->mode && fchmodat(AT_FDCWD, l.path, c->to_mode & 07777, 0))
        return -errno;
    if (c->size && (rc = set_size(t, n, fd, c->to_size)))
        return rc;
    if (c->times && utimensat(AT_FDCWD, l.path, c->to_times, 0))
        return -errno;
    return 0;
}

/* --- attributes --- */

long files_getxattr(struct tree *t, struct node *n, const char *name, void *buf,
                    size_t size) {
    struct link l;
    long rc = link_of(t, n, &l);

    if (rc)
        return rc;
    rc = getxattr(l.path, name, buf, size);
    return rc < 0 ? -errno : rc;
}

long files_listxattr(struct tree *t, struct node *n, void *buf, size_t size) {
    struct link l;
    long rc = link_of(t, n, &l);

    if (rc)
        return rc;
    rc = listxattr(l.path, buf, size);
    return rc < 0 ? -errno : rc;
}

static int can_change(struct tree *t, struct node *n, struct link *l) {
    return tree_readonly(t) ? -EROFS : node_shut(n) ? -EACCES : link_of(t, n, l);
}

int files_setxattr(struct tree *t, struct node *n, const char *name, const void *value,
                   size_t size, int flags) {
    struct link l;
    int rc = can_change(t, n, &l);

    if (rc)
        return rc;
    return setxattr(l.path, name, value, size, flags & (XATTR_CREATE | XATTR_REPLACE))
               ? -errno
               : 0;
}

int files_removexattr(struct tree *t, struct node *n, const char *name) {
    struct link l;
    int rc = can_change(t, n, &l);

    return rc ? rc : removexattr(l.path, name) ? -errno : 0;
}

/* --- directories --- */

struct entry {
    uint64_t ino;
    int64_t next;
    unsigned short len;
    unsigned char type;
    char name[];
};

/* All entries are the directory's file system's, but for mount points: their numbers here
 * are those of what is mounted over. */
static bool give(struct tree *t, struct node *n, const char *buf, long len, entry_fn *fn,
                 void *arg) {
    uint64_t high = node_number(t, n) & 0xffull << 56;

    for (long k = 0; k < len;) {
        const struct entry *e = (const void *)(buf + k);

        if (!fn(arg, e->ino ^ high, (uint64_t)e->next, e->type, e->name))
            return false;
        k += e->len;
    }
    return true;
}

int files_entries(struct tree *t, struct node *n, int fd, uint64_t at, entry_fn *fn,
                  void *arg) {
    _Alignas(struct entry) char buf[32768];
    long len;

    if (node_shut(n))
        return 0;
    if (at > INT64_MAX || lseek(fd, (off_t)at, SEEK_SET) < 0)
        return -EINVAL;
    do
        len = syscall(SYS_getdents64, fd, buf, sizeof(buf));
    while (len > 0 && give(t, n, buf, len, fn, arg));
    return len < 0 ? -errno : 0;
}

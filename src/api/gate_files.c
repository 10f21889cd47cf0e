/* What is opened for the machine; see gate_files.h. The machine's orders are not
 * believed: a client has named each file, and which drives are only read was said before
 * the jail. */
#include "api/gate_files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/draft.h"

#define DRIVES 32u

struct place {
    int dir;
    char file[NAME_MAX + 1];
};

struct gate_files {
    struct named *named;
    char readonly[DRIVES][NAMED_ID];
    unsigned readonly_count;
    bool settled;
    struct place state, memory; /* of the snapshot that is made; a DIR of -1: none */
};

struct gate_files *gate_files_new(struct named *named) {
    struct gate_files *f = calloc(1, sizeof(*f));

    if (f) {
        f->named = named;
        f->state.dir = f->memory.dir = -1;
    }
    return f;
}

static int refuse(struct gate_answer *a, int rc, const char *what) {
    snprintf(a->why, sizeof(a->why), "%s", what);
    return rc;
}

/* --- drives --- */

static int add_readonly(struct gate_files *f, const struct gate_order *o) {
    if (f->settled)
        return -EPERM;
    if (o->what == GATE_READONLY_FIRST)
        f->readonly_count = 0;
    if (!*o->id)
        return 0;
    if (f->readonly_count == DRIVES)
        return -ENOSPC;
    memcpy(f->readonly[f->readonly_count++], o->id, sizeof(o->id));
    return 0;
}

static bool is_readonly(const struct gate_files *f, const char *id) {
    for (unsigned n = 0; n < f->readonly_count; n++)
        if (!strcmp(f->readonly[n], id))
            return true;
    return false;
}

static int open_drive(struct gate_files *f, const struct gate_order *o,
                      struct gate_answer *a, int fd[2]) {
    int one;

    if (!f->settled || !named_drive(f->named, o->id, o->path))
        return refuse(a, -EPERM, "no client of the API has named this file");
    one = block_hand_over(o->path, is_readonly(f, o->id), &a->facts, a->why,
                          sizeof(a->why));
    if (one < 0)
        return one;
    fd[0] = fd[1] = one; /* sent twice, they become two */
    return 0;
}

/* --- snapshots --- */

static void leave(struct place *p) {
    if (p->dir >= 0)
        close(p->dir);
    p->dir = -1;
}

/* What PATH leads to can be replaced by a file: 0, or -errno. */
static int check(const struct place *p) {
    struct stat st;

    if (!*p->file || !strcmp(p->file, ".") || !strcmp(p->file, ".."))
        return -EISDIR;
    if (fstatat(p->dir, p->file, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : -errno;
    return S_ISREG(st.st_mode) ? 0 : S_ISDIR(st.st_mode) ? -EISDIR : -EEXIST;
}

/* 0 or -errno. */
static int find(const char *path, struct place *p) {
    const char *slash = strrchr(path, '/');
    int len = slash ? (int)(slash - path) + 1 : 0;
    char dir[NAMED_PATH];
    int rc;

    if ((size_t)snprintf(p->file, sizeof(p->file), "%s", path + len) >= sizeof(p->file))
        return -ENAMETOOLONG;
    snprintf(dir, sizeof(dir), "%.*s", len, path);
    p->dir = open(len ? dir : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    rc = p->dir < 0 ? -errno : check(p);
    if (rc)
        leave(p);
    return rc;
}

static int make(const char *path, struct place *p, int *fd) {
    int rc = find(path, p);

    if (rc)
        return rc;
    *fd = draft_make(p->dir, p->file);
    if (*fd >= 0)
        return 0;
    rc = *fd;
    *fd = -1;
    leave(p);
    return rc;
}

static void drop(struct gate_files *f) {
    struct place *place[] = {&f->state, &f->memory};

    for (unsigned n = 0; n < ARRAY_SIZE(place); n++) {
        if (place[n]->dir >= 0)
            draft_drop(place[n]->dir, place[n]->file);
        leave(place[n]);
    }
}

static int cannot_make(struct gate_answer *a, const char *path, int rc) {
    snprintf(a->why, sizeof(a->why), "cannot make '%.256s': %s", path,
             rc == -EEXIST ? "there is something that is no file" : strerror(-rc));
    return rc;
}

static int begin(struct gate_files *f, const struct gate_order *o, struct gate_answer *a,
                 int fd[2]) {
    int rc;

    drop(f);
    if (!f->settled || !named_snapshot(f->named, o->path, o->memory))
        return refuse(a, -EPERM, "no client of the API has named these files");
    if (!strcmp(o->path, o->memory))
        return refuse(a, -EINVAL, "the state and the memory want a file each");
    rc = make(o->path, &f->state, &fd[0]);
    if (rc)
        return cannot_make(a, o->path, rc);
    rc = make(o->memory, &f->memory, &fd[1]);
    if (!rc)
        return 0;
    close(fd[0]);
    fd[0] = -1;
    drop(f);
    return cannot_make(a, o->memory, rc);
}

/* The state comes last: who sees it finds the memory. */
static int keep(struct gate_files *f) {
    int rc = f->state.dir < 0 ? -EINVAL : draft_keep(f->memory.dir, f->memory.file);

    if (!rc)
        rc = draft_keep(f->state.dir, f->state.file);
    drop(f);
    return rc;
}

/* --- orders --- */

void gate_files_do(struct gate_files *f, struct gate_order *o, struct gate_answer *a,
                   int fd[2]) {
    fd[0] = fd[1] = -1;
    o->id[sizeof(o->id) - 1] = 0;
    o->path[sizeof(o->path) - 1] = o->memory[sizeof(o->memory) - 1] = 0;
    switch (o->what) {
    case GATE_READONLY_FIRST:
    case GATE_READONLY:
        a->rc = add_readonly(f, o);
        break;
    case GATE_SETTLE:
        f->settled = true;
        break;
    case GATE_DRIVE:
        a->rc = open_drive(f, o, a, fd);
        break;
    case GATE_BEGIN:
        a->rc = begin(f, o, a, fd);
        break;
    case GATE_KEEP:
        a->rc = keep(f);
        break;
    case GATE_DROP:
        drop(f);
        break;
    default:
        a->rc = -EINVAL;
    }
}

void gate_files_end(struct gate_files *f) {
    drop(f);
}

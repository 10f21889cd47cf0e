/*
 * What a disk is made of: the image that the user named, what that stands on, and an
 * overlay.
 *
 * Nothing is found out from what is in a file that a guest could have written: a file is
 * a qcow2 image if the user says so or it is so named, else it is raw, and what stands
 * beneath a qcow2 image is in the format that the image says. That image may have been
 * made by anybody, and so it names files only that lie beside it, unless the user allows
 * more.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/block_int.h"
#include "block/qcow2/qcow2.h"

#define DEPTH 32u

struct opening {
    bool backing_allowed;
    uint64_t id[DEPTH][2]; /* of the files that are open, the topmost first */
    unsigned depth;
    char *why;
    size_t why_size;
};

__attribute__((format(printf, 3, 4))) static int fail(struct opening *o, int rc,
                                                      const char *fmt, ...) {
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(o->why, o->why_size, fmt, ap);
    va_end(ap);
    return rc;
}

/* --- names --- */

static bool ends(const char *path, const char *suffix) {
    size_t len = strlen(path), tail = strlen(suffix);

    return len > tail && !strcmp(path + len - tail, suffix);
}

#define DIRECTORY "fat:"

bool block_is_directory(const char *path) {
    return !strncmp(path, DIRECTORY, strlen(DIRECTORY));
}

static bool is_qcow2(const char *path, enum block_format format) {
    if (block_is_server(path) || block_is_directory(path))
        return false;
    return format == BLOCK_QCOW2 || (format == BLOCK_BY_NAME && ends(path, ".qcow2"));
}

/* PATH with its last name cut off: "." where there is no more. False: too long. */
static bool directory(const char *path, char out[PATH_MAX]) {
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;

    if (len >= PATH_MAX)
        return false;
    memcpy(out, path, len);
    strcpy(out + len, !slash ? "." : len ? "" : "/");
    return true;
}

/* Where FILE, a real path, lies: beside IMAGE, as it is named or where it really is? */
static bool beside(const char *image, const char *file) {
    char real[PATH_MAX], dir[PATH_MAX], here[PATH_MAX];

    if (!directory(file, here))
        return false;
    if (directory(image, dir) && realpath(dir, real) && !strcmp(real, here))
        return true;
    return realpath(image, real) && directory(real, dir) && !strcmp(dir, here);
}

/* The real path of what IMAGE calls NAME. 0 or -errno. */
static int resolve(const char *image, const char *name, char out[PATH_MAX]) {
    char dir[PATH_MAX], path[2 * PATH_MAX];

    if (*name == '/')
        return realpath(name, out) ? 0 : -errno;
    if (!directory(image, dir))
        return -ENAMETOOLONG;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return realpath(path, out) ? 0 : -errno;
}

/* --- an image and what it stands on --- */

static int open_image(struct opening *o, const char *path, bool qcow2, bool readonly,
                      struct image **out);

static int open_backing(struct opening *o, const char *image,
                        const struct qcow2_names *names, struct image **out) {
    const char *name = names->backing, *colon = strchr(name, ':');
    bool qcow2 = !strcmp(names->format, "qcow2");
    char path[PATH_MAX];
    int rc;

    if (!*names->format)
        return fail(o, -EINVAL,
                    "the image '%s' does not say of what format its backing file '%s' "
                    "is; `qemu-img rebase -u -b '%s' -F FORMAT '%s'` adds that",
                    image, name, name, image);
    if (!qcow2 && strcmp(names->format, "raw") != 0)
        return fail(o, -EINVAL,
                    "the backing file '%s' of '%s' is of the format '%s', which is not "
                    "supported (raw and qcow2 are)",
                    name, image, names->format);
    if (colon && !memchr(name, '/', (size_t)(colon - name)))
        return fail(o, -EINVAL,
                    "the image '%s' stands on '%s', which is no file; that is not "
                    "supported",
                    image, name);
    rc = resolve(image, name, path);
    if (rc)
        return fail(o, rc, "cannot open the backing file '%s' of '%s': %s", name, image,
                    strerror(-rc));
    if (!o->backing_allowed && !beside(image, path))
        return fail(o, -EACCES,
                    "the image '%s' stands on '%s', which does not lie beside it; "
                    "',backing=allow' says that it may",
                    image, path);
    return open_image(o, path, qcow2, true, out);
}

/* Takes FILE for one more of the chain. */
static int remember(struct opening *o, const struct image *file) {
    uint64_t id[2];

    if (!file_identity(file, id))
        return 0;
    for (unsigned n = 0; n < o->depth; n++)
        if (o->id[n][0] == id[0] && o->id[n][1] == id[1])
            return fail(o, -ELOOP, "the image '%s' stands on itself", file->path);
    if (o->depth == DEPTH)
        return fail(o, -ELOOP, "'%s' is one of more than %u images on each other",
                    file->path, DEPTH);
    memcpy(o->id[o->depth++], id, sizeof(id));
    return 0;
}

/* FILE, which is taken over, as a qcow2 image. */
static int open_qcow2(struct opening *o, struct image *file, bool readonly,
                      struct image **out) {
    struct qcow2_spec spec = {.file = file, .readonly = readonly};
    struct qcow2_names names = {0};
    int rc = qcow2_names(file, &names, o->why, o->why_size);

    if (!rc && *names.backing)
        rc = open_backing(o, file->path, &names, &spec.backing);
    if (!rc)
        return qcow2_open(&spec, out, o->why, o->why_size);
    image_close(file);
    return rc;
}

static int open_image(struct opening *o, const char *path, bool qcow2, bool readonly,
                      struct image **out) {
    const struct file_spec spec = {.path = path, .readonly = readonly, .lock = true};
    struct image *file;
    int rc;

    /* Before the lock, which would say "in use". */
    rc = file_open(&(struct file_spec){.path = path, .readonly = true}, &file, o->why,
                   o->why_size);
    if (!rc) {
        rc = remember(o, file);
        image_close(file);
    }
    if (!rc)
        rc = file_open(&spec, &file, o->why, o->why_size);
    if (rc)
        return rc;
    if (qcow2)
        return open_qcow2(o, file, readonly, out);
    *out = file;
    return 0;
}

/* --- overlays --- */

static int open_temporary(struct opening *o, struct image *base, struct image **out) {
    struct qcow2_spec spec = {.backing = base, .fleeting = true};
    const struct qcow2_new how = {.size = base->size};
    int rc = file_temporary(base->path, &spec.file);

    if (!rc) {
        rc = qcow2_create(spec.file, &how);
        if (!rc)
            return qcow2_open(&spec, out, o->why, o->why_size);
        image_close(spec.file);
    }
    image_close(base);
    return fail(o, rc, "cannot make a temporary overlay (in TMPDIR, or /var/tmp): %s",
                strerror(-rc));
}

/* What OVERLAY calls BASE, a path as the user gave it. */
static int name_base(const char *overlay, const char *base, char out[PATH_MAX]) {
    char real[PATH_MAX];

    if (block_is_server(base))
        return snprintf(out, PATH_MAX, "%s", base) < PATH_MAX ? 0 : -ENAMETOOLONG;
    if (!realpath(base, real))
        return -errno;
    snprintf(out, PATH_MAX, "%s", beside(overlay, real) ? strrchr(real, '/') + 1 : real);
    return 0;
}

static int sync_directory(const char *path) {
    char dir[PATH_MAX];
    int fd = directory(path, dir) ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int rc = fd < 0 || fsync(fd) < 0 ? -errno : 0;

    if (fd >= 0)
        close(fd);
    return rc;
}

static int make_overlay(struct opening *o, const struct block_spec *s,
                        const struct image *base, struct image **file) {
    const struct file_spec spec = {.path = s->overlay, .lock = true, .create = true};
    char name[PATH_MAX];
    const struct qcow2_new how = {.size = base->size,
                                  .backing = name,
                                  .format =
                                      is_qcow2(s->path, s->format) ? "qcow2" : "raw"};
    int rc = file_open(&spec, file, o->why, o->why_size);

    if (rc)
        return rc;
    rc = name_base(s->overlay, s->path, name);
    if (!rc)
        rc = qcow2_create(*file, &how);
    if (!rc)
        rc = sync_directory(s->overlay);
    if (!rc)
        return 0;
    image_close(*file);
    unlink(s->overlay);
    return fail(o, rc, "cannot make the overlay '%s': %s", s->overlay, strerror(-rc));
}

/* The overlay is there: does it belong to BASE? */
static int check_overlay(struct opening *o, const struct block_spec *s,
                         struct image *file) {
    const char *format = is_qcow2(s->path, s->format) ? "qcow2" : "raw";
    char named[PATH_MAX] = "", real[PATH_MAX] = "";
    struct qcow2_names names;
    int rc = qcow2_names(file, &names, o->why, o->why_size);

    if (rc)
        return rc;
    if (block_is_server(s->path)
            ? strcmp(names.backing, s->path) != 0
            : !*names.backing || resolve(s->overlay, names.backing, named) ||
                  !realpath(s->path, real) || strcmp(named, real) != 0)
        return fail(o, -EINVAL,
                    "the overlay '%s' stands on '%s', not on '%s'; name a file that is "
                    "not there yet, and it is made",
                    s->overlay, *names.backing ? names.backing : "nothing", s->path);
    if (*names.format && strcmp(names.format, format) != 0)
        return fail(o, -EINVAL,
                    "the overlay '%s' says that '%s' is of the format %s, not %s",
                    s->overlay, s->path, names.format, format);
    return 0;
}

static int open_overlay(struct opening *o, const struct block_spec *s, struct image *base,
                        struct image **out) {
    struct file_spec spec = {.path = s->overlay, .lock = true};
    struct qcow2_spec q = {.backing = base};
    int rc;

    if (access(s->overlay, F_OK) && errno == ENOENT) {
        rc = make_overlay(o, s, base, &q.file);
    } else {
        rc = file_open(&spec, &q.file, o->why, o->why_size);
        if (!rc) {
            rc = check_overlay(o, s, q.file);
            if (rc)
                image_close(q.file);
        }
    }
    if (!rc)
        return qcow2_open(&q, out, o->why, o->why_size);
    image_close(base);
    return rc;
}

static int open_directory(struct opening *o, const struct block_spec *s,
                          struct image **out) {
    if (s->format == BLOCK_QCOW2)
        return fail(o, -EINVAL, "'%s': what is made of a directory is raw", s->path);
    if (!s->readonly && (!s->overlay || strcmp(s->overlay, "temp") != 0))
        return fail(o, -EINVAL,
                    "'%s': what is written to a directory's disk is gone at the end: it "
                    "goes with readonly or overlay=temp",
                    s->path);
    return fat_open(s->path + strlen(DIRECTORY), out, o->why, o->why_size);
}

static int open_server(struct opening *o, const struct block_spec *s, bool readonly,
                       struct image **out) {
    if (s->format == BLOCK_QCOW2)
        return fail(o, -EINVAL,
                    "'%s': what a server serves is raw; let it open the qcow2 image",
                    s->path);
    return nbd_open(s, readonly, out, o->why, o->why_size);
}

/* What SPEC names, the overlay included. */
static int open_all(struct opening *o, const struct block_spec *s, struct image **out) {
    bool readonly = s->readonly || s->overlay, qcow2 = is_qcow2(s->path, s->format);
    struct image *base;
    int rc;

    if (block_is_directory(s->path))
        rc = open_directory(o, s, &base);
    else if (block_is_server(s->path))
        rc = open_server(o, s, readonly, &base);
    else
        rc = open_image(o, s->path, qcow2, readonly, &base);
    if (rc)
        return rc;
    if (!s->overlay) {
        *out = base;
        return 0;
    }
    return strcmp(s->overlay, "temp") ? open_overlay(o, s, base, out)
                                      : open_temporary(o, base, out);
}

/* A sector that a guest may ask for is there as a whole. */
static int choose_sector(struct opening *o, const struct block_spec *s, struct image *i) {
    if (s->sector)
        i->sector = s->sector;
    if (i->size % i->sector == 0)
        return 0;
    return fail(o, -EINVAL,
                "'%s' has %llu bytes, which are no whole number of sectors of %u; "
                "truncate or qemu-img resize make it larger",
                s->path, (unsigned long long)i->size, i->sector);
}

int disk_open(const struct block_spec *s, struct image **out, char *why,
              size_t why_size) {
    struct opening o = {
        .backing_allowed = s->backing_allowed, .why = why, .why_size = why_size};
    int rc = open_all(&o, s, out);

    if (rc)
        return rc;
    rc = choose_sector(&o, s, *out);
    if (rc)
        image_close(*out);
    return rc;
}

int block_hand_over(const char *path, bool readonly, struct block_facts *facts, char *why,
                    size_t why_size) {
    if (!block_is_server(path) && !is_qcow2(path, BLOCK_BY_NAME))
        return file_hand_over(path, readonly, facts, why, why_size);
    snprintf(why, why_size,
             "'%s' is %s: a disk that is in use can only have another raw file or block "
             "device",
             path, block_is_server(path) ? "a server's" : "called a qcow2 image");
    return -EINVAL;
}

/* Snapshots that are restored together; see chain.h. */
#include "ctl/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "ctl/pack.h"
#include "ctl/progress.h"

int chain_read_fd(int fd, uint8_t **bytes, size_t *len) {
    off_t size = lseek(fd, 0, SEEK_END);
    ssize_t n = 1;

    *len = 0;
    *bytes = NULL;
    if (size < 0 || (uint64_t)size > SNAPSHOT_MAX)
        return -EINVAL;
    *bytes = malloc((size_t)size + 1);
    if (!*bytes)
        return -ENOMEM;
    while (n && *len < (size_t)size) {
        n = pread(fd, *bytes + *len, (size_t)size - *len, (off_t)*len);
        if (n < 0 && errno != EINTR)
            return -errno;
        *len += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int chain_read(const char *path, uint8_t **bytes, size_t *len) {
    /* A pipe of that name is not waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
    struct stat st;

    *len = 0;
    *bytes = NULL;
    if (fd < 0 || fstat(fd, &st) < 0)
        rc = -errno;
    else
        rc = S_ISREG(st.st_mode) ? chain_read_fd(fd, bytes, len) : -EINVAL;
    if (fd >= 0)
        close(fd);
    if (rc)
        log_error("cannot read '%s': %s", path,
                  rc == -EINVAL ? "it is no snapshot of bivisor's" : strerror(-rc));
    return rc;
}

/* NAME as it is seen from where the state of L is. 0, or -EINVAL after a message about
 * WHAT. */
static int path_beside(const struct chain_link *l, const char *name, const char *what,
                       char *out, size_t size) {
    const char *end = strrchr(l->path, '/');
    int dir = end && *name != '/' ? (int)(end - l->path) + 1 : 0, n;

    n = snprintf(out, size, "%.*s%s", dir, l->path, name);
    if (n >= 0 && (size_t)n < size)
        return 0;
    log_error("cannot restore '%s': the name of %s is too long", l->path, what);
    return -EINVAL;
}

/* What the memory's file is called: MEMORY, or if that is NULL as S says, or as the state
 * with .ram behind it. 0, or -EINVAL after a message. */
static int ram_path(const struct chain_link *l, const char *memory, struct snapshot *s,
                    char *out, size_t size) {
    char said[FREEZE_PATH];

    if (!freeze_memory(s, said)) {
        log_error("cannot restore '%s': %s", l->path, snapshot_why(s));
        return -EINVAL;
    }
    if (!memory && *said)
        return path_beside(l, said, "its memory", out, size);
    if (memory)
        snprintf(out, size, "%s", memory);
    else
        snprintf(out, size, "%s.ram", l->path);
    return 0;
}

static int open_ram(struct chain_link *l, const char *memory, struct snapshot *s) {
    char packed[FREEZE_PATH + 24];

    if (ram_path(l, memory, s, l->memory, FREEZE_PATH + 8))
        return -EINVAL;
    l->ram = open(l->memory, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (l->ram < 0 && errno == ENOENT) {
        snprintf(packed, sizeof(packed), "%s.zst", l->memory);
        l->ram = open(packed, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        l->packed = l->ram >= 0;
    }
    if (l->ram >= 0)
        return 0;
    log_error("cannot read the memory of the snapshot, '%s': %s", l->memory,
              strerror(errno));
    return -EINVAL;
}

/* The next one, whose path and number are known from S. */
static int add(struct chain *c, const char *path, const char *memory,
               struct snapshot *s) {
    struct chain_link *l = &c->link[c->count];

    if ((size_t)snprintf(l->path, sizeof(l->path), "%s", path) >= sizeof(l->path)) {
        log_error("cannot restore '%s': the name is too long", path);
        return -EINVAL;
    }
    l->ram = -1;
    l->packed = false;
    c->count++;
    l->named = freeze_ram(s, l->id, &l->signed_ram);
    if (!freeze_increment(s, &l->increment)) {
        log_error("cannot restore '%s': %s", path, snapshot_why(s));
        return -EINVAL;
    }
    return open_ram(l, memory, s);
}

static int add_base(struct chain *c, const char *path, const uint8_t *bytes, size_t len) {
    const struct chain_link *l = &c->link[c->count - 1];
    char why[256];
    struct snapshot *s = snapshot_open(bytes, len, why, sizeof(why));
    int rc;

    if (!s) {
        log_error("cannot restore '%s': %s", path, why);
        return -EINVAL;
    }
    rc = add(c, path, NULL, s);
    if (!rc && (!l[1].named || memcmp(l[1].id, l->increment.base_id, FREEZE_ID) != 0)) {
        log_error(
            "cannot restore '%s': '%s' is not the snapshot that it has the changes to",
            l->path, path);
        rc = -EINVAL;
    }
    snapshot_free(s);
    return rc;
}

static int follow(struct chain *c) {
    const struct chain_link *l = &c->link[c->count - 1];
    char path[4096];
    uint8_t *bytes;
    size_t len;
    int rc;

    if (c->count == CHAIN_MAX) {
        log_error("cannot restore '%s': more than %u snapshots lead to it",
                  c->link[0].path, CHAIN_MAX);
        return -EINVAL;
    }
    rc = path_beside(l, l->increment.base, "its base", path, sizeof(path));
    if (!rc)
        rc = chain_read(path, &bytes, &len);
    if (rc)
        return rc;
    rc = add_base(c, path, bytes, len);
    free(bytes);
    return rc;
}

int chain_open(struct chain *c, const char *path, const char *memory,
               struct snapshot *s) {
    int rc;

    c->count = 0;
    rc = add(c, path, memory, s);
    while (!rc && c->link[c->count - 1].increment.there)
        rc = follow(c);
    return rc;
}

static void tell(uint64_t done, uint64_t total) {
    progress_show("restore: unpacking memory", done, total);
}

static int unpack(struct chain_link *l, uint64_t most) {
    int fd = memfd_create("snapshot", MFD_CLOEXEC), rc;

    if (fd < 0)
        return -errno;
    rc = unpack_file(l->ram, fd, most, tell);
    rc = rc == -ESPIPE ? -EINVAL : rc; /* a pipe of that name */
    close(rc ? fd : l->ram);
    if (!rc)
        l->ram = fd;
    l->packed = rc != 0;
    return rc;
}

int chain_unpack(struct chain *c, uint64_t most) {
    int rc = 0;

    for (unsigned n = 0; n < c->count && !rc; n++)
        if (c->link[n].packed)
            rc = unpack(&c->link[n], most);
    progress_end();
    return rc;
}

int chain_show_changes(struct machine *m, int ram, const struct freeze_increment *i) {
    int rc = 0;

    for (uint32_t n = 0; n < i->count && !rc; n++)
        rc = machine_restore_ram_pages(m, ram, i->run[n].from, i->run[n].end);
    return rc;
}

/* Each memory is its state's: the two files may have been replaced while they were
 * opened. 0, or -EINVAL after a message. */
static int check_pairs(const struct chain *c, uint64_t size) {
    for (unsigned n = 0; n < c->count; n++) {
        const struct chain_link *l = &c->link[n];

        if (!l->signed_ram || os_sparse_check(l->ram, size) ||
            freeze_signed(l->ram, size, l->id))
            continue;
        log_error("cannot restore '%s': '%s' is the memory of another snapshot",
                  c->link[0].path, l->memory);
        return -EINVAL;
    }
    return 0;
}

int chain_show(struct chain *c, struct machine *m) {
    const char *path = c->link[0].path;
    const struct chain_link *l;
    uint64_t size = machine_ram_pages(m) * 4096;
    int rc = chain_unpack(c, size + FREEZE_TAIL);

    if (rc) {
        log_error("cannot restore '%s': its memory is packed, and cannot be unpacked: %s",
                  path, rc == -EINVAL ? "it is damaged" : strerror(-rc));
        return rc;
    }
    rc = check_pairs(c, size);
    if (rc)
        return rc;
    l = &c->link[c->count - 1];
    rc = machine_restore_ram(m, l->ram);
    while (!rc && l-- != c->link)
        rc = chain_show_changes(m, l->ram, &l->increment);
    if (rc == -EINVAL)
        log_error("cannot restore '%s': '%s' is not its memory", path, l->memory);
    else if (rc)
        log_error("cannot restore '%s': its memory: %s", path, strerror(-rc));
    return rc;
}

void chain_close(struct chain *c) {
    while (c->count) {
        struct chain_link *l = &c->link[--c->count];

        if (l->ram >= 0)
            close(l->ram);
        free(l->increment.run);
    }
}

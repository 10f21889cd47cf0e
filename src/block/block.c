/* Disks as the devices know them: see block.h. What a disk is made of: open.c. */
#include "block/block.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "block/block_int.h"

/* A name for the guest's /dev/disk/by-id: a digest of the path (FNV-1a), so that two
 * images differ and one stays the same. */
static void name_it(struct block *b) {
    uint64_t hash = 0xcbf29ce484222325;

    for (const char *c = b->image->path; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
    snprintf(b->id, sizeof(b->id), "BV%016llx", (unsigned long long)hash);
}

int block_open(const struct block_spec *spec, struct block **out, char *why,
               size_t why_size) {
    struct block *b = calloc(1, sizeof(*b));
    int rc = b ? 0 : -ENOMEM;

    if (rc)
        snprintf(why, why_size, "out of memory");
    else
        rc = disk_open(spec, &b->image, why, why_size);
    if (rc) {
        free(b);
        return rc;
    }
    name_it(b);
    *out = b;
    return 0;
}

static int close_image(struct image *i) {
    char path[1024];
    int rc;

    snprintf(path, sizeof(path), "%s", i->path);
    rc = image_close(i);
    if (rc)
        log_error("cannot write back all of '%s': %s", path, strerror(-rc));
    return rc;
}

int block_close(struct block *b) {
    int rc;

    if (!b)
        return 0;
    if (b->pool)
        pool_remove(b->pool, b);
    rc = close_image(b->image);
    free(b);
    return rc;
}

static bool fits(const struct block *b, uint64_t size, unsigned sector, const char *path,
                 char *why, size_t why_size) {
    /* A file's last sector of 512 bytes need not be whole. */
    if (sector <= b->image->sector &&
        (b->image->sector == BLOCK_SECTOR || size % b->image->sector == 0))
        return true;
    snprintf(why, why_size,
             "'%s' is no whole number of the disk's sectors, which have %u bytes", path,
             b->image->sector);
    return false;
}

/* FD is of the file that is there already, which has been made longer or shorter. */
static int resize(struct block *b, int fd, const struct block_facts *facts) {
    close(fd);
    pool_execute_all(b->pool, b);
    file_resized(b->image, facts);
    return 0;
}

int block_exchange(struct block *b, int fd, const struct block_facts *facts,
                   const char *path, struct image **old, char *why, size_t why_size) {
    struct image *new;
    uint64_t id[2];
    bool same = file_identity(b->image, id) && !memcmp(id, facts->id, sizeof(id));
    int rc = 0;

    *old = NULL;
    if (!fits(b, facts->size, facts->sector, path, why, why_size))
        rc = -EINVAL;
    else if (!same && !facts->locked)
        rc = file_in_use(path, b->image->readonly, why, why_size);
    if (rc) {
        close(fd);
        return rc;
    }
    if (same)
        return resize(b, fd, facts);
    rc = file_handed(fd, facts, path, b->image->readonly, &new);
    if (rc) {
        snprintf(why, why_size, "out of memory");
        return rc;
    }
    new->sector = b->image->sector;
    pool_execute_all(b->pool, b);
    *old = b->image;
    b->image = new;
    name_it(b);
    return 0;
}

void block_put_away(struct image *old) {
    if (old)
        close_image(old);
}

uint64_t block_size(const struct block *b) {
    return b->image->size;
}

unsigned block_sector(const struct block *b) {
    return b->image->sector;
}

unsigned block_physical(const struct block *b) {
    return b->image->physical;
}

unsigned block_granule(const struct block *b) {
    return b->image->granule;
}

bool block_readonly(const struct block *b) {
    return b->image->readonly;
}

const char *block_id(const struct block *b) {
    return b->id;
}

const char *block_path(const struct block *b) {
    return b->image->path;
}

int block_look(struct block *b, uint64_t offset, void *buf, size_t len) {
    return image_read(b->image, offset, buf, len);
}

unsigned block_sockets(const struct block *b, int *out) {
    return image_sockets(b->image, out, BLOCK_SOCKETS_MAX);
}

void block_attach(struct block *b, struct block_pool *p) {
    if (b->pool)
        pool_remove(b->pool, b);
    b->pool = p;
    if (p)
        pool_add(p, b);
}

bool block_at_once(struct block *b, struct block_request *r) {
    r->block = b;
    return !pool_counted(b->pool) && !b->limited && request_at_once(r);
}

void block_limit(struct block *b, enum block_limit which, const struct rate_limit *l) {
    pool_limit(b->pool, b, which, l);
}

void block_submit(struct block *b, struct block_request *r) {
    r->block = b;
    pool_submit(b->pool, r);
}

bool block_more(const struct block *b) {
    return b->more;
}

void block_cancel(struct block *b) {
    pool_cancel(b->pool, b);
}

void block_hurry(struct block *b) {
    if (b->limited)
        pool_hurry(b->pool, b);
}

unsigned block_in_flight(const struct block *b) {
    return pool_in_flight(b->pool, b);
}

void block_drain(struct block *b) {
    if (b->pool)
        pool_drain(b->pool, b);
}

/* A disk's requests, one at a time or many: a loop and a pool for who has no machine. */
#ifndef LIB_DISK_H
#define LIB_DISK_H

#include "base/os_loop.h"
#include "block/block.h"

struct disk_rig {
    struct os_loop *loop;
    struct block_pool *pool;
    unsigned wanted; /* requests that disk_wait() waits for */
};

/* Asserts that it can. */
void disk_rig_open(struct disk_rig *rig);
void disk_rig_close(struct disk_rig *rig);

/* Opens a disk and attaches it. NULL: WHY, of DISK_WHY bytes, says why. */
#define DISK_WHY 512
struct block *disk_try(struct disk_rig *rig, const struct block_spec *spec, char *why);
/* Asserts that it can. */
struct block *disk_must(struct disk_rig *rig, const struct block_spec *spec);

struct disk_request {
    struct block_request r;
    struct disk_rig *rig;
    struct block_iov one;
    int rc; /* 1: not done yet */
    unsigned calls;
};

/* Submits to B, which has been attached; LEN bytes of BUF. */
void disk_begin(struct disk_rig *rig, struct block *b, struct disk_request *q,
                enum block_op op, uint64_t offset, void *buf, size_t len);
/* What disk_begin() has for done(): for who does something before. */
void disk_done(struct block_request *r, int rc);
/* Turns the loop until COUNT more requests are done. */
void disk_wait(struct disk_rig *rig, unsigned count);
/* Both. */
int disk_do(struct disk_rig *rig, struct block *b, enum block_op op, uint64_t offset,
            void *buf, size_t len);

#endif

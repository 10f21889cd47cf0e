/*
 * A request, on a worker: it is checked, done by the image, and the first error of each
 * kind is told on the log. The guest is told of each. Or, on the thread that has it, it
 * is done where that takes no waiting; what goes wrong there a worker meets again, and
 * tells.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "block/block_int.h"

static const char *const doing[] = {
    [BLOCK_READ] = "read from",
    [BLOCK_WRITE] = "write to",
    [BLOCK_FLUSH] = "make durable what was written to",
    [BLOCK_DISCARD] = "discard parts of",
    [BLOCK_ZEROES] = "write zeros to",
};

static bool well_formed(const struct image *i, const struct block_request *r) {
    uint64_t sum = 0;

    if ((unsigned)r->op >= ARRAY_SIZE(doing))
        return false;
    if (r->op == BLOCK_FLUSH)
        return true;
    if (r->offset % BLOCK_SECTOR || r->length % BLOCK_SECTOR || r->offset > i->size ||
        r->length > i->size - r->offset)
        return false;
    if (r->op != BLOCK_READ && r->op != BLOCK_WRITE)
        return true;
    if (r->iov_count > BLOCK_IOV_MAX)
        return false;
    for (unsigned n = 0; n < r->iov_count; n++)
        if (__builtin_add_overflow(sum, r->iov[n].len, &sum))
            return false;
    return sum == r->length;
}

static int perform(struct image *i, struct block_request *r) {
    const struct iovec *iov = (const struct iovec *)(const void *)r->iov;

    switch (r->op) {
    case BLOCK_READ:
        return i->ops->read(i, r->offset, iov, r->iov_count);
    case BLOCK_WRITE:
        return i->ops->write(i, r->offset, iov, r->iov_count);
    case BLOCK_FLUSH:
        return i->ops->flush(i);
    case BLOCK_DISCARD:
        return i->ops->discard(i, r->offset, r->length);
    case BLOCK_ZEROES:
        return i->ops->zeroes(i, r->offset, r->length, r->unmap);
    }
    return -EINVAL;
}

/* Once of each operation: a full disk fails a thousand times. */
static void tell(struct block *b, const struct block_request *r, int rc) {
    unsigned bit = 1u << (r->op * 2 + (rc == -ENOSPC));

    if (__atomic_fetch_or(&b->told, bit, __ATOMIC_RELAXED) & bit)
        return;
    log_error("cannot %s '%s' at byte %llu: %s; the guest sees an error of its disk",
              doing[r->op], b->image->path, (unsigned long long)r->offset, strerror(-rc));
}

int request_execute(struct block_request *r) {
    struct image *i = r->block->image;
    int rc;

    if (!well_formed(i, r))
        return -EINVAL; /* the guest's fault, and no news for the user */
    if (i->readonly && r->op != BLOCK_READ)
        return r->op == BLOCK_FLUSH ? 0 : -EROFS;
    if (!r->length && r->op != BLOCK_FLUSH)
        return 0;
    rc = perform(i, r);
    if (rc)
        tell(r->block, r, rc);
    return rc;
}

bool request_at_once(struct block_request *r) {
    struct image *i = r->block->image;
    const struct iovec *iov = (const struct iovec *)(const void *)r->iov;

    if ((r->op != BLOCK_READ && r->op != BLOCK_WRITE) || !r->length ||
        r->length > BLOCK_AT_ONCE || r->iov_count > BLOCK_AT_ONCE_PIECES ||
        !well_formed(i, r))
        return false;
    if (r->op == BLOCK_READ)
        return i->ops->read_now && !i->ops->read_now(i, r->offset, iov, r->iov_count);
    return !i->readonly && i->ops->write_now &&
           !i->ops->write_now(i, r->offset, iov, r->iov_count);
}

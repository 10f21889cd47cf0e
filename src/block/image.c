/* What all images share: see block_int.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/block_int.h"

#define ZEROES 65536u

int image_init(struct image *i, const struct image_ops *ops, const char *path) {
    i->ops = ops;
    i->sector = i->physical = BLOCK_SECTOR;
    i->granule = BLOCK_SECTOR;
    i->path = malloc(strlen(path) + 1);
    if (!i->path)
        return -ENOMEM;
    strcpy(i->path, path);
    return 0;
}

void image_done(struct image *i) {
    free(i->path);
    i->path = NULL;
}

int image_read(struct image *i, uint64_t offset, void *buf, size_t len) {
    struct iovec iov = {buf, len};

    return i->ops->read(i, offset, &iov, 1);
}

int image_write(struct image *i, uint64_t offset, const void *buf, size_t len) {
    struct iovec iov = {(void *)buf, len};

    return i->ops->write(i, offset, &iov, 1);
}

int image_write_zeroes(struct image *i, uint64_t offset, uint64_t length) {
    static const uint8_t zeroes[ZEROES];
    int rc = 0;

    while (length && !rc) {
        size_t len = length < ZEROES ? (size_t)length : ZEROES;

        rc = image_write(i, offset, zeroes, len);
        offset += len;
        length -= len;
    }
    return rc;
}

int image_close(struct image *i) {
    return i ? i->ops->close(i) : 0;
}

void image_abandon(struct image *i) {
    if (!i)
        return;
    if (i->ops->abandon)
        i->ops->abandon(i);
    for (size_t n = 0; n < ARRAY_SIZE(i->below); n++)
        image_abandon(i->below[n]);
}

unsigned image_sockets(const struct image *i, int *out, unsigned room) {
    unsigned count;

    if (!i)
        return 0;
    count = i->ops->sockets ? i->ops->sockets(i, out, room) : 0;
    for (size_t n = 0; n < ARRAY_SIZE(i->below); n++)
        count += image_sockets(i->below[n], out + count, room - count);
    return count;
}

/* --- pieces of host memory --- */

size_t iov_length(const struct iovec *iov, unsigned count) {
    size_t len = 0;

    for (unsigned n = 0; n < count; n++)
        len += iov[n].iov_len;
    return len;
}

unsigned iov_part(const struct iovec *iov, unsigned count, size_t skip, size_t len,
                  struct iovec *out) {
    unsigned pieces = 0;

    for (unsigned n = 0; n < count && len; n++) {
        size_t here = iov[n].iov_len;

        if (skip >= here) {
            skip -= here;
            continue;
        }
        here -= skip;
        here = here < len ? here : len;
        out[pieces++] = (struct iovec){(uint8_t *)iov[n].iov_base + skip, here};
        skip = 0;
        len -= here;
    }
    return pieces;
}

enum way { ZERO, FILL, COPY };

static void each(const struct iovec *iov, unsigned count, size_t skip, uint8_t *p,
                 size_t len, enum way way) {
    for (unsigned n = 0; n < count && len; n++) {
        size_t here = iov[n].iov_len;
        uint8_t *at = (uint8_t *)iov[n].iov_base + skip;

        if (skip >= here) {
            skip -= here;
            continue;
        }
        here -= skip;
        here = here < len ? here : len;
        if (way == ZERO)
            memset(at, 0, here);
        else if (way == FILL)
            memcpy(at, p, here);
        else
            memcpy(p, at, here);
        p = p ? p + here : NULL;
        skip = 0;
        len -= here;
    }
}

void iov_zero(const struct iovec *iov, unsigned count, size_t skip, size_t len) {
    each(iov, count, skip, NULL, len, ZERO);
}

void iov_fill(const struct iovec *iov, unsigned count, size_t skip, const void *from,
              size_t len) {
    each(iov, count, skip, (uint8_t *)from, len, FILL);
}

void iov_copy(const struct iovec *iov, unsigned count, size_t skip, void *to,
              size_t len) {
    each(iov, count, skip, to, len, COPY);
}

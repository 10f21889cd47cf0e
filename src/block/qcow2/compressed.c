/*
 * Compressed clusters, which are read and never made: what is written becomes a cluster
 * of its own. Those that were read last are kept as they read, for guests read them piece
 * by piece: boot loaders a few sectors at once, one request after the other. Workers
 * unpack in parallel; two that want the same cluster at once may both do it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "block/qcow2/qcow2_int.h"

#define SECTOR 512u
#define UNPACKED_BYTES (1u << 20) /* that are kept, and two clusters at least */

/* "Compressed Clusters Descriptor" */
void compressed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset,
                      uint64_t *length) {
    unsigned bits = 62 - (q->cluster_bits - 8);
    uint64_t at = entry & ((1ull << bits) - 1);
    uint64_t more = entry >> bits & ((1ull << (q->cluster_bits - 8)) - 1);

    *offset = at & ~(uint64_t)(SECTOR - 1);
    *length = (more + 1) * SECTOR;
}

/* Raw deflate: "RFC 1951". What comes behind the data is anything. */
static int inflate_all(const uint8_t *from, size_t len, uint8_t *to, size_t size) {
    z_stream z = {.next_in = (uint8_t *)from,
                  .avail_in = (uInt)len,
                  .next_out = to,
                  .avail_out = (uInt)size};
    int rc;

    if (inflateInit2(&z, -12) != Z_OK)
        return -ENOMEM;
    rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && !z.avail_out ? 0 : -EUCLEAN;
}

static int zstd_all(const uint8_t *from, size_t len, uint8_t *to, size_t size) {
    while (size) {
        size_t frame = ZSTD_findFrameCompressedSize(from, len), got;

        if (ZSTD_isError(frame))
            return -EUCLEAN;
        got = ZSTD_decompress(to, size, from, frame);
        if (ZSTD_isError(got))
            return -EUCLEAN;
        to += got;
        size -= got;
        from += frame;
        len -= frame;
    }
    return 0;
}

/* What ENTRY leads to, into TO, which has room for a cluster. */
static int unpack(const struct qcow2 *q, uint64_t entry, uint8_t *to) {
    unsigned bits = 62 - (q->cluster_bits - 8);
    uint64_t offset, length, at = entry & ((1ull << bits) - 1);
    uint8_t *packed;
    int rc;

    compressed_place(q, entry, &offset, &length);
    length -= at - offset;
    packed = malloc(length);
    rc = packed ? image_read(q->file, at, packed, length) : -ENOMEM;
    if (!rc && q->header.compression)
        rc = zstd_all(packed, length, to, q->cluster_size);
    else if (!rc)
        rc = inflate_all(packed, length, to, q->cluster_size);
    free(packed);
    return rc;
}

/* --- those that were read last --- */

static unsigned places(const struct qcow2 *q) {
    uint64_t most = UNPACKED_BYTES >> q->cluster_bits;

    return most < 2 ? 2 : most < QCOW2_UNPACKED ? (unsigned)most : QCOW2_UNPACKED;
}

/* Copies a part of it, if it is there. `unpack` is held. */
static bool find(struct qcow2 *q, uint64_t entry, size_t skip, const struct iovec *iov,
                 unsigned count, size_t len) {
    for (unsigned n = 0; n < places(q); n++) {
        struct unpacked *u = &q->unpacked[n];

        if (u->entry != entry)
            continue;
        u->used = ++q->unpack_clock;
        iov_fill(iov, count, 0, u->buf + skip, len);
        return true;
    }
    return false;
}

/* BUF has it from now on, in the place of the one that nobody has asked for for longest,
 * whose buffer is returned. `unpack` is held. */
static uint8_t *keep(struct qcow2 *q, uint64_t entry, uint8_t *buf) {
    struct unpacked *u = &q->unpacked[0];
    uint8_t *before;

    for (unsigned n = 1; n < places(q); n++)
        if (q->unpacked[n].used < u->used)
            u = &q->unpacked[n];
    before = u->buf;
    *u = (struct unpacked){entry, ++q->unpack_clock, buf};
    return before;
}

int compressed_read(struct qcow2 *q, uint64_t entry, size_t skip, const struct iovec *iov,
                    unsigned count, size_t len) {
    uint8_t *buf;
    bool found;
    int rc;

    pthread_mutex_lock(&q->unpack);
    found = find(q, entry, skip, iov, count, len);
    pthread_mutex_unlock(&q->unpack);
    if (found)
        return 0;
    buf = malloc(q->cluster_size);
    rc = buf ? unpack(q, entry, buf) : -ENOMEM;
    if (!rc) {
        iov_fill(iov, count, 0, buf + skip, len);
        pthread_mutex_lock(&q->unpack);
        buf = keep(q, entry, buf);
        pthread_mutex_unlock(&q->unpack);
    }
    free(buf);
    return rc;
}

int compressed_now(struct qcow2 *q, uint64_t entry, size_t skip, const struct iovec *iov,
                   unsigned count, size_t len) {
    bool found;

    if (pthread_mutex_trylock(&q->unpack))
        return -EAGAIN;
    found = find(q, entry, skip, iov, count, len);
    pthread_mutex_unlock(&q->unpack);
    return found ? 0 : -EAGAIN;
}

void compressed_forget(struct qcow2 *q) {
    for (unsigned n = 0; n < QCOW2_UNPACKED; n++) {
        free(q->unpacked[n].buf);
        q->unpacked[n] = (struct unpacked){0};
    }
}

/*
 * Compressed clusters, which are read and never made: what is written becomes a cluster
 * of its own. The one that was unpacked last is kept, for who reads it piece by piece.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "block/qcow2/qcow2_int.h"

#define SECTOR 512u

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

static int unpack(struct qcow2 *q, uint64_t entry) {
    unsigned bits = 62 - (q->cluster_bits - 8);
    uint64_t offset, length, at = entry & ((1ull << bits) - 1);
    uint8_t *packed;
    int rc;

    compressed_place(q, entry, &offset, &length);
    length -= at - offset;
    packed = malloc(length);
    if (!q->unpack_buf)
        q->unpack_buf = malloc(q->cluster_size);
    rc = packed && q->unpack_buf ? image_read(q->file, at, packed, length) : -ENOMEM;
    q->unpacked = 0;
    if (!rc && q->header.compression)
        rc = zstd_all(packed, length, q->unpack_buf, q->cluster_size);
    else if (!rc)
        rc = inflate_all(packed, length, q->unpack_buf, q->cluster_size);
    if (!rc)
        q->unpacked = entry;
    free(packed);
    return rc;
}

int compressed_read(struct qcow2 *q, uint64_t entry, size_t skip, const struct iovec *iov,
                    unsigned count, size_t len) {
    int rc = 0;

    pthread_mutex_lock(&q->unpack);
    if (q->unpacked != entry)
        rc = unpack(q, entry);
    if (!rc)
        iov_fill(iov, count, 0, q->unpack_buf + skip, len);
    pthread_mutex_unlock(&q->unpack);
    return rc;
}

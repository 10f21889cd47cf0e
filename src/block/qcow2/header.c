/* The header: read, checked, and what of it we can do. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/be.h"
#include "block/qcow2/qcow2_int.h"

#define EXTENSION_END 0u

static uint32_t be32(const uint8_t *p) {
    return (uint32_t)be_get(p, 4);
}

static uint64_t be64(const uint8_t *p) {
    return be_get(p, 8);
}

static void parse(const uint8_t *p, struct qcow2_header *h) {
    h->version = be32(p + 4);
    h->backing_offset = be64(p + 8);
    h->backing_len = be32(p + 16);
    h->cluster_bits = be32(p + 20);
    h->size = be64(p + 24);
    h->crypt = be32(p + 32);
    h->l1_size = be32(p + 36);
    h->l1_offset = be64(p + 40);
    h->reftable_offset = be64(p + 48);
    h->reftable_clusters = be32(p + 56);
    h->snapshots = be32(p + 60);
    h->snapshots_offset = be64(p + 64);
    h->refcount_order = 4;
    h->length = QCOW2_HEADER_V2;
    if (h->version < 3)
        return;
    h->incompatible = be64(p + 72);
    h->compatible = be64(p + 80);
    h->autoclear = be64(p + 88);
    h->refcount_order = be32(p + 96);
    h->length = be32(p + 100);
    if (h->length > QCOW2_HEADER_V3)
        h->compression = p[104];
}

/* The sentence why it is refused, or NULL. */
static const char *refuse_features(const struct qcow2_header *h) {
    uint64_t known =
        QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_COMPRESSION;

    if (h->crypt)
        return "is encrypted, which is not supported";
    if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE)
        return "has its data in another file, which is not supported";
    if (h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2)
        return "has subclusters (extended_l2=on), which are not supported";
    if (h->incompatible & ~known)
        return "has a feature that is not known here; `qemu-img info` may name it";
    if (h->incompatible & QCOW2_INCOMPAT_COMPRESSION ? h->compression != 1
                                                     : h->compression != 0)
        return "is compressed in a way that is not known here";
    return NULL;
}

/* Does a table lie where one may, within a file of FILE_SIZE? */
static bool table_fits(const struct qcow2_header *h, uint64_t offset, uint64_t bytes,
                       uint64_t file_size) {
    return !(offset & ((1ull << h->cluster_bits) - 1)) && offset && offset <= file_size &&
           bytes <= file_size - offset;
}

static const char *refuse_shape(const struct qcow2_header *h, uint64_t file_size) {
    uint64_t span, need;

    if (h->cluster_bits < 9 || h->cluster_bits > 21)
        return "has clusters of a size that is not allowed";
    if (h->refcount_order > 6)
        return "has reference counts of a width that is not allowed";
    if (h->version >= 3 && (h->length < QCOW2_HEADER_V3 || h->length % 8 ||
                            h->length > 1u << h->cluster_bits))
        return "has a header of a length that is not allowed";
    if (h->size > 1ull << 60)
        return "is larger than a disk can be";
    span = 1ull << (2 * h->cluster_bits - 3);
    need = h->size / span + (h->size % span != 0);
    if (h->l1_size < need)
        return "has a table (L1) that is too small for its disk";
    if (h->l1_size * 8ull > QCOW2_L1_BYTES_MAX)
        return "has a table (L1) that is too large";
    if (h->l1_size && !table_fits(h, h->l1_offset, h->l1_size * 8ull, file_size))
        return "is cut short or damaged: its table (L1) lies outside of the file";
    if (!h->reftable_clusters ||
        (uint64_t)h->reftable_clusters << h->cluster_bits > QCOW2_REFTABLE_BYTES_MAX)
        return "has a table of reference counts of a size that is not allowed";
    if (!table_fits(h, h->reftable_offset,
                    (uint64_t)h->reftable_clusters << h->cluster_bits, file_size))
        return "is cut short or damaged: its reference counts lie outside of the file";
    return NULL;
}

/* The name of the backing file and of its format, out of the first cluster. */
static const char *read_names(struct image *file, struct qcow2_header *h, int *rc) {
    uint64_t cluster = 1ull << h->cluster_bits;
    uint64_t at = h->length, end = h->backing_offset ? h->backing_offset : cluster;

    if (!h->backing_offset && h->backing_len)
        return "has a damaged header";
    if (h->backing_len > QCOW2_BACKING_MAX || end > cluster ||
        h->backing_len > cluster - end)
        return "names a backing file outside of its header";
    if (h->backing_offset)
        *rc = image_read(file, h->backing_offset, h->backing, h->backing_len);
    if (strlen(h->backing) != h->backing_len)
        return "names a backing file with a zero in its name";
    while (!*rc && at + 8 <= end) {
        uint8_t head[8];
        uint32_t type, len;

        *rc = image_read(file, at, head, sizeof(head));
        type = be32(head);
        len = be32(head + 4);
        at += 8;
        if (*rc || type == EXTENSION_END)
            return NULL;
        if (len > end - at)
            return "has a header extension that is too long";
        if (type == QCOW2_EXTENSION_FORMAT && len >= sizeof(h->backing_format))
            return "names a format of its backing file that is too long";
        if (type == QCOW2_EXTENSION_FORMAT)
            *rc = image_read(file, at, h->backing_format, len);
        at += (len + 7ull) & ~7ull;
    }
    return NULL;
}

int header_read(struct image *file, struct qcow2_header *h, char *why, size_t why_size) {
    uint8_t raw[112] = {0};
    const char *refused = NULL;
    int rc = image_read(file, 0, raw, sizeof(raw));

    memset(h, 0, sizeof(*h));
    parse(raw, h);
    if (rc) {
        snprintf(why, why_size, "cannot read the image '%s': %s", file->path,
                 strerror(-rc));
        return rc;
    }
    if (be32(raw) != QCOW2_MAGIC)
        refused = "is no qcow2 image; if it is a raw one, say format=raw";
    else if (h->version != 2 && h->version != 3)
        refused = "is of a version of qcow that is not supported (2 and 3 are)";
    if (!refused)
        refused = refuse_features(h);
    if (!refused)
        refused = refuse_shape(h, file->size);
    if (!refused)
        refused = read_names(file, h, &rc);
    if (!refused && rc)
        refused = "cannot be read";
    if (!refused)
        return 0;
    snprintf(why, why_size, "the image '%s' %s", file->path, refused);
    return rc ? rc : -EINVAL;
}

/* Opening, closing and making qcow2 images. */
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/qcow2/qcow2_int.h"

/* --- closing --- */

static void destroy(struct qcow2 *q) {
    pthread_mutex_destroy(&q->unpack);
    pthread_cond_destroy(&q->ranges_changed);
    pthread_mutex_destroy(&q->lock);
    pthread_mutex_destroy(&q->alloc);
    table_destroy(q);
    compressed_forget(q);
    free(q->freed);
    free(q->l1);
    free(q->reftable);
    image_done(&q->image);
    free(q);
}

/* Counts that were lowered last are written too. */
static int write_rest(struct qcow2 *q) {
    int rc;

    pthread_mutex_lock(&q->alloc);
    pthread_mutex_lock(&q->lock);
    rc = writeback(q);
    if (!rc)
        rc = table_write(q, PAGE_REF);
    pthread_mutex_unlock(&q->lock);
    pthread_mutex_unlock(&q->alloc);
    return rc;
}

static int qcow2_close(struct image *i) {
    struct qcow2 *q = container_of(i, struct qcow2, image);
    int rc = i->readonly || q->fleeting ? 0 : write_rest(q), closed;

    closed = image_close(q->file);
    rc = rc ? rc : closed;
    image_close(q->backing);
    destroy(q);
    return rc;
}

static const struct image_ops ops = {.read = io_read,
                                     .read_now = io_read_now,
                                     .write_now = io_write_now,
                                     .write = io_write,
                                     .flush = io_flush,
                                     .discard = io_discard,
                                     .zeroes = io_zeroes,
                                     .close = qcow2_close};

/* --- opening --- */

static int read_table(struct qcow2 *q, uint64_t offset, uint32_t entries,
                      uint64_t **out) {
    *out = calloc(entries ? entries : 1, 8);
    if (!*out)
        return -ENOMEM;
    for (uint32_t at = 0; at < entries;) {
        uint32_t n = entries - at < 65536 ? entries - at : 65536;
        int rc = image_read(q->file, offset + at * 8ull, *out + at, n * 8ull);

        if (rc)
            return rc;
        for (uint32_t k = 0; k < n; k++)
            (*out)[at + k] = qcow2_be64((*out)[at + k]);
        at += n;
    }
    return 0;
}

/* The image was not closed: its counts are mended, then the header says so. 0 or -errno.
 */
static int mend(struct qcow2 *q) {
    uint64_t features = q->header.incompatible & ~(uint64_t)QCOW2_INCOMPAT_DIRTY, raw;
    int rc = features & QCOW2_INCOMPAT_CORRUPT ? -EUCLEAN : repair_counts(q);

    if (rc)
        return rc;
    raw = qcow2_be64(features);
    rc = image_write(q->file, QCOW2_AT_INCOMPATIBLE, &raw, sizeof(raw));
    if (!rc)
        rc = q->file->ops->flush(q->file);
    if (rc)
        return rc;
    q->header.incompatible = features;
    log_info("the image '%s' was not closed; its reference counts have been mended",
             q->file->path);
    return 0;
}

/* May it be written to? What other programs keep beside the data, and would have to
 * follow what we write, is given up: "Autoclear feature bits". */
static int prepare_writing(struct qcow2 *q, char *why, size_t why_size) {
    static const uint64_t none;

    if (q->header.incompatible & (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT) &&
        mend(q)) {
        snprintf(why, why_size,
                 "the image '%s' %s; `qemu-img check -r all '%s'` mends it",
                 q->file->path,
                 q->header.incompatible & QCOW2_INCOMPAT_CORRUPT
                     ? "is marked as damaged"
                     : "was not closed, and its reference counts may be wrong",
                 q->file->path);
        return -EINVAL;
    }
    if (!q->header.autoclear)
        return 0;
    q->header.autoclear = 0;
    return image_write(q->file, QCOW2_AT_AUTOCLEAR, &none, sizeof(none));
}

static struct qcow2 *make(const struct qcow2_spec *spec) {
    struct qcow2 *q = calloc(1, sizeof(*q));

    if (!q)
        return NULL;
    pthread_mutex_init(&q->alloc, NULL);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->ranges_changed, NULL);
    pthread_mutex_init(&q->unpack, NULL);
    q->file = spec->file;
    q->backing = spec->backing;
    q->image.below[0] = spec->file;
    q->image.below[1] = spec->backing;
    q->fleeting = spec->fleeting;
    q->free_hint = 1;
    if (image_init(&q->image, &ops, spec->file->path)) {
        destroy(q);
        return NULL;
    }
    q->image.readonly = spec->readonly;
    return q;
}

static int load(struct qcow2 *q) {
    struct qcow2_header *h = &q->header;
    int rc;

    q->cluster_bits = h->cluster_bits;
    q->cluster_size = 1u << h->cluster_bits;
    q->page_bits = h->cluster_bits < 12 ? h->cluster_bits : 12;
    q->l2_bits = h->cluster_bits - 3;
    q->file_end = q->file->size;
    q->reftable_size = h->reftable_clusters << (h->cluster_bits - 3);
    q->image.size = (h->size + BLOCK_SECTOR - 1) / BLOCK_SECTOR * BLOCK_SECTOR;
    q->image.physical = q->file->physical;
    q->image.granule = q->cluster_size;
    rc = table_create(q);
    if (!rc)
        rc = read_table(q, h->l1_offset, h->l1_size, &q->l1);
    if (!rc)
        rc = read_table(q, h->reftable_offset, q->reftable_size, &q->reftable);
    return rc;
}

int qcow2_open(const struct qcow2_spec *spec, struct image **out, char *why,
               size_t why_size) {
    struct qcow2 *q = make(spec);
    int rc = -ENOMEM;

    snprintf(why, why_size, "out of memory");
    if (q)
        rc = header_read(spec->file, &q->header, why, why_size);
    if (!rc) {
        rc = load(q);
        if (rc)
            snprintf(why, why_size, "cannot read the tables of the image '%s': %s",
                     spec->file->path, strerror(-rc));
    }
    if (!rc && !spec->readonly)
        rc = prepare_writing(q, why, why_size);
    if (!rc) {
        *out = &q->image;
        return 0;
    }
    if (q)
        destroy(q);
    image_close(spec->file);
    image_close(spec->backing);
    return rc;
}

int qcow2_names(struct image *file, struct qcow2_names *out, char *why, size_t why_size) {
    struct qcow2_header *h = malloc(sizeof(*h));
    int rc = -ENOMEM;

    if (h)
        rc = header_read(file, h, why, why_size);
    else
        snprintf(why, why_size, "out of memory");
    if (!rc) {
        memcpy(out->backing, h->backing, sizeof(out->backing));
        memcpy(out->format, h->backing_format, sizeof(out->format));
    }
    free(h);
    return rc;
}

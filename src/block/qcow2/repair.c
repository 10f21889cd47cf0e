/*
 * An image that was not closed: with `lazy_refcounts` counts come to the file only at its
 * end, and the header's bit says that they may be too low meanwhile ("Header",
 * incompatible features, "Dirty bit"). Here they are raised to what the tables say. What
 * is counted and not referred to stays so: a leak.
 *
 * The tables are what a guest, or whoever made the image, left there: two that share a
 * cluster, or one that lies outside of the file, are damage, and nothing is written. So
 * each cluster of the file is read once at most. Internal snapshots, which share clusters
 * by right, are left to `qemu-img check`.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/qcow2_int.h"

#define CLUSTERS_MAX (1ull << 26)
#define ALONE 0x8000u /* nothing else may be in that cluster */

struct tally {
    struct qcow2 *q;
    uint16_t *need; /* counts, of CLUSTERS, with ALONE */
    uint64_t clusters, room;
};

/* BYTES at OFFSET are referred to. 0 or -EUCLEAN. */
static int add(struct tally *t, uint64_t offset, uint64_t bytes, bool alone) {
    unsigned bits = t->q->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> bits;

    if (!bytes)
        return 0;
    if (last >= t->clusters || (alone && offset & (t->q->cluster_size - 1)))
        return -EUCLEAN;
    for (uint64_t c = offset >> bits; c <= last; c++) {
        if (alone ? t->need[c] : t->need[c] >= ALONE - 1)
            return -EUCLEAN;
        t->need[c] = (uint16_t)(alone ? ALONE | 1 : t->need[c] + 1u);
    }
    return 0;
}

/* What a table of the second level refers to. */
static int add_l2(struct tally *t, const uint64_t *table) {
    struct qcow2 *q = t->q;
    int rc = 0;

    for (uint32_t n = 0; n < 1u << q->l2_bits && !rc; n++) {
        uint64_t entry = qcow2_be64(table[n]), offset = entry & QCOW2_OFFSET;
        uint64_t length = q->cluster_size;

        if (entry & QCOW2_COMPRESSED) {
            compressed_place(q, entry, &offset, &length);
            /* Its last sector may be beyond the end of the file. */
            if (offset < q->file_end && length > q->file_end - offset)
                length = q->file_end - offset;
            rc = add(t, offset, length, false);
        } else if (offset) {
            rc = add(t, offset, length, true);
        }
    }
    return rc;
}

static int add_all(struct tally *t) {
    struct qcow2 *q = t->q;
    const struct qcow2_header *h = &q->header;
    uint64_t *table = malloc(q->cluster_size);
    int rc = table ? add(t, 0, q->cluster_size, true) : -ENOMEM;

    if (!rc)
        rc = add(t, h->l1_offset, h->l1_size * 8ull, true);
    if (!rc)
        rc = add(t, h->reftable_offset, q->reftable_size * 8ull, true);
    for (uint32_t n = 0; n < q->reftable_size && !rc; n++)
        if (q->reftable[n])
            rc = add(t, q->reftable[n], q->cluster_size, true);
    for (uint32_t n = 0; n < h->l1_size && !rc; n++) {
        uint64_t at = q->l1[n] & QCOW2_OFFSET;

        if (!at)
            continue;
        rc = add(t, at, q->cluster_size, true);
        if (!rc)
            rc = image_read(q->file, at, table, q->cluster_size);
        if (!rc)
            rc = add_l2(t, table);
    }
    free(table);
    return rc;
}

/* Every part of the file that has something has a refcount block, behind all else. */
static int make_blocks(struct tally *t) {
    for (uint64_t c = 0; c < t->clusters; c++) {
        int rc;

        if (!t->need[c] || refcount_has_block(t->q, c))
            continue;
        if (t->clusters == t->room)
            return -EFBIG;
        rc = refcount_put_block(t->q, c, t->clusters);
        if (rc)
            return rc;
        t->need[t->clusters++] = ALONE | 1;
    }
    return 0;
}

static int raise_all(struct tally *t) {
    struct qcow2 *q = t->q;

    for (uint64_t c = 0; c < t->clusters; c++) {
        uint64_t need = t->need[c] & (ALONE - 1), have;
        int rc = need ? refcount_get(q, c, &have) : 0;

        if (!rc && need && have < need)
            rc = refcount_set(q, c, need);
        if (!rc && q->dirty > QCOW2_DIRTY_MAX)
            rc = table_write(q, PAGE_REF);
        if (rc)
            return rc;
    }
    return 0;
}

/* No count is larger than there is room for. */
static bool countable(const struct tally *t) {
    unsigned bits = 1u << t->q->header.refcount_order;
    uint64_t most = bits < 16 ? (1u << bits) - 1 : ALONE;

    for (uint64_t c = 0; c < t->clusters; c++)
        if ((t->need[c] & (ALONE - 1)) > most)
            return false;
    return true;
}

int repair_counts(struct qcow2 *q) {
    struct tally t = {.q = q};
    int rc;

    t.clusters = (q->file_end + q->cluster_size - 1) >> q->cluster_bits;
    if (q->header.snapshots || t.clusters > CLUSTERS_MAX)
        return -EFBIG;
    t.room = t.clusters + t.clusters / 32 + 64;
    t.need = calloc(t.room, sizeof(*t.need));
    if (!t.need)
        return -ENOMEM;
    pthread_mutex_lock(&q->alloc);
    pthread_mutex_lock(&q->lock);
    rc = add_all(&t);
    if (!rc && !countable(&t))
        rc = -EUCLEAN;
    if (!rc)
        rc = make_blocks(&t);
    if (!rc)
        rc = raise_all(&t);
    if (!rc)
        rc = writeback(q);
    pthread_mutex_unlock(&q->lock);
    pthread_mutex_unlock(&q->alloc);
    free(t.need);
    return rc;
}

/* Where guest clusters lie: L1 and L2 tables. */
#include <errno.h>
#include <stdlib.h>

#include "block/qcow2/qcow2_int.h"

/* The L2 table of C, or 0. */
static int l2_table(const struct qcow2 *q, uint64_t c, uint64_t *out) {
    uint64_t n = c >> q->l2_bits;

    if (n >= q->header.l1_size)
        return -EINVAL;
    *out = q->l1[n] & QCOW2_OFFSET;
    return *out & (q->cluster_size - 1) ? -EUCLEAN : 0;
}

static uint64_t table_rest(const struct qcow2 *q, uint64_t c) {
    uint64_t size = 1ull << q->l2_bits;

    return size - (c & (size - 1));
}

uint64_t map_page_rest(const struct qcow2 *q, uint64_t c) {
    uint64_t size = 1ull << (q->page_bits - 3);

    return size - (c & (size - 1));
}

/* The page that has the entries of C and behind, and the first of these. */
static int l2_page(struct qcow2 *q, uint64_t table, uint64_t c, struct page **page,
                   uint64_t **entry) {
    uint64_t at = table + (c & ((1ull << q->l2_bits) - 1)) * 8;
    int rc = table_page(q, at, PAGE_L2, page);

    if (!rc)
        *entry =
            (uint64_t *)(void *)((*page)->data + (at & ((1ull << q->page_bits) - 1)));
    return rc;
}

static int classify(const struct qcow2 *q, uint64_t entry, struct run *r) {
    *r = (struct run){.count = 1, .entry = entry, .own = entry & QCOW2_COPIED};
    if (entry & QCOW2_COMPRESSED) {
        r->kind = RUN_COMPRESSED;
        return 0;
    }
    r->host = entry & QCOW2_OFFSET;
    r->kind = entry & QCOW2_ZERO ? RUN_ZERO : r->host ? RUN_DATA : RUN_NONE;
    if (r->host & (q->cluster_size - 1))
        return -EUCLEAN;
    if (r->kind == RUN_ZERO && q->header.version < 3)
        return -EUCLEAN;
    /* The last cluster of a file may be there in part. */
    return r->host >= q->file_end && r->host ? -EIO : 0;
}

static bool goes_on(const struct qcow2 *q, const struct run *r, const struct run *next) {
    if (r->kind != next->kind || r->kind == RUN_COMPRESSED)
        return false;
    return r->kind != RUN_DATA ||
           (r->own == next->own && next->host == r->host + (r->count << q->cluster_bits));
}

int map_find(struct qcow2 *q, uint64_t c, uint64_t max, struct run *out) {
    uint64_t table, rest = map_page_rest(q, c), *entry;
    struct page *page;
    int rc = l2_table(q, c, &table);

    if (rc)
        return rc;
    if (!table) {
        rest = table_rest(q, c);
        *out = (struct run){.kind = RUN_NONE, .count = rest < max ? rest : max};
        return 0;
    }
    rc = l2_page(q, table, c, &page, &entry);
    if (!rc)
        rc = classify(q, qcow2_be64(*entry), out);
    if (rc)
        return rc;
    rest = rest < max ? rest : max;
    while (out->count < rest) {
        struct run next;

        if (classify(q, qcow2_be64(entry[out->count]), &next) || !goes_on(q, out, &next))
            break;
        out->count++;
    }
    return 0;
}

bool map_cached(struct qcow2 *q, uint64_t c) {
    uint64_t table;

    return !l2_table(q, c, &table) &&
           (!table || table_cached(q, table + (c & ((1ull << q->l2_bits) - 1)) * 8));
}

/* --- changes --- */

/* The cluster AT becomes an L2 table with what OLD has, or with nothing. */
static int fill_table(struct qcow2 *q, uint64_t old, uint64_t at) {
    uint8_t *data;
    int rc;

    if (!old)
        return image_write_zeroes(q->file, at, q->cluster_size);
    if (old + q->cluster_size > q->file_end)
        return -EIO;
    data = malloc(q->cluster_size);
    if (!data)
        return -ENOMEM;
    rc = image_read(q->file, old, data, q->cluster_size);
    if (!rc)
        rc = image_write(q->file, at, data, q->cluster_size);
    free(data);
    return rc;
}

int map_prepare(struct qcow2 *q, uint64_t c) {
    uint32_t n = (uint32_t)(c >> q->l2_bits);
    uint64_t old, cluster, got;
    bool fresh;
    int rc = l2_table(q, c, &old);

    if (rc || (old && q->l1[n] & QCOW2_COPIED))
        return rc;
    rc = refcount_allocate(q, 1, &cluster, &got, &fresh);
    if (rc)
        return rc;
    rc = fill_table(q, old, cluster << q->cluster_bits);
    if (rc) {
        refcount_give_back(q, cluster, 1);
        return rc;
    }
    q->l1[n] = cluster << q->cluster_bits | QCOW2_COPIED;
    span_add(&q->l1_dirty, n);
    if (old)
        refcount_free_later(q, old >> q->cluster_bits, 1);
    return 0;
}

/* What ENTRY refers to loses a reference, but for a cluster at HOST. */
static void let_go(struct qcow2 *q, uint64_t entry, uint64_t host) {
    uint64_t offset = entry & QCOW2_OFFSET, length = q->cluster_size, first;

    if (entry & QCOW2_COMPRESSED)
        compressed_place(q, entry, &offset, &length);
    else if (!offset || offset == host)
        return;
    first = offset >> q->cluster_bits;
    refcount_free_later(q, first, ((offset + length - 1) >> q->cluster_bits) - first + 1);
}

int map_set(struct qcow2 *q, uint64_t c, uint64_t count, uint64_t host) {
    uint64_t table, *entry;
    struct page *page;
    int rc = l2_table(q, c, &table);

    if (!rc)
        rc = l2_page(q, table, c, &page, &entry);
    if (rc)
        return rc;
    for (uint64_t n = 0; n < count; n++, host += q->cluster_size) {
        let_go(q, qcow2_be64(entry[n]), host);
        entry[n] = qcow2_be64(host | QCOW2_COPIED);
    }
    table_dirty(q, page);
    return 0;
}

int map_set_zero(struct qcow2 *q, uint64_t c, uint64_t count, bool keep,
                 uint64_t plain_entry) {
    uint64_t table, *entry;
    struct page *page;
    int rc = l2_table(q, c, &table);

    if (!rc)
        rc = l2_page(q, table, c, &page, &entry);
    for (uint64_t n = 0; n < count && !rc; n++) {
        uint64_t old = qcow2_be64(entry[n]), now = plain_entry;
        struct run r;

        rc = classify(q, old, &r);
        if (rc)
            break;
        if (keep && r.own && r.host && r.kind != RUN_COMPRESSED)
            now = r.host | QCOW2_COPIED | QCOW2_ZERO;
        if (now == old)
            continue;
        let_go(q, old, now & QCOW2_OFFSET);
        entry[n] = qcow2_be64(now);
        table_dirty(q, page);
    }
    return rc;
}

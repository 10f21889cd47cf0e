/*
 * Writing the tables back in the order that qcow2_int.h promises.
 *
 * `alloc` is held: nobody changes a table meanwhile. `lock` is not, while fdatasync runs:
 * those who read, and write in place, go on.
 */
#include <errno.h>
#include <string.h>

#include "block/qcow2/qcow2_int.h"

#define CHUNK 512u /* entries written at once */

/* Entries of a table in memory. */
static int write_span(struct qcow2 *q, struct span *s, const uint64_t *table,
                      uint64_t offset) {
    uint64_t buf[CHUNK];
    int rc = 0;

    for (uint32_t at = s->first; at < s->end && !rc; at += CHUNK) {
        uint32_t n = s->end - at < CHUNK ? s->end - at : CHUNK;

        for (uint32_t k = 0; k < n; k++)
            buf[k] = qcow2_be64(table[at + k]);
        rc = image_write(q->file, offset + at * 8ull, buf, n * 8ull);
    }
    if (!rc)
        *s = (struct span){0};
    return rc;
}

static bool has(const struct span *s) {
    return s->end > s->first;
}

static bool has_l2(const struct qcow2 *q) {
    for (unsigned n = 0; n < QCOW2_PAGES; n++)
        if (q->pages[n].offset && q->pages[n].dirty && q->pages[n].kind == PAGE_L2)
            return true;
    return false;
}

/* Counts, and what they are found by. Does not make them durable. */
static int write_counts(struct qcow2 *q) {
    int rc = table_write(q, PAGE_REF);

    if (rc || !has(&q->reftable_dirty))
        return rc;
    rc = table_sync(q);
    if (!rc)
        rc = write_span(q, &q->reftable_dirty, q->reftable, q->header.reftable_offset);
    return rc;
}

static int write_all(struct qcow2 *q) {
    int rc = write_counts(q);

    if (!rc)
        rc = table_sync(q); /* data and counts */
    if (!rc && has_l2(q)) {
        rc = table_write(q, PAGE_L2);
        if (!rc)
            rc = table_sync(q);
    }
    if (!rc && has(&q->l1_dirty)) {
        rc = write_span(q, &q->l1_dirty, q->l1, q->header.l1_offset);
        if (!rc)
            rc = table_sync(q);
    }
    return rc;
}

int writeback(struct qcow2 *q) {
    int rc = write_all(q);

    if (!rc)
        refcount_free_now(q);
    return rc;
}

int writeback_some(struct qcow2 *q) {
    return q->dirty > QCOW2_DIRTY_MAX ? writeback(q) : 0;
}

/*
 * Pages of L2 tables and of refcount blocks: a hash by their place in the file, and a
 * hand that goes round to find one that was not used lately. Dirty pages are never
 * dropped; writeback.c sees to it that there are always clean ones (QCOW2_DIRTY_MAX).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2/qcow2_int.h"

int table_create(struct qcow2 *q) {
    size_t size = (size_t)1 << q->page_bits;

    q->pages = calloc(QCOW2_PAGES, sizeof(*q->pages));
    q->page_memory = malloc(QCOW2_PAGES * size);
    if (!q->pages || !q->page_memory)
        return -ENOMEM;
    for (unsigned n = 0; n < QCOW2_PAGES; n++)
        q->pages[n].data = q->page_memory + n * size;
    return 0;
}

void table_destroy(struct qcow2 *q) {
    free(q->pages);
    free(q->page_memory);
}

static struct page **bucket(struct qcow2 *q, uint64_t offset) {
    return &q->hash[(offset >> q->page_bits) * 0x9e3779b97f4a7c15ull >> 54];
}

_Static_assert(QCOW2_PAGES == 1u << 10, "as many as 64 - 54 bits name");

static void take_out(struct qcow2 *q, struct page *p) {
    struct page **at = bucket(q, p->offset);

    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    p->offset = 0;
}

/* NULL: all are dirty. */
static struct page *room(struct qcow2 *q) {
    for (unsigned n = 0; n < 2 * QCOW2_PAGES; n++) {
        struct page *p = &q->pages[q->hand++ % QCOW2_PAGES];

        if (p->offset && (p->dirty || p->used)) {
            p->used = false;
            continue;
        }
        if (p->offset)
            take_out(q, p);
        return p;
    }
    return NULL;
}

static struct page *find(struct qcow2 *q, uint64_t at) {
    struct page *p = *bucket(q, at);

    while (p && p->offset != at)
        p = p->next;
    return p;
}

bool table_cached(struct qcow2 *q, uint64_t offset) {
    return find(q, offset & ~((1ull << q->page_bits) - 1));
}

int table_page(struct qcow2 *q, uint64_t offset, enum page_kind kind, struct page **out) {
    uint64_t size = 1ull << q->page_bits, at = offset & ~(size - 1);
    struct page **list = bucket(q, at), *p = find(q, at);
    int rc;

    if (p && p->kind != kind)
        return -EUCLEAN; /* one thing cannot be two */
    if (!p) {
        if (at + size > q->file_end)
            return -EIO;
        p = room(q);
        if (!p)
            return -ENOMEM;
        rc = image_read(q->file, at, p->data, size);
        if (rc)
            return rc;
        p->offset = at;
        p->kind = kind;
        p->next = *list;
        *list = p;
    }
    p->used = true;
    *out = p;
    return 0;
}

void table_dirty(struct qcow2 *q, struct page *p) {
    q->dirty += !p->dirty;
    p->dirty = true;
}

int table_write(struct qcow2 *q, enum page_kind kind) {
    for (unsigned n = 0; n < QCOW2_PAGES; n++) {
        struct page *p = &q->pages[n];
        int rc;

        if (!p->offset || !p->dirty || p->kind != kind)
            continue;
        rc = image_write(q->file, p->offset, p->data, (size_t)1 << q->page_bits);
        if (rc)
            return rc;
        p->dirty = false;
        q->dirty--;
    }
    return 0;
}

void table_forget(struct qcow2 *q, uint64_t offset) {
    uint64_t size = 1ull << q->page_bits;

    for (uint64_t at = offset; at < offset + q->cluster_size; at += size) {
        struct page *p = find(q, at);

        if (!p)
            continue;
        q->dirty -= p->dirty;
        p->dirty = false;
        take_out(q, p);
    }
}

int table_sync(struct qcow2 *q) {
    int rc;

    if (q->fleeting)
        return 0;
    pthread_mutex_unlock(&q->lock);
    rc = q->file->ops->flush(q->file);
    pthread_mutex_lock(&q->lock);
    return rc;
}

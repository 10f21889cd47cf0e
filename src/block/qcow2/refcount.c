/*
 * Which clusters of the file are used, and how often: counts, and who gets a cluster.
 *
 * A count may be raised at any time, and what was raised may come to the disk at any
 * time: lost, it is a leak. It is lowered only when nothing on the disk refers to the
 * cluster any more (refcount_free_later()). So refcount blocks may be written whenever it
 * suits.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/be.h"
#include "block/qcow2/qcow2_int.h"

#define STEPS (1u << 22) /* clusters that are looked at for a free one */
/* Tables that are met there though their count says "free": who tells them from others
 * looks at all tables' places. A good image has none. */
#define TABLES 64u

/* --- counts --- */

static unsigned block_bits(const struct qcow2 *q) {
    return q->cluster_bits + 3 - q->header.refcount_order;
}

/* The page that has the count of CLUSTER, and where in it, in bits. 0; -ENOENT: there is
 * no refcount block; or -errno. */
static int find(struct qcow2 *q, uint64_t cluster, struct page **page, unsigned *bit) {
    uint64_t block = cluster >> block_bits(q), at, in;

    if (block >= q->reftable_size || !(at = q->reftable[block]))
        return -ENOENT;
    if (at & (q->cluster_size - 1) || at & ~QCOW2_OFFSET)
        return -EUCLEAN;
    in = (cluster & ((1ull << block_bits(q)) - 1)) << q->header.refcount_order;
    *bit = (unsigned)(in & ((8ull << q->page_bits) - 1));
    return table_page(q, at + in / 8, PAGE_REF, page);
}

/* "Refcount blocks": fewer than eight bits lie in a byte from its least significant bit
 * on, more are big-endian. */
static uint64_t get(const uint8_t *data, unsigned bit, unsigned order) {
    if (order < 3)
        return data[bit / 8] >> (bit % 8) & ((1u << (1u << order)) - 1);
    return be_get(data + bit / 8, 1u << (order - 3));
}

static void set(uint8_t *data, unsigned bit, unsigned order, uint64_t value) {
    unsigned mask;

    if (order >= 3) {
        be_put(data + bit / 8, value, 1u << (order - 3));
        return;
    }
    mask = ((1u << (1u << order)) - 1) << (bit % 8);
    data[bit / 8] = (uint8_t)((data[bit / 8] & ~mask) | (value << (bit % 8) & mask));
}

int refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *out) {
    struct page *page;
    unsigned bit;
    int rc = find(q, cluster, &page, &bit);

    *out = rc ? 0 : get(page->data, bit, q->header.refcount_order);
    return rc == -ENOENT ? 0 : rc;
}

int refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value) {
    struct page *page;
    unsigned bit;
    int rc = find(q, cluster, &page, &bit);

    if (rc)
        return rc;
    set(page->data, bit, q->header.refcount_order, value);
    table_dirty(q, page);
    return 0;
}

/* --- what must not be given away, whatever its count says --- */

static bool within(uint64_t cluster, uint64_t offset, uint64_t bytes, unsigned bits) {
    return bytes && cluster >= offset >> bits && cluster <= (offset + bytes - 1) >> bits;
}

bool refcount_is_root(const struct qcow2 *q, uint64_t cluster) {
    const struct qcow2_header *h = &q->header;
    unsigned bits = q->cluster_bits;

    return !cluster || within(cluster, h->l1_offset, h->l1_size * 8ull, bits) ||
           within(cluster, h->reftable_offset, q->reftable_size * 8ull, bits);
}

static uint64_t before(uint64_t first, uint64_t end, uint64_t entry, unsigned bits) {
    uint64_t cluster = (entry & QCOW2_OFFSET) >> bits;

    return entry && cluster >= first && cluster < end ? cluster : end;
}

/* Those of the clusters from FIRST to END that lie before the first that is a table. */
static uint64_t no_table(const struct qcow2 *q, uint64_t first, uint64_t end) {
    for (uint64_t c = first; c < end; c++)
        if (refcount_is_root(q, c))
            end = c;
    for (uint32_t n = 0; n < q->header.l1_size; n++)
        end = before(first, end, q->l1[n], q->cluster_bits);
    for (uint32_t n = 0; n < q->reftable_size; n++)
        end = before(first, end, q->reftable[n], q->cluster_bits);
    return end - first;
}

/* --- more room for counts --- */

static void reaches(struct qcow2 *q, uint64_t end) {
    if (q->file_end < end << q->cluster_bits)
        q->file_end = end << q->cluster_bits;
}

bool refcount_has_block(const struct qcow2 *q, uint64_t cluster) {
    uint64_t block = cluster >> block_bits(q);

    return block < q->reftable_size && q->reftable[block];
}

int refcount_put_block(struct qcow2 *q, uint64_t cluster, uint64_t at) {
    uint64_t block = cluster >> block_bits(q);
    int rc;

    if (block >= q->reftable_size)
        return -EFBIG;
    table_forget(q, at << q->cluster_bits);
    reaches(q, at + 1);
    rc = image_write_zeroes(q->file, at << q->cluster_bits, q->cluster_size);
    if (rc)
        return rc;
    q->reftable[block] = at << q->cluster_bits;
    span_add(&q->reftable_dirty, (uint32_t)block);
    return 0;
}

/* The refcount block of a part of the file that has none: one of its own clusters. */
static int new_block(struct qcow2 *q, uint32_t block) {
    uint64_t first = (uint64_t)block << block_bits(q), c = first;
    int rc;

    while (!no_table(q, c, c + 1))
        if (++c == first + TABLES)
            return -EUCLEAN;
    rc = refcount_put_block(q, first, c);
    return rc ? rc : refcount_set(q, c, 1);
}

/* A refcount table that is larger, and where it lies: behind all that the old one could
 * count, with the refcount blocks for itself in front. */
struct bigger {
    uint64_t first;          /* cluster */
    uint64_t blocks, tables; /* clusters of each */
    uint64_t *entries;
    uint32_t size; /* in entries */
};

static int plan(const struct qcow2 *q, struct bigger *b) {
    uint64_t per_cluster = q->cluster_size / 8, old = q->reftable_size;
    uint64_t per_block = 1ull << block_bits(q);

    b->first = old << block_bits(q);
    b->tables = (old + old / 2 + 1 + per_cluster - 1) / per_cluster;
    do {
        b->blocks = 1;
        while (b->blocks * per_block < b->blocks + b->tables)
            b->blocks++;
        b->size = (uint32_t)(b->tables * per_cluster);
    } while (old + b->blocks > b->size && b->tables++ < UINT16_MAX);
    if (b->size * 8ull > QCOW2_REFTABLE_BYTES_MAX)
        return -EFBIG;
    b->entries = calloc(b->size, 8);
    return b->entries ? 0 : -ENOMEM;
}

static int write_bigger_blocks(struct qcow2 *q, const struct bigger *b) {
    uint8_t *data = malloc(q->cluster_size);
    int rc = data ? 0 : -ENOMEM;

    for (uint64_t n = 0; n < b->blocks && !rc; n++) {
        uint64_t from = b->first + (n << block_bits(q));
        uint64_t end = from + (1ull << block_bits(q));
        uint64_t used = b->first + b->blocks + b->tables;

        memset(data, 0, q->cluster_size);
        for (uint64_t c = from; c < end && c < used; c++)
            set(data, (unsigned)((c - from) << q->header.refcount_order),
                q->header.refcount_order, 1);
        rc = image_write(q->file, (b->first + n) << q->cluster_bits, data,
                         q->cluster_size);
    }
    free(data);
    return rc;
}

static int write_bigger(struct qcow2 *q, const struct bigger *b) {
    uint64_t at = (b->first + b->blocks) << q->cluster_bits;
    uint64_t *table;
    int rc = write_bigger_blocks(q, b);

    if (rc)
        return rc;
    table = malloc(b->size * 8ull);
    if (!table)
        return -ENOMEM;
    for (uint32_t n = 0; n < b->size; n++)
        table[n] = qcow2_be64(b->entries[n]);
    rc = image_write(q->file, at, table, b->size * 8ull);
    free(table);
    return rc;
}

/* The header names the new one, in one write of one sector. */
static int switch_tables(struct qcow2 *q, const struct bigger *b) {
    struct {
        uint64_t offset;
        uint32_t clusters;
    } __attribute__((packed))
    where = {qcow2_be64((b->first + b->blocks) << q->cluster_bits),
             __builtin_bswap32((uint32_t)b->tables)};
    int rc = table_sync(q);

    if (!rc)
        rc = image_write(q->file, QCOW2_AT_REFTABLE, &where, sizeof(where));
    return rc ? rc : table_sync(q);
}

static int grow(struct qcow2 *q) {
    struct bigger b = {0};
    int rc = plan(q, &b);

    for (uint64_t n = 0; !rc && n < b.blocks; n++)
        b.entries[q->reftable_size + n] = (b.first + n) << q->cluster_bits;
    if (!rc && no_table(q, b.first, b.first + b.blocks + b.tables) < b.blocks + b.tables)
        rc = -EUCLEAN;
    if (!rc) {
        memcpy(b.entries, q->reftable, q->reftable_size * 8ull);
        reaches(q, b.first + b.blocks + b.tables);
        rc = write_bigger(q, &b);
    }
    if (!rc)
        rc = table_write(q, PAGE_REF); /* blocks that the new table names */
    if (!rc)
        rc = switch_tables(q, &b);
    if (rc) {
        free(b.entries);
        return rc;
    }
    refcount_free_later(q, q->header.reftable_offset >> q->cluster_bits,
                        q->header.reftable_clusters);
    free(q->reftable);
    q->reftable = b.entries;
    q->reftable_size = b.size;
    q->reftable_dirty = (struct span){0};
    q->header.reftable_offset = (b.first + b.blocks) << q->cluster_bits;
    q->header.reftable_clusters = (uint32_t)b.tables;
    return 0;
}

/* --- clusters for those who ask --- */

/* CLUSTER has a refcount block from here on. */
static int ensure_block(struct qcow2 *q, uint64_t cluster) {
    uint64_t block = cluster >> block_bits(q);
    int rc = 0;

    if (cluster >> (56 - q->cluster_bits))
        return -EFBIG;
    while (block >= q->reftable_size && !rc)
        rc = grow(q);
    if (!rc && !q->reftable[block])
        rc = new_block(q, (uint32_t)block);
    return rc;
}

/* How many of the clusters from C on are counted as free, at most WANT; all in one page.
 */
static int free_run(struct qcow2 *q, uint64_t c, uint64_t want, uint64_t *out) {
    struct page *page;
    unsigned bit, step = 1u << q->header.refcount_order;
    int rc = find(q, c, &page, &bit);

    *out = 0;
    if (rc)
        return rc;
    while (*out < want && bit < 8u << q->page_bits &&
           !get(page->data, bit, q->header.refcount_order)) {
        bit += step;
        ++*out;
    }
    return 0;
}

/* After STEPS the search goes on at the file's end, and ends after as many there: counts
 * that say that all is used, or that tables are free, must not keep us for ever. */
static int search(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *got) {
    uint64_t c = q->free_hint, end = (q->file_end - 1) >> q->cluster_bits;
    uint32_t steps = 0;
    bool at_end = false;
    int rc;

    for (;; c++, steps++) {
        if (steps >= STEPS && at_end)
            return -ENOSPC;
        if (steps >= STEPS) {
            c = c < end ? end : c;
            at_end = true;
            steps = 0;
        }
        rc = ensure_block(q, c);
        if (!rc)
            rc = free_run(q, c, want, got);
        if (!rc && *got) {
            *got = no_table(q, c, c + *got);
            steps += STEPS / TABLES;
        }
        *first = c;
        if (rc || *got)
            return rc;
    }
}

int refcount_allocate(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *got,
                      bool *fresh) {
    uint64_t c;
    int rc = search(q, want, &c, got);

    if (rc)
        return rc;
    *fresh = c << q->cluster_bits >= q->file_end;
    for (uint64_t n = 0; n < *got; n++) {
        rc = refcount_set(q, c + n, 1);
        if (rc)
            return rc;
        table_forget(q, (c + n) << q->cluster_bits);
    }
    *first = c;
    q->free_hint = c + *got;
    reaches(q, c + *got);
    return 0;
}

void refcount_give_back(struct qcow2 *q, uint64_t first, uint64_t count) {
    for (uint64_t n = 0; n < count; n++)
        if (refcount_set(q, first + n, 0))
            return;
    if (first < q->free_hint)
        q->free_hint = first;
}

/* --- and back --- */

void refcount_free_later(struct qcow2 *q, uint64_t first, uint64_t count) {
    struct freed *last = q->freed_count ? &q->freed[q->freed_count - 1] : NULL;

    if (last && last->first + last->count == first) {
        last->count += count;
        return;
    }
    if (q->freed_count == q->freed_room) {
        size_t more = q->freed_room ? q->freed_room * 2 : 64;
        struct freed *grown = realloc(q->freed, more * sizeof(*grown));

        if (!grown)
            return; /* they stay counted: a leak */
        q->freed = grown;
        q->freed_room = more;
    }
    q->freed[q->freed_count++] = (struct freed){first, count};
}

/* True: nobody refers to CLUSTER any more. */
static bool lower(struct qcow2 *q, uint64_t cluster) {
    uint64_t count;

    if (refcount_is_root(q, cluster)) /* a damaged image */
        return false;
    if (q->dirty > QCOW2_DIRTY_MAX + QCOW2_PAGES / 4 && table_write(q, PAGE_REF))
        return false;
    if (refcount_get(q, cluster, &count) || !count ||
        refcount_set(q, cluster, count - 1) || count > 1)
        return false;
    table_forget(q, cluster << q->cluster_bits);
    if (cluster < q->free_hint)
        q->free_hint = cluster;
    return true;
}

static void give_to_host(struct qcow2 *q, uint64_t first, uint64_t end) {
    if (end > first) /* a wish */
        q->file->ops->discard(q->file, first << q->cluster_bits,
                              (end - first) << q->cluster_bits);
}

void refcount_free_now(struct qcow2 *q) {
    for (size_t n = 0; n < q->freed_count; n++) {
        const struct freed *f = &q->freed[n];
        uint64_t from = f->first;

        for (uint64_t c = f->first; c < f->first + f->count; c++) {
            if (lower(q, c))
                continue;
            give_to_host(q, from, c);
            from = c + 1;
        }
        give_to_host(q, from, f->first + f->count);
    }
    q->freed_count = 0;
}

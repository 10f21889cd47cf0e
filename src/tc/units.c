/*
 * The memory of the translation cache, and how room is made in it.
 *
 * The cache is a ring of units. A unit is a piece of code memory and a piece of memory
 * for what belongs to its fragments (struct ccf, links, sites, instructions of callouts);
 * both are given out by moving a pointer. When one of them is used up, the next unit of
 * the ring is evicted, the oldest one: its fragments die, nothing refers to them any
 * more, and it is filled anew. So a working set that is a little too large for the cache
 * costs the translation of what is missing, not of everything.
 *
 * Units are evicted by the dispatcher alone, when nobody executes translated code.
 *
 * With --bt no-evict everything is dropped instead, and the ring starts again.
 */
#include <errno.h>
#include <stdlib.h>

#include "bt/bt_int.h"

/* As small as that, with room for the longest fragments; and as many at the most. */
#define UNIT_MIN (128u << 10)
#define UNITS_MAX 64u

int bt_units_create(struct bt *bt) {
    size_t n = bt->code.size / UNIT_MIN;

    bt->nunits = (unsigned)(n < 2 ? 2 : n > UNITS_MAX ? UNITS_MAX : n);
    bt->unit_size = bt->code.size / bt->nunits & ~63ul;
    bt->unit_meta = bt->unit_size / 3 * 2 & ~63ul;
    bt->unit_order = bt->unit_meta / sizeof(struct ccf) + 1;
    bt->units = calloc(bt->nunits, sizeof(*bt->units));
    /* Large and mostly untouched: the host gives pages as they are used. */
    bt->meta = malloc(bt->unit_meta * bt->nunits);
    bt->order = malloc(bt->unit_order * bt->nunits * sizeof(*bt->order));
    return bt->units && bt->meta && bt->order ? 0 : -ENOMEM;
}

void bt_units_free(struct bt *bt) {
    free(bt->units);
    free(bt->meta);
    free(bt->order);
}

static struct ccf **order_of(const struct bt *bt, unsigned unit) {
    return bt->order + unit * bt->unit_order;
}

static uint8_t *code_of(const struct bt *bt, unsigned unit) {
    return unit ? bt->code.rw + unit * bt->unit_size : bt->code_start;
}

static uint8_t *meta_of(const struct bt *bt, unsigned unit) {
    return bt->meta + unit * bt->unit_meta;
}

static void begin(struct bt *bt, unsigned unit) {
    bt->unit = unit;
    bt->code_at = code_of(bt, unit);
    bt->code_end = bt->code.rw + (unit + 1) * bt->unit_size;
    bt->meta_at = meta_of(bt, unit);
}

void *bt_meta_alloc(struct bt *bt, size_t size) {
    void *p = bt->meta_at;

    size = (size + 7) & ~7ul;
    if (size > (size_t)(meta_of(bt, bt->unit + 1) - bt->meta_at)) {
        bt->full = true;
        return NULL;
    }
    bt->meta_at += size;
    return p;
}

bool bt_is_insn(const struct bt *bt, const struct insn *i) {
    size_t size = bt->nunits * bt->unit_meta;
    size_t off = (size_t)((const uint8_t *)i - bt->meta);

    return off % 8 == 0 && off < size && size - off >= sizeof(*i);
}

void bt_unit_add(struct bt *bt, struct ccf *c) {
    order_of(bt, bt->unit)[bt->units[bt->unit].n++] = c;
}

bool bt_unit_empty(const struct bt *bt) {
    return !bt->units[bt->unit].n;
}

struct ccf *bt_find_pc(const struct bt *bt, const uint8_t *rx) {
    size_t unit = (size_t)(rx - bt->code.rx) / bt->unit_size, lo = 0, hi;
    struct ccf **order;

    if (rx < bt->code.rx || unit >= bt->nunits)
        return NULL;
    order = order_of(bt, (unsigned)unit);
    hi = bt->units[unit].n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (order[mid]->end <= rx)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < bt->units[unit].n && order[lo]->code <= rx ? order[lo] : NULL;
}

void bt_each_fragment(const struct bt *bt, void (*fn)(void *arg, const struct ccf *c),
                      void *arg) {
    for (unsigned u = 0; u < bt->nunits; u++)
        for (size_t n = 0; n < bt->units[u].n; n++)
            fn(arg, order_of(bt, u)[n]);
}

static void note_evicted(void *arg, const struct ccf *c) {
    if (!c->dead)
        bt_note_dropped(arg, c, BT_WHY_EVICTED);
}

void bt_flush(struct bt *bt) {
    bt_x87_settle(bt->v); /* while it is known what is where */
    bt_each_fragment(bt, note_evicted, bt);
    for (unsigned u = 0; u < bt->nunits; u++)
        bt->units[u].n = 0;
    bt_cache_reset(bt);
    begin(bt, 0);
}

void bt_make_room(struct bt *bt) {
    struct counters *cnt = bt->v->cnt;
    unsigned next = (bt->unit + 1) % bt->nunits;
    struct unit *u = &bt->units[next];

    if (!bt->opt.evict && !next) {
        bt_flush(bt);
        cnt->bt_flushes++;
        return;
    }
    if (u->n) {
        bt_x87_settle(bt->v);
        bt_cache_forget(bt, order_of(bt, next), u->n);
        cnt->bt_evictions++;
        cnt->bt_evicted += u->n;
        u->n = 0;
    }
    begin(bt, next);
}

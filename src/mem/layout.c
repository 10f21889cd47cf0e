/*
 * What is where: regions and runs of pages to pieces of the map; see mem_int.h.
 *
 * A change asks for something and then builds all of the pieces anew: there are few, and
 * nobody changes the map often. No page is looked at one by one.
 *
 * Not here: the bytes, traces, and who has to be told (mem.c).
 */
#include "mem/mem_int.h"

struct mem_region *mem_layout_add(struct mem_layout *l, const struct mem_region *r) {
    unsigned n = 0;

    while (n < MAX_REGIONS && l->region[n].size)
        n++;
    if (n == MAX_REGIONS)
        return NULL;
    l->region[n] = *r;
    l->order[l->regions++] = &l->region[n];
    return &l->region[n];
}

void mem_layout_remove(struct mem_layout *l, struct mem_region *r) {
    unsigned n = 0;

    mem_layout_set_kind(l, r, r->off, r->off + r->size, r->kind);
    while (l->order[n] != r)
        n++;
    for (l->regions--; n < l->regions; n++)
        l->order[n] = l->order[n + 1];
    *r = (struct mem_region){.size = 0};
}

/* --- runs --- */

static bool region_begins(const struct mem_layout *l, uint64_t off) {
    for (unsigned n = 0; n < l->regions; n++)
        if (l->order[n]->off == off)
            return true;
    return false;
}

/* At the end of the list; what touches goes together within a region. */
static bool push_run(const struct mem_layout *l, struct mem_run *list, unsigned *n,
                     struct mem_run run) {
    if (run.from >= run.to)
        return true;
    if (*n && list[*n - 1].to == run.from && list[*n - 1].kind == run.kind &&
        !region_begins(l, run.from)) {
        list[*n - 1].to = run.to;
        return true;
    }
    if (*n == MAX_RUNS)
        return false;
    list[(*n)++] = run;
    return true;
}

bool mem_layout_set_kind(struct mem_layout *l, const struct mem_region *r, uint64_t from,
                         uint64_t to, enum mem_kind kind) {
    struct mem_run list[MAX_RUNS], one = {from, to, kind};
    bool fits = true, placed = kind == r->kind;
    unsigned n = 0;

    for (unsigned k = 0; k < l->runs; k++) {
        const struct mem_run *old = &l->run[k];
        struct mem_run before = {old->from, old->to < from ? old->to : from, old->kind};
        struct mem_run after = {old->from > to ? old->from : to, old->to, old->kind};

        fits &= push_run(l, list, &n, before);
        if (!placed && old->to > from) {
            fits &= push_run(l, list, &n, one);
            placed = true;
        }
        fits &= push_run(l, list, &n, after);
    }
    if (!placed)
        fits &= push_run(l, list, &n, one);
    if (!fits)
        return false;
    for (unsigned k = 0; k < n; k++)
        l->run[k] = list[k];
    l->runs = n;
    return true;
}

/* --- pieces --- */

/* Adds what the pieces so far leave of P. */
static void add_piece(struct mem_layout *l, const struct mem_piece *p) {
    uint64_t at = p->start.a, last = p->start.a + (p->size - 1);
    bool left = true;
    unsigned n = 0;

    for (unsigned k = 0; k <= l->pieces; k++) {
        const struct mem_piece *q = k < l->pieces ? &l->piece[k] : NULL;
        uint64_t end = q && q->start.a <= last ? q->start.a - 1 : last;

        if (left && (!q || q->start.a > at)) {
            l->spare[n] = *p;
            l->spare[n].start = gpa(at);
            l->spare[n].size = end - at + 1;
            l->spare[n++].host = p->host + (at - p->start.a);
            left = end < last;
        }
        if (!q)
            break;
        l->spare[n++] = *q;
        if (q->start.a + (q->size - 1) >= at) {
            left &= q->start.a + (q->size - 1) < last;
            at = q->start.a + q->size;
        }
    }
    mem_copy(l->piece, l->spare, n * sizeof(l->piece[0]));
    l->pieces = n;
}

/* Pages FROM..TO-1 of the mapping, in R. */
static void add_part(struct mem_layout *l, const struct mem_region *r, uint64_t from,
                     uint64_t to, enum mem_kind kind) {
    struct mem_piece p = {.start = gpa(r->start + (from - r->off)),
                          .size = to - from,
                          .kind = kind,
                          .added = r->added,
                          .host = l->base + from};

    if (from < to && kind != MEM_NONE)
        add_piece(l, &p);
}

static void add_region(struct mem_layout *l, const struct mem_region *r) {
    uint64_t at = r->off, end = r->off + r->size;

    if (!r->on || r->start + (r->size - 1) < r->start)
        return;
    for (unsigned k = 0; k < l->runs; k++) {
        const struct mem_run *run = &l->run[k];

        if (run->from < r->off || run->from >= end)
            continue;
        add_part(l, r, at, run->from, r->kind);
        add_part(l, r, run->from, run->to, run->kind);
        at = run->to;
    }
    add_part(l, r, at, end, r->kind);
}

void mem_layout_build(struct mem_layout *l) {
    l->pieces = 0;
    for (unsigned n = 0; n < l->regions; n++)
        add_region(l, l->order[n]);
    l->large[0] = l->large[1] = (struct mem_piece){.size = 0};
    for (unsigned n = 0; n < l->pieces; n++) {
        const struct mem_piece *p = &l->piece[n];
        struct mem_piece *large = &l->large[p->start.a >= MEM_HOLE_END];

        if (p->kind == MEM_RAM && p->size > large->size)
            *large = *p;
    }
}

/* --- looking up --- */

struct mem_region *mem_layout_region_at(const struct mem_layout *l, uint64_t start,
                                        uint64_t len) {
    for (unsigned n = 0; n < l->regions; n++) {
        struct mem_region *r = l->order[n];

        if (r->on && start >= r->start && start - r->start < r->size &&
            len <= r->size - (start - r->start))
            return r;
    }
    return NULL;
}

const struct mem_piece *mem_layout_search(const struct mem_layout *l, uint64_t at) {
    unsigned lo = 0, hi = l->pieces;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        const struct mem_piece *p = &l->piece[mid];

        if (at - p->start.a < p->size)
            return p;
        if (at < p->start.a)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

uint64_t mem_layout_search_host(const struct mem_layout *l, uint64_t off) {
    for (unsigned n = 0; n < l->regions; n++) {
        const struct mem_region *r = l->order[n];
        const struct mem_piece *p;
        uint64_t at = r->start + (off - r->off);

        if (off - r->off >= r->size)
            continue;
        p = mem_layout_at(l, at); /* is it that which is seen there? */
        return p && p->host + (at - p->start.a) == l->base + off ? at : UINT64_MAX;
    }
    return UINT64_MAX;
}

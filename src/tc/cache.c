/*
 * The translation cache: fragments by address and by page, links between them, and what
 * happens when their guest code is written.
 *
 * A fragment whose code was written is dead: found by no lookup and reached by no link,
 * but still there for whoever is executing it, until its unit is evicted (units.c).
 */

#include "bt/bt_int.h"
#include "mem/mem.h"

static unsigned hash_of(uint64_t va, const uint8_t *page) {
    uint64_t h = va ^ va >> 15 ^ (uint64_t)(uintptr_t)page >> 12;

    return (unsigned)(h * 0x9e3779b97f4a7c15ull >> (64 - BT_HASH_BITS));
}

struct ccf *bt_lookup(struct bt *bt, uint64_t va, const uint8_t *page, uint32_t key) {
    struct ccf *c = bt->hash[hash_of(va, page)];

    while (c && (c->va != va || c->page != page || c->key != key))
        c = c->hash_next;
    return c;
}

static size_t page_number(const struct bt *bt, const uint8_t *host) {
    return (size_t)(host - mem_ram_base(bt->v->mem)) >> 12;
}

/* 64-byte pieces of a page that [FROM, TO) touches; FROM < TO <= 4096. */
static uint64_t lines_of(unsigned from, unsigned to) {
    unsigned first = from >> 6, last = (to - 1) >> 6;
    uint64_t upto = last == 63 ? ~0ull : (1ull << (last + 1)) - 1;

    return upto & ~((1ull << first) - 1);
}

/* The bytes of C, which is no hot path, on the page: *FROM..*TO. */
static void extent(const struct ccf *c, const uint8_t *page, unsigned *from,
                   unsigned *to) {
    unsigned at = c->va & 4095, end = at + c->guest_len;

    if (page == c->page && page == c->page2) { /* the same page, mapped twice in a row */
        *from = 0;
        *to = 4096;
    } else if (page == c->page) {
        *from = at;
        *to = end > 4096 ? 4096 : end;
    } else {
        *from = 0;
        *to = end - 4096;
    }
}

/* Does C have bytes of [LO, HI) on the page? */
static bool covers(const struct ccf *c, const uint8_t *page, unsigned lo, unsigned hi) {
    unsigned from, to;

    if (!c->npieces) {
        extent(c, page, &from, &to);
        return hi > from && lo < to;
    }
    for (unsigned n = 0; n < c->npieces; n++) {
        const struct piece *p = &c->pieces[n];

        if ((p->second ? c->page2 : c->page) == page && hi > p->from && lo < p->to)
            return true;
    }
    return false;
}

/* The 64-byte pieces of the page that C has bytes in. */
static uint64_t lines_covered(const struct ccf *c, const uint8_t *page) {
    uint64_t lines = 0;
    unsigned from, to;

    if (!c->npieces) {
        extent(c, page, &from, &to);
        return lines_of(from, to);
    }
    for (unsigned n = 0; n < c->npieces; n++) {
        const struct piece *p = &c->pieces[n];

        if ((p->second ? c->page2 : c->page) == page)
            lines |= lines_of(p->from, p->to);
    }
    return lines;
}

/* C's place in the list of one of its two pages. */
static struct ccf **next_of(struct ccf *c, const uint8_t *page) {
    return c->page == page ? &c->page_next : &c->page2_next;
}

static struct ccf ***at_of(struct ccf *c, const uint8_t *page) {
    return c->page == page ? &c->page_at : &c->page2_at;
}

static void attach(struct bt *bt, struct ccf *c, uint8_t *page) {
    struct code_page *cp = &bt->pages[page_number(bt, page)];

    if (!cp->first)
        mem_trace_add(bt->v->mem, page, MEM_TRACE_TC);
    else
        *at_of(cp->first, page) = next_of(c, page);
    *next_of(c, page) = cp->first;
    *at_of(c, page) = &cp->first;
    cp->first = c;
    cp->lines |= lines_covered(c, page);
    cp->listed++;
}

/* Takes C, which is dead, out of the page's list, and the trace off with the last. What
 * it covered stays in cp->lines, until a store there finds nothing. */
static void detach(struct bt *bt, struct ccf *c, uint8_t *page) {
    struct code_page *cp = &bt->pages[page_number(bt, page)];
    struct ccf *next = *next_of(c, page);

    **at_of(c, page) = next;
    if (next)
        *at_of(next, page) = *at_of(c, page);
    cp->listed--;
    cp->dead--;
    cp->stale = true;
    *(c->page == page ? &c->listed : &c->listed2) = false;
    if (cp->first)
        return;
    cp->lines = 0;
    cp->stale = false;
    mem_trace_remove(bt->v->mem, page, MEM_TRACE_TC);
}

void bt_insert(struct bt *bt, struct ccf *c) {
    struct ccf **slot = &bt->hash[hash_of(c->va, c->page)];

    c->hash_next = *slot;
    *slot = c;
    bt_unit_add(bt, c);
    c->vp->fragments++;
    attach(bt, c, c->page);
    c->listed = true;
    if (c->vp2)
        c->vp2->fragments++;
    if (c->page2 && c->page2 != c->page) {
        attach(bt, c, c->page2);
        c->listed2 = true;
    }
}

/* --- links --- */

static void turn(struct bt *bt, struct link *l, const uint8_t *rx) {
    int32_t rel = (int32_t)(rx - (l->rel32 + 4 + bt_delta(bt)));

    __atomic_store_n((int32_t *)(void *)l->rel32, rel, __ATOMIC_RELAXED);
}

void bt_link(struct bt *bt, struct link *l, struct ccf *to) {
    if (!bt->opt.chain || l->to || l->from->dead || to->dead)
        return;
    if (l->same_page && !to->page2 && to->page == l->from->page)
        turn(bt, l, l->place == FLAGS_REGS ? to->entry_regs : to->entry_mem);
    else if (l->place == FLAGS_REGS && !to->entry_save)
        return; /* entry_check wants the flags in memory */
    else if (l->place == FLAGS_REGS)
        turn(bt, l, to->entry_save);
    else
        turn(bt, l, to->entry_check);
    bt->v->cnt->bt_chained++;
    l->to = to;
    l->next_in = to->in;
    if (to->in)
        to->in->at_in = &l->next_in;
    l->at_in = &to->in;
    to->in = l;
}

static void unlink_out(struct bt *bt, struct link *l) {
    if (!l->to)
        return;
    *l->at_in = l->next_in;
    if (l->next_in)
        l->next_in->at_in = l->at_in;
    l->to = NULL;
    turn(bt, l, l->stub);
    bt->v->cnt->bt_unchained++;
}

/* --- indirect branches --- */

static void jump_clear(struct bt *bt, struct jump_table *t) {
    for (unsigned n = 0; n < 1u << BT_JUMP_BITS; n++)
        t->to[n] = bt->stub_indirect;
}

void bt_select_key_slow(struct bt *bt, uint32_t key) {
    struct jump_table *t;
    unsigned at = 0;

    if (bt->v->bt.jump) /* gates select without telling */
        bt->jump[bt->selected].used = ++bt->jump_clock;
    for (unsigned n = 0; n < BT_JUMP_TABLES; n++) {
        if (bt->jump[n].used && bt->jump[n].key == key) {
            at = n;
            break;
        }
        if (bt->jump[n].used < bt->jump[at].used)
            at = n;
    }
    t = &bt->jump[at];
    if (!t->used || t->key != key) {
        jump_clear(bt, t);
        vcpu_forget_gates(bt->v);
    }
    t->key = key;
    t->used = ++bt->jump_clock;
    bt->other = bt->selected;
    bt->selected = (uint16_t)at;
    bt->key = key;
    bt->v->bt.jump = t->to;
}

/* For the current key. */
void bt_jump_insert(struct bt *bt, struct ccf *c) {
    uint8_t **to = bt->v->bt.jump;

    to[bt_jump_slot(c->va)] = c->entry_jump;
}

static void jump_forget(struct bt *bt, struct ccf *c) {
    for (unsigned n = 0; n < BT_JUMP_TABLES; n++) {
        uint8_t **to = &bt->jump[n].to[bt_jump_slot(c->va)];

        if (*to == c->entry_jump)
            *to = bt->stub_indirect;
    }
}

/* --- virtual pages --- */

static struct vpage *vpage_alloc(struct bt *bt) {
    struct vpage *p = bt->vpage_free;

    if (p)
        bt->vpage_free = p->next;
    else if (bt->vpages_used < bt->vpages_max)
        p = &bt->vpage_pool[bt->vpages_used++];
    else
        bt->full = true;
    return p;
}

bool bt_is_vpage(const struct bt *bt, const struct vpage *p) {
    size_t off = (size_t)((const char *)p - (const char *)bt->vpage_pool);

    return off % sizeof(*p) == 0 && off / sizeof(*p) < bt->vpages_used;
}

/* Those that no fragment refers to. */
static void vpages_collect(struct bt *bt) {
    for (unsigned n = 0; n < 1u << BT_VPAGE_BITS; n++) {
        struct vpage **at = &bt->vpages[n];

        while (*at) {
            struct vpage *p = *at;

            if (p->fragments) {
                at = &p->next;
                continue;
            }
            *at = p->next;
            p->next = bt->vpage_free;
            bt->vpage_free = p;
        }
    }
}

struct vpage *bt_vpage(struct bt *bt, uint64_t va, uint8_t *host, bool user) {
    uint64_t page = va >> 12;
    struct vpage **slot = &bt->vpages[(page ^ page >> 16) & ((1u << BT_VPAGE_BITS) - 1)];
    struct vpage *p;

    va &= ~0xfffull;
    for (p = *slot; p; p = p->next)
        if (p->va == va && p->host == host && p->user == user)
            return p;
    p = vpage_alloc(bt);
    if (!p)
        return NULL;
    *p = (struct vpage){.va = va,
                        .host = host,
                        .user = user,
                        .global = mmu_code_is_global(bt->v, gva(va)),
                        .next = *slot};
    *slot = p;
    bt->v->bt.code_filter[page >> 6 & 63] |= 1ull << (page & 63);
    return p;
}

void bt_unlink_in(struct bt *bt, struct ccf *c) {
    while (c->in)
        unlink_out(bt, c->in);
}

/* --- death --- */

static void kill(struct bt *bt, struct ccf *c, enum bt_why why) {
    struct ccf **slot = &bt->hash[hash_of(c->va, c->page)];

    c->dead = true;
    if (c->listed)
        bt->pages[page_number(bt, c->page)].dead++;
    if (c->listed2)
        bt->pages[page_number(bt, c->page2)].dead++;
    bt_note_dropped(bt, c, why);
    while (*slot && *slot != c)
        slot = &(*slot)->hash_next;
    if (*slot)
        *slot = c->hash_next;
    bt_unlink_in(bt, c);
    for (unsigned n = 0; n < c->nlinks; n++)
        unlink_out(bt, &c->links[n]);
    jump_forget(bt, c);
}

/* Drops dead fragments from the page's list, and the trace with the last of them. */
static void sweep(struct bt *bt, uint8_t *page) {
    struct code_page *cp = &bt->pages[page_number(bt, page)];
    struct ccf *next;
    uint64_t lines = 0;

    for (struct ccf *c = cp->first; c; c = next) {
        next = *next_of(c, page);
        if (c->dead)
            detach(bt, c, page);
        else
            lines |= lines_covered(c, page);
    }
    cp->lines = lines;
    cp->stale = false;
}

/* The dead stay in the list until they are half of it: a list may be long. */
static void sweep_later(struct bt *bt, uint8_t *page) {
    const struct code_page *cp = &bt->pages[page_number(bt, page)];

    if (2 * cp->dead > cp->listed)
        sweep(bt, page);
}

void bt_drop(struct bt *bt, struct ccf *c, enum bt_why why) {
    kill(bt, c, why);
    sweep_later(bt, c->page);
    if (c->page2)
        sweep_later(bt, c->page2);
}

void bt_drop_at(struct bt *bt, uint8_t *page, unsigned off) {
    struct code_page *cp = &bt->pages[page_number(bt, page)];
    struct ccf *next;

    for (struct ccf *c = cp->first; c; c = next) {
        next = *next_of(c, page);
        if (!c->dead && covers(c, page, off, off + 1))
            kill(bt, c, BT_WHY_REVIEW);
    }
    sweep_later(bt, page);
}

void bt_code_written(void *arg, struct gpa at, unsigned len) {
    struct bt *bt = arg;
    uint8_t *host = mem_host(bt->v->mem, at, len);
    uint8_t *page = (uint8_t *)((uintptr_t)host & ~4095ul);
    unsigned lo = at.a & 4095, hi = lo + len;
    struct code_page *cp;
    bool any = false;

    if (!host || !len)
        return;
    bt->v->cnt->trace_hits_code++;
    cp = &bt->pages[page_number(bt, page)];
    if (!(cp->lines & lines_of(lo, hi)))
        return;
    for (struct ccf *c = cp->first; c; c = *next_of(c, page)) {
        if (c->dead || !covers(c, page, lo, hi))
            continue;
        kill(bt, c, BT_WHY_WRITTEN);
        any = true;
    }
    if (!any && !cp->dead && !cp->stale)
        return;
    /* Dead fragments that also lie on another page stay in that page's list until it is
     * swept; their links are gone. */
    sweep(bt, page);
    bt->v->code_written |= any;
}

void bt_cache_forget(struct bt *bt, struct ccf **c, size_t n) {
    for (size_t k = 0; k < n; k++)
        if (!c[k]->dead)
            kill(bt, c[k], BT_WHY_EVICTED);
    for (size_t k = 0; k < n; k++) {
        if (c[k]->listed)
            detach(bt, c[k], c[k]->page);
        if (c[k]->listed2)
            detach(bt, c[k], c[k]->page2);
        c[k]->vp->fragments--;
        if (c[k]->vp2)
            c[k]->vp2->fragments--;
    }
    vpages_collect(bt);
}

void bt_cache_reset(struct bt *bt) {
    for (size_t n = 0; n < bt->npages; n++) {
        /* A write would make the host give memory for each page of RAM there could be. */
        if (!bt->pages[n].first)
            continue;
        mem_trace_remove(bt->v->mem, mem_ram_base(bt->v->mem) + (n << 12), MEM_TRACE_TC);
        bt->pages[n] = (struct code_page){0};
    }
    for (size_t n = 0; n < 1u << BT_HASH_BITS; n++)
        bt->hash[n] = NULL;
    for (unsigned n = 0; n < BT_JUMP_TABLES; n++)
        bt->jump[n].used = 0;
    bt->v->bt.jump = NULL;
    for (unsigned n = 0; n < 1u << BT_HEAT_BITS; n++)
        bt->heat[n] = bt->opt.hot;
    for (unsigned n = 0; n < 1u << BT_VPAGE_BITS; n++)
        bt->vpages[n] = NULL;
    bt_acquit_all(bt);
    for (unsigned n = 0; n < ARRAY_SIZE(bt->v->bt.code_filter); n++)
        bt->v->bt.code_filter[n] = bt->v->bt.large_filter[n] = 0;
    bt->vpages_used = 0;
    bt->vpage_free = NULL;
}

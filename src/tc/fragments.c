/*
 * Fragments by address and by the RAM page that their guest code lies on, and their
 * death.
 */
#include <errno.h>
#include <stdlib.h>

#include "tc/tc_int.h"

/* There are at most twice as many fragments as lists, so that what is not there is mostly
 * known by a look or two. */
#define HASH_BITS 12u /* at first: a start touches little memory */

int tc_fragments_create(struct tc *tc) {
    tc->npages = mem_host_size(tc->mem) >> 12;
    tc->hash_bits = HASH_BITS;
    tc->hash = calloc(1ul << tc->hash_bits, sizeof(*tc->hash));
    tc->pages = calloc(tc->npages, sizeof(*tc->pages));
    return tc->hash && tc->pages ? 0 : -ENOMEM;
}

void tc_fragments_free(struct tc *tc) {
    free(tc->pages);
    free(tc->hash);
}

void tc_fragments_reset(struct tc *tc) {
    if (!tc->any) /* a start of the machine looks at nothing */
        return;
    tc->any = false;
    for (size_t n = 0; n < tc->npages; n++) {
        /* A write would make the host give memory for each page of RAM there could be. */
        if (!tc->pages[n].first)
            continue;
        mem_trace_remove(tc->mem, mem_ram_base(tc->mem) + (n << 12), MEM_TRACE_TC);
        tc->pages[n] = (struct code_page){0};
    }
    for (size_t n = 0; n < 1ul << tc->hash_bits; n++)
        tc->hash[n] = NULL;
    tc->hashed = 0;
}

/* By address and place; VA is the offset alone where the address is no matter. */
static unsigned hash_of(const struct tc *tc, uint64_t va, const uint8_t *page) {
    uint64_t h = ((uint64_t)(uintptr_t)page | (va & 4095)) + (va >> 12) * 0x9e3779b1u;

    return (unsigned)(h * 0x9e3779b97f4a7c15ull >> (64 - tc->hash_bits));
}

/* Paths for one address stand by that, all else by its place. */
static struct ccf **slot_of(const struct tc *tc, const struct ccf *c) {
    return &tc->hash[hash_of(tc, c->code.fixed ? c->code.va : c->code.va & 4095,
                             c->code.page)];
}

static void hash_in(struct tc *tc, struct ccf *c) {
    struct ccf **slot = slot_of(tc, c);

    c->hash_next = *slot;
    *slot = c;
}

/* Twice as many lists; without memory for them those that there are grow. */
static void spread(struct tc *tc) {
    struct ccf **old = tc->hash, *c, *next;
    size_t lists = 1ul << tc->hash_bits;

    tc->hash = calloc(2 * lists, sizeof(*tc->hash));
    if (!tc->hash) {
        tc->hash = old;
        return;
    }
    tc->hash_bits++;
    for (size_t n = 0; n < lists; n++)
        for (c = old[n]; c; c = next) {
            next = c->hash_next;
            hash_in(tc, c);
        }
    free(old);
}

static struct ccf *shared_from(struct ccf *c, uint64_t va, const uint8_t *page,
                               uint32_t key) {
    while (c && (c->code.hot || ((c->code.va ^ va) & 4095) || c->code.page != page ||
                 c->code.key != key))
        c = c->hash_next;
    return c;
}

struct ccf *tc_lookup(const struct tc *tc, uint64_t va, const uint8_t *page,
                      uint32_t key) {
    return shared_from(tc->hash[hash_of(tc, va & 4095, page)], va, page, key);
}

struct ccf *tc_lookup_next(struct ccf *c) {
    return shared_from(c->hash_next, c->code.va, c->code.page, c->code.key);
}

static size_t page_number(const struct tc *tc, const uint8_t *host) {
    return (size_t)(host - mem_ram_base(tc->mem)) >> 12;
}

struct ccf *tc_lookup_path(const struct tc *tc, uint64_t va, const uint8_t *page,
                           uint32_t key) {
    size_t n = page_number(tc, page); /* what is no RAM has none */
    struct ccf *c;

    if (n >= tc->npages || !tc->pages[n].fixed)
        return NULL;
    c = tc->hash[hash_of(tc, va, page)];
    while (c && (!c->code.fixed || c->code.va != va || c->code.page != page ||
                 c->code.key != key))
        c = c->hash_next;
    return c;
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
    unsigned at = c->code.va & 4095, end = at + c->code.guest_len;

    if (page == c->code.page &&
        page == c->code.page2) { /* the same page, mapped twice in a row */
        *from = 0;
        *to = 4096;
    } else if (page == c->code.page) {
        *from = at;
        *to = end > 4096 ? 4096 : end;
    } else {
        *from = 0;
        *to = end - 4096;
    }
}

/* Bytes of a page, FROM..TO. */
struct range {
    unsigned from, to;
};

/* [LO, HI) has a byte of C; or else *GAP, which is around it, has none any more. */
static bool meets(struct range c, unsigned lo, unsigned hi, struct range *gap) {
    if (hi > c.from && lo < c.to)
        return true;
    if (c.to <= lo && c.to > gap->from)
        gap->from = c.to;
    else if (c.from >= hi && c.from < gap->to)
        gap->to = c.from;
    return false;
}

/* Does C have bytes of [LO, HI) on the page? If not, *GAP shrinks to what is free of
 * them around it. */
static bool covers(const struct ccf *c, const uint8_t *page, unsigned lo, unsigned hi,
                   struct range *gap) {
    struct range r;

    if (!c->code.npieces) {
        extent(c, page, &r.from, &r.to);
        return meets(r, lo, hi, gap);
    }
    for (unsigned n = 0; n < c->code.npieces; n++) {
        const struct piece *p = &c->code.pieces[n];

        r = (struct range){p->from, p->to};
        if ((p->second ? c->code.page2 : c->code.page) == page && meets(r, lo, hi, gap))
            return true;
    }
    return false;
}

/* The 64-byte pieces of the page that C has bytes in. */
static uint64_t lines_covered(const struct ccf *c, const uint8_t *page) {
    uint64_t lines = 0;
    unsigned from, to;

    if (!c->code.npieces) {
        extent(c, page, &from, &to);
        return lines_of(from, to);
    }
    for (unsigned n = 0; n < c->code.npieces; n++) {
        const struct piece *p = &c->code.pieces[n];

        if ((p->second ? c->code.page2 : c->code.page) == page)
            lines |= lines_of(p->from, p->to);
    }
    return lines;
}

/* C's place in the list of one of its two pages. */
static struct ccf **next_of(struct ccf *c, const uint8_t *page) {
    return c->code.page == page ? &c->page_next : &c->page2_next;
}

static struct ccf ***at_of(struct ccf *c, const uint8_t *page) {
    return c->code.page == page ? &c->page_at : &c->page2_at;
}

void tc_watch(struct tc *tc, uint8_t *page) {
    if (!tc->pages[page_number(tc, page)].first)
        mem_trace_add(tc->mem, page, MEM_TRACE_TC);
}

void tc_watch_end(struct tc *tc, uint8_t *page) {
    if (!tc->pages[page_number(tc, page)].first)
        mem_trace_remove(tc->mem, page, MEM_TRACE_TC);
}

static void attach(struct tc *tc, struct ccf *c, uint8_t *page) {
    struct code_page *cp = &tc->pages[page_number(tc, page)];

    if (!cp->first)
        mem_trace_add(tc->mem, page, MEM_TRACE_TC);
    else
        *at_of(cp->first, page) = next_of(c, page);
    *next_of(c, page) = cp->first;
    *at_of(c, page) = &cp->first;
    cp->first = c;
    cp->lines |= lines_covered(c, page);
    cp->clear_from = cp->clear_to = 0;
    cp->listed++;
    cp->fixed += c->code.fixed;
}

/* Takes C, which is dead, out of the page's list, and the trace off with the last. What
 * it covered stays in cp->lines, until a store there finds nothing. */
static void detach(struct tc *tc, struct ccf *c, uint8_t *page) {
    struct code_page *cp = &tc->pages[page_number(tc, page)];
    struct ccf *next = *next_of(c, page);

    **at_of(c, page) = next;
    if (next)
        *at_of(next, page) = *at_of(c, page);
    cp->listed--;
    cp->fixed -= c->code.fixed;
    cp->dead--;
    cp->stale = true;
    *(c->code.page == page ? &c->listed : &c->listed2) = false;
    if (cp->first)
        return;
    cp->lines = 0;
    cp->stale = false;
    mem_trace_remove(tc->mem, page, MEM_TRACE_TC);
}

void tc_insert(struct tc *tc, const struct tr_span *span, struct ccf *c) {
    tc->any = true;
    if (tc->hashed++ >> (tc->hash_bits + 1))
        spread(tc);
    hash_in(tc, c);
    tc_unit_add(tc, span, c);
    attach(tc, c, c->code.page);
    c->listed = true;
    if (c->code.page2 && c->code.page2 != c->code.page) {
        attach(tc, c, c->code.page2);
        c->listed2 = true;
    }
    tc_note_made(tc, c);
}

/* --- death --- */

static void kill(struct tc *tc, struct ccf *c, enum tc_why why) {
    struct ccf **slot = slot_of(tc, c);

    c->dead = true;
    if (c->listed)
        tc->pages[page_number(tc, c->code.page)].dead++;
    if (c->listed2)
        tc->pages[page_number(tc, c->code.page2)].dead++;
    tc_note_dropped(tc, c, why);
    while (*slot && *slot != c)
        slot = &(*slot)->hash_next;
    if (*slot) {
        *slot = c->hash_next;
        tc->hashed--;
    }
    tc_unlink_in(tc, c);
    for (unsigned n = 0; n < c->code.nlinks; n++)
        tc_unlink(tc, &c->code.links[n]);
    tc_jump_forget(tc, c);
    tc_path_forget(tc, c);
}

/* Drops dead fragments from the page's list, and the trace with the last of them. */
static void sweep(struct tc *tc, uint8_t *page) {
    struct code_page *cp = &tc->pages[page_number(tc, page)];
    struct ccf *next;
    uint64_t lines = 0;

    for (struct ccf *c = cp->first; c; c = next) {
        next = *next_of(c, page);
        if (c->dead)
            detach(tc, c, page);
        else
            lines |= lines_covered(c, page);
    }
    cp->lines = lines;
    cp->stale = false;
}

/* The dead stay in the list until they are half of it: a list may be long. */
static void sweep_later(struct tc *tc, uint8_t *page) {
    const struct code_page *cp = &tc->pages[page_number(tc, page)];

    if (2 * cp->dead > cp->listed)
        sweep(tc, page);
}

void tc_drop(struct tc *tc, struct ccf *c, enum tc_why why) {
    kill(tc, c, why);
    sweep_later(tc, c->code.page);
    if (c->code.page2)
        sweep_later(tc, c->code.page2);
}

void tc_drop_at(struct tc *tc, uint8_t *page, unsigned off, enum tc_why why) {
    struct code_page *cp = &tc->pages[page_number(tc, page)];
    struct range gap = {0, 4096};
    struct ccf *next;

    for (struct ccf *c = cp->first; c; c = next) {
        next = *next_of(c, page);
        if (!c->dead && covers(c, page, off, off + 1, &gap))
            kill(tc, c, why);
    }
    sweep_later(tc, page);
}

bool tc_has_code(const struct tc *tc, const uint8_t *host, unsigned len) {
    unsigned lo = (uintptr_t)host & 4095;

    return tc->pages[page_number(tc, host)].lines & lines_of(lo, lo + len);
}

enum tc_died tc_code_written(struct tc *tc, struct gpa at, unsigned len) {
    uint8_t *host = mem_host(tc->mem, at, len);
    uint8_t *page = (uint8_t *)((uintptr_t)host & ~4095ul);
    unsigned lo = at.a & 4095, hi = lo + len;
    struct range gap = {0, 4096};
    struct code_page *cp;
    enum tc_died died = TC_DIED_NONE;

    if (!host || !len)
        return TC_DIED_NONE;
    tc->v->cnt->trace_hits_code++;
    cp = &tc->pages[page_number(tc, page)];
    if (!(cp->lines & lines_of(lo, hi)) || (lo >= cp->clear_from && hi <= cp->clear_to))
        return TC_DIED_NONE;
    for (struct ccf *c = cp->first; c; c = *next_of(c, page)) {
        if (c->dead || !covers(c, page, lo, hi, &gap))
            continue;
        kill(tc, c, TC_WHY_WRITTEN);
        if (died != TC_DIED_LOOPS)
            died = c->code.hot ? TC_DIED_LOOPS : TC_DIED_SOME;
    }
    if (died == TC_DIED_NONE) {
        cp->clear_from = (uint16_t)gap.from;
        cp->clear_to = (uint16_t)gap.to;
        if (!cp->dead && !cp->stale)
            return TC_DIED_NONE;
    }
    /* Dead fragments that also lie on another page stay in that page's list until it is
     * swept; their links are gone. */
    sweep(tc, page);
    if (died != TC_DIED_NONE)
        __atomic_store_n(&tc->deaths, tc->deaths + 1, __ATOMIC_RELEASE);
    return died;
}

void tc_forget(struct tc *tc, struct ccf **c, size_t n) {
    for (size_t k = 0; k < n; k++)
        if (!c[k]->dead)
            kill(tc, c[k], TC_WHY_EVICTED);
    for (size_t k = 0; k < n; k++) {
        if (c[k]->listed)
            detach(tc, c[k], c[k]->code.page);
        if (c[k]->listed2)
            detach(tc, c[k], c[k]->code.page2);
    }
}

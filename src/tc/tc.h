/*
 * The translation cache: fragments by address and by page, links between them, and what
 * happens when their guest code is written or when the cache is full.
 *
 * A fragment (CCF, compiled code fragment) is translated code that is kept. Shared ones
 * belong to a place in RAM, wherever it is mapped, and are found by that and key; hot
 * paths by address, RAM page and key. A fragment whose code was written is dead: found by
 * no lookup and reached by no link, but still there for whoever is executing it, until
 * its unit is evicted.
 *
 * The memory of the cache is a ring of units. A unit is a piece of code memory and a
 * piece of memory for what belongs to its fragments (struct ccf, links, sites,
 * instructions of callouts); both are given out by moving a pointer. When one of them is
 * used up, the next unit of the ring is evicted, the oldest one: its fragments die,
 * nothing refers to them any more, and it is filled anew. So a working set that is a
 * little too large for the cache costs the translation of what is missing, not of
 * everything.
 *
 * All of it belongs to the vCPU's thread. Units are evicted when nobody executes
 * translated code. The cache makes no code and enters none.
 *
 * tools/layers has the order of the files: each calls those before it, none behind it.
 */
#ifndef TC_TC_H
#define TC_TC_H

#include "mem/mem.h"
#include "tr/tr.h"

#define TC_SECONDS 4u

struct ccf {
    struct tr_code code; /* must be first: emitted code names it */
    bool dead;
    bool listed, listed2; /* in the lists of its pages */
    /* Bits 12 to 15 of the addresses by which it is in jump tables. */
    uint16_t jumps;
    /* Where it may be in second tables; the oldest place goes first. */
    uint8_t seconds; /* how many have been noted */
    uint32_t second[TC_SECONDS];
    struct link *in;    /* from other fragments */
    struct ccf *shared; /* of a hot path: whose it is, NULL: nobody's any more */
    struct ccf *paths;  /* of a shared fragment, by path_next */
    struct ccf *path_next;
    struct ccf *hash_next;
    struct ccf *page_next, *page2_next;
    struct ccf **page_at, **page2_at; /* what leads to it in these lists */
};

static inline struct ccf *tc_ccf(const struct tr_code *c) {
    return container_of((struct tr_code *)(uintptr_t)c, struct ccf, code);
}

/* What has been translated of one RAM page. */
struct code_page {
    uint64_t lines; /* 64-byte pieces with translated bytes, more rather than fewer */
    /* Bytes of which nothing is translated, among others: where the last store was that
     * found nothing. Variables between code are stored to again and again. */
    uint16_t clear_from, clear_to;
    struct ccf *first;
    uint32_t listed, dead; /* in the list; of these */
    uint32_t fixed;        /* of these: paths for one address */
    bool stale;            /* `lines` has some that nothing in the list covers any more */
};

/* Indirect branches: 2^TR_JUMP_BITS host addresses by the low bits of the guest address,
 * each an entry_jump (which checks that it is the right one) or stub.indirect. One table
 * for each key of late. */
static inline unsigned tc_jump_slot(uint64_t va) {
    return (unsigned)va & ((1u << TR_JUMP_BITS) - 1);
}

/* A boot loader that goes to real mode and back, and has a firmware do the same, executes
 * code of more than eight keys in turn. With several vCPUs more, for none is made another
 * key's while they run. */
#define TC_JUMP_TABLES 16
#define TC_JUMP_TABLES_MAX 32
#define TC_JUMPS_PAGE 512u /* places of a table that are a page of the host's */
struct jump_table {
    uint32_t key;
    uint64_t used;
    uint8_t **to; /* RX */
    /* A bit for each page of TO that has something: while a guest loads its segments,
     * each is a key of its own for a few instructions, and the rest takes no memory. */
    uint64_t touched[(1u << TR_JUMP_BITS) / TC_JUMPS_PAGE / 64];
    /* By a hash of the address: those that did not find their place above free. A big
     * program has hundreds of functions at the same low bits. */
    uint8_t **second; /* RX; NULL: nothing */
    bool has_seconds;
};
#define TC_SECOND_BITS 18
static inline unsigned tc_second_slot(uint64_t va) {
    return (unsigned)(va * 0x9e3779b97f4a7c15ull >> (64 - TC_SECOND_BITS));
}

#define TC_DROPPED_BITS 15

/* Why a fragment was dropped: what is translated there next is counted under it. */
enum tc_why {
    TC_WHY_NONE,
    TC_WHY_CHECKS,
    TC_WHY_TRAPS,
    TC_WHY_REVIEW,
    TC_WHY_WRITTEN,
    TC_WHY_EVICTED,
};

struct tc {
    struct vcpu *v; /* the one in whose name it is changed */
    const struct tr_env *env;
    struct mem *mem;
    struct os_code code;
    bool chain;          /* links may be chained */
    uint8_t *code_start; /* RW: after the common code */
    uint8_t *nowhere;    /* RX: of a jump table, where there is nothing */
    /* The ring of units, and what is free in the one being filled. */
    size_t *fragments; /* of each unit: how many */
    unsigned nunits, unit;
    size_t unit_size, unit_meta, unit_order;
    size_t large; /* up to here the host has been asked for large pages */
    uint8_t *meta;
    struct ccf **order;          /* a piece for each unit, by address */
    uint32_t *ends;              /* beside it: where their code ends, in the cache */
    uint32_t *first;             /* of a granule of code: the first there, in its unit */
    uint8_t *code_at, *code_end; /* RW */
    uint8_t *meta_at;
    struct ccf **hash; /* 2^hash_bits lists */
    unsigned hash_bits;
    size_t hashed;           /* fragments in them */
    bool any;                /* something is in the lists, or has been */
    struct code_page *pages; /* one for each RAM page */
    size_t npages;
    struct jump_table jump[TC_JUMP_TABLES_MAX];
    unsigned tables;
    uint64_t jump_clock;
    bool jumps_stay; /* no table becomes another key's before tc_jumps_reset() */
    uint32_t
        deaths; /* fragments were dropped because their code was written: how often */
    uint64_t *dropped; /* again.c */
};

/* --- units.c --- */

/* Room for a fragment and its code: what is free in the unit, after a zeroed struct ccf,
 * which is returned. NULL: the unit is full. Nothing is taken before tc_insert(). */
struct ccf *tc_reserve(const struct tc *tc, struct tr_span *span);
bool tc_unit_empty(const struct tc *tc);
/* The fragment that RX lies in; NULL: in none. */
struct ccf *tc_find(const struct tc *tc, const uint8_t *rx);
void tc_each(const struct tc *tc, void (*fn)(void *arg, struct ccf *c), void *arg);
/* Those of one unit, the latest first. */
void tc_each_of(const struct tc *tc, unsigned unit, void (*fn)(void *arg, struct ccf *c),
                void *arg);
/* Is I one of those that translated code was given? */
bool tc_is_insn(const struct tc *tc, const struct insn *i);

/* --- jumps.c: indirect branches --- */

bool tc_select_key_slow(struct tc *tc, struct vcpu *v, uint32_t key);
/* Makes the table of KEY V's, if it is one of the two that V had last. Needs no lock. */
static inline bool tc_select_again(struct tc *tc, struct vcpu *v, uint32_t key) {
    struct tr_vcpu *x = tr_vcpu(v);
    const struct jump_table *t = &tc->jump[x->other];
    uint16_t other = x->other;

    if (likely(x->key == key && x->jump))
        return true;
    if (unlikely(!x->jump || t->key != key || !t->used))
        return false;
    /* Mostly two take turns: user's and kernel's. */
    x->other = x->selected;
    x->selected = other;
    x->key = key;
    x->jump = t->to;
    return true;
}
/* The same for any. False: all are in use by then (`jumps_stay`). */
static inline bool tc_select_key(struct tc *tc, struct vcpu *v, uint32_t key) {
    return tc_select_again(tc, v, key) || tc_select_key_slow(tc, v, key);
}
/* Where an indirect branch of V's to VA goes for the current key, RX; NULL: to a place
 * where code cannot be. */
static inline uint8_t *tc_jump_target(const struct vcpu *v, uint64_t va) {
    uint8_t *const *to = tr_vcpu(v)->jump;

    if (unlikely((uint64_t)((int64_t)(va << 16) >> 16) != va))
        return NULL;
    return to[tc_jump_slot(va)];
}
/* The same of the second table, where the first has another; from now on the first has
 * this one. NULL: nothing. */
uint8_t *tc_jump_second(struct tc *tc, struct vcpu *v, uint64_t va);
/* From now on that to VA, which is one of C's, goes to C, for V's key. */
void tc_jump_insert(struct tc *tc, struct vcpu *v, uint64_t va, struct ccf *c);
/* All tables are empty, and nobody's: each vCPU's tr_vcpu.jump is to be NULL. */
void tc_jumps_reset(struct tc *tc);

/* --- links.c --- */

void tc_link(struct tc *tc, struct link *l, struct ccf *to);
void tc_unlink_in(struct tc *tc, struct ccf *c); /* nothing jumps to C any more */

/* --- paths.c: hot paths --- */

/* PATH is a hot path for C, which has none for its address: the first that is tried. */
void tc_path_add(struct tc *tc, struct ccf *c, struct ccf *path);
/* --- fragments.c --- */

/* The first shared fragment for that place in PAGE, and the next one after C: they differ
 * in their second page. */
struct ccf *tc_lookup(const struct tc *tc, uint64_t va, const uint8_t *page,
                      uint32_t key);
struct ccf *tc_lookup_next(struct ccf *c);
/* The hot path for VA alone, on PAGE. */
struct ccf *tc_lookup_path(const struct tc *tc, uint64_t va, const uint8_t *page,
                           uint32_t key);
/* Keeps C, from tc_reserve(), whose translation has taken what SPAN lacks by now. */
void tc_insert(struct tc *tc, const struct tr_span *span, struct ccf *c);
/* Code of the page is going to be read; and is no more: the trace goes, unless there are
 * fragments. */
void tc_watch(struct tc *tc, uint8_t *page);
void tc_watch_end(struct tc *tc, uint8_t *page);
/* No lookup finds it any more, and nothing jumps to it. */
void tc_drop(struct tc *tc, struct ccf *c, enum tc_why why);
/* Drops the fragments that have the byte at OFF of the RAM page. */
void tc_drop_at(struct tc *tc, uint8_t *page, unsigned off, enum tc_why why);
/* Are there fragments of the LEN bytes at HOST, which lie within a page of RAM? It may
 * say so of bytes next to theirs. */
bool tc_has_code(const struct tc *tc, const uint8_t *host, unsigned len);
/* LEN bytes at AT are about to be written: drops the fragments that have some of them. */
enum tc_died {
    TC_DIED_NONE,
    TC_DIED_SOME,
    TC_DIED_LOOPS, /* some that whoever executes them may not leave by a link */
};
enum tc_died tc_code_written(struct tc *tc, struct gpa at, unsigned len);

/* --- cache.c --- */

/* The cache in ENV's code, RX of whose stubs is to be in it already, as far as CODE_START
 * (RW). 0 or -errno; tc_destroy() in both cases. */
int tc_create(struct tc *tc, const struct tr_env *env);
/* Then the tables of indirect branches, which lead to NOWHERE (RX) where they know
 * nothing. 0 or -errno. */
int tc_jumps_create(struct tc *tc, uint8_t *nowhere);
void tc_destroy(struct tc *tc);
/* All fragments go. To be called before the first use. What indirect branches have goes
 * before: tc_jumps_reset(). */
void tc_flush(struct tc *tc);
/* The next unit of the ring is that after the last one. */
bool tc_wraps(const struct tc *tc);
/* There is nothing in the next unit. */
bool tc_next_is_free(const struct tc *tc);
/* Goes on to the next unit; what was in it is gone. Fragments that are held in hand may
 * be. */
void tc_evict(struct tc *tc);

#endif

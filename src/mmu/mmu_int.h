/*
 * Inside mmu/: the walk, the spaces, and how they hang together.
 *
 * A "space" is the shadow of one address space: three banks of entries (what emitted code
 * reads) and what is needed to drop them again:
 *
 *   - bits: filled, global, large of each slot; flushing costs what was filled;
 *   - note: of each slot its page (| META_*), also when no tag is valid, and its place in
 *     the list of slots that may hold a write entry for a RAM page (write_head): dropping
 *     write entries is exact;
 *   - range: linear ranges in which 4 KiB pieces of large pages were filled.
 *
 * A guest that idles has a slot here and there, and each takes a page of the host's in
 * each of these arrays: what belongs to a slot lies together, but for what emitted code
 * reads.
 *
 * Invariants:
 *   - a slot whose filled bit is clear has no valid tag;
 *   - a slot with a valid write tag is in the list of its RAM page; the converse need not
 *     hold (flushes leave slots in their lists, refills take them out);
 *   - META_WRITABLE: the walk allowed writes and D is set; only a trace may be in the
 * way;
 *   - MMU_TRACE: every filled slot depends on table pages that all have a record (struct
 *     dep) for its space, and a page with records carries MEM_TRACE_PT.
 */
#ifndef MMU_INT_H
#define MMU_INT_H

#include "cpu/smp.h"
#include "cpu/stops.h"
#include "mmu/mmu.h"

#define MMU_SPACES 16
_Static_assert(MMU_SPACES + 1 == MMU_SPACES_MAX, "one for the supervisor's banks");
#define MMU_RANGES 8
#define BITMAP_WORDS (SHADOW_ENTRIES / 64)
_Static_assert(BITMAP_WORDS == 64 * 64, "three levels of bits");
#define SLOTS (BANK_COUNT * SHADOW_ENTRIES)

#define META_WRITABLE 1ull
#define META_SHIFT_POS 1 /* bits 1..5: log2 of the page size minus 12 */
#define META_PAGE (~0xfffull)

enum paging { PAGING_NONE, PAGING_32, PAGING_PAE, PAGING_LONG };

struct slot_note {
    uint64_t meta;
    uint32_t next, prev; /* slot ids, 0: none */
    uint32_t page;       /* RAM page + 1, 0: in no list */
};

struct slot_bits { /* of 64 slots */
    uint64_t filled, global, large;
};

struct range {
    uint64_t lo, hi; /* inclusive */
};

struct space {
    /* Of these a slot takes memory when it is filled; mmu_space_forget() gives it back.
     */
    struct shadow_bank bank[BANK_COUNT];
    struct slot_note note[BANK_COUNT][SHADOW_ENTRIES];
    struct slot_bits bits[BANK_COUNT][BITMAP_WORDS];
    /* A bit for each word of filled bits that may not be 0, and for each of these words.
     */
    uint64_t some[BANK_COUNT][64];
    uint64_t any_of[BANK_COUNT];
    _Alignas(4096) struct range range[MMU_RANGES];
    unsigned ranges;
    bool ready[2];   /* mmu_space_init() has been called: supervisor banks, user's */
    bool used;       /* holds a key */
    bool any;        /* something may be filled */
    bool any_global; /* a global entry may be filled */
    bool any_local;  /* one that is not may be */
    uint64_t key;    /* PCID, or CR3 root with MMU_TRACE */
    uint64_t pdpte[4];
    uint64_t age;
    uint32_t deps; /* list of records, MMU_TRACE */
};

/* A table page that entries of a space were filled from. */
struct dep {
    uint64_t base; /* first linear address that the table maps */
    uint32_t page; /* RAM page of the table */
    uint32_t page_next;
    uint32_t space_next, space_prev;
    uint8_t space;
    uint8_t shift; /* log2 of what one table entry maps */
};
#define MMU_DEPS 16384

struct breakpoint {
    uint64_t at;
    uint8_t len;
    uint8_t bit;
    bool on_read;
};

struct mmu_priv {
    struct mmu pub;
    struct mem *mem;
    uint8_t *ram; /* mem_ram_base(), for RAM page numbers */
    enum mmu_policy policy;

    /* What the walk depends on; refreshed by mmu_mode_changed(). */
    enum paging paging;
    bool wp, smep, smap, pge, pcide, pse, fetch_bit;
    uint64_t a20_mask;
    uint64_t rsvd[5][2]; /* by level (4: PML4E .. 1: PTE) and "is a leaf" */
    uint64_t rsvd_pdpte; /* PAE */
    bool pdptes_accessed;
    uint64_t rsvd_4m;

    unsigned breakpoints;
    struct breakpoint bp[4];

    /* The current space, and the one whose supervisor banks are in use: with PCID and
     * global pages that is the last of all, for all. Kernels map themselves global, so
     * that what one process has filled serves the next; the rest of it goes with each CR3
     * load. */
    struct space *cur, *super;
    unsigned space_count, keyed; /* of which so many are found by key */
    uint64_t clock;
    struct space *space;
    uint32_t *write_head; /* by RAM page: slot id */
    uint64_t kept_at;     /* counters.shadow_fills at the last mmu_trim() */
    uint8_t *may_write; /* by RAM page: there was an entry since mmu_drop_write(). One of
                           several vCPUs; other threads read it. */
    struct counters spare;
    const struct mmu_observer *observer; /* NULL: nobody */
    void *observer_arg;

    /* MMU_TRACE */
    struct dep *dep; /* [0] unused */
    uint32_t *dep_head;
    uint8_t *dep_hits; /* by RAM page: writes since the last fill through it */
    uint32_t dep_free;
    bool own_update;
};

static inline struct mmu_priv *mmu_priv(const struct vcpu *v) {
    return container_of(v->mmu, struct mmu_priv, pub);
}

static inline struct counters *mmu_counters(struct mmu_priv *m) {
    return m->pub.v->cnt ? m->pub.v->cnt : &m->spare;
}

/* The space that BANK is in now. */
static inline struct space *mmu_home(const struct mmu_priv *m, enum mmu_bank bank) {
    return bank == BANK_USER || bank == BANK_USER_X ? m->cur : m->super;
}

/* Does a breakpoint lie in PAGE, or does a debugger watch some of it, so that such an
 * access is to be looked at? */
static inline bool mmu_page_watched(const struct mmu_priv *m, uint64_t page,
                                    enum mmu_access acc) {
    if (unlikely(m->pub.v->stops) &&
        vcpu_watches_page(m->pub.v->stops, page, acc == MMU_WRITE))
        return true;
    for (unsigned i = 0; i < m->breakpoints; i++)
        if (!((m->bp[i].at ^ page) & META_PAGE))
            return true;
    return false;
}

/* Does the vCPU keep the right to store to what it has found, until its next quiet place
 * (cpu/smp.h)? It does while there is an entry, and also without one if it is alone. */
static inline bool mmu_alone(const struct mmu_priv *m) {
    return !vcpu_has_others(m->pub.v);
}

/* --- walk.c --- */

struct walk_step {
    uint8_t *host; /* of the entry, NULL when it is not RAM or ROM */
    uint64_t entry;
    uint8_t shift; /* log2 of what the entry maps */
};

struct walk {
    uint64_t gpa; /* of the byte */
    uint32_t error;
    bool user, write, nx, global;
    bool wrapped; /* A20 changed an address */
    uint8_t shift;
    unsigned steps;
    struct walk_step step[4]; /* the last one is the leaf; none without paging */
};

void mmu_walk_config(struct mmu_priv *m);
/* False when absent or malformed: w->error has P and RSVD. No side effects. */
bool mmu_walk(const struct mmu_priv *m, uint64_t at, struct walk *w);
bool mmu_walk_allows(const struct mmu_priv *m, const struct walk *w, enum mmu_bank bank,
                     enum mmu_access acc);
/* Sets A, and D for a write, in the entries used. False: another CPU has changed one
 * since the walk, which is to be made again. */
bool mmu_walk_mark(struct mmu_priv *m, struct walk *w, bool write);

/* --- shadow.c --- */
/* Makes the user's banks, or the others, empty: they are zero before. */
void mmu_space_init(struct mmu_priv *m, struct space *s, bool user);
void mmu_space_flush(struct mmu_priv *m, struct space *s, bool keep_global);
void mmu_space_invlpg(struct mmu_priv *m, struct space *s, uint64_t at, bool global_only);
/* All of it goes for want of room, and its memory. Write lists are to be void. */
void mmu_space_forget(struct mmu_priv *m, struct space *s);
/* Drops what was filled in [LO, HI], bounds inclusive. */
void mmu_space_drop_range(struct mmu_priv *m, struct space *s, uint64_t lo, uint64_t hi);
void mmu_space_fill(struct mmu_priv *m, enum mmu_bank bank, uint64_t at,
                    const struct walk *w, uint8_t *host, bool rom);
/* Gives a slot its write tag back once no trace is on its page. */
void mmu_space_allow_write(struct mmu_priv *m, enum mmu_bank bank, uint64_t at);

/* --- trace.c --- */
int mmu_dep_create(struct mmu_priv *m);
void mmu_dep_destroy(struct mmu_priv *m);
void mmu_dep_add(struct mmu_priv *m, uint64_t at, const struct walk *w);
void mmu_dep_drop_space(struct mmu_priv *m, struct space *s);

#endif

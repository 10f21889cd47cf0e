/*
 * Spaces: filling and dropping shadow entries. See mmu_int.h for the structures.
 */
#include "base/os.h"
#include "mmu/mmu_int.h"
#include "x86/pte.h"

static inline uint32_t slot_id(const struct mmu_priv *m, const struct space *s,
                               unsigned bank, unsigned idx) {
    return (uint32_t)((size_t)(s - m->space) * SLOTS + bank * SHADOW_ENTRIES + idx + 1);
}

static inline struct slot_note *note_of(struct mmu_priv *m, uint32_t id) {
    id--;
    return &m->space[id / SLOTS].note[id % SLOTS / SHADOW_ENTRIES][id % SHADOW_ENTRIES];
}

static inline void forget(struct shadow_entry *e, unsigned idx) {
    e->tag[MMU_READ] = e->tag[MMU_WRITE] = e->tag[MMU_EXEC] = mmu_no_tag(idx);
    e->host = NULL;
}

/* --- anchors --- */

static struct shadow_anchor unused(const struct mmu_priv *m) {
    return (struct shadow_anchor){SHADOW_NO_ANCHOR, m->pub.nowhere};
}

static void no_anchors(const struct mmu_priv *m, struct shadow_bank *b) {
    for (unsigned i = 0; i < SHADOW_ANCHORS; i++)
        b->anchor[i] = unused(m);
    b->anchored = 0;
}

/* Drops the anchors that were copied from E. */
static void drop_copies(const struct mmu_priv *m, struct shadow_bank *b,
                        struct shadow_entry *e, unsigned idx) {
    if (likely(!b->anchored || e->tag[MMU_EXEC] != SHADOW_ANCHORED))
        return;
    e->tag[MMU_EXEC] = mmu_no_tag(idx);
    for (unsigned i = 0; i < SHADOW_ANCHORS; i++)
        if (b->anchor[i].host == e->host)
            b->anchor[i] = unused(m);
}

void mmu_space_init(struct mmu_priv *m, struct space *s, bool user) {
    for (unsigned b = 0; b < BANK_COUNT; b++) {
        if ((b == BANK_USER || b == BANK_USER_X) != user)
            continue;
        forget(&s->bank[b].e[0], 0); /* elsewhere, 0 is no tag */
        no_anchors(m, &s->bank[b]);
    }
}

static bool is_code(unsigned bank) {
    return bank == BANK_SUPER_X || bank == BANK_USER_X;
}

/* --- the observer --- */

static unsigned number_of(const struct mmu_priv *m, const struct space *s) {
    return (unsigned)(s - m->space);
}

static struct mmu_entry entry_at(const struct mmu_priv *m, const struct space *s,
                                 unsigned bank, unsigned idx) {
    const struct shadow_entry *e = &s->bank[bank].e[idx];
    uint64_t meta = s->note[bank][idx].meta;
    struct mmu_entry told = {
        .space = number_of(m, s),
        .bank = (enum mmu_bank)bank,
        .page = meta & META_PAGE,
        .host = e->host,
        .global = s->bits[bank][idx / 64].global >> (idx & 63) & 1,
        .shift = (uint8_t)(12 + (meta >> META_SHIFT_POS & 31)),
    };

    for (unsigned acc = is_code(bank) ? MMU_EXEC : MMU_READ; acc < 3; acc++)
        if (e->tag[acc] == told.page)
            told.access |= (uint8_t)(1u << acc);
    return told;
}

static void tell_entry(const struct mmu_priv *m, const struct space *s, unsigned bank,
                       unsigned idx) {
    const struct mmu_entry told = entry_at(m, s, bank, idx);

    m->observer->filled(m->observer_arg, &told);
}

static void tell_code_read(const struct mmu_priv *m, const struct space *s, unsigned bank,
                           unsigned idx) {
    const struct mmu_entry told = entry_at(m, s, bank, idx);

    if (m->observer->code_read)
        m->observer->code_read(m->observer_arg, &told);
}

/* The slot is about to be dropped, or has been: if there was an entry. */
static inline void tell_drop(const struct mmu_priv *m, const struct space *s,
                             unsigned bank, unsigned idx) {
    if (unlikely(m->observer) && (s->bits[bank][idx / 64].filled >> (idx & 63) & 1))
        m->observer->dropped(m->observer_arg, number_of(m, s), (enum mmu_bank)bank,
                             s->note[bank][idx].meta & META_PAGE);
}

/* Another page takes its place. A piece of a large page can be made invalid by any
 * address in that one: nobody is to keep it. */
static inline void tell_eviction(const struct mmu_priv *m, const struct space *s,
                                 unsigned bank, unsigned idx) {
    struct mmu_entry told;

    if (likely(!m->observer) || !(s->bits[bank][idx / 64].filled >> (idx & 63) & 1))
        return;
    if (!m->observer->evicted || s->bits[bank][idx / 64].large >> (idx & 63) & 1) {
        tell_drop(m, s, bank, idx);
        return;
    }
    told = entry_at(m, s, bank, idx);
    m->observer->evicted(m->observer_arg, &told);
}

static inline void tell_range(const struct mmu_priv *m, const struct space *s,
                              uint64_t lo, uint64_t hi) {
    if (unlikely(m->observer) && m->observer->invalidated)
        m->observer->invalidated(m->observer_arg, number_of(m, s), lo, hi);
}

/* --- dropping --- */

static inline void empty_slot(const struct mmu_priv *m, struct space *s, unsigned bank,
                              unsigned idx) {
    struct slot_bits *bits = &s->bits[bank][idx / 64];
    uint64_t bit = 1ull << (idx & 63);

    drop_copies(m, &s->bank[bank], &s->bank[bank].e[idx], idx);
    forget(&s->bank[bank].e[idx], idx);
    bits->filled &= ~bit;
    bits->global &= ~bit;
    bits->large &= ~bit;
}

static void drop_slot(const struct mmu_priv *m, struct space *s, unsigned bank,
                      unsigned idx) {
    tell_drop(m, s, bank, idx);
    empty_slot(m, s, bank, idx);
}

/* Of 64 words of `filled`. */
static void flush_words(const struct mmu_priv *m, struct space *s, unsigned b, unsigned n,
                        bool keep_global) {
    uint64_t left = 0;

    for (uint64_t some = s->some[b][n]; some; some &= some - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(some), w = n * 64 + bit;
        uint64_t drop = s->bits[b][w].filled;

        if (keep_global)
            drop &= ~s->bits[b][w].global;
        for (; drop; drop &= drop - 1)
            empty_slot(m, s, b, w * 64 + (unsigned)__builtin_ctzll(drop));
        left |= s->bits[b][w].filled ? 1ull << bit : 0;
    }
    s->some[b][n] = left;
    if (!left)
        s->any_of[b] &= ~(1ull << n);
}

/* Who keeps what the shadow has dropped is told of all that concerns it later on, too. */
static bool is_kept(const struct mmu_priv *m) {
    return m->observer && m->observer->evicted;
}

void mmu_space_flush(struct mmu_priv *m, struct space *s, bool keep_global) {
    if (!s->any)
        return;
    if (keep_global && !s->any_local)
        return;
    keep_global &= s->any_global;
    for (unsigned b = 0; b < BANK_COUNT; b++) {
        /* Else each entry that goes takes its own with it. */
        if (s->bank[b].anchored && (!keep_global || b == BANK_USER))
            no_anchors(m, &s->bank[b]);
        for (uint64_t any = s->any_of[b]; any; any &= any - 1)
            flush_words(m, s, b, (unsigned)__builtin_ctzll(any), keep_global);
    }
    s->any_local = is_kept(m);
    mmu_counters(m)->shadow_flushes++;
    if (unlikely(m->observer))
        m->observer->flushed(m->observer_arg, number_of(m, s), keep_global);
    if (!keep_global) {
        s->any = is_kept(m);
        s->any_global = false;
        s->ranges = 0;
    }
}

/* Of 64 words of filled bits. */
static void tell_evictions(const struct mmu_priv *m, const struct space *s, unsigned b,
                           unsigned n) {
    for (uint64_t some = s->some[b][n]; some; some &= some - 1) {
        unsigned w = n * 64 + (unsigned)__builtin_ctzll(some);

        for (uint64_t set = s->bits[b][w].filled; set; set &= set - 1)
            tell_eviction(m, s, b, w * 64 + (unsigned)__builtin_ctzll(set));
    }
}

void mmu_space_forget(struct mmu_priv *m, struct space *s) {
    if (!s->ready[false] && !s->ready[true])
        return;
    for (unsigned b = 0; m->observer && s->any && b < BANK_COUNT; b++)
        for (uint64_t any = s->any_of[b]; any; any &= any - 1)
            tell_evictions(m, s, b, (unsigned)__builtin_ctzll(any));
    os_sparse_zero(s, offsetof(struct space, range));
    s->ready[false] = s->ready[true] = false;
    s->ranges = 0;
    /* `any` and its like stay: an observer may keep what he was told. */
}

/* --- large pages --- */

/* Remembers that a piece of the large page [LO, HI] was filled. */
static void note_large(struct space *s, uint64_t lo, uint64_t hi) {
    struct range *best = NULL;
    uint64_t best_growth = UINT64_MAX;
    for (unsigned i = 0; i < s->ranges; i++) {
        struct range *r = &s->range[i];
        if (lo >= r->lo && hi <= r->hi)
            return;
        uint64_t growth = (lo < r->lo ? r->lo - lo : 0) + (hi > r->hi ? hi - r->hi : 0);
        if (growth < best_growth) {
            best_growth = growth;
            best = r;
        }
    }
    if (s->ranges < MMU_RANGES && best_growth > (1ull << 30)) {
        s->range[s->ranges++] = (struct range){lo, hi};
        return;
    }
    best->lo = lo < best->lo ? lo : best->lo;
    best->hi = hi > best->hi ? hi : best->hi;
}

/* Of 64 slots. */
static void drop_large_of(const struct mmu_priv *m, struct space *s, unsigned b,
                          unsigned w, uint64_t at, bool global_only) {
    uint64_t set = s->bits[b][w].large;

    if (global_only)
        set &= s->bits[b][w].global;
    for (; set; set &= set - 1) {
        unsigned idx = w * 64 + (unsigned)__builtin_ctzll(set);
        unsigned shift = 12 + (s->note[b][idx].meta >> META_SHIFT_POS & 31);

        if (!((s->note[b][idx].meta ^ at) >> shift))
            drop_slot(m, s, b, idx);
    }
}

/* Drops the 4 KiB pieces of the large page that AT lies in. */
static void drop_large(const struct mmu_priv *m, struct space *s, uint64_t at,
                       bool global_only) {
    for (unsigned b = 0; b < BANK_COUNT; b++)
        for (uint64_t any = s->any_of[b]; any; any &= any - 1) {
            unsigned n = (unsigned)__builtin_ctzll(any);

            for (uint64_t some = s->some[b][n]; some; some &= some - 1)
                drop_large_of(m, s, b, n * 64 + (unsigned)__builtin_ctzll(some), at,
                              global_only);
        }
}

void mmu_space_invlpg(struct mmu_priv *m, struct space *s, uint64_t at,
                      bool global_only) {
    if (!s->any || (global_only && !s->any_global))
        return;
    unsigned idx = mmu_index(at);
    uint64_t bit = 1ull << (idx & 63);
    for (unsigned b = 0; b < BANK_COUNT; b++) {
        const struct slot_bits *bits = &s->bits[b][idx / 64];
        uint64_t set = global_only ? bits->global : bits->filled;
        if ((set & bit) && !((s->note[b][idx].meta ^ at) & META_PAGE))
            drop_slot(m, s, b, idx);
    }
    for (unsigned i = 0; i < s->ranges; i++)
        if (at >= s->range[i].lo && at <= s->range[i].hi) {
            drop_large(m, s, at, global_only);
            break;
        }
    if (!global_only)
        tell_range(m, s, at & META_PAGE, at | 4095);
}

void mmu_space_drop_range(struct mmu_priv *m, struct space *s, uint64_t lo, uint64_t hi) {
    if (!s->any)
        return;
    tell_range(m, s, lo, hi);
    if (hi - lo < 4096) {
        unsigned idx = mmu_index(lo);
        for (unsigned b = 0; b < BANK_COUNT; b++)
            if (!((s->note[b][idx].meta ^ lo) & META_PAGE))
                drop_slot(m, s, b, idx);
        return;
    }
    for (unsigned b = 0; b < BANK_COUNT; b++)
        for (unsigned w = 0; w < BITMAP_WORDS; w++)
            for (uint64_t set = s->bits[b][w].filled; set; set &= set - 1) {
                unsigned idx = w * 64 + (unsigned)__builtin_ctzll(set);
                uint64_t page = s->note[b][idx].meta & META_PAGE;
                if (page >= (lo & META_PAGE) && page <= hi)
                    drop_slot(m, s, b, idx);
            }
}

/* --- write entries by RAM page --- */

static void unlink_slot(struct mmu_priv *m, struct slot_note *l) {
    if (!l->page)
        return;
    if (l->next)
        note_of(m, l->next)->prev = l->prev;
    if (l->prev)
        note_of(m, l->prev)->next = l->next;
    else
        m->write_head[l->page - 1] = l->next;
    l->page = 0;
}

static void link_slot(struct mmu_priv *m, struct space *s, unsigned bank, unsigned idx,
                      const uint8_t *host) {
    uint32_t page = (uint32_t)((size_t)(host - m->ram) >> 12);
    struct slot_note *l = &s->note[bank][idx];
    if (l->page == page + 1)
        return;
    unlink_slot(m, l);
    uint32_t id = slot_id(m, s, bank, idx);
    l->page = page + 1;
    l->prev = 0;
    l->next = m->write_head[page];
    if (l->next)
        note_of(m, l->next)->prev = id;
    m->write_head[page] = id;
}

void mmu_drop_write(void *arg, uint8_t *host_page) {
    struct vcpu *v = arg;
    struct mmu_priv *m = mmu_priv(v);
    uint64_t off = (uint64_t)((uintptr_t)host_page - (uintptr_t)m->ram);
    if (off >= mem_host_size(m->mem))
        return;
    if (unlikely(m->observer) && m->observer->host_write_dropped)
        m->observer->host_write_dropped(m->observer_arg, host_page);
    uint32_t id = m->write_head[off >> 12];
    m->write_head[off >> 12] = 0;
    m->may_write[off >> 12] = 0;
    while (id) {
        struct slot_note *l = note_of(m, id);
        unsigned idx = (id - 1) % SHADOW_ENTRIES;
        struct space *s = &m->space[(id - 1) / SLOTS];
        struct shadow_bank *b = &s->bank[(id - 1) % SLOTS / SHADOW_ENTRIES];
        drop_copies(m, b, &b->e[idx], idx);
        if (unlikely(m->observer) && b->e[idx].tag[MMU_WRITE] != mmu_no_tag(idx))
            m->observer->write_dropped(m->observer_arg, number_of(m, s),
                                       (enum mmu_bank)((id - 1) % SLOTS / SHADOW_ENTRIES),
                                       b->e[idx].tag[MMU_WRITE]);
        b->e[idx].tag[MMU_WRITE] = mmu_no_tag(idx);
        v->shadow.write_drops++;
        id = l->next;
        l->page = 0;
    }
}

void mmu_drop_writes(void *arg) {
    struct vcpu *v = arg;
    struct mmu_priv *m = mmu_priv(v);
    uint64_t pages = mem_host_size(m->mem) >> 12;
    bool all = m->observer && m->observer->host_write_dropped;

    for (uint64_t n = 0; n < pages; n++)
        if (unlikely(all || m->write_head[n] || m->may_write[n]))
            mmu_drop_write(v, m->ram + (n << 12));
}

bool mmu_may_write(const struct vcpu *v, const uint8_t *host_page) {
    const struct mmu_priv *m = mmu_priv(v);
    uint64_t off = (uint64_t)((uintptr_t)host_page - (uintptr_t)m->ram);

    return mmu_alone(m) || (off < mem_host_size(m->mem) &&
                            __atomic_load_n(&m->may_write[off >> 12], __ATOMIC_SEQ_CST));
}

/* --- filling --- */

/* Others see that there may be an entry before we look for traces: who adds one looks for
 * entries after it (mem_trace_add()). */
static void announce(struct mmu_priv *m, const uint8_t *host) {
    uint8_t *may = &m->may_write[(size_t)(host - m->ram) >> 12];

    if (*may)
        return;
    __atomic_store_n(may, 1, __ATOMIC_SEQ_CST);
}

/* The write tag, where the walk allowed it and no trace is in the way. */
static bool give_write(struct mmu_priv *m, struct space *s, unsigned bank, unsigned idx) {
    struct shadow_entry *e = &s->bank[bank].e[idx];
    if (!(s->note[bank][idx].meta & META_WRITABLE))
        return false;
    if (unlikely(!mmu_alone(m)))
        announce(m, e->host);
    if (mem_trace_of(m->mem, e->host))
        return false;
    e->tag[MMU_WRITE] = s->note[bank][idx].meta & META_PAGE;
    link_slot(m, s, bank, idx, e->host);
    return true;
}

/* The engine is told where the code of a debugger's breakpoints is. It may wait for a
 * lock: the entry may be gone afterwards. */
static void tell_breaks(struct vcpu *v, uint64_t page, uint8_t *host) {
    unsigned n = 0;
    uint64_t at;

    if (v->code_mapped && vcpu_breaks_next(v->stops, page, &n, &at))
        v->code_mapped(v, page, host);
}

void mmu_space_fill(struct mmu_priv *m, enum mmu_bank bank, uint64_t at,
                    const struct walk *w, uint8_t *host, bool rom) {
    struct space *s = mmu_home(m, bank);
    unsigned idx = mmu_index(at);
    uint64_t page = at & META_PAGE, none = mmu_no_tag(idx);
    uint64_t bit = 1ull << (idx & 63);
    struct shadow_entry *e = &s->bank[bank].e[idx];
    struct slot_note *note = &s->note[bank][idx];
    struct slot_bits *bits = &s->bits[bank][idx / 64];
    struct counters *c = mmu_counters(m);
    bool dirty = !w->steps || (w->step[w->steps - 1].entry & (1u << 6));
    bool code = is_code(bank);
    bool writable = !code && dirty && !rom && !mmu_page_watched(m, page, MMU_WRITE) &&
                    mmu_walk_allows(m, w, bank, MMU_WRITE);

    if ((bits->filled & bit) && (note->meta ^ page) & META_PAGE)
        c->shadow_evictions++;
    if ((note->meta ^ page) & META_PAGE)
        tell_eviction(m, s, bank, idx);
    c->shadow_fills++;
    drop_copies(m, &s->bank[bank], e, idx);
    bool read = !code && !mmu_page_watched(m, page, MMU_READ) &&
                mmu_walk_allows(m, w, bank, MMU_READ);
    e->tag[MMU_READ] = read ? page : none;
    e->tag[MMU_EXEC] = none;
    if (code && mmu_walk_allows(m, w, bank, MMU_EXEC)) {
        e->tag[MMU_EXEC] = page;
        e->tag[SHADOW_MAPPING] = mmu_mapping(page, host);
    }
    e->tag[MMU_WRITE] = none;
    e->host = host;
    note->meta = page | (writable ? META_WRITABLE : 0) |
                 (uint64_t)(w->shift - 12) << META_SHIFT_POS;
    bits->filled |= bit;
    s->some[bank][idx >> 12] |= 1ull << (idx >> 6 & 63);
    s->any_of[bank] |= 1ull << (idx >> 12);
    s->any = true;
    if (w->global) {
        bits->global |= bit;
        s->any_global = true;
    } else {
        s->any_local = true;
        bits->global &= ~bit;
    }
    if (w->shift > 12) {
        uint64_t offset = (1ull << w->shift) - 1;
        bits->large |= bit;
        note_large(s, at & ~offset, at | offset);
    } else {
        bits->large &= ~bit;
    }
    give_write(m, s, bank, idx);
    if (unlikely(m->observer))
        tell_entry(m, s, bank, idx);
    if (unlikely(m->observer) && !code && !writable && !w->nx)
        tell_code_read(m, s, bank, idx);
    if (unlikely(m->pub.v->stops) && code)
        tell_breaks(m->pub.v, page, host);
}

void mmu_space_allow_write(struct mmu_priv *m, enum mmu_bank bank, uint64_t at) {
    struct space *s = mmu_home(m, bank);
    unsigned idx = mmu_index(at);
    if (give_write(m, s, bank, idx) && unlikely(m->observer))
        tell_entry(m, s, bank, idx);
}

/* --- for observers that keep pages --- */

static bool accessed(const struct walk *w) {
    uint64_t all = X86_PTE_A;

    for (unsigned i = 0; i < w->steps; i++)
        all &= w->step[i].entry;
    return all;
}

/* Neither the MMU nor who watches has a reason to see what is done there. */
static bool may_keep(struct mmu_priv *m, uint64_t page, const struct walk *w) {
    return w->steps && w->shift <= 21 && !w->global && !w->wrapped && accessed(w) &&
           mem_kind_at(m->mem, gpa(w->gpa)) == MEM_RAM &&
           !mmu_page_watched(m, page, MMU_READ) && !mmu_page_watched(m, page, MMU_WRITE);
}

/* As give_write(): others see first that there may be who writes. */
static bool may_keep_write(struct mmu_priv *m, const struct walk *w,
                           const uint8_t *host) {
    if (!(w->step[w->steps - 1].entry & X86_PTE_D) ||
        !mmu_walk_allows(m, w, BANK_USER, MMU_WRITE))
        return false;
    if (unlikely(!mmu_alone(m)))
        announce(m, host);
    return !mem_trace_of(m->mem, host);
}

unsigned mmu_may_keep(struct vcpu *v, struct gva at, uint8_t **host, bool *large) {
    struct mmu_priv *m = mmu_priv(v);
    uint64_t page = at.a & META_PAGE;
    unsigned rights = 0;
    struct walk w;

    if (!mmu_walk(m, page, &w) || !may_keep(m, page, &w))
        return 0;
    *host = mem_host(m->mem, gpa(w.gpa), 4096);
    *large = w.shift > 12;
    if (mmu_walk_allows(m, &w, BANK_USER, MMU_READ))
        rights |= 1u << MMU_READ;
    if (mmu_walk_allows(m, &w, BANK_USER_X, MMU_EXEC))
        rights |= 1u << MMU_EXEC;
    if (may_keep_write(m, &w, *host))
        rights |= 1u << MMU_WRITE;
    return rights;
}

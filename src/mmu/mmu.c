/*
 * The life of the MMU, and the architectural events that drop or switch spaces.
 *
 * Which space is current, by policy (docs/mmu.md):
 *   MMU_FLUSH  always the same one; a CR3 load drops what is not global.
 *   MMU_PCID   the one of the PCID (0 without CR4.PCIDE); a load without bit 63 drops
 *              what is not global in it.
 *   MMU_TRACE  the one of the page-table root; nothing to drop (trace.c).
 */
#include "base/os.h"
#include "cpu/smp.h"
#include "mmu/mmu_int.h"
#include "x86/cr.h"
#include "x86/exception.h"
#include "x86/pte.h"

#include <errno.h>
#include <stdlib.h>

#define ROOT_MASK 0x000fffffffffffe0ull

static void drop_space(struct mmu_priv *m, struct space *s) {
    mmu_space_flush(m, s, false);
    if (m->policy == MMU_TRACE)
        mmu_dep_drop_space(m, s);
}

static void drop_all(struct mmu_priv *m) {
    for (unsigned i = 0; i < m->space_count; i++) {
        drop_space(m, &m->space[i]);
        m->space[i].used = false;
    }
}

static uint64_t current_key(const struct mmu_priv *m) {
    uint64_t cr3 = m->pub.v->cr3;
    if (m->policy == MMU_TRACE)
        return m->paging == PAGING_NONE  ? 0
               : m->paging == PAGING_PAE ? cr3 & ROOT_MASK
                                         : cr3 & ROOT_MASK & X86_PAGE_MASK;
    return m->policy == MMU_PCID && m->pcide ? cr3 & X86_CR3_PCID_MASK : 0;
}

/* With traces, PAE spaces are told apart by the loaded directory pointers too. */
static bool same_pdptes(const struct mmu_priv *m, const struct space *s) {
    if (m->policy != MMU_TRACE || m->paging != PAGING_PAE)
        return true;
    uint64_t diff = 0;
    for (unsigned i = 0; i < 4; i++)
        diff |= s->pdpte[i] ^ m->pub.v->pdpte[i];
    return !diff;
}

static struct space *find_space(struct mmu_priv *m, uint64_t key) {
    if (m->cur && m->cur->used && m->cur->key == key && same_pdptes(m, m->cur))
        return m->cur;
    for (unsigned i = 0; i < m->keyed; i++) {
        struct space *s = &m->space[i];
        if (s->used && s->key == key && same_pdptes(m, s))
            return s;
    }
    return NULL;
}

/* Not sooner than it is needed: many guests need few. */
static void make_ready(struct mmu_priv *m, struct space *s, bool user) {
    if (!s->ready[user])
        mmu_space_init(m, s, user);
    s->ready[user] = true;
}

static void tell_spaces(const struct mmu_priv *m) {
    if (unlikely(m->observer))
        m->observer->switched(m->observer_arg, (unsigned)(m->cur - m->space),
                              (unsigned)(m->super - m->space));
}

/* Makes the space of KEY current. False when it had to start empty. */
static bool select_space(struct mmu_priv *m, uint64_t key) {
    struct space *s = find_space(m, key);
    bool found = s;
    if (!found) {
        s = &m->space[0];
        for (unsigned i = 0; i < m->keyed; i++) {
            if (!m->space[i].used) {
                s = &m->space[i];
                break;
            }
            if (m->space[i].age < s->age)
                s = &m->space[i];
        }
        drop_space(m, s);
        s->used = true;
        s->key = key;
        for (unsigned i = 0; i < 4; i++)
            s->pdpte[i] = m->pub.v->pdpte[i];
    }
    s->age = ++m->clock;
    m->cur = m->super = s;
    if (m->keyed < m->space_count && m->pge)
        m->super = &m->space[m->keyed];
    make_ready(m, m->cur, true);
    make_ready(m, m->super, false);
    tell_spaces(m);
    return found;
}

static size_t write_head_size(const struct mmu_priv *m) {
    return (mem_host_size(m->mem) >> 12) * sizeof(*m->write_head);
}

int mmu_create(struct vcpu *v, enum mmu_policy policy) {
    struct mmu_priv *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->pub.v = v;
    m->mem = v->mem;
    m->ram = mem_ram_base(v->mem);
    m->policy = policy;
    m->a20_mask = ~0ull;
    m->keyed = policy == MMU_FLUSH ? 1 : MMU_SPACES;
    m->space_count = m->keyed + (policy == MMU_PCID);
    if (os_sparse_alloc(m->space_count * sizeof(*m->space), (void **)&m->space))
        m->space = NULL;
    if (os_sparse_alloc(write_head_size(m), (void **)&m->write_head))
        m->write_head = NULL;
    m->may_write = calloc(mem_host_size(v->mem) >> 12, 1);
    v->mmu = &m->pub;
    if (os_nowhere_alloc(4096, (void **)&m->pub.nowhere))
        m->pub.nowhere = NULL;
    if (!m->pub.nowhere || !m->space || !m->write_head || !m->may_write ||
        (policy == MMU_TRACE && mmu_dep_create(m) < 0)) {
        mmu_destroy(v);
        return -ENOMEM;
    }
    mmu_mode_changed(v);
    return 0;
}

/* --- what memory tells, and asks --- */

static void drop_here(struct vcpu *v, void *arg) {
    mmu_drop_write(v, arg);
}

/* Those that may hold a write entry lose it, each at a quiet place. */
static void drop_everywhere(void *arg, uint8_t *host_page) {
    struct vcpu_group *g = arg;

    for (unsigned n = 0; n < g->count; n++)
        if (g->smp[n].v->mmu && mmu_may_write(g->smp[n].v, host_page))
            vcpu_call(g->smp[n].v, drop_here, host_page);
}

static void drop_all_here(struct vcpu *v, void *arg) {
    (void)arg;
    mmu_drop_writes(v);
}

static void drop_all_everywhere(void *arg) {
    struct vcpu_group *g = arg;

    for (unsigned n = 0; n < g->count; n++)
        if (g->smp[n].v->mmu)
            vcpu_call(g->smp[n].v, drop_all_here, NULL);
}

static void lock_traces(void *arg) {
    vcpu_lock(arg, VCPU_LOCK_CODE);
}

static void unlock_traces(void *arg) {
    vcpu_unlock(arg, VCPU_LOCK_CODE);
}

static void freeze(void *arg) {
    vcpu_lock(arg, VCPU_LOCK_CODE);
    vcpu_stop(arg);
}

static void thaw(void *arg) {
    vcpu_go(arg);
    vcpu_unlock(arg, VCPU_LOCK_CODE);
}

void mmu_hook(struct vcpu *v) {
    struct mem_hooks *h = mem_hooks(v->mem);

    h->changed = mmu_map_changed;
    h->changed_arg = v;
    h->drop_write = mmu_drop_write;
    h->drop_writes = mmu_drop_writes;
    h->drop_arg = v;
    if (vcpu_group_of(v)) {
        h->drop_write = drop_everywhere;
        h->drop_writes = drop_all_everywhere;
        h->drop_arg = h->lock_arg = vcpu_group_of(v);
        h->lock = lock_traces;
        h->unlock = unlock_traces;
        h->freeze = freeze;
        h->thaw = thaw;
    }
    mem_own_trace(v->mem, MEM_TRACE_PT, mmu_pt_written, v);
}

static void unhook(struct vcpu *v) {
    struct mem_hooks *h = mem_hooks(v->mem);
    unsigned n = __builtin_ctz(MEM_TRACE_PT);

    if (h->changed == mmu_map_changed && h->changed_arg == v)
        h->changed = NULL;
    if (h->drop_write == mmu_drop_write && h->drop_arg == v) {
        h->drop_write = NULL;
        h->drop_writes = NULL;
    }
    if (h->on_write[n] == mmu_pt_written && h->on_write_arg[n] == v)
        h->on_write[n] = NULL;
}

void mmu_destroy(struct vcpu *v) {
    if (!v->mmu)
        return;
    struct mmu_priv *m = mmu_priv(v);
    m->observer = NULL;
    unhook(v);
    if (m->dep)
        drop_all(m); /* takes the traces off */
    mmu_dep_destroy(m);
    os_sparse_free(m->space, m->space_count * sizeof(*m->space));
    free(m->may_write);
    os_sparse_free(m->write_head, write_head_size(m));
    os_fenced_free(m->pub.nowhere, 4096);
    free(m);
    v->mmu = NULL;
}

void mmu_context_changed(struct vcpu *v) {
    struct mmu_priv *m = mmu_priv(v);
    struct shadow_bank *b = m->super->bank;
    m->pub.sys = &b[m->smap ? BANK_SUPER : BANK_SUPER_AC];
    if (v->cpl == 3)
        m->pub.data = &m->cur->bank[BANK_USER];
    else if (!m->smap || (v->rflags & X86_FL_AC))
        m->pub.data = &b[BANK_SUPER_AC];
    else
        m->pub.data = &b[BANK_SUPER];
    m->pub.code = v->cpl == 3 ? &m->cur->bank[BANK_USER_X] : &b[BANK_SUPER_X];
    v->shadow.bank = m->pub.data;
    v->shadow.code = m->pub.code;
    v->shadow.bank_super = m->pub.sys;
    v->shadow.bank_ac = &b[BANK_SUPER_AC];
    v->shadow.bank_user = &m->cur->bank[BANK_USER];
    v->shadow.code_user = &m->cur->bank[BANK_USER_X];
    v->shadow.code_super = &b[BANK_SUPER_X];
}

/* Is the shadow what it would become if it began anew? Without paging addresses are
 * physical ones in real and in protected mode: a boot loader that goes from one to the
 * other and back for each sector that it has the BIOS read keeps what was filled. */
static bool still_flat(const struct mmu_priv *m, enum paging before, bool pge) {
    return m->cur && before == PAGING_NONE && m->paging == PAGING_NONE && m->pge == pge;
}

void mmu_mode_changed(struct vcpu *v) {
    struct mmu_priv *m = mmu_priv(v);
    enum paging paging = m->paging;
    bool pge = m->pge;

    mmu_walk_config(m);
    if (!still_flat(m, paging, pge)) {
        drop_all(m);
        m->cur = NULL;
        select_space(m, current_key(m));
    }
    vcpu_forget_gates(v);
    mmu_breakpoints_changed(v); /* their addresses are cut to 32 bits outside long mode */
    mmu_context_changed(v);
}

void mmu_flush_all(struct vcpu *v) {
    struct mmu_priv *m = mmu_priv(v);
    bool open = !v->hooks || !v->hooks->a20 || v->hooks->a20(v->hooks_arg);
    m->a20_mask = open ? ~0ull : ~(1ull << 20);
    drop_all(m);
    m->cur = NULL; /* nothing stays */
    mmu_mode_changed(v);
}

/* Fills from one time to the next: who wakes now and then for a moment keeps what it
 * takes. */
#define TRIM_FILLS 1024u

void mmu_trim(struct vcpu *v) {
    struct mmu_priv *m = mmu_priv(v);
    struct counters *c = mmu_counters(m);

    if (c->shadow_fills - m->kept_at < TRIM_FILLS)
        return;
    for (unsigned i = 0; i < m->space_count; i++)
        mmu_space_forget(m, &m->space[i]);
    os_sparse_zero(m->write_head, write_head_size(m));
    make_ready(m, m->cur, true);
    make_ready(m, m->super, false);
    m->kept_at = c->shadow_fills;
    c->shadow_trims++;
}

void mmu_map_changed(void *arg) {
    struct vcpu *v = arg;
    struct mmu_priv *m = mmu_priv(v);

    drop_all(m);
    m->cur = NULL;
    select_space(m, current_key(m));
    mmu_context_changed(v);
}

void mmu_observe(struct vcpu *v, const struct mmu_observer *o, void *arg) {
    struct mmu_priv *m = mmu_priv(v);

    m->observer = NULL;
    mmu_map_changed(v);
    m->observer = o;
    m->observer_arg = arg;
    tell_spaces(m);
}

void mmu_cr3_loaded(struct vcpu *v, uint64_t value) {
    struct mmu_priv *m = mmu_priv(v);
    struct counters *c = mmu_counters(m);
    bool found = select_space(m, current_key(m));
    if (m->policy == MMU_FLUSH)
        found = false;
    else if (m->policy == MMU_PCID && !(m->pcide && (value & X86_CR3_NOFLUSH)))
        found = false;
    if (m->policy != MMU_TRACE && !found)
        mmu_space_flush(m, m->cur, m->pge);
    if (m->super != m->cur)
        mmu_space_flush(m, m->super, true);
    if (found)
        c->shadow_space_switches++;
    else
        c->shadow_space_misses++;
    mmu_context_changed(v);
}

void mmu_invlpg(struct vcpu *v, struct gva at) {
    struct mmu_priv *m = mmu_priv(v);
    mmu_counters(m)->shadow_invlpg++;
    for (unsigned i = 0; i < m->space_count; i++)
        mmu_space_invlpg(m, &m->space[i], at.a,
                         &m->space[i] != m->cur && &m->space[i] != m->super);
}

void mmu_invpcid(struct vcpu *v, unsigned type, unsigned pcid, struct gva at) {
    struct mmu_priv *m = mmu_priv(v);
    if (m->policy == MMU_TRACE)
        return; /* nothing in the shadow is stale */
    /* One space for all PCIDs holds entries of the current one only: to treat it as
     * concerned is always allowed. */
    bool by_pcid = m->policy == MMU_PCID && m->pcide;
    for (unsigned i = 0; i < m->space_count; i++) {
        struct space *s = &m->space[i];
        bool concerned = !by_pcid || s->key == pcid || s == m->super;
        if (type == 0 && concerned)
            mmu_space_invlpg(m, s, at.a, false);
        else if ((type == 1 && concerned) || type == 3)
            mmu_space_flush(m, s, m->pge);
        else if (type == 2)
            mmu_space_flush(m, s, false);
    }
    mmu_counters(m)->shadow_invlpg += type == 0;
}

void mmu_pdptrs_accessed(struct vcpu *v) {
    mmu_priv(v)->pdptes_accessed = true;
    mmu_flush_all(v);
}

int mmu_load_pdptrs(struct vcpu *v, uint64_t cr3) {
    struct mmu_priv *m = mmu_priv(v);
    uint64_t e[4] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    /* 32 bytes, 32-byte aligned: never across a page. All ones where no memory is. */
    const uint8_t *table =
        mem_host(m->mem, gpa(cr3 & 0xffffffe0 & m->a20_mask), sizeof(e));
    for (unsigned i = 0; i < 4 && table; i++)
        e[i] = ((const volatile uint64_t *)(const void *)table)[i];
    for (unsigned i = 0; i < 4; i++)
        if ((e[i] & X86_PTE_P) && (e[i] & m->rsvd_pdpte)) {
            v->fault = (struct fault){.vector = X86_GP, .has_error = true};
            return MMU_FAULT;
        }
    for (unsigned i = 0; i < 4; i++)
        v->pdpte[i] = e[i];
    return 0;
}

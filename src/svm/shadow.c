/*
 * Shadow paging: real page tables for the hardware's walker, filled from the MMU's shadow
 * (mmu/) and never holding more than it. A root for each of its spaces, tables in the
 * format of the mode that the guest is in: four levels in long mode, PAE's three else.
 *
 * A page fault leaves (svm_page_fault()). The MMU resolves it as it does for any engine:
 * what the guest's tables do not allow is a true fault and injected; else the shadow has
 * an entry now, and the page goes into the root with the rights that it gives. What has
 * no entry (a device, a traced page that is written, ROM) is emulated. What the shadow
 * drops is taken out of the roots (the MMU's observer), so that its retention policies
 * and its traces hold for the hardware, too. The guest's A and D bits are the walk's.
 *
 * One page is one entry, for all privilege levels: rights are added as they are asked
 * for, and all go when one of its banks drops it. That is exact as long as CR0.WP is set;
 * a supervisor's store that only a clear WP allows is emulated. SMEP, SMAP and PCIDs are
 * not offered (svm.c): the hardware of 2006 had none.
 *
 * Each root has an ASID, if the CPU has as many. Whatever takes a right away leaves the
 * root stale: what the hardware keeps by its ASID is flushed with the next entry into it,
 * which need not be the next one of all.
 */
#include "base/log.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "svm/svm_int.h"
#include "x86/cr.h"
#include "x86/exception.h"
#include "x86/pte.h"

#define FRAME_MASK 0x000ffffffffff000ull
#define TABLE (X86_PTE_P | X86_PTE_W | X86_PTE_U)

static uint64_t *table_of(const struct svm *s, uint64_t e) {
    return s->host->virt(s->host->arg, e & FRAME_MASK);
}

static uint64_t *new_table(struct svm *s) {
    return s->host->alloc(s->host->arg, X86_PAGE_SIZE);
}

/* PAE's page-directory pointers have no rights: they are reserved bits. */
static uint64_t link_bits(const struct svm_root *r, unsigned level) {
    return level == 2 && !r->wide ? X86_PTE_P : TABLE;
}

/* The entry for page AT; NULL: there is none, and no memory if MAKE. */
static uint64_t *leaf(struct svm *s, struct svm_root *r, uint64_t at, bool make) {
    uint64_t *table = r->table;

    if (!table && make)
        table = r->table = new_table(s);
    for (unsigned l = r->wide ? 3 : 2; table && l; l--) {
        uint64_t *e =
            &table[at >> (X86_PAGE_SHIFT + 9 * l) & (l == 2 && !r->wide ? 3 : 511)];

        if (!(*e & X86_PTE_P)) {
            uint64_t *next = make ? new_table(s) : NULL;

            if (!next)
                return NULL;
            *e = s->host->phys(s->host->arg, next) | link_bits(r, l);
        }
        table = table_of(s, *e);
    }
    return table ? &table[at >> X86_PAGE_SHIFT & 511] : NULL;
}

static void free_tables(struct svm *s, const struct svm_root *r, uint64_t *table,
                        unsigned level) {
    for (unsigned n = 0; level && n < (level == 2 && !r->wide ? 4u : 512u); n++)
        if (table[n] & X86_PTE_P)
            free_tables(s, r, table_of(s, table[n]), level - 1);
    s->host->free(s->host->arg, table);
}

/* --- what the MMU drops --- */

static void drop_root(struct svm *s, struct svm_root *r) {
    if (r->table)
        free_tables(s, r, r->table, r->wide ? 3 : 2);
    r->table = NULL;
    r->locals = 0;
    r->stale = true;
}

static void drop_page(struct svm *s, struct svm_root *r, uint64_t at) {
    uint64_t *e = r->table ? leaf(s, r, at, false) : NULL;

    if (!e || !*e)
        return;
    *e = 0;
    r->stale = true;
}

/* Whether ROOT has entries of BANK of SPACE. */
static bool holds(const struct svm *s, unsigned root, unsigned space, bool user) {
    return user ? root == space : s->root[root].super == space;
}

static void dropped(void *arg, unsigned space, enum mmu_bank bank, uint64_t page) {
    struct svm *s = arg;
    bool user = bank == BANK_USER || bank == BANK_USER_X;

    for (unsigned n = 0; n < MMU_SPACES_MAX; n++)
        if (holds(s, n, space, user))
            drop_page(s, &s->root[n], page);
}

/* Where the supervisor's banks are another space's, a user's space has none of the global
 * entries. */
static void flushed(void *arg, unsigned space, bool but_global) {
    struct svm *s = arg;

    for (unsigned n = 0; n < MMU_SPACES_MAX; n++) {
        struct svm_root *r = &s->root[n];

        if (!r->table || !(holds(s, n, space, true) || holds(s, n, space, false)))
            continue;
        if ((!but_global && r->super == space) || r->locals == SVM_LOCALS) {
            drop_root(s, r);
            continue;
        }
        for (unsigned k = 0; k < r->locals; k++)
            drop_page(s, r, r->local[k]);
        r->locals = 0;
    }
}

static void switched(void *arg, unsigned user, unsigned super) {
    struct svm *s = arg;
    struct svm_root *r = &s->root[user];

    if (r->super != super)
        drop_root(s, r);
    r->super = super;
    s->current = user;
}

static void filled(void *arg, const struct mmu_entry *e) {
    struct svm *s = arg;

    s->filled_page = e->page;
    s->filled_global = e->global;
}

static const struct mmu_observer observer = {.filled = filled,
                                             .dropped = dropped,
                                             .write_dropped = dropped,
                                             .flushed = flushed,
                                             .switched = switched};

void svm_shadow_start(struct svm *s) {
    mmu_observe(s->v, &observer, s);
}

void svm_shadow_end(struct svm *s) {
    mmu_observe(s->v, NULL, NULL);
    for (unsigned n = 0; n < MMU_SPACES_MAX; n++)
        drop_root(s, &s->root[n]);
}

/* --- before an entry --- */

/* Each root has one; where we have fewer, the first is shared. */
static void use_asid(struct svm *s) {
    unsigned own = s->current < s->asids ? s->current : 0;

    s->vmcb->asid = s->asid + own;
    if (own || s->first == s->current)
        return;
    s->first = s->current;
    s->root[s->current].stale = true;
}

/* The control block's registers differ from the guest's. False: no memory. */
bool svm_shadow_controls(struct svm *s) {
    struct svm_root *r = &s->root[s->current];
    struct x86_vmcb *b = s->vmcb;
    bool wide = s->v->efer & X86_EFER_LMA;
    uint64_t cr0 = s->v->cr0 | X86_CR0_PG | X86_CR0_WP;
    uint64_t cr4 = s->v->cr4 | X86_CR4_PAE;

    if (r->wide != wide)
        drop_root(s, r);
    r->wide = wide;
    if (!r->table)
        r->table = new_table(s);
    if (!r->table)
        return false;
    /* Emulators mark these as accessed, which is reserved. */
    for (unsigned n = 0; !wide && n < 4; n++)
        r->table[n] &= ~X86_PTE_A;
    s->flush |= b->cr0 != cr0 || b->cr4 != cr4;
    b->cr0 = cr0;
    b->cr4 = cr4;
    b->cr3 = s->host->phys(s->host->arg, r->table);
    b->efer = s->v->efer | X86_EFER_SVME | X86_EFER_NXE;
    use_asid(s);
    return true;
}

/* --- page faults --- */

static bool paging(const struct vcpu *v) {
    return v->cr0 & X86_CR0_PG;
}

/* The host's page for AT as the shadow has it for ACC, or NULL. */
static uint8_t *hit(const struct vcpu *v, uint64_t at, enum mmu_access acc, bool sys) {
    const struct shadow_bank *b = sys               ? v->mmu->sys
                                  : acc == MMU_EXEC ? v->mmu->code
                                                    : v->mmu->data;
    uint8_t *host = mmu_hit(b, gva(at & X86_PAGE_MASK), 1, acc);

    return host;
}

/* What a flush takes away that leaves global entries of the supervisor's. */
static void note_local(struct svm *s, struct svm_root *r, uint64_t page, bool user) {
    if (!user && s->filled_page == page && s->filled_global)
        return;
    if (r->locals < SVM_LOCALS)
        r->local[r->locals++] = page;
}

/* Do the guest's tables allow stores to PAGE whatever WP is? Else a clear WP does. */
static bool may_store(struct vcpu *v, uint64_t page, bool user) {
    bool writable;
    struct gpa at;

    if (user || !paging(v) || (v->cr0 & X86_CR0_WP))
        return true;
    return mmu_peek(v, gva(page), &at, &writable) && writable;
}

/* Adds what the shadow allows to the root. False: no memory. */
static bool install(struct svm *s, uint64_t page, uint8_t *host, enum mmu_access acc,
                    bool user, bool sys) {
    struct svm_root *r = &s->root[s->current];
    uint64_t *e = leaf(s, r, page, true), was;
    uint64_t frame = s->host->phys(s->host->arg, host);
    bool store = acc != MMU_EXEC && hit(s->v, page, MMU_WRITE, sys) == host &&
                 may_store(s->v, page, user);

    if (!e)
        return false;
    was = *e;
    if (!(was & X86_PTE_P) || (was & FRAME_MASK) != frame) {
        r->stale |= was != 0;
        was = X86_PTE_NX;
        note_local(s, r, page, user);
    } else if (user && !(was & X86_PTE_U)) {
        note_local(s, r, page, user);
    }
    *e = frame | X86_PTE_P | X86_PTE_A | X86_PTE_D | (was & (X86_PTE_W | X86_PTE_U)) |
         (store ? X86_PTE_W : 0) | (user || !paging(s->v) ? X86_PTE_U : 0) |
         (acc == MMU_EXEC ? 0 : was & X86_PTE_NX);
    return true;
}

/* A true page fault. One amid the delivery of an event is sem's: it may be a double one.
 */
static enum exit_reason true_fault(struct svm *s, uint64_t at) {
    struct vcpu *v = s->v;

    if (s->event)
        return svm_emulate(s, 1);
    s->cnt.true_faults++;
    v->cnt->true_page_faults++;
    s->vmcb->cr2 = at;
    s->event = X86_SVM_EVENT_VALID | X86_SVM_EVENT_EXCEPTION | X86_SVM_EVENT_HAS_ERROR |
               X86_PF | (uint64_t)v->fault.error << 32;
    return EXIT_COUNT;
}

enum exit_reason svm_page_fault(struct svm *s) {
    struct vcpu *v = s->v;
    uint32_t error = (uint32_t)s->vmcb->exit_info1;
    uint64_t at = s->vmcb->exit_info2, page = at & X86_PAGE_MASK;
    bool user = error & X86_PF_U, sys;
    enum mmu_access acc = error & X86_PF_I   ? MMU_EXEC
                          : error & X86_PF_W ? MMU_WRITE
                                             : MMU_READ;
    uint8_t *host;

    svm_view(s);
    sys = v->cpl == 3 && !user;
    if (mmu_probe(v, gva(at), 1, acc, sys)) {
        if (v->fault.vector != X86_PF)
            return svm_emulate(s, 1);
        return true_fault(s, at);
    }
    host = hit(v, page, acc, sys);
    if (!host || (acc == MMU_WRITE && !may_store(v, page, user))) {
        s->cnt.shadow_emulated++;
        return svm_emulate(s, 1);
    }
    s->cnt.hidden_faults++;
    if (install(s, page, host, acc, user, sys))
        return EXIT_COUNT;
    for (unsigned n = 0; n < MMU_SPACES_MAX; n++)
        drop_root(s, &s->root[n]);
    if (install(s, page, host, acc, user, sys))
        return EXIT_COUNT;
    log_error("SVM: there is no memory for shadow page tables");
    return EXIT_error;
}

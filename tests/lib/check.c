#include <stdlib.h>
#include <string.h>

#include "lib/bt.h"
#include "lib/guest.h"
#include "lib/need.h"
#include "mmu/mmu_int.h"
#include "x86/cr.h"

static void check_modes(const struct vcpu *v) {
    HOLDS(v->zero == 0);
    HOLDS(v->rflags & X86_FL_ONE);
    HOLDS(!(v->rflags & ~0x3f7fd7ull));
    HOLDS(v->cpl <= 3);
    HOLDS(!v->vec_live);
    HOLDS(!(v->cr0 & X86_CR0_PG) || (v->cr0 & X86_CR0_PE));
    HOLDS(v->long_mode == !!(v->efer & X86_EFER_LMA));
    HOLDS(!(v->efer & X86_EFER_LMA) || ((v->cr0 & X86_CR0_PG) && (v->cr4 & X86_CR4_PAE)));
    HOLDS(!(v->cr4 & ~cpuid_cr4_valid(v->cpuid)));
    HOLDS(!(v->xcr0 & ~cpuid_xcr0_valid(v->cpuid)));
    HOLDS(v->mode != MODE_64 || v->long_mode);
    HOLDS(v->mode == MODE_64 || !(v->rip >> 32));
    HOLDS(!(v->rflags & X86_FL_VM) || v->cpl == 3);
    HOLDS(!vcpu_is_real(v) || v->cpl == 0);
}

/* What is derived is what would be derived again. */
static void check_derived(const struct vcpu *v) {
    static struct vcpu *copy;

    if (!copy)
        copy = aligned_alloc(64, sizeof(*copy));
    *copy = *v;
    vcpu_update_mode(copy);
    HOLDS(copy->mode == v->mode);
    HOLDS(copy->seg_flat_r == v->seg_flat_r);
    HOLDS(copy->seg_flat_w == v->seg_flat_w);
    HOLDS(!memcmp(copy->segbase, v->segbase, sizeof(v->segbase)));
    HOLDS(copy->lin_mask == v->lin_mask);
    HOLDS(copy->stack32 == v->stack32);
}

/* A page of RAM; or, unless it is for stores, of the ROM behind it. */
static bool in_memory(const struct guest *g, const uint8_t *host, bool write) {
    uint64_t off = (uint64_t)(host - g->ram);

    return off < (write ? mem_ram_size(g->v->mem) : mem_host_size(g->v->mem)) &&
           !(off & 4095);
}

/* What a hit could give: inside RAM, and writable only where nobody has to
 * be told of a store. */
static void check_entries(const struct guest *g, const struct shadow_bank *b,
                          unsigned from, unsigned count) {
    const struct mem *m = g->v->mem;

    for (unsigned n = from; n < from + count; n++) {
        const struct shadow_entry *e = &b->e[n];

        for (unsigned acc = 0; acc < 3; acc++) {
            uint64_t tag = e->tag[acc] & ~SHADOW_ANCHORED;

            if (tag == mmu_no_tag(n) || mmu_index(tag) != n)
                continue;
            HOLDS(in_memory(g, e->host, acc == MMU_WRITE));
            HOLDS(acc != MMU_WRITE || !mem_trace_of(m, e->host));
        }
    }
}

/* Of the slots those of the first pages, and each time a few of the others. */
static void check_bank(const struct guest *g, const struct shadow_bank *b) {
    static unsigned turn;
    const unsigned part = 4096;

    check_entries(g, b, 0, part);
    check_entries(g, b, part * (++turn % (SHADOW_ENTRIES / part)), part);
    for (unsigned n = 0; n < SHADOW_ANCHORS; n++) {
        const struct shadow_anchor *a = &b->anchor[n];
        const struct shadow_entry *e = &b->e[mmu_index(a->tag)];

        if (a->tag == SHADOW_NO_ANCHOR) {
            HOLDS(a->host == g->v->mmu->nowhere);
            continue;
        }
        HOLDS(b->anchored && e->tag[MMU_EXEC] == SHADOW_ANCHORED);
        HOLDS(in_memory(g, a->host, n & 1) && a->host == e->host);
        HOLDS(a->tag == e->tag[MMU_READ] || a->tag == e->tag[MMU_WRITE]);
    }
}

void guest_check(const struct guest *g) {
    const struct mmu_priv *m = mmu_priv(g->v);

    HOLDS(!g->bt || !g->bt->sh->unsound);
    check_modes(g->v);
    check_derived(g->v);
    for (unsigned s = 0; s < m->space_count; s++)
        for (unsigned k = 0; m->space[s].any && k < BANK_COUNT; k++)
            /* A space has supervisor banks or user banks; the others may not be set up.
             */
            if (m->space[s].ready[k == BANK_USER || k == BANK_USER_X])
                check_bank(g, &m->space[s].bank[k]);
}

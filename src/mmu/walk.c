/*
 * The primary walk: the guest's own page tables, as the architecture defines them.
 *
 * AMD64 APM volume 2, "Page Translation and Protection"; Intel SDM volume 3, "Paging".
 * Where no memory is, a table reads as all ones, as on a bus that nobody drives; with the
 * reserved bits that makes a RSVD fault in most modes.
 *
 * Accessed and dirty bits are set once the walk has succeeded and the access is allowed:
 * A in every entry used, D in the leaf for a write. A walk that faults changes nothing
 * (processors differ in that).
 *
 * Other CPUs change the tables meanwhile. An entry is read once, by one load. The bits
 * are set by a locked compare with what was read; where that fails the walk is made
 * again, for the entry may be another, or none, by now. Upper levels may have got their A
 * bits by then, as on processors, which set them on the way.
 */
#include "cpu/cpuid.h"
#include "mmu/mmu_int.h"
#include "x86/cr.h"
#include "x86/exception.h"
#include "x86/pte.h"

#define ADDR_MASK 0x000ffffffffff000ull
#define A20 (1ull << 20)

/* Bits HI..LO set; none when HI < LO. */
static uint64_t bits(unsigned hi, unsigned lo) {
    return hi < lo ? 0 : (~0ull >> (63 - hi)) & (~0ull << lo);
}

/* What the CPU model says about page-table entries. */
static void config_reserved(struct mmu_priv *m, bool nxe) {
    const struct vcpu *v = m->pub.v;
    unsigned phys = 40;
    bool gb = true, amd = false;
    if (v->cpuid) {
        phys = cpuid_phys_bits(v->cpuid);
        amd = cpuid_query(v, 0, 0).ebx == 0x68747541; /* "Auth" */
        gb = cpuid_query(v, 0x80000001, 0).edx & (1u << 26);
    }
    phys = phys < 32 ? 32 : phys > 52 ? 52 : phys;
    uint64_t high = bits(51, phys) | (nxe ? 0 : X86_PTE_NX);
    if (m->paging == PAGING_PAE)
        high |= bits(62, 52);
    m->rsvd[4][0] = m->rsvd[4][1] = high | X86_PTE_PS | (amd ? 1u << 8 : 0);
    m->rsvd[3][0] = high | (amd ? 1u << 8 : 0);
    m->rsvd[3][1] = high | (gb ? bits(29, 13) : X86_PTE_PS);
    m->rsvd[2][0] = high;
    m->rsvd[2][1] = high | bits(20, 13);
    m->rsvd[1][0] = m->rsvd[1][1] = high;
    m->rsvd_pdpte = bits(63, phys) | bits(2, 1) | bits(8, 5);
    if (m->pdptes_accessed)
        m->rsvd_pdpte &= ~X86_PTE_A;
    /* PSE-36: PDE bits 13.. are address bits 32.., at most 40 bits of address. */
    m->rsvd_4m = bits(21, (phys < 40 ? phys : 40) - 19);
}

void mmu_walk_config(struct mmu_priv *m) {
    const struct vcpu *v = m->pub.v;
    bool pae = v->cr4 & X86_CR4_PAE;
    if (!(v->cr0 & X86_CR0_PG))
        m->paging = PAGING_NONE;
    else if (v->efer & X86_EFER_LMA)
        m->paging = PAGING_LONG;
    else
        m->paging = pae ? PAGING_PAE : PAGING_32;
    bool on = m->paging != PAGING_NONE;
    bool nxe = pae && (v->efer & X86_EFER_NXE);
    m->wp = v->cr0 & X86_CR0_WP;
    m->pse = v->cr4 & X86_CR4_PSE;
    m->pge = v->cr4 & X86_CR4_PGE;
    m->pcide = (v->cr4 & X86_CR4_PCIDE) && m->paging == PAGING_LONG;
    m->smep = on && (v->cr4 & X86_CR4_SMEP);
    m->smap = on && (v->cr4 & X86_CR4_SMAP);
    m->fetch_bit = nxe || (v->cr4 & X86_CR4_SMEP);
    config_reserved(m, nxe);
}

/* Reads one entry of WIDTH bytes at AT and records the step. */
static inline uint64_t read_entry(const struct mmu_priv *m, uint64_t at, unsigned width,
                                  unsigned shift, struct walk *w) {
    if (unlikely(at & ~m->a20_mask)) {
        at &= m->a20_mask;
        w->wrapped = true;
    }
    struct walk_step *s = &w->step[w->steps++];
    s->host = mem_host(m->mem, gpa(at), width);
    s->shift = (uint8_t)shift;
    if (unlikely(!s->host))
        s->entry = width == 4 ? UINT32_MAX : UINT64_MAX;
    else
        s->entry = width == 4 ? *(const volatile uint32_t *)s->host
                              : *(const volatile uint64_t *)s->host;
    return s->entry;
}

static inline bool absent(struct walk *w) {
    w->error = 0;
    return false;
}

static inline bool malformed(struct walk *w) {
    w->error = X86_PF_P | X86_PF_RSVD;
    return false;
}

static inline bool leaf(const struct mmu_priv *m, struct walk *w, uint64_t at,
                        uint64_t base, uint64_t perm, unsigned shift) {
    uint64_t offset = (1ull << shift) - 1;
    w->gpa = (base & ~offset) | (at & offset);
    if (unlikely(w->gpa & ~m->a20_mask)) {
        w->gpa &= m->a20_mask;
        w->wrapped = true;
    }
    w->user = perm & X86_PTE_U;
    w->write = perm & X86_PTE_W;
    w->shift = (uint8_t)shift;
    w->global = m->pge && w->steps && (w->step[w->steps - 1].entry & X86_PTE_G);
    return true;
}

static bool walk_32(const struct mmu_priv *m, uint64_t at, struct walk *w) {
    uint64_t table = m->pub.v->cr3 & 0xfffff000;
    uint64_t e = read_entry(m, table + (at >> 22 & 1023) * 4, 4, 22, w);
    if (!(e & X86_PTE_P))
        return absent(w);
    uint64_t perm = e;
    if ((e & X86_PTE_PS) && m->pse) {
        if (e & m->rsvd_4m)
            return malformed(w);
        return leaf(m, w, at, (e & 0xffc00000) | (e >> 13 & 0xff) << 32, perm, 22);
    }
    e = read_entry(m, (e & 0xfffff000) + (at >> 12 & 1023) * 4, 4, 12, w);
    if (!(e & X86_PTE_P))
        return absent(w);
    return leaf(m, w, at, e & 0xfffff000, perm & e, 12);
}

/* Tables of eight-byte entries, from LEVEL down; TABLE is the first one. */
static bool walk_64(const struct mmu_priv *m, uint64_t at, uint64_t table, unsigned level,
                    struct walk *w) {
    uint64_t perm = ~0ull, nx = 0;
    for (;; level--) {
        unsigned shift = 12 + 9 * (level - 1);
        uint64_t e = read_entry(m, table + (at >> shift & 511) * 8, 8, shift, w);
        if (!(e & X86_PTE_P))
            return absent(w);
        bool last = level == 1 || (level < 4 && (e & X86_PTE_PS));
        if (unlikely(e & m->rsvd[level][last]))
            return malformed(w);
        perm &= e;
        nx |= e & X86_PTE_NX;
        if (last) {
            w->nx = nx;
            return leaf(m, w, at, e & ADDR_MASK, perm, shift);
        }
        table = e & ADDR_MASK;
    }
}

bool mmu_walk(const struct mmu_priv *m, uint64_t at, struct walk *w) {
    w->steps = 0;
    w->nx = false;
    w->wrapped = false;
    switch (m->paging) {
    case PAGING_NONE:
        return leaf(m, w, at, at & 0xfffff000, ~0ull, 12);
    case PAGING_32:
        return walk_32(m, at, w);
    case PAGING_PAE: {
        uint64_t e = m->pub.v->pdpte[at >> 30 & 3];
        if (!(e & X86_PTE_P))
            return absent(w);
        return walk_64(m, at, e & ADDR_MASK, 2, w);
    }
    default:
        return walk_64(m, at, m->pub.v->cr3 & ADDR_MASK, 4, w);
    }
}

bool mmu_walk_allows(const struct mmu_priv *m, const struct walk *w, enum mmu_bank bank,
                     enum mmu_access acc) {
    if (m->paging == PAGING_NONE)
        return true;
    if (acc == MMU_EXEC) {
        bool user = bank == BANK_USER || bank == BANK_USER_X;
        return !w->nx && (user ? w->user : !(m->smep && w->user));
    }
    if (bank == BANK_USER)
        return w->user && (acc == MMU_READ || w->write);
    if (bank == BANK_SUPER && m->smap && w->user)
        return false;
    return acc == MMU_READ || w->write || !m->wp;
}

/* Bits of ADD join *ENTRY, which is what the walk saw. False: it is no more. */
static bool join_bits(uint8_t *host, unsigned width, uint64_t entry, uint64_t add) {
    uint32_t entry32 = (uint32_t)entry;

    if (width == 4)
        return __atomic_compare_exchange_n((uint32_t *)(void *)host, &entry32,
                                           entry32 | (uint32_t)add, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return __atomic_compare_exchange_n((uint64_t *)(void *)host, &entry, entry | add,
                                       false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* False: another CPU has changed the entry since it was read. */
static bool set_bits(struct mmu_priv *m, struct walk_step *s, unsigned width,
                     uint64_t add) {
    if ((s->entry & add) == add || !s->host)
        return true;
    /* As for any store: ROM keeps its contents, and owners of traces are told (behind a
     * locked instruction that is soon enough: mem/mem.h); but what this changes in an
     * entry makes no shadow stale. */
    if (mem_kind_of(m->mem, s->host) == MEM_RAM) {
        if (!join_bits(s->host, width, s->entry, add))
            return false;
        if (unlikely(mem_trace_of(m->mem, s->host))) {
            mem_lock(m->mem);
            m->own_update = true;
            mem_trace_hit(m->mem, s->host, width);
            m->own_update = false;
            mem_unlock(m->mem);
        }
    }
    s->entry |= add;
    return true;
}

bool mmu_walk_mark(struct mmu_priv *m, struct walk *w, bool write) {
    unsigned width = m->paging == PAGING_32 ? 4 : 8;

    for (unsigned i = 0; i < w->steps; i++)
        if (!set_bits(m, &w->step[i], width,
                      X86_PTE_A | (write && i == w->steps - 1 ? X86_PTE_D : 0)))
            return false;
    return true;
}

/*
 * Control and debug registers and the invalidation of translations.
 *
 * A write checks everything, PAE's page-directory pointers included, then changes the
 * register, then what follows from it: EFER.LMA, vcpu_update_mode(), the MMU.
 * AMD64 APM volume 2, "System-Control Registers", "Initializing and Activating Long
 * Mode"; the lists of #GP causes are in APM volume 3 and Intel SDM volume 2, "MOV (CRn)".
 */
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "sem/control_int.h"
#include "sem/operand.h"
#include "sem/segment_int.h"

#define CR0_DEFINED                                                                      \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE |       \
     X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)
#define CR0_TRANSLATION (X86_CR0_PE | X86_CR0_PG | X86_CR0_WP)
/* What makes PAE's page-directory pointers be loaded: Intel SDM volume 3, "PDPTE
 * Registers". */
#define CR0_PDPTRS (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW)
#define CR4_TRANSLATION                                                                  \
    (X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PCIDE | X86_CR4_SMEP |            \
     X86_CR4_SMAP)

static int gp0(struct vcpu *v) {
    return sem_fault_err(v, X86_GP, 0);
}

/* --- CR0 --- */

/* AMD64 APM volume 2, "Long-Mode Consistency Checks". */
static bool may_activate(const struct vcpu *v) {
    unsigned tss = v->tr.ar & X86_AR_TYPE;
    return (v->cr4 & X86_CR4_PAE) && !(v->seg[SEG_CS].ar & X86_AR_L) &&
           tss != X86_DESC_TSS16 && tss != X86_DESC_TSS16_BUSY;
}

static bool cr0_allowed(const struct vcpu *v, uint64_t cr0) {
    bool paging = cr0 & X86_CR0_PG;
    if (cr0 >> 32 || (paging && !(cr0 & X86_CR0_PE)) ||
        ((cr0 & X86_CR0_NW) && !(cr0 & X86_CR0_CD)))
        return false;
    if (paging == !!(v->cr0 & X86_CR0_PG))
        return true;
    if (!paging)
        return v->mode != MODE_64 && !(v->cr4 & X86_CR4_PCIDE);
    return !(v->efer & X86_EFER_LME) || may_activate(v);
}

static int write_cr0(struct vcpu *v, uint64_t value) {
    if (!cr0_allowed(v, value))
        return gp0(v);
    uint64_t cr0 = (value & CR0_DEFINED) | X86_CR0_ET, old = v->cr0;
    bool switches = (cr0 ^ old) & X86_CR0_PG;
    bool loads = ((cr0 ^ old) & CR0_PDPTRS) && (cr0 & X86_CR0_PG) &&
                 (v->cr4 & X86_CR4_PAE) && !(v->efer & X86_EFER_LME);
    if (loads && mmu_load_pdptrs(v, v->cr3))
        return SEM_FAULT;
    v->cr0 = cr0;
    if (switches && (v->efer & X86_EFER_LME))
        v->efer ^= X86_EFER_LMA;
    vcpu_update_mode(v);
    if (loads || ((cr0 ^ old) & CR0_TRANSLATION))
        mmu_mode_changed(v);
    return SEM_STOP;
}

/* --- CR3, CR4, CR8 --- */

static bool pae_paging(const struct vcpu *v, uint64_t cr4) {
    return (v->cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) && !v->long_mode;
}

static int write_cr3(struct vcpu *v, uint64_t value) {
    if (v->mode == MODE_64) {
        uint64_t reserved = ~((1ull << cpuid_phys_bits(v->cpuid)) - 1);
        if (v->cr4 & X86_CR4_PCIDE)
            reserved &= ~X86_CR3_NOFLUSH;
        if (value & reserved)
            return gp0(v);
    }
    if (pae_paging(v, v->cr4) && mmu_load_pdptrs(v, value))
        return SEM_FAULT;
    v->cr3 = value & ~X86_CR3_NOFLUSH;
    if (v->cnt)
        v->cnt->cr3_loads++;
    mmu_cr3_loaded(v, value);
    return SEM_STOP;
}

static int write_cr4(struct vcpu *v, uint64_t value) {
    uint64_t old = v->cr4;
    bool sets_pcide = value & ~old & X86_CR4_PCIDE;
    if ((value & ~cpuid_cr4_valid(v->cpuid)) ||
        (v->long_mode && !(value & X86_CR4_PAE)) ||
        (sets_pcide && (!v->long_mode || (v->cr3 & X86_CR3_PCID_MASK))))
        return gp0(v);
    if (((old ^ value) & (X86_CR4_PAE | X86_CR4_PSE | X86_CR4_PGE | X86_CR4_SMEP)) &&
        pae_paging(v, value) && mmu_load_pdptrs(v, v->cr3))
        return SEM_FAULT;
    v->cr4 = value;
    vcpu_forget_gates(v);
    vcpu_update_mode(v);
    if ((old ^ value) & CR4_TRANSLATION)
        mmu_mode_changed(v);
    return SEM_STOP;
}

static int write_cr8(struct vcpu *v, uint64_t value) {
    if (value & ~15ull)
        return gp0(v);
    if (v->hooks && v->hooks->cr8_write)
        v->hooks->cr8_write(v->hooks_arg, (unsigned)value);
    return SEM_STOP;
}

static bool cr_exists(const struct vcpu *v, unsigned n) {
    return n == 0 || n == 2 || n == 3 || n == 4 || (n == 8 && v->mode == MODE_64);
}

int sem_exec_mov_to_cr(struct vcpu *v, const struct insn *i) {
    unsigned n = i->opnd[0].reg;
    if (!cr_exists(v, n))
        return sem_fault(v, X86_UD);
    if (v->cpl)
        return gp0(v);
    uint64_t value = sem_get(v, i->opnd[1].off, v->mode == MODE_64 ? 8 : 4);
    sem_serialize(v);
    switch (n) {
    case 0:
        return write_cr0(v, value);
    case 2:
        v->cr2 = value;
        return SEM_STOP;
    case 3:
        return write_cr3(v, value);
    case 4:
        return write_cr4(v, value);
    default:
        return write_cr8(v, value);
    }
}

int sem_exec_mov_from_cr(struct vcpu *v, const struct insn *i) {
    unsigned n = i->opnd[1].reg;
    uint64_t value = n == 0 ? v->cr0 : n == 2 ? v->cr2 : n == 3 ? v->cr3 : v->cr4;
    if (!cr_exists(v, n))
        return sem_fault(v, X86_UD);
    if (v->cpl)
        return gp0(v);
    if (n == 8)
        value = v->hooks && v->hooks->cr8_read ? v->hooks->cr8_read(v->hooks_arg) : 0;
    sem_put(v, i->opnd[0].off, v->mode == MODE_64 ? 8 : 4, value);
    return SEM_NEXT;
}

/* LMSW can set PE but not clear it. */
int sem_exec_lmsw(struct vcpu *v, const struct insn *i) {
    uint64_t value;
    if (v->cpl)
        return gp0(v);
    if (sem_read(v, i, 0, 2, &value))
        return SEM_FAULT;
    sem_serialize(v);
    return write_cr0(v, (v->cr0 & ~14ull) | (value & 15));
}

int sem_exec_smsw(struct vcpu *v, const struct insn *i) {
    const struct operand *o = &i->opnd[0];
    if (v->cpl && (v->cr4 & X86_CR4_UMIP))
        return gp0(v);
    if (o->kind == OPND_MEM)
        return sem_store_mem(v, i, 2, v->cr0);
    sem_put(v, o->off, o->size, v->cr0);
    return SEM_NEXT;
}

int sem_exec_clts(struct vcpu *v, const struct insn *i) {
    if (v->cpl)
        return gp0(v);
    sem_serialize(v);
    v->cr0 &= ~(uint64_t)X86_CR0_TS;
    return SEM_STOP;
}

/* --- translations --- */

/* A non-canonical address invalidates nothing. */
int sem_exec_invlpg(struct vcpu *v, const struct insn *i) {
    uint64_t at = (sem_ea(v, i) + v->segbase[i->mem.seg]) & v->lin_mask;
    if (v->cpl)
        return gp0(v);
    sem_serialize(v);
    if (v->mode != MODE_64 || sem_canonical(v, at))
        mmu_invlpg(v, gva(at));
    return SEM_STOP;
}

/* Intel SDM volume 2, "INVPCID". */
int sem_exec_invpcid(struct vcpu *v, const struct insn *i) {
    uint64_t type = sem_get(v, i->opnd[0].off, v->mode == MODE_64 ? 8 : 4), at, pcid, lin;
    if (v->cpl)
        return gp0(v);
    at = sem_ea(v, i);
    if (sem_load(v, i->mem.seg, at, 8, &pcid) ||
        sem_load(v, i->mem.seg, (at + 8) & sem_addr_mask(i->addrsize), 8, &lin))
        return SEM_FAULT;
    bool by_pcid = type < 2;
    if (type > 3 || pcid >> 12 || (type == 0 && !sem_canonical(v, lin)) ||
        (by_pcid && pcid && !(v->cr4 & X86_CR4_PCIDE)))
        return gp0(v);
    sem_serialize(v);
    mmu_invpcid(v, (unsigned)type, (unsigned)pcid, gva(lin));
    return SEM_STOP;
}

/* --- debug registers --- */

#define DR6_WRITABLE 0xe00full
#define DR7_WRITABLE 0xffff23ffull

/* DR4 and DR5 are DR6 and DR7 unless CR4.DE. The privilege check comes before their #UD,
 * that before general detect. Returns 0 with the register in *N. */
static int check_dr(struct vcpu *v, unsigned *n) {
    if (*n > 7)
        return sem_fault(v, X86_UD);
    if (v->cpl)
        return gp0(v);
    if ((*n == 4 || *n == 5) && (v->cr4 & X86_CR4_DE))
        return sem_fault(v, X86_UD);
    if (*n == 4 || *n == 5)
        *n += 2;
    if (v->dr[7] & X86_DR7_GD) {
        v->fault = (struct fault){.vector = X86_DB, .dr6 = X86_DR6_BD};
        return SEM_FAULT;
    }
    return 0;
}

int sem_exec_mov_to_dr(struct vcpu *v, const struct insn *i) {
    unsigned n = i->opnd[0].reg;
    if (check_dr(v, &n))
        return SEM_FAULT;
    uint64_t value = sem_get(v, i->opnd[1].off, v->mode == MODE_64 ? 8 : 4);
    if (n >= 6 && value >> 32)
        return gp0(v);
    v->dr[n] = n == 6   ? (value & DR6_WRITABLE) | X86_DR6_FIXED
               : n == 7 ? (value & DR7_WRITABLE) | X86_DR7_FIXED
                        : value;
    sem_serialize(v);
    vcpu_forget_gates(v);
    if (n != 6)
        mmu_breakpoints_changed(v);
    return SEM_STOP;
}

int sem_exec_mov_from_dr(struct vcpu *v, const struct insn *i) {
    unsigned n = i->opnd[1].reg;
    if (check_dr(v, &n))
        return SEM_FAULT;
    sem_put(v, i->opnd[0].off, v->mode == MODE_64 ? 8 : 4, v->dr[n]);
    return SEM_NEXT;
}

/*
 * SYSCALL, SYSRET, SYSENTER and SYSEXIT, with the differences between the vendors:
 *
 *              AMD                                   Intel
 *   syscall    legacy, compatibility, 64-bit mode    64-bit mode only, else #UD
 *   sysret     no canonical check of RCX;            #GP(0) in ring 0 if RCX is not
 *              SS keeps its hidden part              canonical; SS is flat
 *   sysenter,  #UD in long mode                      everywhere in protected mode
 *   sysexit
 *
 * SYSRET that sets TF traps at once, before the first instruction of level 3, unlike IRET
 * and POPF (Linux, arch/x86/entry/entry_64.S, counts on it).
 *
 * AMD64 APM volume 3, "SYSCALL", "SYSRET", "SYSENTER", "SYSEXIT"; Intel SDM volume 2,
 * the same.
 */
#include "sem/far_int.h"

/* Flat segments as these instructions load them, without a look at the tables. */
static struct segment flat_code(unsigned sel, unsigned dpl, bool wide) {
    return (struct segment){
        .sel = (uint16_t)((sel & ~X86_SEL_RPL) | dpl),
        .ar = (uint16_t)(X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_WRITE |
                         X86_AR_ACCESSED | X86_AR_G | dpl << X86_AR_DPL_SHIFT |
                         (wide ? X86_AR_L : X86_AR_DB)),
        .limit = 0xffffffff,
    };
}

static struct segment flat_stack(unsigned sel, unsigned dpl) {
    return (struct segment){
        .sel = (uint16_t)((sel & ~X86_SEL_RPL) | dpl),
        .ar = (uint16_t)(X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_G |
                         X86_AR_DB | dpl << X86_AR_DPL_SHIFT),
        .limit = 0xffffffff,
    };
}

/* Everything that these instructions change besides the CPL stays as it is when flat code
 * takes turns with flat code of the same width: then vcpu_update_mode() has nothing to
 * do. */
static bool stays_flat(const struct vcpu *v, const struct segment *cs) {
    const uint8_t both = 1u << SEG_CS | 1u << SEG_SS;

    if ((v->cr0 & X86_CR0_AM) && (v->rflags & X86_FL_AC))
        return false;
    if (v->long_mode)
        return v->mode == MODE_64 && (cs->ar & X86_AR_L);
    return v->mode == MODE_32 && !(v->rflags & X86_FL_VM) && v->stack32 &&
           (v->seg_flat_r & both) == both && (v->seg_flat_w & 1u << SEG_SS) &&
           !v->segbase[SEG_CS] && !v->segbase[SEG_SS];
}

static void enter(struct vcpu *v, const struct segment *cs, unsigned cpl, uint64_t rip) {
    bool flat = stays_flat(v, cs);

    v->rip = rip;
    v->seg[SEG_CS] = *cs;
    v->cpl = (uint8_t)cpl;
    if (unlikely(!flat))
        vcpu_update_mode(v);
    mmu_context_changed(v);
}

int sem_exec_syscall(struct vcpu *v, const struct insn *i) {
    if (!(v->efer & X86_EFER_SCE) || (v->mode != MODE_64 && !sem_is_amd(v)))
        return sem_fault(v, X86_UD);
    unsigned sel = (unsigned)(v->star >> 32) & 0xfffc;
    uint64_t target = v->star & 0xffffffff, clear = X86_FL_IF;
    v->gpr[REG_RCX] = sem_next_rip(v, i);
    if (v->long_mode) {
        v->gpr[REG_R11] = v->rflags & ~(uint64_t)X86_FL_RF;
        target = v->mode == MODE_64 ? v->lstar : v->cstar;
        clear = v->sfmask & 0xffffffff;
    }
    struct segment cs = flat_code(sel, 0, v->long_mode);
    v->seg[SEG_SS] = flat_stack(sel + 8, 0);
    v->rflags &= ~(uint64_t)X86_FL_VM;
    enter(v, &cs, 0, target);
    sem_write_flags(v, 0, (clear | X86_FL_RF) & ~(uint64_t)(X86_FL_VM | X86_FL_ONE));
    return SEM_BRANCH;
}

int sem_exec_sysret(struct vcpu *v, const struct insn *i) {
    bool amd = sem_is_amd(v);
    if (!(v->efer & X86_EFER_SCE) || (v->mode != MODE_64 && !amd))
        return sem_fault(v, X86_UD);
    if (vcpu_is_real(v) || v->cpl != 0)
        return sem_fault_err(v, X86_GP, 0);
    bool to64 = v->mode == MODE_64 && (i->flags & INSN_REX_W);
    uint64_t rip = to64 ? v->gpr[REG_RCX] : (uint32_t)v->gpr[REG_RCX];
    if (!amd && !sem_canonical(v, rip))
        return sem_fault_err(v, X86_GP, 0);

    unsigned sel = (unsigned)(v->star >> 48);
    uint64_t flags = v->gpr[REG_R11] & 0xffffffff;
    uint64_t mask = X86_FL_STATUS | X86_FL_TF | X86_FL_IF | X86_FL_DF | X86_FL_IOPL |
                    X86_FL_NT | X86_FL_RF | X86_FL_AC | X86_FL_VIF | X86_FL_VIP |
                    X86_FL_ID;
    if (!v->long_mode) {
        flags = X86_FL_IF;
        mask = X86_FL_IF;
    }
    struct segment cs = flat_code(to64 ? sel + 16 : sel, 3, to64);
    if (amd)
        v->seg[SEG_SS].sel = (uint16_t)((sel + 8) | 3);
    else
        v->seg[SEG_SS] = flat_stack(sel + 8, 3);
    enter(v, &cs, 3, rip);
    sem_write_flags(v, flags & ~(uint64_t)X86_FL_RF, mask);
    if (v->rflags & X86_FL_TF)
        v->pending_db |= X86_DR6_BS;
    return SEM_BRANCH;
}

int sem_exec_sysenter(struct vcpu *v, const struct insn *i) {
    if (v->long_mode && sem_is_amd(v))
        return sem_fault(v, X86_UD);
    unsigned sel = (unsigned)v->sysenter_cs & 0xfffc;
    if (vcpu_is_real(v) || !sel)
        return sem_fault_err(v, X86_GP, 0);
    struct segment cs = flat_code(sel, 0, v->long_mode);
    uint64_t mask = v->long_mode ? ~0ull : 0xffffffff;
    v->rflags &= ~(uint64_t)X86_FL_VM;
    v->seg[SEG_SS] = flat_stack(sel + 8, 0);
    v->gpr[REG_RSP] = v->sysenter_esp & mask;
    enter(v, &cs, 0, v->sysenter_eip & mask);
    sem_write_flags(v, 0, X86_FL_IF | X86_FL_RF);
    return SEM_BRANCH;
}

/* In long mode AMD's CPUs do not know it, but look at the privilege first. */
int sem_exec_sysexit(struct vcpu *v, const struct insn *i) {
    if (v->long_mode && sem_is_amd(v) && !v->cpl)
        return sem_fault(v, X86_UD);
    unsigned sel = (unsigned)v->sysenter_cs & 0xfffc;
    if (vcpu_is_real(v) || !sel || v->cpl != 0)
        return sem_fault_err(v, X86_GP, 0);
    bool to64 = v->mode == MODE_64 && (i->flags & INSN_REX_W);
    uint64_t rip = v->gpr[REG_RDX], rsp = v->gpr[REG_RCX];
    if (to64 && (!sem_canonical(v, rip) || !sem_canonical(v, rsp)))
        return sem_fault_err(v, X86_GP, 0);
    struct segment cs = flat_code(sel + (to64 ? 32 : 16), 3, to64);
    v->seg[SEG_SS] = flat_stack(sel + (to64 ? 40 : 24), 3);
    v->gpr[REG_RSP] = to64 ? rsp : (uint32_t)rsp;
    enter(v, &cs, 3, to64 ? rip : (uint32_t)rip);
    return SEM_BRANCH;
}

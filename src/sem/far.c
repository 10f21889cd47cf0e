/*
 * Far jumps, calls and returns in every mode: direct, through call gates, and to tasks.
 *
 * AMD64 APM volume 2, "Control-Transfer Privilege Checks" (direct transfers, call gates,
 * stack switching, returns) and volume 3, "JMP (Far)", "CALL (Far)", "RET (Far)".
 */
#include "sem/far_int.h"

/* A transfer on its way: who asked, and where it leads. */
struct transfer {
    bool call;
    unsigned size; /* of what is pushed */
    uint16_t sel;
    uint64_t off;
    uint64_t next; /* return address */
};

static int gp(struct vcpu *v, uint16_t sel) {
    return sem_fault_err(v, X86_GP, sel & ~X86_SEL_RPL);
}

static void push_return(const struct vcpu *v, const struct transfer *x,
                        struct sem_frame *f) {
    sem_frame_push(f, v->seg[SEG_CS].sel);
    sem_frame_push(f, x->next);
}

/* From 64-bit to other code: the stack pointer is one of 32 bits by then. A jump leaves
 * the register as it is on Intel's CPUs. */
static bool narrows_stack(const struct vcpu *v, const struct segment *cs) {
    return v->mode == MODE_64 && !(cs->ar & X86_AR_L);
}

/* Transfer without change of stack: pushes the return address for a call. */
static int go_same(struct vcpu *v, const struct transfer *x, const struct segment *cs,
                   uint64_t rip) {
    struct sem_stack st;
    struct sem_frame f;
    sem_frame_begin(&f, x->size);
    sem_stack_current(v, &st);
    if (x->call) {
        if (narrows_stack(v, cs)) {
            st.sp = (uint32_t)st.sp;
            st.mask = 0xffffffff;
        }
        push_return(v, x, &f);
        if (sem_frame_probe(v, &st, &f) ||
            sem_stack_aligned(v, &st, sem_stack_gva(&st, st.sp & st.mask), x->size))
            return SEM_FAULT;
    }
    if (sem_check_rip(v, cs, rip))
        return SEM_FAULT;
    if (x->call) {
        if (sem_frame_write(v, &st, &f))
            return SEM_FAULT;
        v->gpr[REG_RSP] = st.sp;
    } else if (narrows_stack(v, cs)) {
        v->gpr[REG_RSP] = (uint32_t)v->gpr[REG_RSP];
    }
    sem_enter(v, cs, v->cpl, rip);
    return SEM_BRANCH;
}

static int go_real(struct vcpu *v, const struct transfer *x) {
    struct segment cs = sem_real_cs(v, x->sel);
    return go_same(v, x, &cs, x->off);
}

/* To a code segment named by the instruction itself. */
static int go_code(struct vcpu *v, const struct transfer *x, uint64_t desc) {
    uint16_t ar = sem_desc_ar(desc);
    unsigned dpl = sem_desc_dpl(desc);
    bool allowed = sem_ar_is_conforming(ar)
                       ? dpl <= v->cpl
                       : (x->sel & X86_SEL_RPL) <= v->cpl && dpl == v->cpl;
    if (!allowed || (v->long_mode && (ar & X86_AR_L) && (ar & X86_AR_DB)))
        return gp(v, x->sel);
    if (!(ar & X86_AR_P))
        return sem_fault_err(v, X86_NP, x->sel & ~X86_SEL_RPL);
    if (sem_mark_accessed(v, x->sel, desc))
        return SEM_FAULT;
    struct segment cs;
    sem_unpack_desc(&cs, (uint16_t)((x->sel & ~X86_SEL_RPL) | v->cpl), desc | 1ull << 40);
    return go_same(v, x, &cs, sem_cut_rip(v, &cs, x->off));
}

/* The inner half of a call through a gate: new stack, parameters, return address. */
static int call_inner(struct vcpu *v, const struct transfer *x, const struct segment *cs,
                      unsigned cpl, uint64_t rip, unsigned params) {
    struct sem_stack old, st;
    struct sem_frame f;
    sem_frame_begin(&f, x->size);
    sem_stack_current(v, &old);
    if (sem_stack_inner(v, cpl, &st))
        return SEM_FAULT;
    sem_frame_push(&f, v->seg[SEG_SS].sel);
    sem_frame_push(&f, v->gpr[REG_RSP]);
    for (unsigned k = params; k-- > 0;) {
        uint64_t val;
        if (sem_stack_read(v, &old, k * x->size, x->size, &val))
            return SEM_FAULT;
        sem_frame_push(&f, val);
    }
    push_return(v, x, &f);
    if (sem_frame_probe(v, &st, &f) || sem_check_rip(v, cs, rip) ||
        sem_frame_write(v, &st, &f))
        return SEM_FAULT;
    v->seg[SEG_SS] = st.ss;
    v->gpr[REG_RSP] = st.sp;
    sem_enter(v, cs, cpl, rip);
    return SEM_BRANCH;
}

/* Privilege to use a gate or TSS descriptor: DPL against CPL and the selector's RPL. */
static int check_gate(struct vcpu *v, uint16_t sel, uint64_t desc) {
    unsigned dpl = sem_desc_dpl(desc);
    if (dpl < v->cpl || dpl < (sel & X86_SEL_RPL))
        return gp(v, sel);
    if (!(sem_desc_ar(desc) & X86_AR_P))
        return sem_fault_err(v, X86_NP, sel & ~X86_SEL_RPL);
    return 0;
}

static int go_call_gate(struct vcpu *v, const struct transfer *in,
                        const uint64_t gate[2]) {
    bool wide = (gate[0] >> 40 & 0xf) == X86_DESC_CALLGATE32;
    struct transfer x = *in;
    uint64_t desc[2], rip = gate[0] & 0xffff;
    if (check_gate(v, x.sel, gate[0]))
        return SEM_FAULT;
    /* The second half of a 64-bit gate repeats the type field, and it must be 0. */
    if (v->long_mode && (gate[1] >> 40 & 0x1f))
        return gp(v, x.sel);
    if (wide)
        rip |= gate[0] >> 48 << 16;
    if (v->long_mode)
        rip |= gate[1] << 32;
    x.size = v->long_mode ? 8 : wide ? 4 : 2;

    uint16_t sel = (uint16_t)(gate[0] >> 16);
    if (sem_read_target(v, sel, X86_GP, desc))
        return SEM_FAULT;
    uint16_t ar = sem_desc_ar(desc[0]);
    unsigned dpl = sem_desc_dpl(desc[0]);
    bool conforming = sem_ar_is_conforming(ar);
    if (!sem_ar_is_code(ar) || dpl > v->cpl || (!x.call && !conforming && dpl != v->cpl))
        return gp(v, sel);
    if (v->long_mode && (ar & (X86_AR_L | X86_AR_DB)) != X86_AR_L)
        return gp(v, sel);
    if (!(ar & X86_AR_P))
        return sem_fault_err(v, X86_NP, sel & ~X86_SEL_RPL);
    if (sem_mark_accessed(v, sel, desc[0]))
        return SEM_FAULT;
    unsigned cpl = conforming ? v->cpl : dpl;
    struct segment cs;
    sem_unpack_desc(&cs, (uint16_t)((sel & ~X86_SEL_RPL) | cpl), desc[0] | 1ull << 40);
    if (cpl == v->cpl)
        return go_same(v, &x, &cs, rip);
    unsigned params = v->long_mode ? 0 : (unsigned)(gate[0] >> 32) & 31;
    return call_inner(v, &x, &cs, cpl, rip, params);
}

static int go_task(struct vcpu *v, const struct transfer *x, uint16_t tss) {
    return sem_task_switch(v, tss, x->call ? TASK_CALL : TASK_JMP, x->next, v->rflags,
                           false, 0)
               ? SEM_FAULT
               : SEM_BRANCH;
}

static int go_system(struct vcpu *v, const struct transfer *x, const uint64_t desc[2]) {
    unsigned type = (unsigned)(desc[0] >> 40) & 0xf;
    if (type == X86_DESC_CALLGATE32)
        return go_call_gate(v, x, desc);
    if (v->long_mode)
        return gp(v, x->sel);
    switch (type) {
    case X86_DESC_CALLGATE16:
        return go_call_gate(v, x, desc);
    case X86_DESC_TASKGATE:
        if (check_gate(v, x->sel, desc[0]))
            return SEM_FAULT;
        return go_task(v, x, (uint16_t)(desc[0] >> 16));
    case X86_DESC_TSS16:
    case X86_DESC_TSS32:
        if (check_gate(v, x->sel, desc[0]))
            return SEM_FAULT;
        return go_task(v, x, x->sel);
    default:
        return gp(v, x->sel);
    }
}

static int transfer(struct vcpu *v, struct transfer *x) {
    if (x->size == 2)
        x->off &= 0xffff;
    else if (x->size == 4)
        x->off &= 0xffffffff;
    if (vcpu_is_real(v) || sem_is_v86(v))
        return go_real(v, x);
    uint64_t desc[2];
    if (sem_read_target(v, x->sel, X86_GP, desc))
        return SEM_FAULT;
    uint16_t ar = sem_desc_ar(desc[0]);
    if (!(ar & X86_AR_S))
        return go_system(v, x, desc);
    return sem_ar_is_code(ar) ? go_code(v, x, desc[0]) : gp(v, x->sel);
}

/* The far pointer of I. AMD has no 64-bit offsets in them: REX.W only widens what a call
 * pushes. */
static int fetch_pointer(struct vcpu *v, const struct insn *i, struct transfer *x) {
    x->size = i->opsize;
    x->next = sem_next_rip(v, i);
    if (!i->nops) {
        x->sel = i->far_sel;
        x->off = (uint64_t)i->imm;
        return 0;
    }
    unsigned size = x->size == 8 && sem_is_amd(v) ? 4 : x->size;
    uint64_t ea = sem_ea(v, i), sel;
    uint64_t second = (ea + size) & sem_addr_mask(i->addrsize);
    if (sem_load(v, i->mem.seg, ea, size, &x->off) ||
        sem_load(v, i->mem.seg, second, 2, &sel))
        return SEM_FAULT;
    x->sel = (uint16_t)sel;
    return 0;
}

int sem_exec_jmp_far(struct vcpu *v, const struct insn *i) {
    struct transfer x = {.call = false};
    return fetch_pointer(v, i, &x) ? SEM_FAULT : transfer(v, &x);
}

int sem_exec_call_far(struct vcpu *v, const struct insn *i) {
    struct transfer x = {.call = true};
    return fetch_pointer(v, i, &x) ? SEM_FAULT : transfer(v, &x);
}

/* --- returns --- */

static int check_return_ss(struct vcpu *v, uint16_t sel, struct sem_return *r) {
    uint16_t err = sel & ~X86_SEL_RPL;
    uint64_t desc[2];
    bool to64 = v->long_mode && (r->cs.ar & X86_AR_L);
    if (!err && to64 && r->cpl != 3 && (sel & X86_SEL_RPL) == r->cpl) {
        sem_null_seg(&r->ss, sel);
        return 0;
    }
    if (sem_read_target(v, sel, X86_GP, desc))
        return SEM_FAULT;
    uint16_t ar = sem_desc_ar(desc[0]);
    if ((sel & X86_SEL_RPL) != r->cpl || !sem_ar_is_stack(ar) ||
        sem_desc_dpl(desc[0]) != r->cpl)
        return gp(v, sel);
    if (!(ar & X86_AR_P))
        return sem_fault_err(v, X86_SS, err);
    if (sem_mark_accessed(v, sel, desc[0]))
        return SEM_FAULT;
    sem_unpack_desc(&r->ss, sel, desc[0] | 1ull << 40);
    return 0;
}

int sem_check_return(struct vcpu *v, const struct sem_stack *st, unsigned size,
                     unsigned cs_size, unsigned ss_off, bool force_ss,
                     struct sem_return *r) {
    uint64_t sel64, desc[2];
    if (sem_stack_read(v, st, 0, size, &r->rip) ||
        sem_stack_read(v, st, size, cs_size, &sel64))
        return SEM_FAULT;
    uint16_t sel = (uint16_t)sel64;
    if (sem_read_target(v, sel, X86_GP, desc))
        return SEM_FAULT;
    uint16_t ar = sem_desc_ar(desc[0]);
    unsigned dpl = sem_desc_dpl(desc[0]);
    r->cpl = sel & X86_SEL_RPL;
    bool allowed = sem_ar_is_code(ar) && r->cpl >= v->cpl &&
                   (sem_ar_is_conforming(ar) ? dpl <= r->cpl : dpl == r->cpl);
    if (!allowed || (v->long_mode && (ar & X86_AR_L) && (ar & X86_AR_DB)))
        return gp(v, sel);
    if (!(ar & X86_AR_P))
        return sem_fault_err(v, X86_NP, sel & ~X86_SEL_RPL);
    if (sem_mark_accessed(v, sel, desc[0]))
        return SEM_FAULT;
    sem_unpack_desc(&r->cs, sel, desc[0] | 1ull << 40);
    r->outer = r->cpl > v->cpl;
    r->load_ss = r->outer || force_ss;
    if (r->load_ss) {
        uint64_t ss;
        if (sem_stack_read(v, st, ss_off, size, &r->rsp) ||
            sem_stack_read(v, st, ss_off + size, size, &ss) ||
            check_return_ss(v, (uint16_t)ss, r))
            return SEM_FAULT;
    }
    r->rip = sem_cut_rip(v, &r->cs, r->rip);
    return sem_check_rip(v, &r->cs, r->rip) ? SEM_FAULT : 0;
}

void sem_commit_return(struct vcpu *v, const struct sem_stack *st, unsigned release,
                       const struct sem_return *r) {
    bool to64 = v->long_mode && (r->cs.ar & X86_AR_L);
    if (r->load_ss) {
        v->seg[SEG_SS] = r->ss;
        /* A 16-bit stack segment leaves the upper bits of ESP as they were: what Linux
         * works around as "espfix". */
        if (to64)
            v->gpr[REG_RSP] = r->rsp;
        else if (r->ss.ar & X86_AR_DB)
            v->gpr[REG_RSP] = (uint32_t)r->rsp;
        else
            v->gpr[REG_RSP] = (v->gpr[REG_RSP] & 0xffff0000) | (r->rsp & 0xffff);
    } else {
        /* They pop with the stack's width, but move rSP with the target's. */
        uint64_t mask = to64 ? ~0ull : st->mask;
        v->gpr[REG_RSP] = (st->sp & ~mask) | ((st->sp + release) & mask);
        if (narrows_stack(v, &r->cs))
            v->gpr[REG_RSP] = (uint32_t)v->gpr[REG_RSP];
    }
    if (r->outer)
        sem_drop_inner_segs(v, r->cpl);
    sem_enter(v, &r->cs, r->cpl, r->rip);
}

static int ret_real(struct vcpu *v, unsigned size, unsigned release) {
    struct sem_stack st;
    uint64_t rip, sel;
    sem_stack_current(v, &st);
    if (sem_stack_read(v, &st, 0, size, &rip) || sem_stack_read(v, &st, size, size, &sel))
        return SEM_FAULT;
    struct segment cs = sem_real_cs(v, (uint16_t)sel);
    if (sem_check_rip(v, &cs, rip))
        return SEM_FAULT;
    sem_set_sp(v, st.sp + release);
    sem_enter(v, &cs, v->cpl, rip);
    return SEM_BRANCH;
}

int sem_exec_ret_far(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize, params = i->nops ? (uint16_t)i->imm : 0;
    unsigned release = 2 * size + params;
    if (vcpu_is_real(v) || sem_is_v86(v))
        return ret_real(v, size, release);
    struct sem_stack st;
    struct sem_return r;
    /* Intel's CPUs read two bytes of the selector's slot, AMD's all of it. */
    unsigned cs_size = sem_is_amd(v) ? size : 2;
    sem_stack_current(v, &st);
    if (sem_check_return(v, &st, size, cs_size, release, false, &r))
        return SEM_FAULT;
    r.rsp += params; /* the outer stack holds the parameters, too */
    sem_commit_return(v, &st, release, &r);
    return SEM_BRANCH;
}

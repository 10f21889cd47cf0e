/*
 * Near control transfers.
 *
 * A target is cut to the operand size, then checked before anything changes: against
 * CS.limit outside 64-bit mode, for canonical form in it (the fault is #GP(0) of the
 * branch itself). AMD64 APM volume 1, "Control Transfers".
 */
#include "sem/operand.h"

/* Goes to TO, an offset in CS. SEM_BRANCH or SEM_FAULT, with rip untouched. */
SEM_INLINE bool target_ok(struct vcpu *v, uint64_t to) {
    if (v->mode == MODE_64)
        return likely((uint64_t)((int64_t)(to << 16) >> 16) == to);
    return to <= v->seg[SEG_CS].limit;
}

SEM_INLINE int go(struct vcpu *v, uint64_t to) {
    if (unlikely(!target_ok(v, to)))
        return sem_fault_err(v, X86_GP, 0);
    v->rip = to;
    return SEM_BRANCH;
}

SEM_INLINE uint64_t next_rip(const struct vcpu *v, const struct insn *i) {
    uint64_t next = v->rip + i->len;
    return v->mode == MODE_64 ? next : (uint32_t)next;
}

/* The target of a direct branch. */
SEM_INLINE uint64_t direct(const struct vcpu *v, const struct insn *i) {
    return (v->rip + i->len + (uint64_t)i->imm) & sem_size_mask(i->opsize);
}

#define CONDITION(c)                                                                     \
    static int jcc_##c(struct vcpu *v, const struct insn *i) {                           \
        return sem_cond(v->rflags, c) ? go(v, direct(v, i)) : SEM_NEXT;                  \
    }                                                                                    \
    static int jcc64_##c(struct vcpu *v, const struct insn *i) {                         \
        return sem_cond(v->rflags, c) ? go(v, v->rip + i->len + (uint64_t)i->imm)        \
                                      : SEM_NEXT;                                        \
    }
#include "sem/move.def"
#undef CONDITION

/* The count register, by address size. */
SEM_INLINE uint64_t count_get(const struct vcpu *v, const struct insn *i) {
    return v->gpr[REG_RCX] & sem_addr_mask(i->addrsize);
}

static int exec_jcxz(struct vcpu *v, const struct insn *i) {
    return count_get(v, i) ? SEM_NEXT : go(v, direct(v, i));
}

static int exec_loop(struct vcpu *v, const struct insn *i) {
    uint64_t n = (count_get(v, i) - 1) & sem_addr_mask(i->addrsize);
    bool zf = v->rflags & X86_FL_ZF;
    bool take = n && (i->op == OP_loop || zf == (i->op == OP_loope));

    if (take && !target_ok(v, direct(v, i)))
        return sem_fault_err(v, X86_GP, 0);
    sem_put(v, REG_RCX * 8, i->addrsize, n);
    return take ? go(v, direct(v, i)) : SEM_NEXT;
}

static int exec_jmp_direct(struct vcpu *v, const struct insn *i) {
    return go(v, direct(v, i));
}

static int exec_jmp_indirect(struct vcpu *v, const struct insn *i) {
    uint64_t to;

    if (sem_read(v, i, 0, i->opsize, &to))
        return SEM_FAULT;
    return go(v, to);
}

/* In 64-bit mode the return address is stored before the target is found to be not
 * canonical: a fault of the stack comes first, and what was stored stays. So it is on
 * Intel's CPUs; AMD's look first, but translated code does not (docs/errata.md). */
SEM_INLINE int call(struct vcpu *v, const struct insn *i, uint64_t to) {
    uint64_t sp = (v->gpr[REG_RSP] - i->opsize) & sem_sp_mask(v);

    if (v->mode != MODE_64 && unlikely(!target_ok(v, to)))
        return sem_fault_err(v, X86_GP, 0);
    if (sem_store(v, SEG_SS, sp, i->opsize, next_rip(v, i)))
        return SEM_FAULT;
    if (v->mode == MODE_64 && unlikely(!target_ok(v, to)))
        return sem_fault_err(v, X86_GP, 0);
    sem_set_sp(v, sp);
    v->rip = to;
    return SEM_BRANCH;
}

static int exec_call_direct(struct vcpu *v, const struct insn *i) {
    return call(v, i, direct(v, i));
}

static int exec_call_indirect(struct vcpu *v, const struct insn *i) {
    uint64_t to;

    if (sem_read(v, i, 0, i->opsize, &to))
        return SEM_FAULT;
    return call(v, i, to);
}

static int exec_ret(struct vcpu *v, const struct insn *i) {
    uint64_t to;

    if (sem_top_inline(v, i->opsize, &to))
        return SEM_FAULT;
    if (unlikely(!target_ok(v, to)))
        return sem_fault_err(v, X86_GP, 0);
    /* The immediate is added even when it is absent: then it is 0. */
    sem_set_sp(v, v->gpr[REG_RSP] + i->opsize + (uint16_t)i->imm);
    v->rip = to;
    return SEM_BRANCH;
}

/* Signed index against a pair of bounds. AMD64 APM volume 3, "BOUND". */
static int exec_bound(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize;
    uint64_t off = sem_ea(v, i), lo, hi;

    /* Each bound has an alignment of its own. */
    if (sem_load(v, i->mem.seg, off, size, &lo) ||
        sem_load(v, i->mem.seg, off + size, size, &hi))
        return SEM_FAULT;
    int64_t x = sem_sign_extend(sem_get(v, i->opnd[0].off, size), size);
    if (x < sem_sign_extend(lo, size) || x > sem_sign_extend(hi, size))
        return sem_fault(v, X86_BR);
    return SEM_NEXT;
}

static insn_exec_fn *const jcc_table[2][16] = {
    {
#define CONDITION(c) jcc_##c,
#include "sem/move.def"
#undef CONDITION
    },
    {
#define CONDITION(c) jcc64_##c,
#include "sem/move.def"
#undef CONDITION
    },
};

insn_exec_fn *sem_bind_branch(const struct insn *i) {
    bool indirect = i->opnd[0].kind == OPND_REG || i->opnd[0].kind == OPND_MEM;

    switch (i->op) {
    case OP_jcc:
        return jcc_table[i->mode == MODE_64 && i->opsize == 8][i->cond & 15];
    case OP_jcxz:
        return exec_jcxz;
    case OP_loop:
    case OP_loope:
    case OP_loopne:
        return exec_loop;
    case OP_jmp:
        return indirect ? exec_jmp_indirect : exec_jmp_direct;
    case OP_call:
        return indirect ? exec_call_indirect : exec_call_direct;
    case OP_ret:
        return exec_ret;
    case OP_bound:
        return exec_bound;
    case OP_ud:
        return sem_exec_ud;
    default:
        return NULL;
    }
}

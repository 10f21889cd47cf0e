/*
 * Data movement, the stack, and the flags register.
 *
 * The stack instructions change rSP last, so that a fault leaves it alone. Moves of
 * segment, control and debug registers are not here (sem/segment.c, sem/system.c).
 */
#include "sem/operand.h"

int sem_rmw_open_at(struct vcpu *v, struct rmw *r, unsigned seg, uint64_t off,
                    unsigned size) {
    struct gva at;

    r->reg32 = false;
    r->window = false;
    if (sem_linear(v, seg, off, size, true, &at))
        return sem_fix_stack_fault(v, seg);
    r->p = mmu_hit(v->mmu->data, at, size, MMU_WRITE);
    if (likely(r->p != NULL))
        return 0;
    r->window = true;
    if (mmu_window_open(v, &r->w, at, size, true, true))
        return sem_fix_stack_fault(v, seg);
    r->p = r->w.p;
    return 0;
}

/* --- mov and its relatives --- */

SEM_INLINE int mov(struct vcpu *v, const struct insn *i, unsigned size,
                   enum shape shape) {
    uint64_t val;

    switch (shape) {
    case SHAPE_RR:
        sem_put(v, i->opnd[0].off, size, sem_get(v, i->opnd[1].off, size));
        return SEM_NEXT;
    case SHAPE_RI:
        sem_put(v, i->opnd[0].off, size, (uint64_t)i->imm);
        return SEM_NEXT;
    case SHAPE_RM:
        if (sem_load_mem(v, i, size, &val))
            return SEM_FAULT;
        sem_put(v, i->opnd[0].off, size, val);
        return SEM_NEXT;
    case SHAPE_MR:
        return sem_store_mem(v, i, size, sem_get(v, i->opnd[1].off, size));
    default:
        return sem_store_mem(v, i, size, (uint64_t)i->imm);
    }
}

#define MOVE(bits)                                                                       \
    static int mov##bits##_rr(struct vcpu *v, const struct insn *i) {                    \
        return mov(v, i, bits / 8, SHAPE_RR);                                            \
    }                                                                                    \
    static int mov##bits##_ri(struct vcpu *v, const struct insn *i) {                    \
        return mov(v, i, bits / 8, SHAPE_RI);                                            \
    }                                                                                    \
    static int mov##bits##_rm(struct vcpu *v, const struct insn *i) {                    \
        return mov(v, i, bits / 8, SHAPE_RM);                                            \
    }                                                                                    \
    static int mov##bits##_mr(struct vcpu *v, const struct insn *i) {                    \
        return mov(v, i, bits / 8, SHAPE_MR);                                            \
    }                                                                                    \
    static int mov##bits##_mi(struct vcpu *v, const struct insn *i) {                    \
        return mov(v, i, bits / 8, SHAPE_MI);                                            \
    }
#define EXTEND(name, dst, src, cast)                                                     \
    static int name##dst##_##src##_r(struct vcpu *v, const struct insn *i) {             \
        uint64_t val = sem_get(v, i->opnd[1].off, src / 8);                              \
        sem_put(v, i->opnd[0].off, dst / 8, (uint64_t)(int64_t)(cast)val);               \
        return SEM_NEXT;                                                                 \
    }                                                                                    \
    static int name##dst##_##src##_m(struct vcpu *v, const struct insn *i) {             \
        uint64_t val;                                                                    \
        if (sem_load_mem(v, i, src / 8, &val))                                           \
            return SEM_FAULT;                                                            \
        sem_put(v, i->opnd[0].off, dst / 8, (uint64_t)(int64_t)(cast)val);               \
        return SEM_NEXT;                                                                 \
    }
#define CONDITION(c)                                                                     \
    static int setcc_##c(struct vcpu *v, const struct insn *i) {                         \
        return sem_write(v, i, 0, 1, sem_cond(v->rflags, c));                            \
    }                                                                                    \
    static int cmovcc_##c(struct vcpu *v, const struct insn *i) {                        \
        return cmov(v, i, sem_cond(v->rflags, c));                                       \
    }

/* The source is read in any case; a 32-bit form clears the upper half in any case. */
static int cmov(struct vcpu *v, const struct insn *i, bool take) {
    unsigned size = i->opsize, off = i->opnd[0].off;
    uint64_t val;

    if (sem_read(v, i, 1, size, &val))
        return SEM_FAULT;
    sem_put(v, off, size, take ? val : sem_get(v, off, size));
    return SEM_NEXT;
}
#include "sem/move.def"
#undef MOVE
#undef EXTEND
#undef CONDITION

static int exec_movbe(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize;
    uint64_t val;

    if (sem_read(v, i, 1, size, &val))
        return SEM_FAULT;
    return sem_write(v, i, 0, size, __builtin_bswap64(val) >> (64 - size * 8));
}

static int exec_movnti(struct vcpu *v, const struct insn *i) {
    return sem_store_mem(v, i, i->opsize, sem_get(v, i->opnd[1].off, i->opsize));
}

static int exec_xchg(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opnd[0].size;
    unsigned m = i->opnd[1].kind == OPND_MEM ? 1 : 0, off = i->opnd[1 - m].off;
    struct rmw r;

    if (sem_rmw_open(v, i, m, size, &r))
        return SEM_FAULT;
    uint64_t old = sem_bytes_get(r.p, size);
    sem_bytes_put(r.p, size, sem_get(v, off, size));
    sem_rmw_close(v, &r);
    sem_put(v, off, size, old);
    return SEM_NEXT;
}

static int exec_lea16(struct vcpu *v, const struct insn *i) {
    sem_put(v, i->opnd[0].off, 2, sem_ea(v, i));
    return SEM_NEXT;
}

static int exec_lea32(struct vcpu *v, const struct insn *i) {
    sem_put(v, i->opnd[0].off, 4, sem_ea(v, i));
    return SEM_NEXT;
}

static int exec_lea64(struct vcpu *v, const struct insn *i) {
    sem_put(v, i->opnd[0].off, 8, sem_ea(v, i));
    return SEM_NEXT;
}

static int exec_bswap(struct vcpu *v, const struct insn *i) {
    uint64_t *r = sem_reg(v, i->opnd[0].off);

    if (i->opsize == 8)
        *r = __builtin_bswap64(*r);
    else if (i->opsize == 4)
        *r = __builtin_bswap32((uint32_t)*r);
    else /* undefined: what the host does */
        asm(".byte 0x66\n\tbswap %k0" : "+r"(*r));
    return SEM_NEXT;
}

static int exec_xlat(struct vcpu *v, const struct insn *i) {
    uint64_t off = v->gpr[REG_RBX] + (uint8_t)v->gpr[REG_RAX], val;

    if (sem_load(v, i->mem.seg, off & sem_addr_mask(i->addrsize), 1, &val))
        return SEM_FAULT;
    sem_put(v, 0, 1, val);
    return SEM_NEXT;
}

static int exec_salc(struct vcpu *v, const struct insn *i) {
    sem_put(v, 0, 1, v->rflags & X86_FL_CF ? 0xff : 0);
    return SEM_NEXT;
}

/* cbw, cwde, cdqe: half of rAX into all of it. */
static int exec_widen(struct vcpu *v, const struct insn *i) {
    unsigned size = i->op == OP_cbw ? 2 : i->op == OP_cwde ? 4 : 8;

    sem_put(v, 0, size, (uint64_t)sem_sign_extend(v->gpr[REG_RAX], size / 2));
    return SEM_NEXT;
}

/* cwd, cdq, cqo: the sign of rAX into rDX. */
static int exec_sign(struct vcpu *v, const struct insn *i) {
    unsigned size = i->op == OP_cwd ? 2 : i->op == OP_cdq ? 4 : 8;

    sem_put(v, REG_RDX * 8, size,
            (uint64_t)(sem_sign_extend(v->gpr[REG_RAX], size) >> 63));
    return SEM_NEXT;
}

/* --- the stack --- */

static int exec_push_r64(struct vcpu *v, const struct insn *i) {
    return sem_push_inline(v, 8, sem_get(v, i->opnd[0].off, 8));
}

static int exec_push(struct vcpu *v, const struct insn *i) {
    uint64_t val;

    if (sem_read(v, i, 0, i->opsize, &val))
        return SEM_FAULT;
    return sem_push_inline(v, i->opsize, val);
}

static int exec_pop_r64(struct vcpu *v, const struct insn *i) {
    uint64_t val;

    if (sem_top_inline(v, 8, &val))
        return SEM_FAULT;
    sem_set_sp(v, v->gpr[REG_RSP] + 8);
    sem_put(v, i->opnd[0].off, 8, val); /* last: pop rsp */
    return SEM_NEXT;
}

/* An address that uses rSP is computed with rSP already moved.
 * AMD64 APM volume 3, "POP". */
static int exec_pop(struct vcpu *v, const struct insn *i) {
    uint64_t val, old = v->gpr[REG_RSP];

    if (sem_top_inline(v, i->opsize, &val))
        return SEM_FAULT;
    sem_set_sp(v, old + i->opsize);
    if (sem_write(v, i, 0, i->opsize, val)) {
        v->gpr[REG_RSP] = old;
        return SEM_FAULT;
    }
    return SEM_NEXT;
}

/* Could SIZE bytes at OFF of the stack segment be accessed? 0 or SEM_FAULT. */
static int stack_probe(struct vcpu *v, uint64_t off, unsigned size, enum mmu_access acc) {
    struct gva at;

    if (sem_linear(v, SEG_SS, off, size, acc == MMU_WRITE, &at) ||
        mmu_probe(v, at, size, acc, false))
        return sem_fix_stack_fault(v, SEG_SS);
    return 0;
}

/* All eight stores are checked before the first one. */
static int exec_pusha(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize;
    uint64_t mask = sem_sp_mask(v), sp = v->gpr[REG_RSP];

    for (unsigned n = 1; n <= 8; n++)
        if (stack_probe(v, (sp - n * size) & mask, size, MMU_WRITE))
            return SEM_FAULT;
    for (unsigned n = 0; n < 8; n++) {
        sp = (sp - size) & mask;
        if (sem_store(v, SEG_SS, sp, size, sem_get(v, n * 8, size)))
            return SEM_FAULT;
    }
    sem_set_sp(v, sp);
    return SEM_NEXT;
}

static int exec_popa(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize;
    uint64_t mask = sem_sp_mask(v), sp = v->gpr[REG_RSP], val[8];

    for (unsigned n = 8; n-- > 0; sp += size)
        if (sem_load(v, SEG_SS, sp & mask, size, &val[n]))
            return SEM_FAULT;
    for (unsigned n = 0; n < 8; n++)
        if (n != REG_RSP)
            sem_put(v, n * 8, size, val[n]);
    sem_set_sp(v, sp);
    return SEM_NEXT;
}

/* AMD64 APM volume 3, "ENTER". Ends with a check that the new top may be written; all
 * checks come first, in the order of the accesses. */
static int exec_enter(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize, level = i->far_sel & 31;
    uint64_t mask = sem_sp_mask(v), sp = v->gpr[REG_RSP], bp = v->gpr[REG_RBP], val;
    uint64_t frame = (sp - size) & mask;
    uint64_t top = (sp - (level + 1) * size - (uint16_t)i->imm) & mask;

    for (unsigned n = 0; n <= level; n++) {
        bool copied = n && n < level;
        if ((copied && stack_probe(v, (bp - n * size) & mask, size, MMU_READ)) ||
            stack_probe(v, (frame - n * size) & mask, size, MMU_WRITE))
            return SEM_FAULT;
    }
    if (stack_probe(v, top, size, MMU_WRITE) ||
        sem_store(v, SEG_SS, frame, size, v->gpr[REG_RBP]))
        return SEM_FAULT;
    for (unsigned n = 1; n < level; n++) {
        if (sem_load(v, SEG_SS, (bp - n * size) & mask, size, &val) ||
            sem_store(v, SEG_SS, (frame - n * size) & mask, size, val))
            return SEM_FAULT;
    }
    if (level && sem_store(v, SEG_SS, (frame - level * size) & mask, size, frame))
        return SEM_FAULT;
    sem_set_sp(v, top);
    sem_put(v, REG_RBP * 8, size, frame);
    return SEM_NEXT;
}

static int exec_leave(struct vcpu *v, const struct insn *i) {
    uint64_t sp = v->gpr[REG_RBP] & sem_sp_mask(v), val;

    if (sem_load(v, SEG_SS, sp, i->opsize, &val))
        return SEM_FAULT;
    sem_set_sp(v, sp + i->opsize);
    sem_put(v, REG_RBP * 8, i->opsize, val);
    return SEM_NEXT;
}

/* --- flags --- */

static unsigned iopl(const struct vcpu *v) {
    return (unsigned)v->rflags >> X86_FL_IOPL_SHIFT & 3;
}

/* Virtual-8086 mode with IOPL below 3. */
static bool v86_restricted(const struct vcpu *v) {
    return (v->rflags & X86_FL_VM) && iopl(v) < 3;
}

/* AMD64 APM volume 3, "PUSHF"; volume 2, "Virtual Interrupts". */
static int exec_pushf(struct vcpu *v, const struct insn *i) {
    uint64_t fl = v->rflags & ~(uint64_t)(X86_FL_RF | X86_FL_VM);

    if (v86_restricted(v)) {
        if (!(v->cr4 & X86_CR4_VME) || i->opsize != 2)
            return sem_fault_err(v, X86_GP, 0);
        fl = (fl & ~(uint64_t)X86_FL_IF) | X86_FL_IOPL;
        if (fl & X86_FL_VIF)
            fl |= X86_FL_IF;
    }
    return sem_push_inline(v, i->opsize, fl);
}

/* AMD64 APM volume 3, "POPF". VM, VIF and VIP never change, RF is cleared. */
static int exec_popf(struct vcpu *v, const struct insn *i) {
    uint64_t old = v->rflags, val;
    uint64_t mask = X86_FL_STATUS | X86_FL_TF | X86_FL_DF | X86_FL_NT;
    bool restricted = v86_restricted(v);

    if (restricted && (!(v->cr4 & X86_CR4_VME) || i->opsize != 2))
        return sem_fault_err(v, X86_GP, 0);
    if (sem_top_inline(v, i->opsize, &val))
        return SEM_FAULT;
    if (i->opsize > 2)
        mask |= X86_FL_AC | X86_FL_ID | X86_FL_RF;
    val &= ~(uint64_t)X86_FL_RF;
    if (restricted) {
        if ((val & X86_FL_TF) || ((val & X86_FL_IF) && (old & X86_FL_VIP)))
            return sem_fault_err(v, X86_GP, 0);
        mask |= X86_FL_VIF;
        val = (val & ~(uint64_t)X86_FL_VIF) | (val & X86_FL_IF ? X86_FL_VIF : 0);
    } else {
        if (v->cpl <= iopl(v))
            mask |= X86_FL_IF;
        if (v->cpl == 0)
            mask |= X86_FL_IOPL;
    }
    sem_set_sp(v, v->gpr[REG_RSP] + i->opsize);
    uint64_t changed = (old ^ val) & mask & ~(uint64_t)(X86_FL_STATUS | X86_FL_DF);
    sem_write_flags(v, val, mask);
    return changed ? SEM_STOP : SEM_NEXT;
}

static int exec_lahf(struct vcpu *v, const struct insn *i) {
    sem_put(v, 1, 1, (v->rflags & 0xd5) | 2);
    return SEM_NEXT;
}

static int exec_sahf(struct vcpu *v, const struct insn *i) {
    v->rflags = (v->rflags & ~0xd5ull) | (sem_get(v, 1, 1) & 0xd5);
    return SEM_NEXT;
}

static int exec_flag(struct vcpu *v, const struct insn *i) {
    switch (i->op) {
    case OP_clc:
        v->rflags &= ~(uint64_t)X86_FL_CF;
        break;
    case OP_stc:
        v->rflags |= X86_FL_CF;
        break;
    case OP_cmc:
        v->rflags ^= X86_FL_CF;
        break;
    case OP_cld:
        v->rflags &= ~(uint64_t)X86_FL_DF;
        break;
    default:
        v->rflags |= X86_FL_DF;
    }
    return SEM_NEXT;
}

/* --- the rest --- */

static int exec_nop(struct vcpu *v, const struct insn *i) {
    return SEM_NEXT;
}

/* Faults as a load of a byte would. */
static int exec_clflush(struct vcpu *v, const struct insn *i) {
    struct gva at;

    if (sem_linear(v, i->mem.seg, sem_ea(v, i), 1, false, &at) ||
        mmu_probe(v, at, 1, MMU_READ, false))
        return sem_fix_stack_fault(v, i->mem.seg);
    return SEM_NEXT;
}

/* Clears the 64-byte line that rAX with the segment's base lies in. AMD64 APM volume 3,
 * "CLZERO". */
static int exec_clzero(struct vcpu *v, const struct insn *i) {
    unsigned seg = i->mem.access ? i->mem.seg : SEG_DS;
    uint64_t off = v->gpr[REG_RAX] & sem_addr_mask(i->addrsize);
    struct mmu_window w;
    struct gva at;

    if (sem_linear(v, seg, off - ((off + v->segbase[seg]) & 63), 64, true, &at))
        return sem_fix_stack_fault(v, seg);
    at.a &= ~63ull;
    if (mmu_window_open(v, &w, at, 64, false, true))
        return sem_fix_stack_fault(v, seg);
    for (unsigned n = 0; n < 64; n += 8)
        sem_bytes_put(w.p + n, 8, 0);
    mmu_window_commit(v, &w);
    return SEM_NEXT;
}

/* Numbers of a counted run, the same each time: splitmix64. */
static uint64_t counted_random(struct vcpu *v) {
    uint64_t z = v->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static int exec_random(struct vcpu *v, const struct insn *i) {
    uint64_t val;
    bool ok = true;

    if (v->counted)
        val = counted_random(v);
    else if (i->op == OP_rdrand)
        asm volatile("rdrand %0; setc %1" : "=&r"(val), "=qm"(ok) : : "cc");
    else
        asm volatile("rdseed %0; setc %1" : "=&r"(val), "=qm"(ok) : : "cc");
    sem_put(v, i->opnd[0].off, i->opsize, ok ? val : 0);
    v->rflags = (v->rflags & ~(uint64_t)X86_FL_STATUS) | (ok ? X86_FL_CF : 0);
    return SEM_NEXT;
}

static int exec_rdpid(struct vcpu *v, const struct insn *i) {
    sem_put(v, i->opnd[0].off, v->mode == MODE_64 ? 8 : 4, (uint32_t)v->tsc_aux);
    return SEM_NEXT;
}

/* --- the tables --- */

static insn_exec_fn *const mov_table[4][SHAPE_COUNT] = {
#define MOVE(bits)                                                                       \
    {mov##bits##_rr, mov##bits##_ri, mov##bits##_rm, mov##bits##_mr, mov##bits##_mi},
#include "sem/move.def"
#undef MOVE
};

#define LOG2(bits) (bits == 8 ? 0 : bits == 16 ? 1 : bits == 32 ? 2 : 3)
enum { EXTEND_movzx, EXTEND_movsx };
/* By destination and source size, register or memory. */
static insn_exec_fn *const extend_table[2][4][4][2] = {
#define EXTEND(name, dst, src, cast)                                                     \
    [EXTEND_##                                                                           \
        name][LOG2(dst)][LOG2(src)] = {name##dst##_##src##_r, name##dst##_##src##_m},
#include "sem/move.def"
#undef EXTEND
};

static insn_exec_fn *const setcc_table[16] = {
#define CONDITION(c) setcc_##c,
#include "sem/move.def"
#undef CONDITION
};

static insn_exec_fn *const cmovcc_table[16] = {
#define CONDITION(c) cmovcc_##c,
#include "sem/move.def"
#undef CONDITION
};

static insn_exec_fn *const table[OP_COUNT] = {
    [OP_movbe] = exec_movbe,   [OP_movnti] = exec_movnti,   [OP_xchg] = exec_xchg,
    [OP_bswap] = exec_bswap,   [OP_xlat] = exec_xlat,       [OP_salc] = exec_salc,
    [OP_cbw] = exec_widen,     [OP_cwde] = exec_widen,      [OP_cdqe] = exec_widen,
    [OP_cwd] = exec_sign,      [OP_cdq] = exec_sign,        [OP_cqo] = exec_sign,
    [OP_push] = exec_push,     [OP_pop] = exec_pop,         [OP_pusha] = exec_pusha,
    [OP_popa] = exec_popa,     [OP_pushf] = exec_pushf,     [OP_popf] = exec_popf,
    [OP_lahf] = exec_lahf,     [OP_sahf] = exec_sahf,       [OP_enter] = exec_enter,
    [OP_leave] = exec_leave,   [OP_clc] = exec_flag,        [OP_stc] = exec_flag,
    [OP_cmc] = exec_flag,      [OP_cld] = exec_flag,        [OP_std] = exec_flag,
    [OP_nop] = exec_nop,       [OP_clflush] = exec_clflush, [OP_clzero] = exec_clzero,
    [OP_rdrand] = exec_random, [OP_rdseed] = exec_random,   [OP_rdpid] = exec_rdpid,
};

static insn_exec_fn *bind_extend(const struct insn *i, unsigned kind) {
    unsigned dst = sem_log2(i->opnd[0].size), src = sem_log2(i->opnd[1].size);

    return extend_table[kind][dst][src][i->opnd[1].kind == OPND_MEM];
}

insn_exec_fn *sem_bind_move(const struct insn *i) {
    int shape = sem_shape(i);

    switch (i->op) {
    case OP_mov:
        return shape < 0 ? NULL : mov_table[sem_log2(i->opnd[0].size)][shape];
    case OP_movzx:
        return bind_extend(i, EXTEND_movzx);
    case OP_movsx:
    case OP_movsxd:
        return bind_extend(i, EXTEND_movsx);
    case OP_lea:
        return i->opsize == 2 ? exec_lea16 : i->opsize == 4 ? exec_lea32 : exec_lea64;
    case OP_setcc:
        return setcc_table[i->cond & 15];
    case OP_cmovcc:
        return cmovcc_table[i->cond & 15];
    default:
        break;
    }
    if (i->mode == MODE_64 && i->opsize == 8 && i->opnd[0].kind == OPND_REG) {
        if (i->op == OP_push)
            return exec_push_r64;
        if (i->op == OP_pop)
            return exec_pop_r64;
    }
    return table[i->op];
}

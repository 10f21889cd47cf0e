/*
 * Locked instructions, for one of several vCPUs: what reads and writes memory so that
 * nobody else does in between. AMD64 APM volume 3, "Lock Prefix"; XCHG with memory is
 * locked without it.
 *
 * The host executes the same instruction with its own LOCK prefix, on the bytes that a
 * window shows (mmu_window_open_locked()): guest RAM itself, or a copy while others are
 * kept away. A vCPU that is alone has the forms without (alu.c, bits.c, move.c), which
 * these agree with in all else.
 */
#include "sem/operand.h"

typedef void locked_fn(void *p, uint64_t b, unsigned *fl);

/* --- one operand or two --- */

#define LOCKED_2(name, bits, suffix)                                                     \
    static void name##bits(void *p, uint64_t b, unsigned *fl) {                          \
        asm volatile(SEM_FLAGS_IN "lock " #name suffix " %[b], %[m]" SEM_FLAGS_OUT       \
                     : [m] "+m"(*(uint##bits##_t *)p), "+&a"(*fl)                        \
                     : [b] "r"((uint##bits##_t)b)                                        \
                     : "cc", "memory");                                                  \
    }
#define LOCKED_1(name, bits, suffix)                                                     \
    static void name##bits(void *p, uint64_t b, unsigned *fl) {                          \
        asm volatile(SEM_FLAGS_IN "lock " #name suffix " %[m]" SEM_FLAGS_OUT             \
                     : [m] "+m"(*(uint##bits##_t *)p), "+&a"(*fl)                        \
                     :                                                                   \
                     : "cc", "memory");                                                  \
    }
#define SIZES(kind, name)                                                                \
    kind(name, 8, "b") kind(name, 16, "w") kind(name, 32, "l") kind(name, 64, "q")
#define WORDS(kind, name) kind(name, 16, "w") kind(name, 32, "l") kind(name, 64, "q")
SIZES(LOCKED_2, add)
SIZES(LOCKED_2, or)
SIZES(LOCKED_2, adc)
SIZES(LOCKED_2, sbb)
SIZES(LOCKED_2, and)
SIZES(LOCKED_2, sub)
SIZES(LOCKED_2, xor)
SIZES(LOCKED_1, inc)
SIZES(LOCKED_1, dec)
SIZES(LOCKED_1, neg)
SIZES(LOCKED_1, not )
WORDS(LOCKED_2, bts)
WORDS(LOCKED_2, btr)
WORDS(LOCKED_2, btc)
#undef LOCKED_1
#undef LOCKED_2
#undef SIZES
#undef WORDS

#define FOUR(name)                                                                       \
    { name##8, name##16, name##32, name##64 }
#define THREE(name)                                                                      \
    { NULL, name##16, name##32, name##64 }
static locked_fn *const plain[OP_COUNT][4] = {
    [OP_add] = FOUR(add), [OP_or] = FOUR(or),    [OP_adc] = FOUR(adc),
    [OP_sbb] = FOUR(sbb), [OP_and] = FOUR(and),  [OP_sub] = FOUR(sub),
    [OP_xor] = FOUR(xor), [OP_inc] = FOUR(inc),  [OP_dec] = FOUR(dec),
    [OP_neg] = FOUR(neg), [OP_not] = FOUR(not ),
};
static locked_fn *const of_bit[OP_COUNT][4] = {
    [OP_bts] = THREE(bts),
    [OP_btr] = THREE(btr),
    [OP_btc] = THREE(btc),
};
#undef FOUR
#undef THREE

/* SIZE bytes at OFF of the memory operand's segment. 0 or SEM_FAULT. */
static int open_at(struct vcpu *v, const struct insn *i, uint64_t off, unsigned size,
                   struct mmu_window *w) {
    struct gva at;

    if (sem_linear(v, i->mem.seg, off, size, true, &at) ||
        mmu_window_open_locked(v, w, at, size))
        return sem_fix_stack_fault(v, i->mem.seg);
    return 0;
}

static int open(struct vcpu *v, const struct insn *i, unsigned size,
                struct mmu_window *w) {
    return open_at(v, i, sem_ea(v, i), size, w);
}

static int exec_plain(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opnd[0].size, fl = sem_flags_pack(v);
    uint64_t b = (uint64_t)i->imm;
    struct mmu_window w;

    if (i->nops > 1 && i->opnd[1].kind == OPND_REG)
        b = sem_get(v, i->opnd[1].off, size);
    if (open(v, i, size, &w))
        return SEM_FAULT;
    plain[i->op][sem_log2(size)](w.p, b, &fl);
    mmu_window_commit(v, &w);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

/* The offset reaches beyond the operand: AMD64 APM volume 3, "BTS". */
static int exec_bit(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opnd[0].size, fl = sem_flags_pack(v);
    uint64_t off = sem_ea(v, i), bit = (uint64_t)i->imm;
    struct mmu_window w;

    if (i->opnd[1].kind == OPND_REG) {
        int64_t n = sem_sign_extend(sem_get(v, i->opnd[1].off, size), size);
        bit = (uint64_t)n;
        off += (uint64_t)(n >> (3 + sem_log2(size))) << sem_log2(size);
        off &= sem_addr_mask(i->addrsize);
    }
    if (open_at(v, i, off, size, &w))
        return SEM_FAULT;
    of_bit[i->op][sem_log2(size)](w.p, bit & (size * 8 - 1), &fl);
    mmu_window_commit(v, &w);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

/* --- exchanges --- */

/* Memory and a register change places. */
static int exec_xchg(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opnd[0].size, m = i->opnd[1].kind == OPND_MEM;
    unsigned off = i->opnd[1 - m].off;
    uint64_t x = sem_get(v, off, size);
    struct mmu_window w;

    if (open(v, i, size, &w))
        return SEM_FAULT;
    switch (size) {
    case 1:
        asm volatile("xchgb %b0, %1" : "+q"(x), "+m"(*w.p) : : "memory");
        break;
    case 2:
        asm volatile("xchgw %w0, %1"
                     : "+r"(x), "+m"(*(uint16_t *)(void *)w.p)
                     :
                     : "memory");
        break;
    case 4:
        asm volatile("xchgl %k0, %1"
                     : "+r"(x), "+m"(*(uint32_t *)(void *)w.p)
                     :
                     : "memory");
        break;
    default:
        asm volatile("xchgq %q0, %1"
                     : "+r"(x), "+m"(*(uint64_t *)(void *)w.p)
                     :
                     : "memory");
    }
    mmu_window_commit(v, &w);
    sem_put(v, off, size, x);
    return SEM_NEXT;
}

#define XADD(bits, suffix)                                                               \
    static void xadd##bits(void *p, uint64_t *s, unsigned *fl) {                         \
        uint##bits##_t x = (uint##bits##_t) * s;                                         \
        asm volatile("lock xadd" suffix " %[x], %[m]" SEM_FLAGS_OUT                      \
                     : [m] "+m"(*(uint##bits##_t *)p), [x] "+&r"(x), "=&a"(*fl)          \
                     :                                                                   \
                     : "cc", "memory");                                                  \
        *s = x;                                                                          \
    }
XADD(8, "b")
XADD(16, "w")
XADD(32, "l")
XADD(64, "q")
#undef XADD

static int exec_xadd(struct vcpu *v, const struct insn *i) {
    static void (*const fns[4])(void *, uint64_t *, unsigned *) = {xadd8, xadd16, xadd32,
                                                                   xadd64};
    unsigned size = i->opnd[0].size, src = i->opnd[1].off, fl = 0;
    uint64_t x = sem_get(v, src, size);
    struct mmu_window w;

    if (open(v, i, size, &w))
        return SEM_FAULT;
    fns[sem_log2(size)](w.p, &x, &fl);
    mmu_window_commit(v, &w);
    sem_put(v, src, size, x);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

/* ACC is the whole of rAX: the host knows when its upper half is cleared. */
#define CMPXCHG(bits, suffix)                                                            \
    static void cmpxchg##bits(void *p, uint64_t *acc, uint64_t s, unsigned *fl) {        \
        uint64_t a = *acc, t;                                                            \
        asm volatile("lock cmpxchg" suffix                                               \
                     " %[s], %[m]\n\tmovq %%rax, %[t]" SEM_FLAGS_OUT                     \
                     : [m] "+m"(*(uint##bits##_t *)p), "+&a"(a), [t] "=&r"(t)            \
                     : [s] "r"((uint##bits##_t)s)                                        \
                     : "cc", "memory");                                                  \
        *acc = t;                                                                        \
        *fl = (unsigned)a;                                                               \
    }
CMPXCHG(8, "b")
CMPXCHG(16, "w")
CMPXCHG(32, "l")
CMPXCHG(64, "q")
#undef CMPXCHG

static int exec_cmpxchg(struct vcpu *v, const struct insn *i) {
    static void (*const fns[4])(void *, uint64_t *, uint64_t,
                                unsigned *) = {cmpxchg8, cmpxchg16, cmpxchg32, cmpxchg64};
    unsigned size = i->opnd[0].size, fl = 0;
    struct mmu_window w;

    if (open(v, i, size, &w))
        return SEM_FAULT;
    fns[sem_log2(size)](w.p, &v->gpr[REG_RAX], sem_get(v, i->opnd[1].off, size), &fl);
    mmu_window_commit(v, &w);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

/* cmpxchg8b and cmpxchg16b: ZF alone changes. */
static int exec_cmpxchg_pair(struct vcpu *v, const struct insn *i) {
    unsigned half = i->op == OP_cmpxchg16b ? 8 : 4;
    uint64_t lo = sem_get(v, REG_RAX * 8, half), hi = sem_get(v, REG_RDX * 8, half);
    struct mmu_window w;
    bool same;

    if (half == 8 && ((sem_ea(v, i) + v->segbase[i->mem.seg]) & 15))
        return sem_fault_err(v, X86_GP, 0);
    if (open(v, i, half * 2, &w))
        return SEM_FAULT;
    if (half == 8)
        asm volatile("lock cmpxchg16b %[m]"
                     : [m] "+m"(*(unsigned __int128 *)(void *)w.p), "+a"(lo), "+d"(hi),
                       "=@ccz"(same)
                     : "b"(v->gpr[REG_RBX]), "c"(v->gpr[REG_RCX])
                     : "memory");
    else
        asm volatile("lock cmpxchg8b %[m]"
                     : [m] "+m"(*(uint64_t *)(void *)w.p), "+a"(lo), "+d"(hi),
                       "=@ccz"(same)
                     : "b"(v->gpr[REG_RBX]), "c"(v->gpr[REG_RCX])
                     : "memory");
    mmu_window_commit(v, &w);
    if (!same) {
        sem_put(v, REG_RAX * 8, half, lo);
        sem_put(v, REG_RDX * 8, half, hi);
    }
    v->rflags = (v->rflags & ~(uint64_t)X86_FL_ZF) | (same ? X86_FL_ZF : 0);
    return SEM_NEXT;
}

/* --- fences --- */

/* LFENCE, MFENCE, SFENCE: loads and stores of ours are not reordered but for a store with
 * a later load, which only MFENCE is about. */
static int exec_fence(struct vcpu *v, const struct insn *i) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return SEM_NEXT;
}

static bool is_fence(const struct insn *i) {
    for (unsigned n = 0; n + 2 < i->len; n++)
        if (i->bytes[n] == 0x0f && i->bytes[n + 1] == 0xae && i->bytes[n + 2] >= 0xe8)
            return true;
    return false;
}

/* --- the table --- */

insn_exec_fn *sem_bind_locked(const struct insn *i) {
    bool mem = i->opnd[0].kind == OPND_MEM;

    if (i->op == OP_xchg && (mem || i->opnd[1].kind == OPND_MEM))
        return exec_xchg;
    if (i->op == OP_nop)
        return is_fence(i) ? exec_fence : NULL;
    if (!(i->flags & INSN_LOCK) || !mem)
        return NULL;
    switch (i->op) {
    case OP_xadd:
        return exec_xadd;
    case OP_cmpxchg:
        return exec_cmpxchg;
    case OP_cmpxchg8b:
    case OP_cmpxchg16b:
        return exec_cmpxchg_pair;
    case OP_bts:
    case OP_btr:
    case OP_btc:
        return exec_bit;
    default:
        return plain[i->op][1] ? exec_plain : NULL;
    }
}

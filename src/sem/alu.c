/*
 * Integer arithmetic and logic.
 *
 * Each operation is one host instruction inside an always_inline function of (a, b,
 * packed flags) (sem/operand.h); sem/alu.def lists them by size. From these, functions
 * are made for every operand shape, so that the interpreter's hot forms have no decisions
 * left but the shadow lookup. Memory destinations are checked for writing before anything
 * changes. Decimal adjustments, which the host does not have in 64-bit mode, follow the
 * pseudocode of the Intel SDM, volume 2.
 */
#include "sem/operand.h"

typedef uint64_t binary_fn(uint64_t a, uint64_t b, unsigned *fl);
typedef uint64_t unary_fn(uint64_t a, unsigned *fl);

static __attribute__((noinline)) int binary_rmw_slow(struct vcpu *v, const struct insn *i,
                                                     unsigned size, binary_fn *fn,
                                                     uint64_t b) {
    struct rmw r;

    if (sem_rmw_open(v, i, 0, size, &r))
        return SEM_FAULT;
    unsigned fl = sem_flags_pack(v);
    sem_bytes_put(r.p, size, fn(sem_bytes_get(r.p, size), b, &fl));
    sem_flags_set(v, fl, X86_FL_STATUS);
    sem_rmw_close(v, &r);
    return SEM_NEXT;
}

SEM_INLINE int binary(struct vcpu *v, const struct insn *i, unsigned size, binary_fn *fn,
                      enum shape shape, bool writes) {
    bool to_mem = shape == SHAPE_MR || shape == SHAPE_MI;
    uint64_t a, b = 0;
    unsigned fl;

    if (shape == SHAPE_RM) {
        if (sem_load_mem(v, i, size, &b))
            return SEM_FAULT;
    } else if (shape == SHAPE_RR || shape == SHAPE_MR) {
        b = sem_get(v, i->opnd[1].off, size);
    } else {
        b = (uint64_t)i->imm;
    }
    if (to_mem && writes) {
        uint8_t *p = sem_rmw_hit(v, i, size);

        if (unlikely(!p))
            return binary_rmw_slow(v, i, size, fn, b);
        fl = sem_flags_pack(v);
        sem_bytes_put(p, size, fn(sem_bytes_get(p, size), b, &fl));
        sem_flags_set(v, fl, X86_FL_STATUS);
        return SEM_NEXT;
    }
    if (to_mem) {
        if (sem_load_mem(v, i, size, &a))
            return SEM_FAULT;
    } else {
        a = sem_get(v, i->opnd[0].off, size);
    }
    fl = sem_flags_pack(v);
    a = fn(a, b, &fl);
    if (writes)
        sem_put(v, i->opnd[0].off, size, a);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

static __attribute__((noinline)) int unary_rmw_slow(struct vcpu *v, const struct insn *i,
                                                    unsigned size, unary_fn *fn,
                                                    unsigned mask) {
    struct rmw r;
    unsigned fl = 0;

    if (sem_rmw_open(v, i, 0, size, &r))
        return SEM_FAULT;
    sem_bytes_put(r.p, size, fn(sem_bytes_get(r.p, size), &fl));
    sem_flags_set(v, fl, mask);
    sem_rmw_close(v, &r);
    return SEM_NEXT;
}

SEM_INLINE int unary(struct vcpu *v, const struct insn *i, unsigned size, unary_fn *fn,
                     bool mem, unsigned mask) {
    unsigned fl = 0;

    if (mem) {
        uint8_t *p = sem_rmw_hit(v, i, size);

        if (unlikely(!p))
            return unary_rmw_slow(v, i, size, fn, mask);
        sem_bytes_put(p, size, fn(sem_bytes_get(p, size), &fl));
    } else {
        unsigned off = i->opnd[0].off;
        sem_put(v, off, size, fn(sem_get(v, off, size), &fl));
    }
    if (mask)
        sem_flags_set(v, fl, mask);
    return SEM_NEXT;
}

#define ALU_BINARY(name, bits, suffix, flags_in, writes)                                 \
    SEM_INLINE uint64_t name##bits(uint64_t a, uint64_t b, unsigned *fl) {               \
        uint##bits##_t r = (uint##bits##_t)a;                                            \
        asm(flags_in #name suffix " %[b], %[r]" SEM_FLAGS_OUT                            \
            : [r] "+&r"(r), "+&a"(*fl)                                                   \
            : [b] "r"((uint##bits##_t)b)                                                 \
            : "cc");                                                                     \
        return r;                                                                        \
    }                                                                                    \
    static int name##bits##_rr(struct vcpu *v, const struct insn *i) {                   \
        return binary(v, i, bits / 8, name##bits, SHAPE_RR, writes);                     \
    }                                                                                    \
    static int name##bits##_ri(struct vcpu *v, const struct insn *i) {                   \
        return binary(v, i, bits / 8, name##bits, SHAPE_RI, writes);                     \
    }                                                                                    \
    static int name##bits##_rm(struct vcpu *v, const struct insn *i) {                   \
        return binary(v, i, bits / 8, name##bits, SHAPE_RM, writes);                     \
    }                                                                                    \
    static int name##bits##_mr(struct vcpu *v, const struct insn *i) {                   \
        return binary(v, i, bits / 8, name##bits, SHAPE_MR, writes);                     \
    }                                                                                    \
    static int name##bits##_mi(struct vcpu *v, const struct insn *i) {                   \
        return binary(v, i, bits / 8, name##bits, SHAPE_MI, writes);                     \
    }
#define ALU_UNARY(name, bits, suffix, mask)                                              \
    SEM_INLINE uint64_t name##bits(uint64_t a, unsigned *fl) {                           \
        uint##bits##_t r = (uint##bits##_t)a;                                            \
        asm(#name suffix " %[r]" SEM_FLAGS_OUT : [r] "+&r"(r), "+&a"(*fl) : : "cc");     \
        return r;                                                                        \
    }                                                                                    \
    static int name##bits##_r(struct vcpu *v, const struct insn *i) {                    \
        return unary(v, i, bits / 8, name##bits, false, mask);                           \
    }                                                                                    \
    static int name##bits##_m(struct vcpu *v, const struct insn *i) {                    \
        return unary(v, i, bits / 8, name##bits, true, mask);                            \
    }
#include "sem/alu.def"
#undef ALU_BINARY
#undef ALU_UNARY

/* --- multiplication and division --- */

/* AX, DX:AX, EDX:EAX or RDX:RAX, as MUL and DIV use them. */
SEM_INLINE void put_pair(struct vcpu *v, unsigned size, uint64_t lo, uint64_t hi) {
    if (size == 1) {
        sem_put(v, 0, 2, (lo & 0xff) | hi << 8);
        return;
    }
    sem_put(v, REG_RAX * 8, size, lo);
    sem_put(v, REG_RDX * 8, size, hi);
}

/* One host instruction on (lo, hi) and B; flags in and out, which EAX's use makes a bit
 * roundabout: the product or quotient is moved away before LAHF. */
#define WIDE(name, insn, suffix, type)                                                   \
    static void name(uint64_t *lo, uint64_t *hi, uint64_t b, unsigned *fl) {             \
        uint64_t a = *lo, d = *hi, f = *fl;                                              \
        asm("xchgq %%rax, %[f]\n\t" SEM_FLAGS_IN "xchgq %%rax, %[f]\n\t" insn suffix     \
            " %[b]\n\txchgq %%rax, %[f]" SEM_FLAGS_OUT "\n\txchgq %%rax, %[f]"           \
            : "+&a"(a), "+&d"(d), [f] "+&r"(f)                                           \
            : [b] "r"((type)b)                                                           \
            : "cc");                                                                     \
        *lo = a;                                                                         \
        *hi = d;                                                                         \
        *fl = (unsigned)f;                                                               \
    }
typedef void wide_fn(uint64_t *lo, uint64_t *hi, uint64_t b, unsigned *fl);
WIDE(mul8, "mul", "b", uint8_t)
WIDE(mul16, "mul", "w", uint16_t)
WIDE(mul32, "mul", "l", uint32_t)
WIDE(mul64, "mul", "q", uint64_t)
WIDE(imul8, "imul", "b", uint8_t)
WIDE(imul16, "imul", "w", uint16_t)
WIDE(imul32, "imul", "l", uint32_t)
WIDE(imul64, "imul", "q", uint64_t)
WIDE(div8, "div", "b", uint8_t)
WIDE(div16, "div", "w", uint16_t)
WIDE(div32, "div", "l", uint32_t)
WIDE(div64, "div", "q", uint64_t)
WIDE(idiv8, "idiv", "b", uint8_t)
WIDE(idiv16, "idiv", "w", uint16_t)
WIDE(idiv32, "idiv", "l", uint32_t)
WIDE(idiv64, "idiv", "q", uint64_t)
#undef WIDE

static wide_fn *const mul_fn[2][4] = {{mul8, mul16, mul32, mul64},
                                      {imul8, imul16, imul32, imul64}};
static wide_fn *const div_fn[2][4] = {{div8, div16, div32, div64},
                                      {idiv8, idiv16, idiv32, idiv64}};

static int exec_mul(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize, fl = sem_flags_pack(v);
    uint64_t b, lo = sem_get(v, 0, size), hi = 0;

    if (sem_read(v, i, 0, size, &b))
        return SEM_FAULT;
    mul_fn[i->op == OP_imul][sem_log2(size)](&lo, &hi, b, &fl);
    put_pair(v, size, lo, size == 1 ? lo >> 8 & 0xff : hi);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

/* Would HI:LO / B (SIZE bytes each, zero-extended) raise #DE? */
static bool div_overflows(uint64_t hi, uint64_t lo, uint64_t b, unsigned size,
                          bool is_signed) {
    unsigned bits = size * 8;
    uint64_t mask = sem_size_mask(size), sign = 1ull << (bits - 1);
    bool negative = false;

    if (!b)
        return true;
    if (!is_signed)
        return hi >= b;
    if (hi & sign) { /* magnitude of the dividend */
        lo = -lo & mask;
        hi = (~hi + !lo) & mask;
        negative = true;
    }
    if (b & sign) {
        b = -b & mask;
        negative = !negative;
    }
    if (hi >= b)
        return true;
    uint64_t q, r;
    if (size == 8)
        asm("divq %4" : "=a"(q), "=d"(r) : "a"(lo), "d"(hi), "r"(b) : "cc");
    else
        q = (hi << bits | lo) / b;
    return q > sign - !negative;
}

static int exec_div(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize, fl = sem_flags_pack(v);
    bool is_signed = i->op == OP_idiv;
    uint64_t b, lo = sem_get(v, 0, size);
    uint64_t hi = size == 1 ? sem_get(v, 1, 1) : sem_get(v, REG_RDX * 8, size);

    if (sem_read(v, i, 0, size, &b))
        return SEM_FAULT;
    if (div_overflows(hi, lo, b, size, is_signed))
        return sem_fault(v, X86_DE);
    if (size == 1)
        lo = sem_get(v, 0, 2);
    div_fn[is_signed][sem_log2(size)](&lo, &hi, b, &fl);
    put_pair(v, size, lo, size == 1 ? lo >> 8 & 0xff : hi);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

/* imul with two or three operands: the last two are multiplied. */
SEM_INLINE int imul_multi(struct vcpu *v, const struct insn *i, unsigned size) {
    unsigned n = i->nops == 3 ? 1 : 0, fl = sem_flags_pack(v);
    uint64_t a, b;

    if (sem_read(v, i, n, size, &a) || sem_read(v, i, n + 1, size, &b))
        return SEM_FAULT;
    if (size == 2)
        asm(SEM_FLAGS_IN "imulw %w[b], %w[r]" SEM_FLAGS_OUT
            : [r] "+&r"(a), "+&a"(fl)
            : [b] "r"(b)
            : "cc");
    else if (size == 4)
        asm(SEM_FLAGS_IN "imull %k[b], %k[r]" SEM_FLAGS_OUT
            : [r] "+&r"(a), "+&a"(fl)
            : [b] "r"(b)
            : "cc");
    else
        asm(SEM_FLAGS_IN "imulq %q[b], %q[r]" SEM_FLAGS_OUT
            : [r] "+&r"(a), "+&a"(fl)
            : [b] "r"(b)
            : "cc");
    sem_put(v, i->opnd[0].off, size, a);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

static int exec_imul16(struct vcpu *v, const struct insn *i) {
    return imul_multi(v, i, 2);
}

static int exec_imul32(struct vcpu *v, const struct insn *i) {
    return imul_multi(v, i, 4);
}

static int exec_imul64(struct vcpu *v, const struct insn *i) {
    return imul_multi(v, i, 8);
}

/* mulx hi, lo, src: RDX times src, no flags. */
static int exec_mulx(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize;
    uint64_t b;

    if (sem_check_vex(v) || sem_read(v, i, 2, size, &b))
        return SEM_FAULT;
    unsigned __int128 p =
        (unsigned __int128)sem_get(v, REG_RDX * 8, size) * (b & sem_size_mask(size));
    sem_put(v, i->opnd[1].off, size, (uint64_t)p);
    sem_put(v, i->opnd[0].off, size, (uint64_t)(p >> (size * 8)));
    return SEM_NEXT;
}

/* adcx and adox: an addition whose carry is CF or OF alone. */
static int exec_adcx_adox(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize;
    uint64_t flag = i->op == OP_adcx ? X86_FL_CF : X86_FL_OF;
    uint64_t b;

    if (sem_read(v, i, 1, size, &b))
        return SEM_FAULT;
    unsigned __int128 sum = (unsigned __int128)sem_get(v, i->opnd[0].off, size) +
                            (b & sem_size_mask(size)) + !!(v->rflags & flag);
    sem_put(v, i->opnd[0].off, size, (uint64_t)sum);
    v->rflags = (v->rflags & ~flag) | (sum >> (size * 8) ? flag : 0);
    return SEM_NEXT;
}

static int exec_andn(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize, fl = sem_flags_pack(v);
    uint64_t a = sem_get(v, i->opnd[1].off, size), b;

    if (sem_check_vex(v) || sem_read(v, i, 2, size, &b))
        return SEM_FAULT;
    if (size == 4)
        asm(SEM_FLAGS_IN "andnl %k[b], %k[a], %k[a]" SEM_FLAGS_OUT
            : [a] "+&r"(a), "+&a"(fl)
            : [b] "r"(b)
            : "cc");
    else
        asm(SEM_FLAGS_IN "andnq %q[b], %q[a], %q[a]" SEM_FLAGS_OUT
            : [a] "+&r"(a), "+&a"(fl)
            : [b] "r"(b)
            : "cc");
    sem_put(v, i->opnd[0].off, size, a);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

/* --- decimal adjustments: Intel SDM volume 2, "DAA", "DAS", "AAA", "AAS", ... --- */

/* Flags of AL's value, for SF, ZF and PF. */
static unsigned flags_of(uint8_t al) {
    unsigned fl = 0;
    or8(al, al, &fl);
    return (fl >> 8) & (X86_FL_SF | X86_FL_ZF | X86_FL_PF);
}

static void put_flags(struct vcpu *v, unsigned flags, unsigned mask) {
    v->rflags = (v->rflags & ~(uint64_t)mask) | (flags & mask);
}

static int exec_daa_das(struct vcpu *v, const struct insn *i) {
    uint8_t old = (uint8_t)v->gpr[REG_RAX], al = old;
    bool add = i->op == OP_daa, cf = v->rflags & X86_FL_CF, out_cf = false;
    unsigned fl = 0;

    if ((old & 0xf) > 9 || (v->rflags & X86_FL_AF)) {
        out_cf = cf || (add ? old > 0xff - 6 : old < 6);
        al = (uint8_t)(add ? al + 6 : al - 6);
        fl |= X86_FL_AF;
    }
    if (old > 0x99 || cf) {
        al = (uint8_t)(add ? al + 0x60 : al - 0x60);
        out_cf = true;
    }
    fl |= flags_of(al) | (out_cf ? X86_FL_CF : 0);
    sem_put(v, 0, 1, al);
    /* OF is undefined; clear, as after the logical operations. */
    put_flags(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

static int exec_aaa_aas(struct vcpu *v, const struct insn *i) {
    uint16_t ax = (uint16_t)v->gpr[REG_RAX];
    bool adjust = (ax & 0xf) > 9 || (v->rflags & X86_FL_AF);
    unsigned fl = adjust ? X86_FL_AF | X86_FL_CF : 0;

    if (adjust && i->op == OP_aaa)
        ax = (uint16_t)(ax + 0x106);
    else if (adjust)
        ax = (uint16_t)(ax - 0x106);
    ax &= 0xff0f;
    sem_put(v, 0, 2, ax);
    put_flags(v, fl | flags_of((uint8_t)ax), X86_FL_STATUS);
    return SEM_NEXT;
}

static int exec_aam(struct vcpu *v, const struct insn *i) {
    uint8_t al = (uint8_t)v->gpr[REG_RAX], base = (uint8_t)i->imm;

    if (!base)
        return sem_fault(v, X86_DE);
    sem_put(v, 0, 2, (uint64_t)(al / base) << 8 | al % base);
    put_flags(v, flags_of(al % base), X86_FL_STATUS);
    return SEM_NEXT;
}

static int exec_aad(struct vcpu *v, const struct insn *i) {
    uint16_t ax = (uint16_t)v->gpr[REG_RAX];
    unsigned fl = 0;
    /* The sum's flags are AL + AH * base, which settles CF, OF and AF as well. */
    uint8_t al = (uint8_t)add8(ax & 0xff, (uint8_t)((ax >> 8) * (uint8_t)i->imm), &fl);

    sem_put(v, 0, 2, al);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

/* --- compare and exchange --- */

/* D and ACC are whole registers (or a loaded operand): 32-bit forms clear upper halves
 * exactly where the host does. */
#define CMPXCHG(bits, suffix, mod)                                                       \
    static void cmpxchg##bits(uint64_t *d, uint64_t *acc, uint64_t s, unsigned *fl) {    \
        uint64_t a = *acc, x = *d, t;                                                    \
        asm("cmpxchg" suffix " %" mod "[s], %" mod                                       \
            "[x]\n\tmovq %%rax, %[t]" SEM_FLAGS_OUT                                      \
            : [x] "+&r"(x), "+&a"(a), [t] "=&r"(t)                                       \
            : [s] "r"(s)                                                                 \
            : "cc");                                                                     \
        *d = x;                                                                          \
        *acc = t;                                                                        \
        *fl = (unsigned)a;                                                               \
    }
typedef void cmpxchg_fn(uint64_t *d, uint64_t *acc, uint64_t s, unsigned *fl);
CMPXCHG(8, "b", "b")
CMPXCHG(16, "w", "w")
CMPXCHG(32, "l", "k")
CMPXCHG(64, "q", "q")
#undef CMPXCHG

static int exec_cmpxchg(struct vcpu *v, const struct insn *i) {
    static cmpxchg_fn *const fns[4] = {cmpxchg8, cmpxchg16, cmpxchg32, cmpxchg64};
    unsigned size = i->opnd[0].size, fl = 0;
    bool reg = i->opnd[0].kind == OPND_REG;
    struct rmw r;

    /* The destination is written in either case: permission comes first. */
    if (sem_rmw_open(v, i, 0, size, &r))
        return SEM_FAULT;
    unsigned whole = reg && size >= 4 ? 8 : size;
    uint64_t d = sem_bytes_get(r.p, whole), acc = v->gpr[REG_RAX];
    fns[sem_log2(size)](&d, &acc, sem_get(v, i->opnd[1].off, size), &fl);
    v->gpr[REG_RAX] = acc;
    sem_bytes_put(r.p, whole, d); /* last: the destination may be in rAX itself */
    r.reg32 = false;
    sem_rmw_close(v, &r);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

/* cmpxchg8b and cmpxchg16b: EDX:EAX or RDX:RAX against memory; ZF alone changes. */
static int exec_cmpxchg_pair(struct vcpu *v, const struct insn *i) {
    unsigned half = i->op == OP_cmpxchg16b ? 8 : 4;
    struct rmw r;

    if (half == 8 && ((sem_ea(v, i) + v->segbase[i->mem.seg]) & 15))
        return sem_fault_err(v, X86_GP, 0);
    if (sem_rmw_open(v, i, 0, half * 2, &r))
        return SEM_FAULT;
    uint8_t *p = r.p;
    uint64_t lo = sem_bytes_get(p, half), hi = sem_bytes_get(p + half, half);
    if (lo == sem_get(v, REG_RAX * 8, half) && hi == sem_get(v, REG_RDX * 8, half)) {
        sem_bytes_put(p, half, v->gpr[REG_RBX]);
        sem_bytes_put(p + half, half, v->gpr[REG_RCX]);
        v->rflags |= X86_FL_ZF;
    } else {
        sem_put(v, REG_RAX * 8, half, lo);
        sem_put(v, REG_RDX * 8, half, hi);
        v->rflags &= ~(uint64_t)X86_FL_ZF;
    }
    sem_rmw_close(v, &r);
    return SEM_NEXT;
}

static int exec_xadd(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opnd[0].size, fl = 0, src = i->opnd[1].off;
    struct rmw r;
    uint64_t sum;

    if (sem_rmw_open(v, i, 0, size, &r))
        return SEM_FAULT;
    uint64_t d = sem_bytes_get(r.p, size), s = sem_get(v, src, size);
    switch (size) {
    case 1:
        sum = add8(d, s, &fl);
        break;
    case 2:
        sum = add16(d, s, &fl);
        break;
    case 4:
        sum = add32(d, s, &fl);
        break;
    default:
        sum = add64(d, s, &fl);
    }
    sem_put(v, src, size, d); /* first: with one register, the sum stays */
    sem_bytes_put(r.p, size, sum);
    sem_rmw_close(v, &r);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

/* --- the tables --- */

static insn_exec_fn *const binary_table[OP_COUNT][4][SHAPE_COUNT] = {
#define ALU_BINARY(name, bits, suffix, flags_in, writes)                                 \
    [OP_##name][bits == 8    ? 0                                                         \
                : bits == 16 ? 1                                                         \
                : bits == 32 ? 2                                                         \
                             : 3] = {name##bits##_rr, name##bits##_ri, name##bits##_rm,  \
                                     name##bits##_mr, name##bits##_mi},
#include "sem/alu.def"
#undef ALU_BINARY
};

static insn_exec_fn *const unary_table[OP_COUNT][4][2] = {
#define ALU_UNARY(name, bits, suffix, mask)                                              \
    [OP_##name][bits == 8    ? 0                                                         \
                : bits == 16 ? 1                                                         \
                : bits == 32 ? 2                                                         \
                             : 3] = {name##bits##_r, name##bits##_m},
#include "sem/alu.def"
#undef ALU_UNARY
};

static insn_exec_fn *const table[OP_COUNT] = {
    [OP_mul] = exec_mul,
    [OP_imul] = exec_mul,
    [OP_div] = exec_div,
    [OP_idiv] = exec_div,
    [OP_mulx] = exec_mulx,
    [OP_adcx] = exec_adcx_adox,
    [OP_adox] = exec_adcx_adox,
    [OP_andn] = exec_andn,
    [OP_daa] = exec_daa_das,
    [OP_das] = exec_daa_das,
    [OP_aaa] = exec_aaa_aas,
    [OP_aas] = exec_aaa_aas,
    [OP_aam] = exec_aam,
    [OP_aad] = exec_aad,
    [OP_cmpxchg] = exec_cmpxchg,
    [OP_cmpxchg8b] = exec_cmpxchg_pair,
    [OP_cmpxchg16b] = exec_cmpxchg_pair,
    [OP_xadd] = exec_xadd,
};

insn_exec_fn *sem_bind_alu(const struct insn *i) {
    unsigned size = sem_log2(i->opnd[0].size);
    int shape = sem_shape(i);

    if (i->op == OP_imul && i->nops > 1)
        return i->opsize == 2 ? exec_imul16 : i->opsize == 4 ? exec_imul32 : exec_imul64;
    if (table[i->op])
        return table[i->op];
    if (unary_table[i->op][size][0])
        return unary_table[i->op][size][i->opnd[0].kind == OPND_MEM];
    /* test is commutative: `test mem, reg` may come either way round. */
    return shape < 0 ? NULL : binary_table[i->op][size][shape];
}

/*
 * Shifts, rotates, bit tests, bit counts and the BMI instructions.
 *
 * Shifts run on the host with the guest's flags loaded first, so that a count of zero
 * keeps them and undefined ones are the host's (sem/operand.h). They run as shifts by CL;
 * a host that treats rotates by an immediate otherwise is asked about it when they are
 * bound (immediate_keeps_of()).
 */
#include "sem/operand.h"

typedef uint64_t shift_fn(uint64_t a, uint8_t count, unsigned *fl);

/* The count is the second operand, an immediate or CL; a form without it shifts by 1. */
SEM_INLINE uint8_t shift_count(const struct vcpu *v, const struct insn *i, unsigned n) {
    if (i->nops <= n)
        return 1;
    return i->opnd[n].kind == OPND_IMM ? (uint8_t)i->imm : (uint8_t)v->gpr[REG_RCX];
}

/* KEEP: a count other than 1 leaves OF alone. */
SEM_INLINE int shift(struct vcpu *v, const struct insn *i, unsigned size, shift_fn *fn,
                     bool mem, bool keep) {
    uint8_t count = shift_count(v, i, 1);
    unsigned fl = sem_flags_pack(v), mask = X86_FL_STATUS;

    if (keep && (count & (size == 8 ? 63 : 31)) != 1)
        mask &= ~X86_FL_OF;

    if (!mem) {
        unsigned off = i->opnd[0].off;
        sem_put(v, off, size, fn(sem_get(v, off, size), count, &fl));
    } else {
        struct rmw r;
        if (sem_rmw_open(v, i, 0, size, &r))
            return SEM_FAULT;
        sem_bytes_put(r.p, size, fn(sem_bytes_get(r.p, size), count, &fl));
        sem_rmw_close(v, &r);
    }
    sem_flags_set(v, fl, mask);
    return SEM_NEXT;
}

/* Intel SDM volume 2, "RCL/RCR/ROL/ROR": OF is undefined where the count is not 1. Some
 * processors then compute it when the count is in CL, and leave it alone when it is an
 * immediate and the operand a register; translated code is what the host does. */
static bool immediate_keeps_of(void) {
    uint8_t a = 4, after; /* by two: bits 7 and 6 of the result are 0 */

    asm("movb $0x7f, %b[o]\n\taddb $1, %b[o]\n\t" /* sets OF */
        "rorb $2, %b[a]\n\tseto %b[o]"
        : [a] "+r"(a), [o] "=&r"(after)
        :
        : "cc");
    return after;
}

#define SHIFT(name, bits, suffix)                                                        \
    SEM_INLINE uint64_t name##bits(uint64_t a, uint8_t count, unsigned *fl) {            \
        uint##bits##_t r = (uint##bits##_t)a;                                            \
        asm(SEM_FLAGS_IN #name suffix " %%cl, %[r]" SEM_FLAGS_OUT                        \
            : [r] "+&r"(r), "+&a"(*fl)                                                   \
            : "c"(count)                                                                 \
            : "cc");                                                                     \
        return r;                                                                        \
    }                                                                                    \
    static int name##bits##_r(struct vcpu *v, const struct insn *i) {                    \
        return shift(v, i, bits / 8, name##bits, false, false);                          \
    }                                                                                    \
    static int name##bits##_m(struct vcpu *v, const struct insn *i) {                    \
        return shift(v, i, bits / 8, name##bits, true, false);                           \
    }                                                                                    \
    static int name##bits##_rk(struct vcpu *v, const struct insn *i) {                   \
        return shift(v, i, bits / 8, name##bits, false, true);                           \
    }
#include "sem/bits.def"
#undef SHIFT

/* One host instruction DST, SRC with the guest's flags in and out, for the sizes that it
 * has. The destination goes in too: some forms leave it as it was. */
#define HOST_2(name, insn, mod)                                                          \
    static void name(uint64_t *d, uint64_t s, unsigned *fl) {                            \
        uint64_t x = *d;                                                                 \
        asm(SEM_FLAGS_IN insn " %" mod "[s], %" mod "[x]" SEM_FLAGS_OUT                  \
            : [x] "+&r"(x), "+&a"(*fl)                                                   \
            : [s] "r"(s)                                                                 \
            : "cc");                                                                     \
        *d = x;                                                                          \
    }
typedef void host2_fn(uint64_t *d, uint64_t s, unsigned *fl);
HOST_2(bt16, "btw", "w")
HOST_2(bt32, "btl", "k")
HOST_2(bt64, "btq", "q")
HOST_2(bts16, "btsw", "w")
HOST_2(bts32, "btsl", "k")
HOST_2(bts64, "btsq", "q")
HOST_2(btr16, "btrw", "w")
HOST_2(btr32, "btrl", "k")
HOST_2(btr64, "btrq", "q")
HOST_2(btc16, "btcw", "w")
HOST_2(btc32, "btcl", "k")
HOST_2(btc64, "btcq", "q")
HOST_2(bsf16, "bsfw", "w")
HOST_2(bsf32, "bsfl", "k")
HOST_2(bsf64, "bsfq", "q")
HOST_2(bsr16, "bsrw", "w")
HOST_2(bsr32, "bsrl", "k")
HOST_2(bsr64, "bsrq", "q")
HOST_2(popcnt16, "popcntw", "w")
HOST_2(popcnt32, "popcntl", "k")
HOST_2(popcnt64, "popcntq", "q")
HOST_2(lzcnt16, "lzcntw", "w")
HOST_2(lzcnt32, "lzcntl", "k")
HOST_2(lzcnt64, "lzcntq", "q")
HOST_2(tzcnt16, "tzcntw", "w")
HOST_2(tzcnt32, "tzcntl", "k")
HOST_2(tzcnt64, "tzcntq", "q")
HOST_2(blsi32, "blsil", "k")
HOST_2(blsi64, "blsiq", "q")
HOST_2(blsmsk32, "blsmskl", "k")
HOST_2(blsmsk64, "blsmskq", "q")
HOST_2(blsr32, "blsrl", "k")
HOST_2(blsr64, "blsrq", "q")
#undef HOST_2

/* DST = op(SRC1, SRC2) as VEX instructions have it; AT&T operand order in INSN. */
#define HOST_3(name, insn, mod)                                                          \
    static void name(uint64_t *d, uint64_t rm, uint64_t r, unsigned *fl) {               \
        uint64_t x;                                                                      \
        asm(SEM_FLAGS_IN insn " %" mod "[r], %" mod "[rm], %" mod "[x]" SEM_FLAGS_OUT    \
            : [x] "=&r"(x), "+&a"(*fl)                                                   \
            : [r] "r"(r), [rm] "r"(rm)                                                   \
            : "cc");                                                                     \
        *d = x;                                                                          \
    }
typedef void host3_fn(uint64_t *d, uint64_t rm, uint64_t r, unsigned *fl);
HOST_3(bextr32, "bextrl", "k")
HOST_3(bextr64, "bextrq", "q")
HOST_3(bzhi32, "bzhil", "k")
HOST_3(bzhi64, "bzhiq", "q")
HOST_3(sarx32, "sarxl", "k")
HOST_3(sarx64, "sarxq", "q")
HOST_3(shlx32, "shlxl", "k")
HOST_3(shlx64, "shlxq", "q")
HOST_3(shrx32, "shrxl", "k")
HOST_3(shrx64, "shrxq", "q")
HOST_3(pdep32, "pdepl", "k")
HOST_3(pdep64, "pdepq", "q")
HOST_3(pext32, "pextl", "k")
HOST_3(pext64, "pextq", "q")
#undef HOST_3

static host2_fn *const host2[OP_COUNT][4] = {
    [OP_bt] = {NULL, bt16, bt32, bt64},
    [OP_bts] = {NULL, bts16, bts32, bts64},
    [OP_btr] = {NULL, btr16, btr32, btr64},
    [OP_btc] = {NULL, btc16, btc32, btc64},
    [OP_bsf] = {NULL, bsf16, bsf32, bsf64},
    [OP_bsr] = {NULL, bsr16, bsr32, bsr64},
    [OP_popcnt] = {NULL, popcnt16, popcnt32, popcnt64},
    [OP_lzcnt] = {NULL, lzcnt16, lzcnt32, lzcnt64},
    [OP_tzcnt] = {NULL, tzcnt16, tzcnt32, tzcnt64},
    [OP_blsi] = {NULL, NULL, blsi32, blsi64},
    [OP_blsmsk] = {NULL, NULL, blsmsk32, blsmsk64},
    [OP_blsr] = {NULL, NULL, blsr32, blsr64},
};

static host3_fn *const host3[OP_COUNT][4] = {
    [OP_bextr] = {NULL, NULL, bextr32, bextr64}, [OP_bzhi] = {NULL, NULL, bzhi32, bzhi64},
    [OP_sarx] = {NULL, NULL, sarx32, sarx64},    [OP_shlx] = {NULL, NULL, shlx32, shlx64},
    [OP_shrx] = {NULL, NULL, shrx32, shrx64},    [OP_pdep] = {NULL, NULL, pdep32, pdep64},
    [OP_pext] = {NULL, NULL, pext32, pext64},
};

/* Bit scans and counts, blsi and friends: destination register, source anything. The
 * whole register goes to the host, which knows when the upper half survives. */
static int exec_scan(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize, fl = sem_flags_pack(v);
    uint64_t s, *d = sem_reg(v, i->opnd[0].off);

    if (((i->flags & INSN_VEX) && sem_check_vex(v)) || sem_read(v, i, 1, size, &s))
        return SEM_FAULT;
    host2[i->op][sem_log2(size)](d, s, &fl);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

/* DST, SRC1, SRC2 as Intel writes them. */
static int exec_vex3(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize, fl = sem_flags_pack(v);
    uint64_t a, b;

    if (sem_check_vex(v) || sem_read(v, i, 1, size, &a) || sem_read(v, i, 2, size, &b))
        return SEM_FAULT;

    host3[i->op][sem_log2(size)](sem_reg(v, i->opnd[0].off), a, b, &fl);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

static int exec_rorx(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opsize, n = (unsigned)i->imm & (size * 8 - 1);
    uint64_t s;

    if (sem_check_vex(v) || sem_read(v, i, 1, size, &s))
        return SEM_FAULT;
    s &= sem_size_mask(size);
    sem_put(v, i->opnd[0].off, size, n ? s >> n | s << (size * 8 - n) : s);
    return SEM_NEXT;
}

/* A bit string in memory: a register's offset is signed and reaches beyond the operand.
 * AMD64 APM volume 3, "BT". */
static int exec_bt_mem(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opnd[0].size, fl = sem_flags_pack(v);
    uint64_t off = sem_ea(v, i), bit = (uint64_t)i->imm, d;
    host2_fn *fn = host2[i->op][sem_log2(size)];

    if (i->opnd[1].kind == OPND_REG) {
        int64_t n = sem_sign_extend(sem_get(v, i->opnd[1].off, size), size);
        bit = (uint64_t)n;
        off += (uint64_t)(n >> (3 + sem_log2(size))) << sem_log2(size);
        off &= sem_addr_mask(i->addrsize);
    }
    if (i->op == OP_bt) {
        if (sem_load(v, i->mem.seg, off, size, &d))
            return SEM_FAULT;
        fn(&d, bit, &fl);
    } else {
        struct rmw r;
        if (sem_rmw_open_at(v, &r, i->mem.seg, off, size))
            return SEM_FAULT;
        d = sem_bytes_get(r.p, size);
        fn(&d, bit, &fl);
        sem_bytes_put(r.p, size, d);
        sem_rmw_close(v, &r);
    }
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

static int exec_bt_reg(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opnd[0].size, fl = sem_flags_pack(v);
    uint64_t d = sem_get(v, i->opnd[0].off, size);
    uint64_t bit =
        i->opnd[1].kind == OPND_REG ? sem_get(v, i->opnd[1].off, size) : (uint64_t)i->imm;

    host2[i->op][sem_log2(size)](&d, bit, &fl);
    if (i->op != OP_bt)
        sem_put(v, i->opnd[0].off, size, d);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

#define DOUBLE_SHIFT(name, insn, mod)                                                    \
    static uint64_t name(uint64_t a, uint64_t b, uint8_t count, unsigned *fl) {          \
        asm(SEM_FLAGS_IN insn " %%cl, %" mod "[b], %" mod "[a]" SEM_FLAGS_OUT            \
            : [a] "+&r"(a), "+&a"(*fl)                                                   \
            : [b] "r"(b), "c"(count)                                                     \
            : "cc");                                                                     \
        return a;                                                                        \
    }
typedef uint64_t double_fn(uint64_t a, uint64_t b, uint8_t count, unsigned *fl);
DOUBLE_SHIFT(shld16, "shldw", "w")
DOUBLE_SHIFT(shld32, "shldl", "k")
DOUBLE_SHIFT(shld64, "shldq", "q")
DOUBLE_SHIFT(shrd16, "shrdw", "w")
DOUBLE_SHIFT(shrd32, "shrdl", "k")
DOUBLE_SHIFT(shrd64, "shrdq", "q")
#undef DOUBLE_SHIFT

static int exec_double_shift(struct vcpu *v, const struct insn *i) {
    static double_fn *const fns[2][4] = {{NULL, shld16, shld32, shld64},
                                         {NULL, shrd16, shrd32, shrd64}};
    unsigned size = i->opsize, fl = sem_flags_pack(v);
    uint8_t count = shift_count(v, i, 2);
    uint64_t b = sem_get(v, i->opnd[1].off, size);
    struct rmw r;

    if (sem_rmw_open(v, i, 0, size, &r))
        return SEM_FAULT;
    uint64_t d =
        fns[i->op == OP_shrd][sem_log2(size)](sem_bytes_get(r.p, size), b, count, &fl);
    sem_bytes_put(r.p, size, d);
    sem_rmw_close(v, &r);
    sem_flags_set(v, fl, X86_FL_STATUS);
    return SEM_NEXT;
}

static int exec_crc32(struct vcpu *v, const struct insn *i) {
    unsigned size = i->opnd[1].size;
    uint64_t s, *d = sem_reg(v, i->opnd[0].off), crc = *d;

    if (sem_read(v, i, 1, size, &s))
        return SEM_FAULT;
    switch (size) {
    case 1:
        asm("crc32b %b1, %k0" : "+r"(crc) : "r"(s));
        break;
    case 2:
        asm("crc32w %w1, %k0" : "+r"(crc) : "r"(s));
        break;
    case 4:
        asm("crc32l %k1, %k0" : "+r"(crc) : "r"(s));
        break;
    default:
        asm("crc32q %q1, %q0" : "+r"(crc) : "r"(s));
    }
    *d = crc; /* the host has cleared the upper half */
    return SEM_NEXT;
}

/* By size; then register, memory, register with KEEP. */
static insn_exec_fn *const shift_table[OP_COUNT][4][3] = {
#define SHIFT(name, bits, suffix)                                                        \
    [OP_##name][bits == 8    ? 0                                                         \
                : bits == 16 ? 1                                                         \
                : bits == 32 ? 2                                                         \
                             : 3] = {name##bits##_r, name##bits##_m, name##bits##_rk},
#include "sem/bits.def"
#undef SHIFT
};

insn_exec_fn *sem_bind_bits(const struct insn *i) {
    bool mem = i->opnd[0].kind == OPND_MEM;
    unsigned form = mem;

    switch (i->op) {
    case OP_rol:
    case OP_ror:
        if (!mem && i->nops > 1 && i->opnd[1].kind == OPND_IMM && immediate_keeps_of())
            form = 2;
        break;
    case OP_shld:
    case OP_shrd:
        return exec_double_shift;
    case OP_rorx:
        return exec_rorx;
    case OP_crc32:
        return exec_crc32;
    case OP_bt:
    case OP_bts:
    case OP_btr:
    case OP_btc:
        return mem ? exec_bt_mem : exec_bt_reg;
    default:
        break;
    }
    if (host2[i->op][2])
        return exec_scan;
    if (host3[i->op][2])
        return exec_vex3;
    return shift_table[i->op][sem_log2(i->opnd[0].size)][form];
}

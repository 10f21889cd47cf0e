/*
 * One decoded instruction: the IR that the interpreter runs and the translator reads.
 *
 * Self-contained: everything that sem/ needs is here, nothing refers to Zydis. It is
 * valid for the (mode, bytes) it was decoded from, whatever the linear address:
 * RIP-relative operands have base REG_RIP and a displacement that already includes the
 * length, direct branches carry their displacement in imm.
 *
 * Operands are in Intel order (destination first), explicit ones only, except where
 * noted:
 * - mul, imul with one operand, div, idiv: the explicit operand
 * - cmpxchg, xadd, shld, shrd: the explicit ones; CL appears as a register operand
 * - push, pop: the explicit one; in, out: both, always
 * - string operations: none; the operand size is in opsize
 * - jcc, jmp, call, direct: none; imm holds the signed displacement
 * - jmp, call, far ones too, indirect: the register or memory operand
 * - jmp_far, call_far, direct: none; imm is the offset, far_sel the selector
 * - int: imm; enter: imm is the size, far_sel the nesting level
 * - OP_native and the vector ops: op[] as Zydis lists the explicit ones, without EVEX's
 *   opmask; the memory operand, if any, in mem
 */
#ifndef DECODE_INSN_H
#define DECODE_INSN_H

#include "cpu/vcpu.h"

enum op {
#define OP(name) OP_##name,
#include "decode/op.def"
#undef OP
    OP_COUNT
};

enum opnd_kind {
    OPND_NONE,
    OPND_REG, /* a general-purpose register, at byte offset `off` of vcpu.gpr */
    OPND_MEM, /* insn.mem */
    OPND_IMM, /* insn.imm, sign- or zero-extended to 64 bits as the instruction says */
    OPND_SEG, /* a segment register, number in reg */
    OPND_CR,
    OPND_DR,
    OPND_VEC, /* x87, MMX, vector or opmask register, number in reg: for OP_native */
};

#define OPND_READ 1u
#define OPND_WRITE 2u

struct operand {
    uint8_t kind;   /* enum opnd_kind */
    uint8_t size;   /* bytes */
    uint8_t reg;    /* enum vcpu_reg or the register's number */
    uint8_t off;    /* OPND_REG: byte offset into vcpu.gpr (AH is 1, SPL is 32) */
    uint8_t access; /* OPND_READ | OPND_WRITE */
};

struct mem_operand {
    uint8_t base;  /* enum vcpu_reg; REG_ZERO if none; REG_RIP */
    uint8_t index; /* enum vcpu_reg; REG_ZERO if none; gathers, scatters: the low bits of
                      a vector register's number */
    uint8_t scale; /* shift: 0..3 */
    uint8_t seg;   /* enum vcpu_seg, default or overridden */
    uint8_t size;  /* bytes accessed; 0 when it depends (xsave) or none (lea, nop) */
    uint8_t access;
    uint8_t elem; /* bytes of an element of a vector */
    int64_t
        disp; /* sign-extended (zero-extended moffs); cut to the address size at use */
};

enum insn_rep { REP_NONE, REP_REPE, REP_REPNE }; /* rep movs and friends: REP_REPE */

/* insn.flags */
enum insn_flag {
    INSN_LOCK = 1u << 0, /* has a (valid) LOCK prefix */
    INSN_ENDS_BLOCK =
        1u << 1, /* may change rip, mode, or what may be fetched or delivered */
    INSN_PRIVILEGED = 1u << 2, /* #GP unless CPL 0 */
    INSN_PREFIX66 = 1u << 3,
    INSN_REX_W = 1u << 4,
    INSN_VEX = 1u << 5,
    INSN_ALIGNED = 1u << 6, /* memory operand must be naturally aligned or #GP */
    INSN_X87 = 1u << 7,     /* OP_native: an x87 instruction (#NM by EM/TS, #MF) */
    INSN_MMX = 1u << 8,     /* OP_native: an MMX instruction */
    INSN_NO_MODRM_MEM = 1u << 9,
    INSN_GPR = 1u << 10, /* OP_native: reads or writes a general register (not address) */
    INSN_FLAGS = 1u << 11,  /* OP_native: reads or writes RFLAGS */
    INSN_REX = 1u << 12,    /* has an effective REX prefix, at off_rex (maybe 0) */
    INSN_AVX512 = 1u << 13, /* EVEX-encoded, or of opmask registers */
    INSN_MASKED = 1u << 14, /* only selected elements of the memory operand count */
};

struct insn;
/* A semantic function; see sem/sem.h for what it returns. */
typedef int insn_exec_fn(struct vcpu *v, const struct insn *i);

struct insn {
    insn_exec_fn *exec; /* filled in by sem_bind() */
    uint16_t op;        /* enum op */
    uint16_t flags;     /* enum insn_flag */
    uint8_t len;        /* 1..15 */
    uint8_t mode;       /* enum cpu_mode it was decoded in */
    uint8_t opsize;     /* effective operand size, bytes: 1, 2, 4, 8 */
    uint8_t addrsize;   /* effective address size, bytes: 2, 4, 8 */
    uint8_t cond;       /* jcc, setcc, cmovcc: condition number 0..15 as in the opcode */
    uint8_t rep;        /* enum insn_rep */
    uint8_t nops;
    uint8_t feature; /* enum cpuid_feature that must be offered, else #UD */
    uint8_t also;    /* and this one */
    struct operand opnd[4];
    struct mem_operand mem;
    int64_t imm;
    uint64_t imm2; /* second immediate (extrq, insertq, enter's level) */
    uint16_t far_sel;
    /* Status flags (X86_FL_STATUS bits, and DF, IF... where it matters). */
    uint16_t fl_read, fl_written, fl_undefined;
    void *native;      /* OP_native: host code, made on first use by sem */
    uint8_t bytes[16]; /* the encoding, len bytes */
    /*
     * Where things are in bytes[], for re-encoding OP_native. 0 if absent. off_opcode is
     * the first opcode byte: 0F of a legacy escape, the byte after a VEX prefix. vex_len
     * is the prefix's length, 2 or 3 (EVEX's: 4). off_rex counts if INSN_REX, off_vex if
     * INSN_VEX.
     */
    uint8_t off_opcode, off_modrm, off_rex, off_vex, vex_len, off_imm, imm_len;
};

#endif

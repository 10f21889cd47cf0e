/*
 * Host instructions as a checker of emitted code wants them: every operand with its size
 * and what is done to it, the hidden ones included, and whether it is an instruction that
 * translated code may contain at all.
 *
 * An instruction is allowed because it is in a list (host.c), never because it is in
 * none. Forbidden are those that are unknown; that touch the stack, segments, control or
 * debug registers, or flags beyond the six of arithmetic; that tell about the host or
 * change it; that name host addresses in what they store; and those whose memory operand
 * does not lie where its address says (a bit string with its offset in a register), or of
 * which a mask selects parts.
 */
#ifndef DECODE_HOST_H
#define DECODE_HOST_H

#include "base/types.h"

enum host_op {
    HOST_FORBIDDEN,
    HOST_PLAIN,  /* general registers and memory, without more to it */
    HOST_VECTOR, /* x87, MMX, SSE, AVX, AVX-512 */
    HOST_MOV,
    HOST_LEA,
    HOST_ADD,
    HOST_SUB,
    HOST_CMP,
    HOST_TEST,
    HOST_AND,
    HOST_OR,
    HOST_XOR,
    HOST_SHL,
    HOST_SHR,
    HOST_RORX,
    HOST_MOVZX,
    HOST_NEG,
    HOST_RDTSC,
    HOST_JMP,   /* direct: target is set; else operand 0 */
    HOST_JCC,   /* condition number in cond */
    HOST_JRCXZ, /* and jecxz */
    HOST_MOVS,
    HOST_STOS,
};

enum host_kind {
    HOST_REG, /* a general register */
    HOST_MEM, /* host_insn.mem */
    HOST_IMM,
    HOST_VEC,   /* a register of the vector units, their control registers too */
    HOST_FLAGS, /* or the instruction pointer */
};

#define HOST_READ 1u
#define HOST_WRITE 2u
#define HOST_NONE 0xff /* no base, no index */
#define HOST_RIP 16u   /* a base */

struct host_operand {
    uint8_t kind; /* enum host_kind */
    uint8_t reg;  /* number of a general register */
    uint8_t access;
    bool high;     /* AH to BH: the second byte of REG */
    uint16_t size; /* bytes */
};

struct host_mem {
    uint8_t base, index; /* number, HOST_RIP, HOST_NONE */
    uint8_t scale;       /* shift */
    uint8_t seg;         /* 0 none that counts, 'f', 'g' */
    uint8_t access;      /* 0: only the address is taken */
    bool vector_index;
    uint16_t size; /* bytes; 0: it depends */
    int64_t disp;  /* sign-extended; from the next instruction on for HOST_RIP */
};

struct host_insn {
    uint8_t op; /* enum host_op */
    uint8_t len;
    uint8_t cond;
    uint8_t addrsize;
    uint8_t nops;
    bool rep, repne;
    bool direct;
    bool flags; /* it changes flags */
    struct host_operand opnd[10];
    struct host_mem mem;
    int64_t imm;
    int64_t target; /* of a direct branch, from the instruction's first byte */
};

/* Decodes the host code at BYTES[0..LEN) into *I. False: that is no instruction. Not
 * while the guest's vector state is live (cpu/vec.h). */
bool decode_host(const uint8_t *bytes, size_t len, struct host_insn *i);

#endif

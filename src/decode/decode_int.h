/*
 * Shared inside decode/: the tables that translate what Zydis reports, and the pieces of
 * decode_insn().
 *
 * An instruction is looked up by mnemonic in decode_ops[]. What is not there is executed
 * natively if its instruction set is one that decode_isas[] marks so, and is invalid
 * otherwise: new instructions that Zydis knows and we do not raise #UD.
 */
#ifndef DECODE_INT_H
#define DECODE_INT_H

#include "decode/decode.h"

#include <Zydis/Zydis.h>

/* How the operands differ from the ones that Zydis shows in its text. */
enum decode_norm {
    NORM_PLAIN,
    NORM_NONE,    /* no operands at all */
    NORM_NOMEM,   /* the memory operand is an address, nothing is accessed */
    NORM_BRANCH,  /* near branch with a displacement */
    NORM_JMPCALL, /* jmp, call: near or far, direct or indirect */
    NORM_RET,     /* near or far */
    NORM_MOV,     /* general, segment, control and debug registers */
    NORM_PUSHPOP, /* general or segment register */
    NORM_SEGLOAD, /* lds and friends: the segment register is the last operand */
    NORM_ENTER,
    NORM_STRING_SRC, /* memory is seg:rSI */
    NORM_STRING_DST, /* memory is ES:rDI */
    NORM_AT_RAX,     /* memory is seg:rAX */
    NORM_AT_RBX,
    NORM_AT_RDI,
    NORM_CC,    /* condition in the opcode */
    NORM_SHIFT, /* by a count that may be zero */
    NORM_CRC32, /* the operand size is the source's */
    NORM_MOVSXD,
};

struct decode_entry {
    uint16_t op;
    uint16_t flags; /* enum insn_flag */
    uint8_t norm;   /* enum decode_norm */
};

struct decode_isa {
    uint8_t feature; /* enum cpuid_feature */
    uint8_t exec;    /* enum decode_exec */
    uint8_t also;    /* another one */
};

enum decode_exec {
    EXEC_NONE,   /* not offered: #UD */
    EXEC_SOFT,   /* through decode_ops[] only */
    EXEC_NATIVE, /* whatever decode_ops[] does not name runs on the host */
};

extern const struct decode_entry decode_ops[ZYDIS_MNEMONIC_MAX_VALUE + 1];
extern const struct decode_isa decode_isas[ZYDIS_ISA_SET_MAX_VALUE + 1];

/* The legacy and REX prefixes of an instruction, as the CPU sees them. */
struct decode_prefixes {
    uint8_t count; /* bytes before the opcode or VEX prefix */
    uint8_t rex;   /* the effective REX prefix or 0 */
    uint8_t rep;   /* 0xf2, 0xf3 (the last one counts) or 0 */
    uint8_t lock;  /* position of the last LOCK prefix, plus 1 */
    int8_t seg;    /* effective override, enum vcpu_seg, or -1 */
    bool opsize;   /* 0x66 */
};

struct decode_prefixes decode_scan_prefixes(enum cpu_mode mode, const uint8_t *bytes,
                                            size_t len);

/* One Zydis operand into *O, and into i->mem or the immediates. False if it is of a kind
 * that we do not offer. */
bool decode_operand(const struct decode_prefixes *p, const ZydisDecodedInstruction *zi,
                    const ZydisDecodedOperand *zo, struct insn *i, struct operand *o);

/* Brings *I, whose operands are Zydis's visible ones, to the form of decode/insn.h. */
void decode_normalize(enum decode_norm norm, const struct decode_prefixes *p,
                      const ZydisDecodedInstruction *zi, struct insn *i);

/* The guest's CPU is of the host's vendor (cpu/cpuid.h). */
static inline bool decode_host_is_amd(void) {
    return __builtin_cpu_is("amd");
}

#endif

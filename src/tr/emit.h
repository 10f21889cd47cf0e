/*
 * Host code, byte by byte: the encodings that the translator needs and nothing more.
 *
 * An emitter writes through the cache's RW mapping; addresses in the code are those of
 * the RX mapping, RX = RW + delta. Running out of room is sticky (`full`) and checked
 * once, by whoever finishes a fragment.
 */
#ifndef BT_EMIT_H
#define BT_EMIT_H

#include "base/types.h"
#include "cpu/vcpu.h"

struct emit {
    uint8_t *p, *end;
    ptrdiff_t delta; /* RX - RW */
    bool full;
};

static inline void e8(struct emit *e, unsigned b) {
    if (likely(e->p < e->end))
        *e->p++ = (uint8_t)b;
    else
        e->full = true;
}

void e32(struct emit *e, uint32_t v);
void e64(struct emit *e, uint64_t v);
void e_bytes(struct emit *e, const uint8_t *b, size_t n);

/* Address at which the next byte will execute. */
static inline uint8_t *e_here(const struct emit *e) {
    return e->p + e->delta;
}

enum { W32 = 0, W64 = 1 };

/* op r64/r32, r/m: register-register form. */
void e_rr(struct emit *e, int w, unsigned opcode, unsigned reg, unsigned rm);
/* 0f op r/m, r: register-register form. */
void e_rr2(struct emit *e, int w, unsigned opcode, unsigned reg, unsigned rm);
/* op reg, [base + disp] */
void e_rm(struct emit *e, int w, unsigned opcode, unsigned reg, unsigned base,
          int32_t disp);
/* op reg, gs:[off]: the vCPU's private data. */
void e_gs(struct emit *e, int w, unsigned opcode, unsigned reg, size_t off);
/* op reg, [addr], for an address below 2 GiB. */
void e_abs(struct emit *e, int w, unsigned opcode, unsigned reg, const void *addr);
/* op r/m, imm (81 /ext or 83 /ext) */
void e_ri(struct emit *e, int w, unsigned ext, unsigned rm, int32_t imm);
/* test r32, imm32 */
void e_test_imm(struct emit *e, unsigned reg, uint32_t imm);
/* shl, shr... rm, imm8 (c1 /ext) */
void e_shift(struct emit *e, int w, unsigned ext, unsigned rm, unsigned imm);

/* movzx dst, word of src */
void e_movzx16(struct emit *e, unsigned dst, unsigned src);
/* neg rm */
void e_neg(struct emit *e, int w, unsigned rm);

/* rorx dst, src, imm (BMI2, 64 bits) */
void e_rorx(struct emit *e, unsigned dst, unsigned src, unsigned imm);

void e_mov_rr(struct emit *e, int w, unsigned dst, unsigned src);
void e_mov_imm(struct emit *e, unsigned dst, uint64_t imm); /* shortest form */
/* lea dst, [base + index << scale + disp]; REG_ZERO for none. */
void e_lea(struct emit *e, int w, unsigned dst, unsigned base, unsigned index,
           unsigned scale, int32_t disp);
/* mov qword gs:[off], imm32 (sign-extended) */
void e_gs_imm(struct emit *e, int w, size_t off, int32_t imm);

/* jmp or call rel32 to an RX address; jcc with the condition's number. */
void e_jmp(struct emit *e, const uint8_t *target);
void e_jcc(struct emit *e, unsigned cond, const uint8_t *target);
/* The same to a place not known yet: returns the RW address of the rel32. */
uint8_t *e_jmp_fwd(struct emit *e);
uint8_t *e_jcc_fwd(struct emit *e, unsigned cond);
/* Points a rel32 at an RX address / at the next byte. */
void e_patch(const struct emit *e, uint8_t *rel32, const uint8_t *target);
void e_land(struct emit *e, uint8_t *rel32);

/* jmp gs:[off], jmp reg */
void e_jmp_gs(struct emit *e, size_t off);
void e_jmp_reg(struct emit *e, unsigned reg);
/* jmp [reg] */
void e_jmp_mem(struct emit *e, unsigned reg);

/* jrcxz or jmp over the next bytes, until e_land8(): returns the RW address of its rel8.
 * jcc back to an RX address, in the shortest form. */
uint8_t *e_jrcxz(struct emit *e);
uint8_t *e_jmp8(struct emit *e);
void e_jcc_back(struct emit *e, unsigned cond, const uint8_t *target);
void e_land8(struct emit *e, uint8_t *rel8);

enum { /* opcodes by their manual names, destination first */
       OPC_ADD_RM_R = 0x01,
       OPC_ADD_R_RM = 0x03,
       OPC_OR_RM_R = 0x09,
       OPC_OR_R_RM = 0x0b,
       OPC_AND_R_RM = 0x23,
       OPC_SUB_R_RM = 0x2b,
       OPC_XOR_R_RM = 0x33,
       OPC_CMP_R_RM = 0x3b,
       OPC_MOV_RM_R = 0x89,
       OPC_MOV_R_RM = 0x8b,
       OPC_MOVSXD = 0x63,
};
enum { EXT_ADD = 0, EXT_OR = 1, EXT_AND = 4, EXT_SUB = 5, EXT_XOR = 6, EXT_CMP = 7 };
enum { EXT_SHL = 4, EXT_SHR = 5, EXT_SAR = 7 };
enum {
    CC_O = 0,
    CC_NO = 1,
    CC_B = 2,
    CC_AE = 3,
    CC_E = 4,
    CC_NE = 5,
    CC_BE = 6,
    CC_A = 7
};

#endif

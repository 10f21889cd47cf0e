/*
 * The encoding of a decoded instruction, taken apart: for those who put it together again
 * with another operand (the translator's copies, the stubs of vector instructions).
 * AMD64 APM volume 3, "Instruction Encoding"; Intel SDM volume 2, "Intel AVX-512
 * Encoding".
 */
#ifndef DECODE_ENCODING_H
#define DECODE_ENCODING_H

#include "decode/insn.h"

#define ENCODING_HEAD_MAX 6 /* bytes that encoding_put_head() writes */

/* Register bits are not inverted. */
struct encoding {
    bool p66;
    uint8_t rep; /* f2, f3 or 0 */
    uint8_t seg; /* enum vcpu_seg of an override, or SEG_DS */
    bool rex;    /* there is a REX prefix that counts, be it empty */
    bool vex, evex;
    uint8_t map; /* 0: one-byte opcode, 1: 0f, 2: 0f 38, 3: 0f 3a; 5, 6: EVEX's */
    uint8_t pp;  /* 0 none, 1: 66, 2: f3, 3: f2 */
    bool w, l;
    uint8_t r, x, b; /* 0 or 8; r with EVEX to 24 */
    uint8_t vvvv;    /* with EVEX to 31 */
    bool z, bcast;
    uint8_t len; /* EVEX: L'L, the vector's length or rounding */
    uint8_t opmask;
    uint8_t opcode;
    bool has_modrm, is_mem; /* is_mem: ModRM names memory */
    uint8_t modrm, sib;
    uint8_t nimm, imm[8]; /* all that follows ModRM, SIB and displacement */
};

/* Takes I's bytes apart, reading within insn.len only: false when that is not enough. */
bool encoding_parse(const struct insn *i, struct encoding *e);

/* For code of 16- or 32-bit mode that is to run in 64-bit mode: clears the bits that
 * those modes ignore and 64-bit mode does not. */
void encoding_widen(struct encoding *e);

/* Prefixes and escapes, all that stands before the opcode, but for segment and
 * address-size prefixes and LOCK. Writes at most ENCODING_HEAD_MAX bytes, returns how
 * many. */
unsigned encoding_put_head(const struct encoding *e, uint8_t *out);

#endif

/*
 * Encodings, by the operation that they lead to: what a generator of programs chooses
 * from. All prefixes, maps, opcodes and forms are tried with the decoder, once, at the
 * start.
 */
#ifndef LIB_TEMPLATES_H
#define LIB_TEMPLATES_H

#include "decode/insn.h"

struct template {
    uint8_t op;
    uint8_t mode;
    uint8_t p66, rep, w;
    uint8_t map; /* 0 one byte, 1 0f, 2 0f38, 3 0f3a; +4: VEX */
    uint8_t vl, vpp;
    bool v15; /* vvvv must be 15 */
    uint8_t opcode, reg;
    bool mem;
    bool evex;  /* MAP is EVEX's */
    uint8_t p2; /* z, L'L, b, aaa in place */
};

/* Templates of EVEX are kept apart, under an operation that has none of its own. */
#define TEMPLATE_EVEX OP_scatter

/* Before the others; vec_init() has been called. */
void templates_scan(void);
/* Those of OP (or TEMPLATE_EVEX) in MODE, *N of them, which may be none. */
const struct template *const *templates_of(unsigned mode, unsigned op, unsigned *n);
/* Is I one that programs may have? Branches are made by hand. */
bool template_allows(const struct insn *i);
/* Prefixes and opcode of T at B, 8 bytes at most; returns how many. R, X and BB are the
 * bits that extend ModRM's and SIB's registers. */
unsigned template_put(const struct template *t, uint8_t *b, unsigned r, unsigned x,
                      unsigned bb, unsigned vvvv);

#endif

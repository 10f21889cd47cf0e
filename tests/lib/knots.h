/*
 * Knots: what a translator may check together, or take for the same place.
 *
 * A knot is a sequence of accesses off one or two shared registers (and an index), which
 * move by known steps on the way: loads and stores, PUSH, POP, CALL and JMP with memory
 * operands, the stack by itself, strings, MOV with an offset of 64 bits, absolute and
 * rIP-relative operands, in any order, under any prefix and REX. Its displacements lie in
 * a window about a bias that may be at either end of 31 bits, where sums of displacements
 * no longer fit; steps and biases make up for each other. Half of the knots are loops,
 * for hot paths. The registers before a run lay the window over a page's end, another one
 * each time.
 */
#ifndef LIB_KNOTS_H
#define LIB_KNOTS_H

#include "decode/insn.h"

struct knots {
    enum cpu_mode mode;
    uint64_t at;   /* linear address of CODE */
    uint8_t *code; /* LEN bytes are in use, of MAX */
    unsigned len, max;
    uint64_t data;    /* a page's end that absolute operands are about */
    uint64_t segment; /* a base that FS or GS may have */
    uint64_t (*rnd)(void);
    bool (*takes)(const struct insn *i); /* whether an instruction may be in it */
    uint64_t (*end)(void);               /* a page's end that registers are about */
    /* What registers must be for: made by knots_make(). */
    uint8_t base[2], index; /* index: 16: none */
    uint8_t scale;
    int64_t bias[2];
};

/* Adds one to the code; nothing ends it. */
void knots_make(struct knots *k);
/* Sets some of the 16 registers at GPR. */
void knots_registers(struct knots *k, uint64_t *gpr);

#endif

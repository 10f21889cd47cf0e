/*
 * Instructions one at a time on a guest of lib/guest.h: through the decoder and the
 * semantics, without an engine; and the segments that they run in.
 */
#ifndef LIB_EXEC_H
#define LIB_EXEC_H

#include "lib/guest.h"

/* Executes the LEN bytes, which must be one instruction in the present mode: what its
 * semantic function returns (sem/sem.h). The vector state is parked. */
int exec_bytes(struct vcpu *v, const void *bytes, size_t len);
/* Of a string literal. */
#define EXEC(v, s) exec_bytes(v, s, sizeof(s) - 1)

/* Flat descriptors of 32-bit code and data at both levels, and their selectors. */
enum { FLAT_CODE0 = 0x08, FLAT_DATA0 = 0x10, FLAT_CODE3 = 0x18, FLAT_DATA3 = 0x20 };
/* Puts them at GDT, which GDTR then has, with LIMIT. */
void exec_flat_gdt(struct guest *g, uint64_t gdt, uint16_t limit);
/* CS and all the other segments from the GDT, at level CPL. */
void exec_enter(struct guest *g, unsigned cs, unsigned data, unsigned cpl);

/* 32-bit protected mode without paging, flat, at CPL 0, in the places below; every vector
 * up to 63 leads to its handler, STEP bytes behind that of the one before, which is a
 * HLT. */
enum {
    FLAT_IDT = 0x5000,
    FLAT_GDT = 0x6000,
    FLAT_HANDLERS = 0x7000,
    FLAT_STACK = 0x80000,
    FLAT_CODE = 0x100000,
};
void exec_start_flat(struct guest *g, unsigned step);

#endif

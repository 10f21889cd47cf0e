/*
 * For guests that enumerate: code and data segments of every privilege level, a run in
 * one of them, and its whole outcome held against what a model says.
 *
 *     regs_ring(32, 3);                  // `in`: 32-bit code at CPL 3
 *     ending_begin(&w);                  // nothing changes ...
 *     ending_fault(&w, X86_GP, sel);     // ... but for this
 *     run(code);
 *     ending_judge(&w, "case %u", n);    // counts; prints the first that differ
 */
#ifndef RINGS_H
#define RINGS_H

#include "guest.h"

/* Flat segments with DPL and RPL N, from rings_set(). BITS: 16 has a base of 0, too. */
#define RING_CODE(bits, n) (FREE_SEL + ((bits) == 16 ? 0u : (bits)) + 9u * (n))
#define RING_DATA(n) (FREE_SEL + 96u + 9u * (n))
#define RINGS_FREE (FREE_SEL + 128u) /* from here on the guest's own */

/* How a run should end. r.ss is looked at only where the frame has it. */
struct ending {
    unsigned vector;
    ulong error, start; /* start: of the code */
    struct regs r;
};

void rings_set(void);
/* `in` for code of BITS at level CPL, every register with a value of its own. FS and GS
 * become null. */
void regs_ring(unsigned bits, unsigned cpl);
/* An outcome that is `in`, unchanged, with the instruction pointer at the end of CODE. */
void ending_begin(struct ending *w, void *code);
/* A fault at CODE's first instruction. */
void ending_fault(struct ending *w, unsigned vector, ulong error);
/* Whether the last run ended so. Feeds the digest. */
bool ending_met(const struct ending *w);
/* The same, as a check; of many that fail only the first are printed. */
bool ending_judge(const struct ending *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Any other fact about the last run, counted with it. */
bool ending_also(bool ok, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints the number of cases and the DIGEST; fails if a case has failed. */
void rings_report(void);

void gdt_limit(unsigned limit);

#endif

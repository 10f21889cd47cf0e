/*
 * The architectural state of two machines, side by side: what must be the same on every
 * engine after the same number of instructions. What that is of a CPU, cpu/state.def
 * says; HOW may be VCPU_LOOSE (cpu/state.h).
 */
#ifndef REPLAY_STATE_H
#define REPLAY_STATE_H

#include <stdio.h>

#include "cpu/state.h"
#include "machine/machine.h"

/* True when registers, time and pending work are the same. */
bool state_same(const struct machine *a, const struct machine *b, unsigned how);

/* A line on OUT for each thing that differs, with the value on each side. */
void state_print(const struct machine *a, const struct machine *b, const char *name_a,
                 const char *name_b, unsigned how, FILE *out);

/* Guest-physical addresses of pages of RAM that differ, at most MAX of them. */
size_t state_pages(const struct machine *a, const struct machine *b, uint64_t *pages,
                   size_t max);

/* Do the bytes of the page at ADDR differ? */
bool state_page_differs(const struct machine *a, const struct machine *b, uint64_t addr);

/* A line on OUT with the first bytes of the page at ADDR that differ. */
void state_print_page(const struct machine *a, const struct machine *b,
                      const char *name_a, const char *name_b, uint64_t addr, FILE *out);

/* A digest of RAM and registers. */
uint64_t state_digest(const struct machine *m);

#endif

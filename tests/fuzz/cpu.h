/* Guests made of bytes, for the engines' targets. */
#ifndef FUZZ_CPU_H
#define FUZZ_CPU_H

#include "fuzz/fuzz.h"
#include "lib/guest.h"

#define CPU_RAM (4u << 20)
#define CPU_USED (1u << 20) /* where a guest is put, and what is compared */

#define CPU_TABLES 0x10000u
#define CPU_TABLES_SIZE 0x8000u

/* How the input wants to be run. */
struct cpu_how {
    uint8_t options;
    bool events; /* interrupts while it runs */
};

/* A guest whose hooks answer from a counter, so that a run depends on its input alone.
 * OPT is NULL for the interpreter alone; the verifier looks at all that it makes. */
void cpu_guest_new(struct guest *g, enum mmu_policy policy, const struct bt_options *opt);
/* Builds the guest in one that was just reset. */
void cpu_guest(struct guest *vm, const uint8_t *data, size_t size, struct cpu_how *how);

#endif

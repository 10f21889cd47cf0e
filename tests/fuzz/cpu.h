/* Guests made of bytes, for the engines' targets. */
#ifndef FUZZ_CPU_H
#define FUZZ_CPU_H

#include "fuzz/fuzz.h"
#include "fuzz/vm.h"

#define CPU_USED (1u << 20) /* where a guest is put, and what is compared */

#define CPU_TABLES 0x10000u
#define CPU_TABLES_SIZE 0x8000u

/* How the input wants to be run. */
struct cpu_how {
    uint8_t options;
    bool events; /* interrupts while it runs */
};

/* Builds the guest in a VM that was just reset. */
void cpu_guest(struct vm *vm, const uint8_t *data, size_t size, struct cpu_how *how);

#endif

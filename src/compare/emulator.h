/* QEMU's command line for its TCG: what all columns on it have in common. */
#ifndef COMPARE_EMULATOR_H
#define COMPARE_EMULATOR_H

#include "base/types.h"

/* The CPU setting that suits TCG best. */
#define EMULATOR_CPU "max,-la57,-smap,-pku,-erms,-fsrm"
#define EMULATOR_ARGS 32u

struct emulator {
    const char *argv[EMULATOR_ARGS]; /* ends with NULL */
    unsigned argc;
    char memory[16];
};

/* A PC with the processor CPU and MIB of memory, whose serial port is our standard output
 * and which has a debug-exit port. Strings are kept. */
void emulator_make(struct emulator *e, const char *cpu, unsigned mib);
/* OPTION VALUE behind that. */
void emulator_add(struct emulator *e, const char *option, const char *value);

#endif

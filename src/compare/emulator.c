/* QEMU's command line; see emulator.h. */
#include "compare/emulator.h"

#include <stdio.h>

#include "base/bug.h"

void emulator_add(struct emulator *e, const char *option, const char *value) {
    BUG_ON(e->argc + 3 > EMULATOR_ARGS);
    e->argv[e->argc++] = option;
    e->argv[e->argc++] = value;
    e->argv[e->argc] = NULL;
}

void emulator_make(struct emulator *e, const char *cpu, unsigned mib) {
    *e = (struct emulator){.argv = {"qemu-system-x86_64", "-no-reboot"}, .argc = 2};
    snprintf(e->memory, sizeof(e->memory), "%u", mib);
    emulator_add(e, "-accel", "tcg,thread=single");
    emulator_add(e, "-cpu", cpu);
    emulator_add(e, "-m", e->memory);
    emulator_add(e, "-display", "none");
    emulator_add(e, "-monitor", "none");
    emulator_add(e, "-serial", "stdio");
    emulator_add(e, "-device", "isa-debug-exit,iobase=0xf4,iosize=4");
}

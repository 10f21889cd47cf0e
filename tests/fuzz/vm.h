/*
 * A small VM for the targets: 4 MiB of RAM, a vCPU, an MMU, both software engines, and
 * hooks that answer from a counter, so that a run depends on its input alone.
 */
#ifndef FUZZ_VM_H
#define FUZZ_VM_H

#include "bt/bt.h"
#include "cpu/vcpu.h"
#include "interp/interp.h"
#include "mem/mem.h"
#include "mmu/mmu.h"

#define VM_RAM (4u << 20)

struct vm {
    struct vcpu *v;
    struct counters cnt;
    struct interp *ip;
    struct bt *bt; /* NULL: only the interpreter */
    uint8_t *ram;
    uint64_t tick;  /* what hooks have been asked so far */
    uint64_t limit; /* hooks raise KICK from this tick on */
};

/* OPT is NULL for the interpreter alone. Dies when the host cannot. */
void vm_new(struct vm *vm, enum mmu_policy policy, const struct bt_options *opt);
/* RAM zeroed, the vCPU as after power-up, nothing derived kept. */
void vm_reset(struct vm *vm);
/* Control registers and segments were set by hand: all that follows from them. */
void vm_state_changed(struct vm *vm);
/* What must hold of any vCPU between instructions, and of its shadow. */
void vm_check(const struct vm *vm);

#endif

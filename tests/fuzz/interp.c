/*
 * The CPU on the interpreter: a guest made of the input, a bounded number of steps under
 * each retention policy, interrupts in between. Twice the same comes out twice.
 */
#include "fuzz/cpu.h"

enum { STEPS = 250, SLICES = 4 };

static struct guest vms[2];

static void run(struct guest *vm, const uint8_t *data, size_t size) {
    enum exit_reason why = EXIT_kick;
    struct cpu_how how;

    guest_reset(vm);
    cpu_guest(vm, data, size, &how);
    for (unsigned k = 0; k < SLICES && why == EXIT_kick; k++) {
        why = interp_step(vm->ip, STEPS);
        HOLDS(why == EXIT_kick || why == EXIT_halt || why == EXIT_shutdown);
        guest_check(vm);
        if (how.events)
            vcpu_raise(vm->v, k & 1 ? VCPU_EVENT_NMI : VCPU_EVENT_IRQ);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const enum mmu_policy policy[2] = {MMU_PCID, MMU_TRACE};

    if (size < 9)
        return 0;
    for (unsigned k = 0; k < 2; k++) {
        if (!vms[k].v)
            cpu_guest_new(&vms[k], policy[k], NULL);
        run(&vms[k], data, size);
    }
    return 0;
}

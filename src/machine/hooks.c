/*
 * Who is told of what: every hook through which a lower room calls a higher one while the
 * guest runs, in one place.
 *
 *   hook                               calls             when
 *   vcpu.hooks                         the board         a port, MMIO, an MSR; the TSC,
 *                                                        CR8, A20; an interrupt is taken
 *   mem_hooks.changed                  MMUs, engines     memory is elsewhere
 *   mem_hooks.drop_write, drop_writes  the MMUs          a page gets its first trace
 *   mem_hooks.lock, freeze             the group         traces; memory moves
 *   vcpu_group.kick                    the engine        a thread wants something
 *   mem_hooks.on_write, MEM_TRACE_PT   the MMU           a store to a page table
 *                       MEM_TRACE_CODE the interpreter   a store to code that it decoded
 *                       MEM_TRACE_TC   the translator    a store to code in its cache
 *                       MEM_TRACE_DIRECT direct/         a store to code that cells have
 *                       MEM_TRACE_DIRTY  memory's own    any store (mem/track.c)
 *   vcpu.code_mapped                   the translator    code of a debugger's breakpoints
 *                                                        is mapped (the engine sets it)
 *   mmu_observe()                      direct/           the shadow changes
 *
 * Which of the engine's parts own the traces of code is the engine's word
 * (engine_ops.traces). What a room is given for good when it is made is not here: the
 * clock's source (time.c), bus_on_leave() and what devices call (board.c), the serial
 * port's and the power's far ends (console.c, run.c).
 *
 * Memory has one listener of a kind: the boot CPU's MMU and engine, which tell the others
 * themselves (mmu_hook(), interp_code_written(), bt_code_written()).
 */
#include "machine/machine_int.h"

void machine_hook_cpus(struct machine *m) {
    for (unsigned n = 0; n < m->cpus; n++) {
        m->cpu[n].vcpu->hooks = &board_vcpu_hooks;
        m->cpu[n].vcpu->hooks_arg = &m->cpu[n];
    }
}

/* On a CPU's thread, mostly from inside an access to a device. */
static void map_changed(void *arg) {
    struct machine *m = arg;

    machine_park(m);
    vcpu_stop(m->group);
    for (unsigned n = 0; n < m->cpus; n++) {
        struct machine_cpu *c = &m->cpu[n];

        mmu_map_changed(c->vcpu);
        if (c->ops->map_changed && c->engine)
            c->ops->map_changed(c->engine);
    }
    vcpu_go(m->group);
}

void machine_hook_memory(struct machine *m) {
    struct machine_cpu *c = machine_boot_cpu(m);
    struct engine_trace trace[MEM_TRACE_COUNT];
    unsigned count;

    mmu_hook(c->vcpu);
    mem_hooks(m->mem)->changed = map_changed;
    mem_hooks(m->mem)->changed_arg = m;
    c->ops->traces(c->engine, trace, &count);
    for (unsigned n = 0; n < count; n++)
        mem_own_trace(m->mem, trace[n].trace, trace[n].written, trace[n].arg);
}

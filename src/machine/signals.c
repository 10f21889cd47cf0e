/*
 * INIT and SIPI: what begins a CPU anew. Intel SDM volume 3, "Multiple-Processor (MP)
 * Initialization".
 *
 * They come from any thread (kick.c) and are acted upon by the CPU's own, between two
 * instructions. A CPU that waits for a SIPI stands in machine_serve() (call.c). An NMI
 * that comes meanwhile waits for the SIPI, too: AMD64 APM volume 2, "Interprocessor
 * Interrupts".
 */
#include "machine/machine_int.h"

/* The guest's state is in struct vcpu and has changed as a whole. What was derived from
 * its code holds. In, so that nobody else is at its shadow meanwhile. */
static void state_moved(struct machine_cpu *c) {
    vcpu_enter(c->vcpu);
    mmu_flush_all(c->vcpu);
    mmu_mode_changed(c->vcpu);
    mmu_context_changed(c->vcpu);
    vcpu_leave(c->vcpu);
}

/* The boot processor begins anew at the reset vector, the others wait for a SIPI. */
static void take_init(struct machine_cpu *c) {
    if (c->ops->sync && c->ops->sync(c->engine)) {
        machine_end_life(c->machine, MACHINE_ERROR);
        return;
    }
    vcpu_init(c->vcpu);
    if (c->lapic)
        lapic_init(c->lapic);
    if (c->steal)
        steal_reset(c->steal);
    state_moved(c);
    c->waiting = c->index != 0;
}

/* One that does not wait for it does not notice. */
static void take_sipi(struct machine_cpu *c, uint8_t vector) {
    struct segment *cs = &c->vcpu->seg[SEG_CS];

    if (!c->waiting)
        return;
    cs->sel = (uint16_t)(vector << 8);
    cs->base = (uint64_t)vector << 12;
    c->vcpu->rip = 0;
    vcpu_update_mode(c->vcpu);
    state_moved(c);
    c->waiting = false;
}

void machine_cpu_take_signals(struct machine_cpu *c) {
    uint32_t signals;

    if (likely(!__atomic_load_n(&c->signals, __ATOMIC_RELAXED)))
        return;
    signals = __atomic_exchange_n(&c->signals, 0, __ATOMIC_SEQ_CST);
    if (signals & SIGNAL_INIT)
        take_init(c);
    if (signals & SIGNAL_SIPI)
        take_sipi(c, SIGNAL_VECTOR(signals));
}

/*
 * INIT and SIPI as the CPU's own thread acts upon them, between two instructions: what is
 * the same on Linux (signals.c) and on the bare machine (hv/). Intel SDM volume 3,
 * "Multiple-Processor (MP) Initialization".
 */
#include "cpu/smp.h"
#include "dev/apic/lapic.h"
#include "machine/cpu.h"
#include "mmu/mmu.h"

/* The guest's state is in struct vcpu and has changed as a whole. What was derived from
 * its code holds. In, so that nobody else is at its shadow meanwhile. */
static void state_moved(struct machine_cpu *c) {
    vcpu_enter(c->vcpu);
    mmu_flush_all(c->vcpu);
    mmu_mode_changed(c->vcpu);
    mmu_context_changed(c->vcpu);
    vcpu_leave(c->vcpu);
}

int machine_cpu_start_init(struct machine_cpu *c) {
    int rc = c->ops->sync ? c->ops->sync(c->engine) : 0;

    if (rc)
        return rc;
    vcpu_init(c->vcpu);
    if (c->lapic)
        lapic_init(c->lapic);
    state_moved(c);
    c->waiting = c->index != 0;
    return 0;
}

void machine_cpu_start_sipi(struct machine_cpu *c, uint8_t vector) {
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

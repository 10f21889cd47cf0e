/*
 * Events for a CPU from any thread, and from signal handlers; see cpu.h.
 */
#include "base/os.h"
#include "machine/machine_int.h"

void machine_cpu_kick(struct machine_cpu *c, uint32_t events) {
    vcpu_raise(c->vcpu, events);
    if (c->engine)
        c->ops->kick(c->engine);
}

void machine_cpu_wake(struct machine_cpu *c, uint32_t events) {
    machine_cpu_kick(c, events);
    os_bell_ring(c->bell);
}

void machine_kick_vcpu(void *arg, struct vcpu *v, uint32_t event) {
    struct machine *m = arg;
    struct machine_cpu *c = &m->cpu[v->member->index];

    if (c->engine)
        c->ops->kick(c->engine);
    if (event & VCPU_EVENT_ACTION)
        os_bell_ring(c->bell);
}

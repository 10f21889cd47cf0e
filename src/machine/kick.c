/*
 * Events for a CPU from any thread, and from signal handlers; see cpu.h.
 *
 * A thread that goes to sleep says so (`asleep`) before it looks at its events for the
 * last time; who raises an event looks at `asleep` afterwards: one of the two sees the
 * other.
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

void machine_cpu_interrupted(struct machine_cpu *c, uint32_t event) {
    if (__atomic_fetch_or(&c->vcpu->events, event, __ATOMIC_SEQ_CST) & event)
        return;
    if (__atomic_load_n(&c->asleep, __ATOMIC_SEQ_CST))
        os_bell_ring(c->bell);
    else if (c->engine)
        c->ops->kick(c->engine);
}

void machine_cpu_unhalt(struct machine_cpu *c) {
    __atomic_store_n(&c->unhalt, true, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&c->asleep, __ATOMIC_SEQ_CST))
        os_bell_ring(c->bell);
}

/* An INIT takes back a SIPI that has not been acted upon, and an NMI. */
void machine_cpu_init(struct machine_cpu *c) {
    vcpu_clear(c->vcpu, VCPU_EVENT_NMI);
    __atomic_store_n(&c->signals, SIGNAL_INIT, __ATOMIC_SEQ_CST);
    machine_cpu_wake(c, VCPU_EVENT_KICK);
}

/* The first of several is the one that counts. */
void machine_cpu_sipi(struct machine_cpu *c, uint8_t vector) {
    uint32_t is = __atomic_load_n(&c->signals, __ATOMIC_SEQ_CST);

    do {
        if (is & SIGNAL_SIPI)
            return;
    } while (!__atomic_compare_exchange_n(&c->signals, &is,
                                          is | SIGNAL_SIPI | (uint32_t)vector << 8, false,
                                          __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    machine_cpu_wake(c, VCPU_EVENT_KICK);
}

void machine_kick_vcpu(void *arg, struct vcpu *v, uint32_t event) {
    struct machine *m = arg;
    struct machine_cpu *c = &m->cpu[v->member->index];

    if (c->engine)
        c->ops->kick(c->engine);
    if (event & VCPU_EVENT_ACTION)
        os_bell_ring(c->bell);
}

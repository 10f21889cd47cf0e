/*
 * The way in: calls that other threads make at an instruction boundary of the guest, and
 * pauses.
 *
 * A call is one slot, because only the loop's thread may make one: it fills the slot,
 * raises KICK and waits for the answer. The CPU's thread looks at the slot whenever it is
 * between two entries of the engine and has something to wait for, or KICK was raised;
 * and while it has no life to run.
 *
 * A guest that is paused stands in machine_serve(), where calls are answered, until it is
 * resumed or its run is to end. Its time stands still with it (time.c).
 */
#include "base/os.h"
#include "machine/machine_int.h"

/* The CPU may wait for its console's reader: it is reminded. */
#define PATIENCE_NS 100000000u

/* --- on the CPU's thread --- */

void machine_end_life(struct machine *m, enum machine_end end) {
    if (vcpu_events(machine_boot_cpu(m)->vcpu) & VCPU_EVENT_STOP)
        return;
    m->end = end;
    for (unsigned n = 0; n < m->cpus; n++)
        vcpu_raise(m->cpu[n].vcpu, VCPU_EVENT_STOP);
}

/* What the engine keeps of the guest's state comes back to struct vcpu. */
static void gather_state(struct machine_cpu *c) {
    if (c->ops->sync && c->ops->sync(c->engine))
        machine_end_life(c->machine, MACHINE_ERROR);
}

void machine_answer(struct machine_cpu *c) {
    struct machine *m = c->machine;

    if (!__atomic_load_n(&m->call.waits, __ATOMIC_SEQ_CST))
        return;
    gather_state(c);
    m->call.fn(m->call.arg);
    __atomic_store_n(&m->call.waits, false, __ATOMIC_SEQ_CST);
    os_bell_ring(m->answered);
}

void machine_serve(struct machine_cpu *c) {
    machine_answer(c);
    while (c->machine->paused && !(vcpu_events(c->vcpu) & VCPU_EVENT_STOP)) {
        os_bell_wait(c->bell, -1, 0, UINT64_MAX);
        machine_answer(c);
    }
}

/* --- on the loop's thread --- */

void machine_call(struct machine *m, void (*fn)(void *arg), void *arg) {
    struct machine_cpu *c = machine_boot_cpu(m);

    m->call.fn = fn;
    m->call.arg = arg;
    __atomic_store_n(&m->call.waits, true, __ATOMIC_SEQ_CST);
    machine_cpu_wake(c, VCPU_EVENT_KICK);
    while (__atomic_load_n(&m->call.waits, __ATOMIC_SEQ_CST))
        if (!os_bell_wait(m->answered, -1, 0, PATIENCE_NS))
            machine_cpu_interrupt(c);
}

static void pause_here(void *arg) {
    struct machine *m = arg;

    if (!m->paused)
        machine_time_stop(m);
    m->paused = true;
}

static void resume_here(void *arg) {
    struct machine *m = arg;

    if (m->paused)
        machine_time_go(m);
    m->paused = false;
}

void machine_pause(struct machine *m) {
    machine_call(m, pause_here, m);
}

void machine_resume(struct machine *m) {
    machine_call(m, resume_here, m);
}

bool machine_paused(const struct machine *m) {
    return m->paused;
}

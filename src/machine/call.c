/*
 * The way in: calls that the loop's thread makes while all CPUs stand between two
 * instructions, and pauses.
 *
 * There is one call at a time, with a number. The loop's thread fills it in, counts
 * `asked` up, raises KICK at all CPUs and waits. A CPU's thread looks whether there is a
 * call that it has not come to whenever it is between two entries of the engine and has
 * something to wait for, or KICK was raised; and while it has no life to run. It comes,
 * and stands until the call is `done`. The boot CPU's makes the call when all are here.
 *
 * A guest that is paused stands in machine_serve(), where calls are answered, until it is
 * resumed or its run is to end. Its time stands still with it (time.c). A CPU that waits
 * for a SIPI stands there too.
 */
#include "base/os.h"
#include "machine/machine_int.h"

/* A CPU may wait for its console's reader: it is reminded. */
#define PATIENCE_NS 100000000u

/* --- on the CPU's thread --- */

/* What the engine keeps of the guest's state comes back to struct vcpu. */
static void gather_state(struct machine_cpu *c) {
    if (c->ops->sync && c->ops->sync(c->engine))
        machine_end_life(c->machine, MACHINE_ERROR);
}

static uint32_t look(const uint32_t *number) {
    return __atomic_load_n(number, __ATOMIC_SEQ_CST);
}

static void wait_for_bell(struct machine_cpu *c) {
    os_bell_wait(c->bell, -1, 0, UINT64_MAX);
}

/* The boot CPU's part. */
static void make_call(struct machine_cpu *c) {
    struct machine *m = c->machine;

    while (look(&m->call.here) != m->cpus)
        wait_for_bell(c);
    m->call.fn(m->call.arg);
    __atomic_store_n(&m->call.here, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&m->call.done, c->answered, __ATOMIC_SEQ_CST);
    for (unsigned n = 1; n < m->cpus; n++)
        os_bell_ring(m->cpu[n].bell);
    os_bell_ring(m->answered);
}

void machine_answer(struct machine_cpu *c) {
    struct machine *m = c->machine;

    while (look(&m->call.asked) != c->answered) {
        gather_state(c);
        c->answered++;
        __atomic_add_fetch(&m->call.here, 1, __ATOMIC_SEQ_CST);
        if (c == machine_boot_cpu(m)) {
            make_call(c);
            continue;
        }
        os_bell_ring(machine_boot_cpu(m)->bell);
        while (look(&m->call.done) != c->answered)
            wait_for_bell(c);
    }
}

static bool stands(const struct machine_cpu *c) {
    return (c->machine->paused || c->waiting || c->held ||
            __atomic_load_n(&c->machine->debug.stopping, __ATOMIC_SEQ_CST)) &&
           !(vcpu_events(c->vcpu) & VCPU_EVENT_STOP);
}

/* What is looked at before a wait comes after what may have consumed a ring. */
void machine_serve(struct machine_cpu *c) {
    for (;;) {
        machine_answer(c);
        if (!c->machine->paused && !c->held)
            machine_cpu_take_signals(c);
        if (!stands(c))
            return;
        wait_for_bell(c);
    }
}

/* --- on the loop's thread --- */

void machine_call(struct machine *m, void (*fn)(void *arg), void *arg) {
    uint32_t number = m->call.asked + 1;

    m->call.fn = fn;
    m->call.arg = arg;
    __atomic_store_n(&m->call.asked, number, __ATOMIC_SEQ_CST);
    for (unsigned n = 0; n < m->cpus; n++)
        machine_cpu_wake(&m->cpu[n], VCPU_EVENT_KICK);
    while (look(&m->call.done) != number)
        if (!os_bell_wait(m->answered, -1, 0, PATIENCE_NS))
            for (unsigned n = 0; n < m->cpus; n++)
                machine_cpu_interrupt(&m->cpu[n]);
}

struct pause {
    struct machine *m;
    unsigned who;
};

static bool stops_time(unsigned who) {
    return who & ~PAUSED_BY_QUOTA;
}

static void pause_here(void *arg) {
    struct pause *p = arg;

    if (stops_time(p->who) && !stops_time(p->m->paused))
        machine_time_stop(p->m);
    p->m->paused |= p->who;
}

static void resume_here(void *arg) {
    struct pause *p = arg;

    if (stops_time(p->m->paused) && !stops_time(p->m->paused & ~p->who))
        machine_time_go(p->m);
    p->m->paused &= ~p->who;
}

/* Nothing changes for who is one of them already, or is none: nobody is called then. */
void machine_pause_for(struct machine *m, unsigned who) {
    struct pause p = {m, who};

    if ((m->paused & who) != who)
        machine_call(m, pause_here, &p);
}

void machine_resume_for(struct machine *m, unsigned who) {
    struct pause p = {m, who};

    if (m->paused & who)
        machine_call(m, resume_here, &p);
}

void machine_pause(struct machine *m) {
    machine_pause_for(m, PAUSED_BY_CALLER);
}

void machine_resume(struct machine *m) {
    machine_resume_for(m, PAUSED_BY_CALLER);
}

bool machine_paused(const struct machine *m) {
    return stops_time(m->paused);
}

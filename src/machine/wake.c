/*
 * Who wakes whom. The loop (base/os_loop.h), which runs on the thread that called
 * machine_run(), watches the clock's earliest deadline and takes the boot CPU out of its
 * engine when that has come. A CPU's thread that has nothing to do sleeps by its bell.
 *
 * An idle boot CPU takes the deadline to itself: handed over by the loop, every tick of
 * an idle guest would cost two thread switches instead of one.
 *
 * Locking: what other threads and signal handlers share with a CPU's thread is
 * vcpu.events, the engine's kick(), the bell, `outside`, and the machine's `quit`. The
 * board's deadline changes with the board's lock held.
 */
#include "base/os.h"
#include "machine/machine_int.h"

/* A thread that waits in a system call is interrupted again after this. */
#define AGAIN_NS 100000000u

/* On the loop's thread. */
static void deadline_due(void *arg) {
    machine_cpu_wake(machine_boot_cpu(arg), VCPU_EVENT_KICK);
}

/* --- taking a thread out of the console's system calls --- */

void machine_cpu_interrupt(struct machine_cpu *c) {
    if (__atomic_load_n(&c->outside, __ATOMIC_SEQ_CST))
        os_thread_interrupt(c->thread);
}

/* On the loop's thread, until the run has ended. */
static void hurry(void *arg) {
    struct machine *m = arg;

    for (unsigned n = 0; n < m->cpus; n++)
        machine_cpu_interrupt(&m->cpu[n]);
    os_timer_set(&m->hurry_again, os_monotonic_ns() + AGAIN_NS);
}

void machine_wake_ended(struct machine *m) {
    os_timer_set(&m->hurry_again, UINT64_MAX);
}

void machine_quit(struct machine *m) {
    __atomic_store_n(&m->quit, true, __ATOMIC_SEQ_CST);
    for (unsigned n = 0; n < m->cpus; n++)
        machine_cpu_wake(&m->cpu[n], VCPU_EVENT_STOP | VCPU_EVENT_KICK);
    os_task_post(&m->hurry, m->loop);
}

void machine_wake(struct machine *m) {
    machine_cpu_wake(machine_boot_cpu(m), VCPU_EVENT_KICK);
}

struct os_loop *machine_loop(struct machine *m) {
    return m->loop;
}

/* --- creation --- */

int machine_wake_create(struct machine *m) {
    int rc = os_loop_new(&m->loop);

    m->deadline = UINT64_MAX;
    m->hurry = (struct os_task){.fn = hurry, .arg = m};
    if (!rc)
        rc = os_timer_open(&m->due, m->loop, deadline_due, m);
    if (!rc)
        rc = os_timer_open(&m->hurry_again, m->loop, hurry, m);
    if (!rc)
        rc = os_bell_new(&m->answered);
    for (unsigned n = 0; n < m->cpus && !rc; n++)
        rc = os_bell_new(&m->cpu[n].bell);
    return rc;
}

void machine_wake_free(struct machine *m) {
    for (unsigned n = 0; n < m->cpus; n++)
        os_bell_free(m->cpu[n].bell);
    os_bell_free(m->answered);
    os_timer_close(&m->hurry_again);
    os_timer_close(&m->due);
    os_loop_free(m->loop);
}

/* --- sleeping, on the CPU's own thread --- */

void machine_wake_at(struct machine *m, uint64_t ns) {
    m->deadline = ns;
    os_timer_set(&m->due, ns);
}

/* The deadline becomes the sleeper's, and the loop has none. */
static uint64_t take_deadline(struct machine_cpu *c) {
    struct machine *m = c->machine;
    uint64_t at;

    board_enter(c->board, c);
    at = m->deadline;
    if (at != UINT64_MAX)
        os_timer_set(&m->due, UINT64_MAX);
    board_leave(c->board);
    return at;
}

/* It may be another one by now: then the timer is set to that. */
static void give_deadline(struct machine_cpu *c, uint64_t at) {
    struct machine *m = c->machine;

    board_enter(c->board, c);
    if (at == m->deadline)
        os_timer_set(&m->due, at);
    board_leave(c->board);
}

/* False: the deadline has come. */
static bool sleep_once(struct machine_cpu *c) {
    uint64_t at = take_deadline(c), now;

    if (at == UINT64_MAX)
        return os_bell_wait(c->bell, -1, 0, UINT64_MAX);
    now = os_monotonic_ns();
    if (!os_bell_wait(c->bell, -1, 0, at > now ? at - now : 0))
        return false;
    give_deadline(c, at);
    return true;
}

void machine_sleep(struct machine_cpu *c) {
    const uint32_t wakes =
        VCPU_EVENT_KICK | VCPU_EVENT_STOP | VCPU_EVENT_NMI | VCPU_EVENT_ACTION;

    while (!(vcpu_events(c->vcpu) & wakes)) {
        if (!sleep_once(c)) {
            vcpu_raise(c->vcpu, VCPU_EVENT_KICK);
            return;
        }
        /* A device on another thread has raised its line. Whether the guest takes that
         * is the engine's to say. */
        if (vcpu_events(c->vcpu) & VCPU_EVENT_IRQ)
            return;
    }
}

uint64_t machine_sleep_ns(struct machine_cpu *c, uint64_t ns) {
    uint64_t start = os_monotonic_ns(), passed;

    if (!ns || !os_bell_wait(c->bell, -1, 0, ns))
        return ns;
    passed = os_monotonic_ns() - start;
    return passed < ns ? passed : ns - 1;
}

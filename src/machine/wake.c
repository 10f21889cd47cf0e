/*
 * Who wakes whom. The loop (base/os_loop.h), which runs on the thread that called
 * machine_run(), watches the clocks' earliest deadlines. When the board's has come it
 * runs the devices' timers itself; when a CPU's, it takes that out of its engine. A CPU's
 * thread that has nothing to do sleeps by its bell.
 *
 * An idle CPU takes its deadline to itself, and the boot CPU the board's: handed over by
 * the loop, every tick of an idle guest would cost two thread switches instead of one.
 *
 * Locking: what other threads and signal handlers share with a CPU's thread is
 * vcpu.events, the engine's kick(), the bell, `outside`, and the machine's `quit`. The
 * board's deadline changes with the board's lock held.
 */
#include "base/os.h"
#include "machine/machine_int.h"
#include "mmu/mmu.h"
#include "x86/cr.h"

/* A thread that waits in a system call is interrupted again after this. */
#define AGAIN_NS 100000000u

/* On the loop's thread: device code runs here, unless the guest is paused. */
static void deadline_due(void *arg) {
    struct machine *m = arg;

    board_enter(&m->board, NULL);
    if (!m->stopped)
        vclock_run(m->clock);
    board_leave(&m->board);
}

/* The same: the CPU's own timers are its own thread's. */
static void cpu_deadline_due(void *arg) {
    machine_cpu_wake(arg, VCPU_EVENT_KICK);
}

void machine_end_life(struct machine *m, enum machine_end end) {
    int is = MACHINE_GOES_ON;

    if (!__atomic_compare_exchange_n(&m->end, &is, end, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST))
        return;
    for (unsigned n = 0; n < m->cpus; n++)
        machine_cpu_wake(&m->cpu[n], VCPU_EVENT_STOP);
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

static int create_cpu(struct machine *m, struct machine_cpu *c) {
    int rc = os_timer_open(&c->due, m->loop, cpu_deadline_due, c);

    return rc ? rc : os_bell_new(&c->bell);
}

int machine_wake_create(struct machine *m) {
    int rc = os_loop_new(&m->loop);

    m->deadline = UINT64_MAX;
    m->looks = m->cpus < os_cpus();
    m->hurry = (struct os_task){.fn = hurry, .arg = m};
    if (!rc)
        rc = os_timer_open(&m->due, m->loop, deadline_due, m);
    if (!rc)
        rc = os_timer_open(&m->hurry_again, m->loop, hurry, m);
    if (!rc)
        rc = os_bell_new(&m->answered);
    for (unsigned n = 0; n < m->cpus && !rc; n++)
        rc = create_cpu(m, &m->cpu[n]);
    return rc;
}

void machine_wake_free(struct machine *m) {
    for (unsigned n = 0; n < m->cpus; n++) {
        os_timer_close(&m->cpu[n].due);
        os_bell_free(m->cpu[n].bell);
    }
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

void machine_cpu_wake_at(struct machine_cpu *c, uint64_t ns) {
    c->deadline = ns;
    os_timer_set(&c->due, ns);
}

/* The board's deadline becomes the sleeping boot CPU's, and the loop has none. */
static uint64_t take_deadline(struct machine_cpu *c) {
    struct machine *m = c->machine;
    uint64_t at;

    if (c != machine_boot_cpu(m))
        return UINT64_MAX;
    board_enter(c->board, c);
    at = m->deadline;
    if (at != UINT64_MAX)
        os_timer_set(&m->due, UINT64_MAX);
    board_leave(c->board);
    return at;
}

/* It may be another one by now, to which the timer is set. */
static void give_deadline(struct machine_cpu *c, uint64_t at) {
    struct machine *m = c->machine;

    if (at == UINT64_MAX)
        return;
    board_enter(c->board, c);
    if (at == m->deadline)
        os_timer_set(&m->due, at);
    board_leave(c->board);
}

/* Until the bell is rung; or a deadline has come, which is then not anybody's: service()
 * runs the timers, and sets it anew. */
static void sleep_once(struct machine_cpu *c) {
    uint64_t board = take_deadline(c), own = c->deadline;
    uint64_t at = board < own ? board : own, now;

    if (at == UINT64_MAX) {
        os_bell_wait(c->bell, -1, 0, UINT64_MAX);
        return;
    }
    if (own != UINT64_MAX)
        os_timer_set(&c->due, UINT64_MAX);
    now = os_monotonic_ns();
    if (!os_bell_wait(c->bell, -1, 0, at > now ? at - now : 0)) {
        vcpu_raise(c->vcpu, VCPU_EVENT_KICK);
        return;
    }
    if (own != UINT64_MAX)
        os_timer_set(&c->due, own);
    give_deadline(c, board);
}

/* An interrupt that was posted may be one that the priorities hold back. */
static bool is_woken(struct machine_cpu *c) {
    uint32_t events;

    if (__atomic_exchange_n(&c->unhalt, false, __ATOMIC_SEQ_CST)) {
        c->vcpu->halted = false;
        return true;
    }
    if (c->lapic)
        lapic_settle(c->lapic);
    events = vcpu_events(c->vcpu);
    return (events & (VCPU_EVENT_KICK | VCPU_EVENT_STOP | VCPU_EVENT_ACTION)) ||
           ((events & VCPU_EVENT_NMI) && !c->vcpu->nmi_blocked) ||
           ((events & VCPU_EVENT_IRQ) && (c->vcpu->rflags & X86_FL_IF));
}

#define LOOK_LEAST 10000u
#define LOOK_MOST 200000u

uint32_t machine_lookout(uint32_t look, uint64_t took) {
    if (took > LOOK_MOST)
        return 0;
    if (!look)
        return LOOK_LEAST;
    return look < LOOK_MOST / 2 ? look * 2 : LOOK_MOST;
}

/* True: it is woken. */
static bool look_out(struct machine_cpu *c, uint64_t until) {
    do {
        for (unsigned n = 0; n < 16; n++)
            __builtin_ia32_pause();
        if (is_woken(c))
            return true;
    } while (os_monotonic_ns() < until);
    return false;
}

/* A CPU that has slept for so long is idle. What its shadow takes, 2 to 5 MiB at a shell,
 * is filled anew in a millisecond or two as far as it is needed again. */
#define IDLE_NS 250000000u

/* Like sleep_once(), but no longer than that, unless it is to be woken before. */
static void sleep_at_first(struct machine_cpu *c) {
    uint64_t end = os_monotonic_ns() + IDLE_NS;

    if (!c->vcpu->mmu || c->deadline < end) {
        sleep_once(c);
        return;
    }
    if (os_bell_wait(c->bell, -1, 0, IDLE_NS))
        return;
    vcpu_enter(c->vcpu);
    mmu_trim(c->vcpu);
    vcpu_leave(c->vcpu);
}

/* True: it is woken. */
static bool get_warm(struct machine_cpu *c) {
    while (machine_warm_up(c))
        if (is_woken(c))
            return true;
    return false;
}

static void sleep_until_woken(struct machine_cpu *c) {
    uint64_t start = os_monotonic_ns();

    if (get_warm(c) || (c->look && look_out(c, start + c->look)))
        return;
    __atomic_store_n(&c->asleep, true, __ATOMIC_SEQ_CST);
    if (!is_woken(c)) { /* which may be told once only */
        sleep_at_first(c);
        while (!is_woken(c))
            sleep_once(c);
    }
    __atomic_store_n(&c->asleep, false, __ATOMIC_SEQ_CST);
    if (c->machine->looks)
        c->look = machine_lookout(c->look, os_monotonic_ns() - start);
}

/* Others who would have its TLB flushed see that it sleeps. */
void machine_sleep(struct machine_cpu *c) {
    const struct vcpu_hooks *h = c->vcpu->hooks;

    if (!c->steal) {
        sleep_until_woken(c);
        return;
    }
    h->away(c->vcpu->hooks_arg, true);
    sleep_until_woken(c);
    vcpu_enter(c->vcpu);
    h->away(c->vcpu->hooks_arg, false);
    vcpu_leave(c->vcpu);
}

uint64_t machine_sleep_ns(struct machine_cpu *c, uint64_t ns) {
    uint64_t start = os_monotonic_ns(), passed;

    if (!ns || !os_bell_wait(c->bell, -1, 0, ns))
        return ns;
    passed = os_monotonic_ns() - start;
    return passed < ns ? passed : ns - 1;
}
